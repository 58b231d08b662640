"""Parquet files of one table as one frame.

Most of what a read costs is memory that is touched for the first time. Each file is therefore decoded by itself, in
buffers that the next one uses again, and copied to its place in columns that are allocated once. Text is read as the
file keeps it, each value once; it stays so if asked for, and is else written out at the end of its file.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

# What the types of `tables` are in a file.
_ARROW: Final = {
    "str": pa.large_string(),
    "category": pa.large_string(),
    "datetime64[us]": pa.timestamp("us"),
    "float64": pa.float64(),
    "Int64": pa.int64(),
    "Int8": pa.int8(),
    "int64": pa.int64(),
    "int32": pa.int32(),
    "int8": pa.int8(),
}


_TEXT: Final = ("str", "category")


class UnreadableFileError(Exception):
    """A file is torn, or not what it should be; the message names it."""


def read_files(
    files: Iterable[tuple[str, bytes | None]],
    types: Mapping[str, str],
    tokens: Sequence[str] | None = None,
    added: Collection[str] = (),
    then: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The rows of these files, one after the other, with these columns and types.

    Args:
        files: The path of each, with its bytes if it does not lie on this machine.
        types: Name and type of each column, as in `tables`, or `category` for text of which each value is kept once.
        tokens: Only rows of these; None takes all.
        added: Columns that are null where a file lacks them.
        then: Rows that follow those of the files: adding them to the result would copy it.

    Raises:
        FileNotFoundError: a file is not there.
        UnreadableFileError: a file is torn, lacks a column, or holds values of another type.
    """
    parts = [_part(path, data, types, tokens, added) for path, data in files]
    rows = sum(part.count for part in parts) + (0 if then is None else len(then))
    columns = {name: _Column(kind, rows) for name, kind in types.items()}
    first = 0
    for part in parts:
        if part.count:
            with _reading(part.path):
                table = part.table(types)
                for name, column in columns.items():
                    column.put(first, table[name])
        first += part.count
    if then is not None and len(then):
        table = pa.Table.from_pandas(then[list(types)], preserve_index=False)
        for name, column in columns.items():
            column.put(first, table[name])
    # Not copied into one block: that would touch twice the memory.
    return pd.DataFrame({name: column.array() for name, column in columns.items()}, copy=False)


@dataclass(frozen=True)
class _Part:
    """A file and which of its rows are wanted; None where all are."""

    path: str
    data: bytes | None
    metadata: Any
    rows: Any
    count: int

    def table(self, types: Mapping[str, str]) -> Any:
        present = {*self.metadata.schema.names}
        there = {name: kind for name, kind in types.items() if name in present}
        table = _opened(self.path, self.data, there, self.metadata).read(list(there), use_threads=False)
        for name in types.keys() - there.keys():
            table = table.append_column(name, pa.nulls(len(table), _ARROW[types[name]]))
        return table if self.rows is None else table.take(self.rows)


def _part(
    path: str, data: bytes | None, types: Mapping[str, str], tokens: Sequence[str] | None, added: Collection[str]
) -> _Part:
    with _reading(path):
        sure = {name: kind for name, kind in types.items() if name not in added}
        file = _opened(path, data, {**sure, "token": "str"} if tokens is not None else sure)
        present = {*file.metadata.schema.names}
        absent = [name for name in types if name not in present and name not in added]
        if absent:
            raise ValueError(f"it lacks the columns {', '.join(absent)}")
        if tokens is None:
            return _Part(path, data, file.metadata, None, file.metadata.num_rows)
        wanted = pa.array(tokens, pa.string())
        # A file holds each token's name once, and only those are compared.
        named = file.read(["token"], use_threads=False)["token"].unify_dictionaries().combine_chunks()
        hit = pc.is_in(named.dictionary, wanted).take(named.indices)
        rows = np.flatnonzero(hit.to_numpy(zero_copy_only=False))
        return _Part(path, data, file.metadata, rows, len(rows))


def _opened(path: str, data: bytes | None, types: Mapping[str, str], metadata: Any = None) -> Any:
    texts = [name for name, kind in types.items() if kind in _TEXT]
    source = pa.OSFile(path) if data is None else pa.BufferReader(data)
    return pq.ParquetFile(source, metadata=metadata, read_dictionary=texts)


@contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UnreadableFileError(f"{path}: {error}") from error


class _Column:
    """A column of a frame that is filled from one end to the other."""

    def __init__(self, kind: str, rows: int) -> None:
        self.kind = kind
        self.nullable = kind.startswith("Int")
        self.texts: list[Any] = []
        numbers = (0, np.dtype(np.int64)) if kind in _TEXT else (rows, np.dtype(kind.lower()))
        self.values: npt.NDArray[Any] = np.empty(*numbers)
        self.null = np.zeros(rows if self.nullable else 0, dtype=np.bool_)

    def put(self, first: int, read: Any) -> None:
        """Fill in the next rows, which begin at `first`."""
        if self.kind == "category":
            self.texts += [_coded(chunk) for chunk in read.chunks]
            return
        read = read if read.type == _ARROW[self.kind] else read.cast(_ARROW[self.kind])
        if self.kind == "str":
            self.texts += read.chunks
            return
        if read.null_count and self.nullable:
            self.null[first : first + len(read)] = read.is_null().to_numpy()
            read = read.fill_null(0)
        elif read.null_count and self.kind.startswith("int"):
            raise ValueError("a whole number is null that must not be")
        self.values[first : first + len(read)] = read.to_numpy()

    def array(self) -> Any:
        """The filled column as pandas keeps it."""
        if self.kind == "category":
            return _categories(self.texts)
        if self.kind == "str":
            texts = pa.chunked_array(self.texts, pa.large_string())
            return pd.StringDtype(na_value=np.nan).__from_arrow__(texts)  # type: ignore[attr-defined]
        return pd.arrays.IntegerArray(self.values, self.null) if self.nullable else self.values


def _coded(texts: Any) -> Any:
    """Each text once, and which of them each row has."""
    if not pa.types.is_dictionary(texts.type):
        texts = texts.cast(pa.large_string()).dictionary_encode()
    return pa.DictionaryArray.from_arrays(texts.indices, texts.dictionary.cast(pa.large_string()))


def _categories(texts: Sequence[Any]) -> pd.Categorical:
    """The texts of these pieces as categories in the order of the alphabet, as `pandas.factorize` would sort them."""
    coded = pa.chunked_array(texts, pa.dictionary(pa.int32(), pa.large_string())).unify_dictionaries()
    names = np.asarray(coded.chunk(0).dictionary if coded.num_chunks else [], dtype=np.object_)
    order = np.argsort(names)
    # The last one is that of -1, which stands for null.
    rank = np.append(np.argsort(order), -1).astype(np.min_scalar_type(-len(names) - 1))
    codes = np.empty(len(coded), dtype=rank.dtype)
    first = 0
    for chunk in coded.chunks:
        codes[first : first + len(chunk)] = rank[chunk.indices.fill_null(-1).to_numpy()]
        first += len(chunk)
    return pd.Categorical.from_codes(codes, pd.Index(names[order], dtype="str"), validate=False)
