"""Whether indicators are computed by compiled code, which gives the same bits for less work but has to be loaded."""

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Final

_COMPILED: Final = "breakout_assets.dataset.compiled"
# Rows of which all indicators cost as much more without compiled code as loading it costs: importing numba and reading
# what it has compiled before took 1.4 CPU s, and 0.7 s fewer for a million rows repay that. An hour of the market never
# has so many.
_REPAID_FROM: Final = 2_000_000


def load_compiled(rows: int) -> bool:
    """Loads the compiled code if so many rows, of this call or of all that follow, repay it; whether it is there.

    Without the extra `fast` it never is. Once loaded it serves calls of any size.
    """
    if _COMPILED not in sys.modules and rows >= _REPAID_FROM and find_spec("numba") is not None:
        import_module(_COMPILED)
    return _COMPILED in sys.modules
