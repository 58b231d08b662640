from decimal import Decimal
from pathlib import Path

import pytest

from breakout_assets.errors import SettingsError
from breakout_assets.learning.recipes import recipe
from breakout_assets.settings import SECRETS, Settings, load_settings, read_secret, settings_table

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_embedded_defaults_need_no_account() -> None:
    settings = load_settings({})
    assert (settings.store, settings.source, settings.mail_host) == ("./data", "simulated", "")


def test_values_are_typed() -> None:
    settings = load_settings({"BREAKOUT_CASH": "2500.50", "BREAKOUT_SIM_TOKENS": "7", "BREAKOUT_REPLAY": "true"})
    assert (settings.cash, settings.sim_tokens, settings.replay) == (Decimal("2500.50"), 7, True)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BREAKOUT_STOER", "x"),
        ("BREAKOUT_SIM_TOKENS", "0"),
        ("BREAKOUT_SIM_TOKENS", "many"),
        ("BREAKOUT_FEE", "1.5"),
        ("BREAKOUT_SPREAD", "1"),
        ("BREAKOUT_SLIPPAGE", "-0.001"),
        ("BREAKOUT_MAX_PRICE_MOVE", "0"),
        ("BREAKOUT_CASH_FLOOR", "1"),
        ("BREAKOUT_COOLDOWN", "-1"),
        ("BREAKOUT_COOLDOWN", "1.5"),
        ("BREAKOUT_TAKE_PROFIT", "-0.1"),
        ("BREAKOUT_STOP_LOSS", "1"),
        ("BREAKOUT_MAX_DRAWDOWN", "1"),
        ("BREAKOUT_SOURCE", "coingecko"),
        ("BREAKOUT_START", "yesterday"),
        ("BREAKOUT_STORE", "gs://bucket"),
        ("BREAKOUT_CMC_URL", "pro-api.coinmarketcap.com"),
        ("BREAKOUT_SIM_FAULTS", "stale_price,earthquake"),
        ("BREAKOUT_MAX_ORDER_AGE", "0"),
        ("BREAKOUT_RECIPE", "secret_sauce"),
        ("BREAKOUT_RECIPE", "blog_exact"),  # for comparison only
        ("BREAKOUT_store", "x"),
    ],
)
def test_an_unknown_or_impossible_setting_is_refused_in_one_sentence_that_names_it(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=variable) as refusal:
        load_settings({variable: value})
    assert "\n" not in str(refusal.value)


def test_a_round_trip_costs_fee_and_slippage_twice_and_the_spread() -> None:
    # Exactly the recipes' own default: the cost belongs to a recipe's id, and another id asks for other models.
    assert load_settings({}).round_trip_cost == recipe("default").cost == 0.015
    given = {"BREAKOUT_FEE": "0.001", "BREAKOUT_SLIPPAGE": "0.01", "BREAKOUT_SPREAD": "0.003"}
    assert load_settings(given).round_trip_cost == 0.025


def test_combinations_that_cannot_work_are_refused() -> None:
    with pytest.raises(SettingsError, match="BREAKOUT_LEDGER"):
        load_settings({"BREAKOUT_STORE": "s3://bucket/prefix"})
    with pytest.raises(SettingsError, match="nothing would ever be bought"):
        load_settings({"BREAKOUT_CASH": "400"})
    with pytest.raises(SettingsError, match=r"BREAKOUT_CASH_FLOOR.*nothing would ever be bought"):
        load_settings({"BREAKOUT_CASH_FLOOR": "0.9991"})
    with pytest.raises(SettingsError, match=r"BREAKOUT_MAX_PRICE_MOVE.*would never be executed"):
        load_settings({"BREAKOUT_MAX_PRICE_MOVE": "0.0049"})
    with pytest.raises(SettingsError, match="BREAKOUT_MAIL_SECURITY"):
        load_settings({"BREAKOUT_MAIL_USER": "me", "BREAKOUT_MAIL_SECURITY": "none"})
    with pytest.raises(SettingsError, match="BREAKOUT_LEDGER"):
        load_settings({"BREAKOUT_LEDGER": "s3://bucket/ledger.sqlite"})
    with pytest.raises(SettingsError, match="BREAKOUT_REPLAY"):
        load_settings({"BREAKOUT_REPLAY": "true", "BREAKOUT_SOURCE": "coinmarketcap"})
    with pytest.raises(SettingsError, match="BREAKOUT_MAIL_FROM"):
        load_settings({"BREAKOUT_MAIL_HOST": "localhost"})


def test_limits_of_combinations_are_possible() -> None:
    load_settings({"BREAKOUT_CASH_FLOOR": "0.999"})
    load_settings({"BREAKOUT_MAX_PRICE_MOVE": "0.005"})


def test_dotenv_is_read_and_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("BREAKOUT_SIM_SEED=5\nBREAKOUT_SIM_TOKENS=9\nBREAKOUT_CASH=\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BREAKOUT_SIM_SEED", "6")
    settings = load_settings()
    assert (settings.sim_seed, settings.sim_tokens, settings.cash) == (6, 9, Decimal(10000))


def test_a_secret_is_read_when_it_is_used_and_kept_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BREAKOUT_CMC_API_KEY", "hush-hush")
    assert "hush-hush" not in repr(load_settings())
    assert read_secret("CMC_API_KEY") == "hush-hush"
    monkeypatch.delenv("BREAKOUT_CMC_API_KEY")
    assert read_secret("CMC_API_KEY") == ""


def test_every_setting_is_documented_with_its_default() -> None:
    assert len(settings_table()) == len(Settings.model_fields) + len(SECRETS)
    readme = README.read_text()
    for variable, default, meaning in settings_table():
        row = next((line for line in readme.splitlines() if line.startswith(f"| `{variable}` |")), None)
        assert row is not None, f"{variable} is missing from the README's table"
        assert meaning in row
        assert not default or f"`{default}`" in row
