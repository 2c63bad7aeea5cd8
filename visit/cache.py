"""Statistics that grow batch by batch and can be merged: a half and a half make the whole, whatever the split.

Memory depends on the number of columns (neurons, layers), never on the number of examples. Sums are float64. Each
accumulator turns into plain arrays (`state`) and back (`load`), so that an interrupted run continues from a file.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

State = dict[str, np.ndarray]


@dataclass(eq=False)
class Moments:
    """Count, mean and sum of squared deviations per column, updated by Chan's formula (Welford's for batches).

    The textbook sum of squares minus squared sum loses every digit when the mean is large; this one does not.
    """

    n: int = 0
    mean: np.ndarray = field(default_factory=lambda: np.zeros(()))
    m2: np.ndarray = field(default_factory=lambda: np.zeros(()))

    def add(self, x: Float[np.ndarray, "n ..."]) -> None:
        """Take in n examples; the other axes are the columns, of any shape."""
        if not len(x):
            return
        x = np.asarray(x, np.float64)
        mean = x.mean(0)
        self.merge(Moments(len(x), mean, np.square(x - mean).sum(0)))

    def merge(self, other: Moments) -> None:
        """Take in all examples of another."""
        if not other.n:
            return
        n = self.n + other.n
        gap = other.mean - self.mean
        self.mean = self.mean + gap * (other.n / n)
        self.m2 = self.m2 + other.m2 + gap**2 * (self.n * other.n / n)
        self.n = n

    @property
    def variance(self) -> np.ndarray:
        """The sample variance (divided by n - 1); NaN with fewer than two examples."""
        return self.m2 / (self.n - 1) if self.n > 1 else np.full_like(self.mean, np.nan)

    def state(self) -> State:
        return {"n": np.array(self.n), "mean": self.mean, "m2": self.m2}

    def load(self, state: State) -> None:
        self.n, self.mean, self.m2 = int(state["n"]), state["mean"], state["m2"]


@dataclass(eq=False)
class Counts:
    """How often each column was true among n examples."""

    n: int = 0
    true: np.ndarray = field(default_factory=lambda: np.zeros((), np.int64))

    def add(self, hits: np.ndarray) -> None:
        """Take in `[n, …]` truth values."""
        self.add_counted(len(hits), np.count_nonzero(hits, axis=0))

    def add_counted(self, n: int, true: Any) -> None:
        """Take in n examples that were counted already."""
        self.n, self.true = self.n + n, self.true + np.asarray(true, np.int64)

    def merge(self, other: Counts) -> None:
        self.add_counted(other.n, other.true)

    @property
    def share(self) -> np.ndarray:
        """The frequency, between 0 and 1; NaN before the first example."""
        return self.true / self.n if self.n else np.full(self.true.shape, np.nan)

    def state(self) -> State:
        return {"n": np.array(self.n), "true": self.true}

    def load(self, state: State) -> None:
        self.n, self.true = int(state["n"]), state["true"]


@dataclass(eq=False)
class Top:
    """The k largest numbers of each of `columns` columns and the examples they come from, largest first.

    Equal numbers are ordered by example, the lower first, so that the order of arrival does not matter. Places not
    filled yet hold -inf and the example -1. NaN never enters.
    """

    k: int
    columns: int

    def __post_init__(self) -> None:
        self.values = np.full((self.k, self.columns), -np.inf)
        self.examples = np.full((self.k, self.columns), -1, np.int64)

    def add(self, x: Float[np.ndarray, "n columns"], examples: Int[np.ndarray, " n"]) -> None:
        """Take in the numbers of n examples; an example is named by a number of its own."""
        self._enter(np.asarray(x, np.float64), np.asarray(examples, np.int64)[:, None])

    def merge(self, other: Top) -> None:
        self._enter(other.values, other.examples)

    def _enter(self, x: np.ndarray, examples: np.ndarray) -> None:
        if not self.k or not len(x):
            return
        last, name = self.values[-1], self.examples[-1]
        entering = (x > last) | ((x == last) & (examples < name) & (examples >= 0))
        at = np.flatnonzero(entering.any(0))  # after a while few columns change, and only they are sorted
        if not len(at):
            return
        values = np.concatenate([self.values[:, at], np.where(entering, x, -np.inf)[:, at]])
        named = np.where(entering, examples, -1)[:, at]
        named = np.concatenate([self.examples[:, at], named])
        order = np.lexsort((named, -values), axis=0)[: self.k]
        self.values[:, at] = np.take_along_axis(values, order, 0)
        self.examples[:, at] = np.take_along_axis(named, order, 0)

    def state(self) -> State:
        return {"values": self.values, "examples": self.examples}

    def load(self, state: State) -> None:
        self.values, self.examples = state["values"], state["examples"]


@dataclass(eq=False)
class Histogram:
    """Counts per column in `bins` equal steps from `low` to `high`; below, above and NaN are counted on their own."""

    low: float
    high: float
    bins: int
    columns: int = 1

    def __post_init__(self) -> None:
        self.all = np.zeros((self.columns, self.bins + 3), np.int64)  # below, the bins, above, NaN

    @property
    def edges(self) -> np.ndarray:
        return np.linspace(self.low, self.high, self.bins + 1)

    @property
    def counts(self) -> Int[np.ndarray, "columns bins"]:
        return self.all[:, 1 : self.bins + 1]

    @property
    def outside(self) -> Int[np.ndarray, "columns below_above_nan"]:
        return self.all[:, [0, self.bins + 1, self.bins + 2]]

    def add(self, x: Float[np.ndarray, "n columns"]) -> None:
        """Take in n examples. A number on an edge belongs to the step above it, `high` itself to the last."""
        x = np.asarray(x, np.float64).reshape(-1, self.columns)
        place = np.floor((x - self.low) * (self.bins / (self.high - self.low))) + 1
        place = np.where(x == self.high, self.bins, place.clip(0, self.bins + 1))
        place = np.where(np.isnan(x), self.bins + 2, place).astype(np.int64)
        flat = place + np.arange(self.columns) * self.all.shape[1]
        self.all += np.bincount(flat.ravel(), minlength=self.all.size).reshape(self.all.shape)

    def merge(self, other: Histogram) -> None:
        self.all = self.all + other.all

    def state(self) -> State:
        return {"all": self.all}

    def load(self, state: State) -> None:
        self.all = state["all"]


def join(parts: dict[str, Any]) -> State:
    """The state of several accumulators as one, names joined by a dot."""
    return {f"{name}.{key}": array for name, part in parts.items() for key, array in part.state().items()}


def part_into(parts: dict[str, Any], state: State) -> None:
    """The way back of `join`: each accumulator loads what is its own."""
    for name, part in parts.items():
        part.load({key.removeprefix(f"{name}."): a for key, a in state.items() if key.startswith(f"{name}.")})


# ---- on disk -------------------------------------------------------------------------------------------------------
def cache_folder() -> Path:
    """Where this user's programs keep what can be made again: `VISIT_CACHE`, or the system's cache folder."""
    if os.environ.get("VISIT_CACHE"):
        return Path(os.environ["VISIT_CACHE"]).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "visit"


def write_arrays(path: Path, state: State, header: dict[str, Any]) -> None:
    """Arrays and a JSON header in one `.npz`, there as a whole or not at all. Raises OSError where it cannot be.

    The header lies inside: two files could not be replaced at one moment.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, allow_pickle=False, **{"header.json": text, **state})
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_arrays(path: Path) -> tuple[State, dict[str, Any]] | None:
    """(arrays, header) of a file of `write_arrays`; None when there is none, or it is damaged or something else."""
    try:
        with np.load(path, allow_pickle=False) as file:
            state = {name: file[name] for name in file.files}
        header = json.loads(state.pop("header.json").tobytes())
        return (state, header) if isinstance(header, dict) else None
    except Exception:  # a damaged file fails in any way it likes, and it can be made again
        return None


def read_header(path: Path) -> dict[str, Any] | None:
    """The header of a file of `write_arrays` without its arrays; None as in `read_arrays`."""
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(file["header.json"].tobytes())
        return header if isinstance(header, dict) else None
    except Exception:
        return None


# ---- a cache with a bound in bytes, for records: one of a long prompt can weigh as much as a hundred short o----------
class Store:
    """The least recently used records go first. Safe with threads; two threads may make one record at the same time."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The record of `key`, made now if it is not at hand.

        The newest is kept however large it is: a page asks for it again and again.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][0]
        made = make()
        size = weight(made)
        with self._lock:
            self._kept[key] = (made, size)
            self._kept.move_to_end(key)
            while self.bytes > self.max_bytes and len(self._kept) > 1:
                self._kept.popitem(last=False)
        return made

    @property
    def bytes(self) -> int:
        """What the kept records weigh together."""
        return sum(size for _, size in self._kept.values())


def weight(record: Any) -> int:
    """Bytes of the tensors of a record; views of one tensor count once."""
    tensors = [v for v in vars(record).values() if hasattr(v, "untyped_storage")]  # torch is not imported for this
    return sum({v.untyped_storage().data_ptr(): v.untyped_storage().nbytes() for v in tensors}.values())
