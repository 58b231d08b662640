"""Mails: what they say, whom they can fool, and what they never hold."""

import json
import traceback
from base64 import b64encode
from dataclasses import replace
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breakout_assets.errors import SettingsError
from breakout_assets.learning.expiry import Expiry
from breakout_assets.market.health import Condition
from breakout_assets.trading.mails import (
    Mail,
    MailSettings,
    OrderLine,
    compose_condition,
    compose_expired,
    compose_failed_run,
    compose_hour,
    partition_link,
    run_link,
    scrub,
)
from breakout_assets_tests.samples import at
from breakout_assets_tests.trading.mailserver import MAIL, PASSWORD, USER

HOUR = at("2024-03-01 05:00")
TO = ("me@example.com",)
LINK = "https://dagster.example.com/assets/trade_orders?view=partitions&partition=2024-03-01-05%3A00"
NAUGHTY = "X<script>alert(1)</script>&\"'\r\nBcc: thief@example.com\r\n\r\nbody\u2028\x00"
BOUGHT = OrderLine(
    side="buy",
    token="SOL-5426",
    status="filled",
    quantity=Decimal("20.00000000"),
    price=Decimal("11.0550"),
    value=Decimal("1221.1"),
    fee=Decimal("0.55275"),
    decided=at("2024-03-01 04:00"),
    why="probability 0.8000",
)
SOLD = replace(BOUGHT, side="sell", token="ADA-2010", why="held for five days")
PLACED = replace(BOUGHT, status="submitted", token="XRP-52", fee=None)


def hour_mail(*lines: OrderLine, notices: tuple[str, ...] = (), part: int = 1, link: str | None = None) -> Mail:
    return compose_hour("paper", HOUR, lines, ["Equity 10,000.00 USD."], notices, TO, link, part)


def failed_run(error: str = "boom", **changes: Any) -> Mail:
    given: dict[str, Any] = {
        "account": "paper",
        "job": "hourly_job",
        "run_id": "1234",
        "partition": "2024-03-01-05:00",
        "failed_at": at("2024-03-01 05:07:09"),
        "error": error,
        "steps": [],
        "recipients": TO,
    }
    return compose_failed_run(**given | changes)


def everything(mail: Mail) -> str:
    return "\n".join(map(str, vars(mail).values()))


# What an hour's mail says ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "notices", "subject"),
    [
        ([BOUGHT, BOUGHT, SOLD, PLACED], [], "2 bought, 1 sold, 1 waiting"),
        ([PLACED, SOLD, BOUGHT], ["Halted."], "1 bought, 1 sold, 1 waiting, 1 notice"),
        ([replace(BOUGHT, status="partial"), replace(SOLD, status="partial")], [], "1 partly bought, 1 partly sold"),
        (
            [replace(BOUGHT, status=status) for status in ("rejected", "unknown", "cancelled", "rejected")],
            [],
            "1 in doubt, 1 cancelled, 2 rejected",
        ),
        ([], ["Trading was halted by hand: rain."], "Trading was halted by hand: rain"),
        ([], ["Drawdown.", "b", "c"], "Drawdown, 2 more"),
        ([BOUGHT], ["a", "b"], "1 bought, 2 notices"),
    ],
)
def test_the_subject_counts_what_happened_or_says_the_gravest_notice(
    lines: list[Any], notices: list[str], subject: str
) -> None:
    mail = compose_hour("paper", HOUR, lines, [], notices, TO, None)
    assert mail.subject == f"paper: {subject} at 2024-03-01 05:00 UTC"


def test_text_and_html_hold_reason_figures_notices_portfolio_and_link() -> None:
    mail = hour_mail(BOUGHT, SOLD, notices=("The venue holds 3 XRP more than the ledger.",), link=LINK)
    said = ["SOL-5426", "ADA-2010", "20.00000000", "11.0550", "1,221.10", "0.5528", "probability 0.8000"]
    said += ["held for five days", "2024-03-01 04:00", "Equity 10,000.00 USD.", "The venue holds 3 XRP more"]
    for word in said:
        assert word in mail.text_body
        assert word in mail.html_body
    assert f"\n\n{LINK}\n" in mail.text_body
    assert f'<a href="{LINK.replace("&", "&amp;")}">' in mail.html_body
    assert mail.html_body.count("<tr>") == 3
    assert (mail.hour, mail.recipients) == (HOUR, TO)


def test_what_is_not_known_is_left_out_and_no_zero_is_invented() -> None:
    mail = hour_mail(replace(BOUGHT, status="unknown", value=None, fee=None))
    assert "what: in doubt\nside: buy\ntoken: SOL-5426\n" in mail.text_body
    assert "price USD: 11.0550\ndecided: 2024-03-01 04:00\nwhy:" in mail.text_body
    assert "None" not in everything(mail)
    assert "href" not in mail.html_body


