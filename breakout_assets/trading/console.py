"""What the commands `halt`, `resume`, `accept` and `explain` print."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from breakout_assets.trading.books import Switch
from breakout_assets.trading.desk import named
from breakout_assets.trading.explain import Explanation
from breakout_assets.trading.holdings import Acceptance
from breakout_assets.trading.money import plain

_ANSWERS = {True: "[green]yes[/]", False: "[bold red]no[/]", None: "[yellow]cannot be tried[/]"}


def print_switch(console: Console, account: str, switch: Switch) -> None:
    """What was decided, and what it means."""
    meaning = "nothing is opened, exits go on" if switch.action == "halt" else "entries go on with the next hour"
    console.print(f"{escape(account)}: [bold]{switch.action}[/] by {escape(switch.by)}, {switch.at:%Y-%m-%d %H:%M} UTC")
    console.print(f"{escape(switch.reason)}; {meaning}.")


def print_accepted(console: Console, account: str, accepted: Acceptance, plan: bool) -> None:
    """What a person's word changes."""
    if not accepted.adjustments and not accepted.ended:
        console.print(f"{escape(account)}: venue and ledger agree; there is nothing to accept.")
    would = "would be " * plan
    for order in accepted.ended:
        console.print(f"{escape(account)}: {would}ended: {escape(named(order))}")
    for each in accepted.adjustments:
        console.print(
            f"{escape(account)}: {would}accepted: {plain(each.amount)} {escape(each.item)}: {escape(each.reason)}"
        )


def print_explanation(console: Console, found: Explanation) -> None:
    """The chain of an order, from what became of it down to the bytes it came from."""
    order = found.order
    console.print(
        f"[bold]{order.side} {plain(order.quantity)} {escape(order.token)}[/] at {plain(order.limit)} USD or better, "
        f"decided on {order.hour:%Y-%m-%d %H:00} UTC\n{order.order_id}\n{escape(order.reason)}"
    )
    if found.entry:
        console.print(f"closes the position that {found.entry.order_id} opened on {found.entry.hour:%Y-%m-%d %H:00}")
    _print_life(console, found)
    if found.prediction is not None:
        shown = ("probability", "threshold", "score", "recipe_id", "model_scope", "fallback")
        row = "  ".join(f"{name} {found.prediction[name]}" for name in shown if found.prediction[name] is not None)
        console.print(f"[bold]prediction[/] {escape(row)}")
    if order.model_hash:
        until = f", which had seen prices until {found.model['trained_until']}" if found.model else ", which is gone"
        console.print(f"[bold]model[/] {order.model_hash} {escape(found.model_path or '')}{until}")
    table = Table("file", "SHA-256 when it was decided", "now")
    for source in found.sources:
        table.add_row(escape(source.path), source.sha256, source.state)
    console.print(table)
    console.print(f"The model gives the same score today: {_ANSWERS[found.same_score]}")
    console.print(f"The decision, made once more, is the same: {_ANSWERS[found.same_decision]}")
    for sentence in found.differences:
        console.print(f"  {escape(sentence)}")


def _print_life(console: Console, found: Explanation) -> None:
    table = Table("hour", "at (UTC)", "step", "venue's id", "reason")
    for event in found.events:
        venue_id = event.venue_id if event.venue_id != event.order_id else ""
        cells = (f"{event.hour:%Y-%m-%d %H:00}", f"{event.at:%Y-%m-%d %H:%M:%S}", event.status, venue_id, event.reason)
        table.add_row(*(escape(cell or "") for cell in cells))
    console.print(table)
    for fill in found.fills:
        token = f" and {plain(fill.fee_in_token)} {escape(found.order.token)}" if fill.fee_in_token else ""
        console.print(
            f"executed {plain(fill.quantity)} at {plain(fill.price)} USD, fee {plain(fill.fee)} USD{token} "
            f"({escape(fill.trade_id)})"
        )
