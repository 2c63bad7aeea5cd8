"""How results stand in a recording: tables as columns of numbers, texts by their number in one list, the rest as JSON.

A table is kept exactly: a column of numbers takes half the room where that loses nothing (float32 numbers stand in
float64 columns), a text is its place in the list of all texts, a list of words is their places and its length. What is
written is what is read; of what is not in the tables below nothing is made, so that a file cannot name code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from visit.cache import Arrays
from visit.errors import VisitError
from visit.files.recording_file import broken_file

_COLUMN_TYPES = ("float64", "int64", "Int64", "bool", "str", "object")
_LISTS_OF = {"texts": str, "numbers": float}
LONGEST_TEXT = 200_000  # of a prompt, or a note
LONGEST_WORD = 2_000  # of a token, a name, a cell of a table: some stand a thousand times on a page
PATTERN_STEP = 1 / 65535  # a recorded pattern is right to half of it
_DEEP = 12  # levels of what stands as JSON
_TOLD_CHARACTERS = 8 << 20  # of one column's texts together: a long one may be named in every cell
_ROUNDED_UP = 1e-5  # a sum of rounded probabilities may pass 1 by this much


@dataclass
class WrittenValues:
    """What of a recording has been written so far."""

    texts: dict[str, int] = field(default_factory=dict)
    arrays: Arrays = field(default_factory=dict)

    def places(self, texts: list[str | None]) -> np.ndarray:
        """The places of texts in the list of all, counted from 1; 0: no text."""
        found = [0 if text is None else self.texts.setdefault(text, len(self.texts) + 1) for text in texts]
        return _short_whole(np.array(found, np.int64))


@dataclass(frozen=True)
class StoredValues:
    """The texts and numbers of a recording that is read."""

    texts: list[str]
    arrays: Arrays

    def array(self, name: str, kinds: str, length: int | None = None) -> np.ndarray:
        """One array, of a kind among `kinds` (numpy's letters) and, of a column, of one length."""
        found = self.arrays.get(name)
        if found is None or found.dtype.kind not in kinds or found.ndim != 1:
            raise broken_file(f"the numbers {name[:80]!r} are missing, or of another type")
        if length is not None and len(found) != length:
            raise broken_file(f"{name[:80]!r} has {len(found):,} numbers instead of {length:,}")
        return found

    def told(self, name: str, length: int | None = None) -> list[str | None]:
        """Texts by their places, as `WrittenValues.places` gives them."""
        at = self.array(name, "iu", length)
        if len(at) and not (at.min() >= 0 and at.max() <= len(self.texts)):
            raise broken_file(f"{name[:80]!r} names a text that is not there")
        found = [self._known[i] for i in at.tolist()]
        if sum(len(text) for text in found if text is not None) > _TOLD_CHARACTERS:
            raise broken_file(f"{name[:80]!r} holds longer texts than a recording has")
        return found

    @cached_property
    def _known(self) -> list[str | None]:
        return [None, *self.texts]


# ---- tables ----------------------------------------------------------------------------------------------------------
def write_table(out: WrittenValues, name: str, table: pd.DataFrame) -> dict[str, Any]:
    """Write a table's columns under `name`; returns what `read_table` needs beside them. Its index is not kept."""
    columns = {str(c): _write_column(out, f"{name}/{c}", table[c]) for c in table.columns}
    return {"rows": len(table), "columns": columns, "attrs": to_plain(dict(table.attrs))}


def _write_column(out: WrittenValues, name: str, column: pd.Series) -> list[Any]:
    """[type of the column, how it stands], its numbers written."""
    kind = str(column.dtype)
    assert kind in _COLUMN_TYPES, (name, kind)
    cells = column.tolist()
    if kind == "float64":
        if np.isinf(column.to_numpy()).any():
            raise VisitError(
                f"This run cannot be recorded: {name} has a number without bound. Examine the model: python -m visit "
                "doctor."
            )
        out.arrays[name] = _exact(column.to_numpy())
    elif kind in ("int64", "Int64"):
        missing = column.isna().to_numpy()
        numbers = column.fillna(0).to_numpy(np.int64) if missing.any() else column.to_numpy(np.int64)
        if missing.any():
            out.arrays[f"{name}/missing"] = missing.astype(np.uint8)
        out.arrays[name] = _short_whole(numbers)
    elif kind == "bool":
        out.arrays[name] = column.to_numpy(np.uint8)
    else:
        return [kind, _write_cells(out, name, [None if _is_missing(c) else c for c in cells])]
    return [kind, "numbers" if kind != "bool" else "bool"]


def _write_cells(out: WrittenValues, name: str, cells: list[Any]) -> Any:
    """How the cells of a column of objects stand: "text", "texts", "numbers", or as they are."""
    if all(c is None or isinstance(c, str) for c in cells):
        out.arrays[name] = out.places(cells)
        return "text"
    if all(c is None or isinstance(c, list) for c in cells):
        flat = [one for c in cells if c is not None for one in c]
        lengths = np.array([-1 if c is None else len(c) for c in cells], np.int32)
        kind = next((k for k, of in _LISTS_OF.items() if all(isinstance(one, of) for one in flat)), None)
        if kind is not None:
            out.arrays[f"{name}/length"] = lengths
            out.arrays[name] = out.places(flat) if kind == "texts" else _exact(np.array(flat, np.float64))
            return kind
    return {"cells": to_plain(cells)}


def _is_missing(cell: Any) -> bool:
    return cell is None or cell is pd.NA or (isinstance(cell, float) and math.isnan(cell))


def _exact(numbers: np.ndarray) -> np.ndarray:
    """float32 where that loses nothing."""
    with np.errstate(over="ignore"):
        short = numbers.astype(np.float32)
    return short if np.array_equal(short.astype(np.float64), numbers, equal_nan=True) else numbers


def _short_whole(numbers: np.ndarray) -> np.ndarray:
    """Whole numbers in the shortest type that holds them."""
    for kind in (np.int16, np.uint16, np.int32):
        limits = np.iinfo(kind)
        if not len(numbers) or (numbers.min() >= limits.min and numbers.max() <= limits.max):
            return numbers.astype(kind)
    return numbers


def read_table(stored: StoredValues, name: str, layout: Any) -> pd.DataFrame:
    """A table as it was written. Raises `VisitError` where what is there does not fit together."""
    rows = layout["rows"]
    if type(rows) is not int or rows < 0:
        raise broken_file(f"{name[:80]!r} has no number of rows")
    columns = {
        column: _read_column(stored, f"{name}/{column}", rows, *how) for column, how in layout["columns"].items()
    }
    table = pd.DataFrame(columns, index=pd.RangeIndex(rows))
    table.attrs = from_plain(layout["attrs"])
    return table


def _read_column(stored: StoredValues, name: str, rows: int, kind: str, how: Any) -> Any:
    if kind not in _COLUMN_TYPES:
        raise broken_file(f"{name[:80]!r} has a type that no recording has")
    if kind == "float64":
        numbers = stored.array(name, "f", rows).astype(np.float64)
        if np.isinf(numbers).any():
            raise broken_file(f"{name[:80]!r} holds a number without bound")
        return numbers
    if kind in ("int64", "Int64"):
        whole = stored.array(name, "iu", rows).astype(np.int64)
        if kind == "int64":
            return whole
        missing = f"{name}/missing"
        gaps = stored.array(missing, "u", rows).astype(bool) if missing in stored.arrays else np.zeros(rows, bool)
        return pd.arrays.IntegerArray(whole, gaps)
    if kind == "bool":
        return stored.array(name, "u", rows).astype(bool)
    return pd.Series(_read_cells(stored, name, rows, how), dtype=kind, index=pd.RangeIndex(rows))


def _read_cells(stored: StoredValues, name: str, rows: int, how: Any) -> list[Any]:
    if how == "text":
        return stored.told(name, rows)
    if isinstance(how, dict):
        cells = from_plain(how["cells"])
        if not isinstance(cells, list) or len(cells) != rows:
            raise broken_file(f"{name[:80]!r} has another number of cells")
        return cells
    lengths = stored.array(f"{name}/length", "i", rows).astype(np.int64)
    total = int(lengths.clip(min=0).sum())
    flat: list[Any] = (
        stored.told(name, total) if how == "texts" else stored.array(name, "f", total).astype(float).tolist()
    )
    if (how == "texts" and None in flat) or (how != "texts" and not all(map(math.isfinite, flat))):
        raise broken_file(f"{name[:80]!r} has a gap where none may be")
    ends = np.cumsum(lengths.clip(min=0)).tolist()
    return [
        None if size < 0 else flat[end - size : end] for size, end in zip(lengths.tolist(), ends, strict=True)
    ]  # fmt: skip


# ---- what is no table ------------------------------------------------------------------------------------------------
def to_plain(value: Any) -> Any:
    """Strict JSON of what a result says of itself: texts, numbers, lists, tuples, and maps with any such keys."""
    value = value.item() if hasattr(value, "item") else value
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        if math.isinf(value):
            raise VisitError(
                "This run cannot be recorded: a number of it has no bound. Examine the model: python -m visit doctor."
            )
        return {"$": "missing"} if math.isnan(value) else value
    if isinstance(value, list):
        return [to_plain(one) for one in value]
    if isinstance(value, tuple):
        return {"$": "tuple", "of": [to_plain(one) for one in value]}
    if isinstance(value, dict):
        if all(isinstance(key, str) and key != "$" for key in value):
            return {key: to_plain(one) for key, one in value.items()}
        return {"$": "map", "of": [[to_plain(key), to_plain(one)] for key, one in value.items()]}
    raise TypeError(f"a recording does not hold {type(value).__name__}")


def from_plain(value: Any, depth: int = _DEEP) -> Any:
    """What `to_plain` was given."""
    if depth < 0:
        raise broken_file("a value in it is nested too deep")
    if isinstance(value, list):
        return [from_plain(one, depth - 1) for one in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("$")
    if kind is None:
        return {key: from_plain(one, depth - 1) for key, one in value.items()}
    if kind == "missing":
        return math.nan
    parts = value.get("of")
    if kind not in ("tuple", "map") or not isinstance(parts, list):
        raise broken_file(f"a value in it is of the unknown kind {str(kind)[:20]!r}")
    found = [from_plain(one, depth - 1) for one in parts]
    return tuple(found) if kind == "tuple" else dict(found)


# ---- what numbers may be ---------------------------------------------------------------------------------------------
def check_numbers(name: str, table: pd.DataFrame, limits: dict[str, int], complete: tuple[str, ...]) -> pd.DataFrame:
    """Refuse a table with a probability that is none, a place that is not there, or a gap in a `complete` column.

    `limits`: n_layers, n_heads, tokens, d_vocab of the run. Returns the table.
    """
    for column in table.columns:
        low, high = _range_of(str(column), limits)
        values = table[column]
        if str(values.dtype) == "object":
            if low is None or not len(values):
                continue
            values = pd.Series([one for cell in values if isinstance(cell, list) for one in cell], dtype=object)
            if any(not isinstance(one, float) for one in values):
                continue
            values = values.astype(float)
        if str(values.dtype) not in ("float64", "int64", "Int64"):
            continue
        known = values.dropna()
        if (
            low is not None
            and len(known)
            and not (known.min() >= low - _ROUNDED_UP and known.max() <= high + _ROUNDED_UP)
        ):
            raise broken_file(f"{name[:40]} has a {column[:40]} that cannot be")
        if column in complete and len(known) < len(values):
            raise broken_file(f"{name[:40]} has a gap in {column[:40]}, where none may be")
    return table


def _range_of(column: str, limits: dict[str, int]) -> tuple[float | None, float]:
    """Least and most that a column of this name may hold; None: anything."""
    bare = column.removesuffix("_a").removesuffix("_b")
    if bare.endswith(("prob", "probs")) or bare in ("pattern", "source_pattern"):
        return 0.0, 1.0
    if bare.endswith("rank"):
        return 1, limits["d_vocab"]
    if bare in ("pos", "source_pos"):
        return 0, limits["tokens"] - 1
    if bare == "head":
        return 0, limits["n_heads"] - 1
    if bare in ("layer", "depth"):
        return -1, limits["n_layers"]
    return (0.0, math.inf) if bare in ("norm", "row_norm", "value_norm", "moved") else (None, math.inf)


def is_like(value: Any, kind: Any) -> bool:
    """Whether a value has a type: a class (a float may be whole), one of several, `[type of all]`, `{name: type}` with
    these names and maybe more, or `{class of all names: type of all}`."""
    if isinstance(kind, tuple):
        return any(is_like(value, one) for one in kind)
    if kind is None or kind is object:
        return value is None or kind is object
    if isinstance(kind, list):
        return isinstance(value, list) and all(is_like(one, kind[0]) for one in value)
    if isinstance(kind, dict):
        if not isinstance(value, dict):
            return False
        of = next(iter(kind))
        if isinstance(of, type):
            return all(is_like(name, of) and is_like(one, kind[of]) for name, one in value.items())
        return all(name in value and is_like(value[name], one) for name, one in kind.items())
    if kind is float:
        return type(value) in (int, float)
    return type(value) is kind


def check_text(what: str, value: Any, most: int) -> str:
    """A text of at most so many characters."""
    if not isinstance(value, str) or len(value) > most:
        raise broken_file(f"its {what} is no text of at most {most:,} characters")
    return value


def check_whole(what: str, value: Any, least: int, most: int) -> int:
    """A whole number between two bounds."""
    if type(value) is not int or not least <= value <= most:
        raise broken_file(f"its {what} is no whole number from {least:,} to {most:,}")
    return value


@contextmanager
def told_as_broken() -> Iterator[None]:
    """What a file from anybody breaks in a way that nobody thought of is told as a damaged file."""
    try:
        yield
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError) as error:
        raise broken_file(f"its parts do not fit together ({str(error)[:80]})") from error