def test_a_busy_hour_is_one_mail_with_all_its_orders() -> None:
    lines = [replace(BOUGHT, token=f"T-{number}") for number in range(500)]
    mail = hour_mail(*lines)
    assert mail.subject == "paper: 500 bought at 2024-03-01 05:00 UTC"
    assert all(f"token: {line.token}\n" in mail.text_body for line in lines)
    assert mail.html_body.count("<tr>") == 501


def test_a_later_part_says_so() -> None:
    mail = hour_mail(BOUGHT, part=2)
    assert mail.subject.endswith("05:00 UTC (part 2)")
    assert "after the last mail" in mail.text_body
    assert "after the last mail" not in hour_mail(BOUGHT).text_body


# Other mails -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("HALTED", "Nothing is opened"),
        ("MISSING", "Nothing is bought or sold"),
        ("REDUCE_ONLY", "positions are still left on time"),
        ("ACTIVE", ""),
    ],
)
def test_a_change_of_the_data_is_told_with_what_it_means(state: str, words: str) -> None:
    mail = compose_condition("paper", Condition(HOUR, state, "all <prices> stand still"), TO, LINK)
    assert mail.subject == f"paper: market data {state} at 2024-03-01 05:00 UTC"
    assert words in mail.text_body
    assert "all <prices> stand still" in mail.text_body
    assert "all &lt;prices&gt; stand still" in mail.html_body
    assert LINK in mail.text_body


def test_expired_models_are_told_with_what_to_do() -> None:
    mail = compose_expired("paper", Expiry(HOUR, "MODEL_EXPIRED", "3 of 4 coins: run training_job."), TO, LINK)
    assert mail.subject == "paper: models MODEL_EXPIRED at 2024-03-01 05:00 UTC"
    assert "3 of 4 coins: run training_job." in mail.text_body
    assert LINK in mail.text_body


def test_a_failed_run_is_told_with_one_line_for_each_step() -> None:
    steps = [("trade_orders", "DataError:\n  the\nfile is torn"), ("predictions", "x" * 1000)]
    mail = failed_run("Steps failed: 2", steps=steps, link=run_link("http://ui", "1234"))
    assert mail.subject == "paper: hourly_job of 2024-03-01-05:00 failed"
    lines = mail.text_body.splitlines()
    assert "trade_orders: DataError: the file is torn" in lines
    [long] = [line for line in lines if line.startswith("predictions: ")]
    assert len(long) < 400
    assert long.endswith("…")
    assert "http://ui/runs/1234" in lines
    assert mail.hour == at("2024-03-01 05:07:09")
    assert failed_run(partition=None).subject == "paper: hourly_job failed"


def test_a_run_of_a_thousand_failed_steps_is_still_a_mail() -> None:
    mail = failed_run(steps=[(f"step_{number}", "x") for number in range(1000)])
    assert "… and 990 more steps." in mail.text_body
    assert len(mail.text_body) < 5000


# Identity --------------------------------------------------------------------------------------------------------


def test_a_message_id_depends_on_account_kind_and_key_alone() -> None:
    base = hour_mail(BOUGHT)
    same = compose_hour("paper", HOUR, [SOLD], [], ["notice"], ("b@example.com",), LINK)
    assert base.message_id == same.message_id
    assert base.message_id.endswith("@breakout-assets.invalid>")
    assert failed_run("a").message_id == failed_run("b", job="other").message_id
    others = [
        base,
        hour_mail(BOUGHT, part=2),
        compose_hour("live", HOUR, [], [], [], TO, None),
        compose_hour("paper", at("2024-03-01 06:00"), [], [], [], TO, None),
        *(compose_condition("paper", Condition(HOUR, state, "x"), TO) for state in ("HALTED", "ACTIVE")),
        *(compose_expired("paper", Expiry(HOUR, state, "x"), TO) for state in ("HALTED", "IN_TIME")),
        failed_run(),
        failed_run(run_id="5678"),
        failed_run(account="live"),
    ]
    assert len({mail.message_id for mail in others}) == len(others)


# What comes from outside -----------------------------------------------------------------------------------------


