"""One protocol of sums: what an analysis keeps of the prompts that it has seen, however many they are.

1. Sums are a frozen record, whose fields say how they merge:

       @dataclass(frozen=True, eq=False)
       class WordSums:
           norm: str                        # says what the sums are of: must be equal
           prompts: int = summed()
           largest: Tensor = maximum()

2. `merge(a, b)` is the record of a's prompts followed by b's. Any split of a set, merged in order, gives the whole: on
   one machine batch by batch, on several part by part.
3. `state_of(sums)` are arrays for a file, `load_sums(empty, arrays)` is the way back.
4. `SumsJob` is the job of the worker: items, a function from a batch of them to its sums, one from sums to the result.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from visit.cache import Arrays
from visit.errors import VisitError

Rule = Callable[[Any, Any], Any]


def _merging(rule: Rule, **how: bool) -> Any:
    return field(metadata={"merge": rule, **how})


def summed() -> Any:
    """A field of a record of sums: numbers, arrays or tensors that are added."""
    return _merging(operator.add)


def maximum() -> Any:
    """A field that keeps the larger of two values, element by element."""
    return _merging(lambda a, b: a.maximum(b) if hasattr(a, "maximum") else np.maximum(a, b))


def minimum() -> Any:
    """A field that keeps the smaller of two values, element by element."""
    return _merging(lambda a, b: a.minimum(b) if hasattr(a, "minimum") else np.minimum(a, b))


def joined() -> Any:
    """A field that grows: one array or tuple after the other."""
    return _merging(lambda a, b: a + b if isinstance(a, tuple) else np.concatenate([a, b]), grows=True)


def together(rule: Rule, grows: bool = False) -> Any:
    """One of several fields that merge together. `rule` gets both records and returns those fields by their names."""
    return _merging(rule, records=True, grows=grows)


def each() -> Any:
    """A field that holds other records of sums by their names."""
    return _merging(lambda a, b: {name: merge(a[name], b[name]) for name in a}, nested=True)


def derived() -> Any:
    """A field that is made of the others in the end: None after a merge, and in no file."""
    return field(default=None, metadata={"merge": lambda a, b: None, "derived": True})


def merge(a: Any, b: Any) -> Any:
    """The sums of a's prompts followed by b's. Raises `VisitError` where they are of other models or settings."""
    made: dict[str, Any] = {}
    for own in fields(a):
        how, x, y = own.metadata, getattr(a, own.name), getattr(b, own.name)
        differs = (not how.get("grows") and _shape(x) != _shape(y)) if how else x != y
        if differs:
            raise VisitError(f"Only sums of the same model and settings can be merged: their {own.name} differ.")
        if how.get("records"):
            made |= {} if own.name in made else how["merge"](a, b)
        elif how:
            made[own.name] = how["merge"](x, y)
    return replace(a, **made)


def _shape(value: Any) -> Any:
    return set(value) if isinstance(value, dict) else np.shape(value)


def state_of(sums: Any) -> Arrays:
    """Sums as arrays, to be written to a file."""
    found: Arrays = {}
    for name, value, how in _in_a_file(sums):
        if how.get("nested"):
            for key, part in value.items():
                found |= {f"{name}.{key}.{inner}": array for inner, array in state_of(part).items()}
        else:
            found[name] = _array(value)
    return found


def load_sums(empty: Any, arrays: Arrays) -> Any:
    """The sums of `state_of`. `empty`: of no prompt. Raises `VisitError` for a state of other sums or another model."""
    made: dict[str, Any] = {}
    for name, value, how in _in_a_file(empty):
        if how.get("nested"):
            made[name] = {key: load_sums(part, under(arrays, f"{name}.{key}.")) for key, part in value.items()}
            continue
        array, like = arrays.get(name), _array(value)
        shapes = slice(1 if how.get("grows") else 0, None)
        if array is None or array.dtype != like.dtype or array.shape[shapes] != like.shape[shapes]:
            raise VisitError(f"This state is of another run: its {name} does not fit. Start the run again.")
        if isinstance(value, np.ndarray):
            made[name] = array
        else:  # a tensor, a number or a tuple
            made[name] = value.new_tensor(array) if hasattr(value, "new_tensor") else type(value)(array.tolist())
    return replace(empty, **made)


def under(arrays: Arrays, start: str) -> Arrays:
    """Those arrays whose names begin so, named by the rest."""
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}


def _in_a_file(sums: Any) -> Iterator[tuple[str, Any, Any]]:
    """(name, value, how it merges) of the fields that a file holds."""
    for own in fields(sums):
        if "merge" in own.metadata and not own.metadata.get("derived"):
            yield own.name, getattr(sums, own.name), own.metadata


def _array(value: Any) -> np.ndarray:
    if hasattr(value, "cpu"):
        return value.cpu().numpy()
    return np.array(value, np.int64) if isinstance(value, tuple) else np.asarray(value)


@dataclass(eq=False)
class SumsJob:
    """An analysis of a set as a job of `visit.runs.worker`: in batches, stopped, resumed, looked at while it runs."""

    items: Sequence[Any]
    sums: Any  # so far; at first of no item
    read: Callable[[Sequence[Any]], Any]  # a batch of items -> its sums
    result: Callable[[Any], Any] = lambda sums: sums
    work: Sequence[float] | None = None  # seconds that each item takes, about, where they are long ones

    def update(self, items: Sequence[Any]) -> None:
        self.sums = merge(self.sums, self.read(items))

    def snapshot(self) -> Any:
        return self.result(self.sums)  # frozen: a later update makes another

    def state(self) -> Arrays:
        return state_of(self.sums)

    def load(self, arrays: Arrays) -> None:
        self.sums = load_sums(self.sums, arrays)
