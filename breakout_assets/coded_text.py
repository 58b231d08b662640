"""Text as categories: each value once and a small number a row, which is read, compared and picked many times sooner.

Frames of the market come so from the store; what is written, and what a user gets to see, is text.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd


def categories_of(text: pd.Series) -> pd.Series:
    """Text as categories in the order of the alphabet."""
    if not isinstance(text.dtype, pd.CategoricalDtype):
        return text.astype("str").astype("category")
    names = text.cat.categories
    return text if names.is_monotonic_increasing else text.cat.set_categories(names.sort_values())


def spelled_out(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with text in the place of categories of it."""
    return frame.assign(
        **{str(name): text_of(column.array) for name, column in frame.select_dtypes("category").items()}
    )


def text_of(coded: pd.Categorical, place: npt.NDArray[np.int64] | None = None) -> pd.api.extensions.ExtensionArray:
    """Categories as text, all or those at some places; `astype` makes an object of each, and takes 20 times longer."""
    names: Any = coded.categories.astype("str").array
    codes = coded.codes if place is None else coded.codes[place]
    found: pd.api.extensions.ExtensionArray = names.take(codes, allow_fill=True)
    return found
