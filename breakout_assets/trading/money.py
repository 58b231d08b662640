"""Exact amounts: quantities and dollars in decimals with fixed steps, always rounded against the account."""

from decimal import ROUND_DOWN, ROUND_UP, Context, Decimal
from typing import Final

# The name of the cash among tokens.
USD: Final = "USD"
# Eight places are the finest step of the large venues. A quantity with more could not be ordered there, and down is
# the only direction that can neither overspend nor sell more than is held.
QUANTITY_STEP: Final = Decimal("0.00000001")
# Dollar amounts have a fixed step too, so that sums are exact in any order and a fold over years drifts by nothing.
MONEY_STEP: Final = Decimal("0.00000001")

# A price has up to 17 significant digits and may be far below a millionth, the quantity is then huge: their product
# does not fit the 28 digits of the default context.
_EXACT: Final = Context(prec=80)


def decimal_of(number: float) -> Decimal:
    """The shortest decimal that reads back as this float: 0.1 is one tenth, not its binary neighbour."""
    return Decimal(repr(float(number)))


def plain(amount: Decimal) -> str:
    """An amount as text without an exponent."""
    return format(amount, "f")


def usd(amount: Decimal) -> str:
    """An amount of dollars for people, in cents."""
    return f"{amount:,.2f}"


def times(amount: Decimal, factor: Decimal) -> Decimal:
    """A product without rounding."""
    return _EXACT.multiply(amount, factor)


def received(quantity: Decimal, price: Decimal) -> Decimal:
    """Dollars that a sale brings, or a holding is worth, rounded down."""
    return times(quantity, price).quantize(MONEY_STEP, ROUND_DOWN, _EXACT)


def paid(quantity: Decimal, price: Decimal) -> Decimal:
    """Dollars that a purchase takes, rounded up."""
    return times(quantity, price).quantize(MONEY_STEP, ROUND_UP, _EXACT)


def fee_on(value: Decimal, share: Decimal) -> Decimal:
    """The fee on a value, rounded up."""
    return paid(value, share)


def quantity_for(value: Decimal, price: Decimal) -> Decimal:
    """The largest quantity that is worth at most `value` at this price."""
    return _EXACT.divide(value, price).quantize(QUANTITY_STEP, ROUND_DOWN, _EXACT)


def affordable(cash: Decimal, price: Decimal, fee: Decimal) -> Decimal:
    """The largest quantity, to a few steps, whose purchase at this price takes no more than `cash`, fee included."""
    # Value and fee are each rounded up by less than a step, and the fee is taken on the rounded value: three steps
    # of reserve cover all of it for any fee below 100 %.
    spendable = max(cash - 3 * MONEY_STEP, Decimal(0))
    return quantity_for(spendable, times(price, 1 + fee))


def share_of(amount: Decimal, part: Decimal, whole: Decimal) -> Decimal:
    """`amount` times `part` over `whole`, rounded up: what is still held never looks cheaper than it was."""
    return _EXACT.divide(times(amount, part), whole).quantize(MONEY_STEP, ROUND_UP, _EXACT)


def floor_to(quantity: Decimal, step: Decimal) -> Decimal:
    """The largest multiple of a step that is no more than `quantity`."""
    return times((_EXACT.divide(quantity, step)).to_integral_value(ROUND_DOWN), step)


def unit_price(value: Decimal, quantity: Decimal) -> Decimal:
    """The price of a unit; 17 significant digits, as many as a price of the market has."""
    return Context(prec=17).divide(value, quantity)