def test_a_name_from_outside_can_add_neither_a_tag_nor_a_line_to_a_header() -> None:
    line = replace(BOUGHT, token=NAUGHTY, why=NAUGHTY)
    mails = [
        compose_hour(NAUGHTY, HOUR, [line], [NAUGHTY], [NAUGHTY], TO, f'https://x/"><b>{NAUGHTY}'),
        compose_hour("paper", HOUR, [], [], [NAUGHTY], TO, None),
        compose_condition("paper", Condition(HOUR, NAUGHTY, NAUGHTY), TO),
        compose_expired("paper", Expiry(HOUR, NAUGHTY, NAUGHTY), TO),
        failed_run(NAUGHTY, job=NAUGHTY, partition=NAUGHTY, steps=[(NAUGHTY, NAUGHTY)]),
    ]
    for mail in mails:
        assert mail.subject.isprintable()
        assert "<script" not in mail.html_body
        assert "<b>" not in mail.html_body
        assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;&#x27;" in mail.html_body
        assert not [row for row in mail.text_body.splitlines() if row.startswith("Bcc")]


def test_a_secret_in_an_error_is_not_mailed_not_even_its_half() -> None:
    secret = "s3cret/with space&'quote"
    for distance in (0, 285, 292, 299):  # where the text is cut
        error = "x" * distance + secret + "y" * 50
        mail = failed_run(error, steps=[("step", error)], job=secret, partition=secret, secrets=[secret, ""])
        assert "s3c" not in everything(mail)
        assert "***" in everything(mail)


@pytest.mark.parametrize(
    "spelling",
    [
        lambda secret: secret,
        lambda secret: f"https://api.example.com/?key={quote(secret, safe='')}&x=1",
        lambda secret: repr({"password": secret}),
        lambda secret: b64encode(secret.encode()).decode(),
        lambda secret: json.dumps([secret]),
        lambda secret: f"{secret}{secret} {secret}",
    ],
)
def test_a_secret_is_scrubbed_however_it_is_spelt(spelling: Any) -> None:
    secret = "hunter2 \\&'/"
    found = scrub(f"before {spelling(secret)} after", [secret])
    assert "hunter2" not in found
    assert b64encode(secret.encode()).decode() not in found
    assert found.startswith("before ")
    assert found.endswith(" after")


def test_a_secret_that_begins_like_another_is_scrubbed_whole() -> None:
    assert scrub("abc abcdef", ["abc", "abcdef"]) == "*** ***"
    assert scrub("nothing to hide", []) == "nothing to hide"
    assert scrub("nothing to hide", [""]) == "nothing to hide"


def test_a_login_in_a_url_is_scrubbed_though_nobody_configured_it() -> None:
    found = scrub("cannot reach postgresql://bot:p@ss:w/ord@db.example.com:5432/x, see https://docs.example.com", [])
    assert found == "cannot reach postgresql://***@db.example.com:5432/x, see https://docs.example.com"


@given(secret=st.text(min_size=4), text=st.text(), after=st.text())
def test_no_text_lets_a_secret_through(secret: str, text: str, after: str) -> None:
    found = scrub(text + secret + after, [secret])
    assert secret not in found or "*" in secret


# Links and settings ----------------------------------------------------------------------------------------------


def test_links_lead_to_the_pages_of_the_ui_and_are_none_without_its_address() -> None:
    base = "https://dagster.example.com"
    assert partition_link(base, "trade_orders", "2024-03-01-05:00") == LINK
    assert partition_link(f"{base}/", "trade_orders", "2024-03-01-05:00") == LINK
    assert (
        partition_link("http://x/prefix", "a", "k&l#m")
        == "http://x/prefix/assets/a?view=partitions&partition=k%26l%23m"
    )
    assert run_link(f"{base}/", "ab-12") == f"{base}/runs/ab-12"
    assert (partition_link("", "a", "k"), run_link("", "r")) == (None, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipients": ()}, "BREAKOUT_MAIL_TO"),
        ({"recipients": ("me",)}, "'me' is not a mail address"),
        ({"recipients": ("a@example.com, b@example.com",)}, "not a mail address"),
        ({"recipients": ("a@example.com,b@example.com",)}, "not a mail address"),
        ({"recipients": ("a@example.com\r\nBcc: b@example.com",)}, "not a mail address"),
        ({"sender": "bot <bot@example.com>"}, "not a mail address"),
        ({"sender": ""}, "not a mail address"),
        ({"user": USER, "password": "hunter2"}, "never sent unencrypted"),
        ({"security": "tls", "user": USER, "password": "hunter2-\u00e4"}, "must be ASCII"),
    ],
)
def test_impossible_mail_settings_are_refused_without_naming_the_password(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        replace(MAIL, **changes)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_the_password_is_not_shown() -> None:
    settings = replace(MAIL, security="tls", user=USER, password=PASSWORD)
    assert PASSWORD not in repr(settings) + str(settings)
    assert isinstance(settings, MailSettings)
