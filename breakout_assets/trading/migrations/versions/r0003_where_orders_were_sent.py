"""Where an order was sent, and when a difference was explained.

The first, so that an order is not missed because it is looked for elsewhere; the second, so that a past hour is told
with what was known in it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns. What was explained before has no hour: it stays beside the account, as it was meant then."""
    op.add_column("order_events", sa.Column("address", sa.String))
    op.add_column("adjustments", sa.Column("hour", sa.DateTime))
