"""Every row of the weights as words: what each neuron reads and writes, whatever the prompt.

Rows of W_out (what a neuron writes), columns of W_in and W_gate (what it reads) and rows of W_O, of all layers, each
with its 20 top words for either sign, entropy and norm. Computed once per set of weights and kept on disk.
"""

from __future__ import annotations

import hashlib
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from visit.cache import Arrays, cache_folder, read_arrays, write_arrays
from visit.errors import VisitError
from visit.lenses.logit import CHUNK_BYTES, TILE_BYTES, lens_logits, top_of, unembed
from visit.models.attention import soft_cap
from visit.models.fingerprint import fingerprint
from visit.models.model import Model

# ---- the static index on disk ----------------------------------------------------------------------------------------
STATIC_VERSION = 2  # of the format and of what is computed: a change of either makes old files foreign
STALE = 3600.0  # seconds after which nobody is still writing a file
HEADERS = 1 << 16  # bytes that a file may have beside its numbers


def weights_key(model: Model) -> str:
    """64 hexadecimal digits that name the weights which the index reads: every byte of them, and what is computed."""
    return hashlib.sha256(f"{STATIC_VERSION} {fingerprint(model)}".encode()).hexdigest()


def index_file(key: str) -> Path:
    """Where the index of these weights is kept."""
    return cache_folder() / "static" / f"{key[:32]}.npz"


def save_index(key: str, arrays: Arrays) -> bool:
    """Write the arrays whole or not at all; False where the folder cannot be written (the index then lives in memory).

    Raises nothing for a full disk or a read-only place: the index can always be computed again.
    """
    file = index_file(key)
    try:
        for left in file.parent.glob("*.tmp"):  # of a process that was killed while it wrote
            if time.time() - left.stat().st_mtime > STALE:
                left.unlink(missing_ok=True)
        write_arrays(file, arrays, _header(key, arrays))
    except OSError:
        return False
    return True


def load_index(key: str, shapes: dict[str, tuple[tuple[int, ...], str]]) -> Arrays | None:
    """The arrays of these weights, or None where there is no file, or one that is not whole and ours.

    `shapes`: name -> (shape, dtype) that must be found. The size is looked at before anything is unpacked.
    """
    file = index_file(key)
    expected = sum(int(np.prod(shape)) * np.dtype(kind).itemsize for shape, kind in shapes.values())
    try:
        size = file.stat().st_size
    except OSError:
        return None
    if not expected <= size <= expected + HEADERS or (found := read_arrays(file)) is None:
        return None
    arrays, header = found
    if {name: (a.shape, a.dtype.name) for name, a in arrays.items()} != shapes or header != _header(key, arrays):
        return None
    return arrays


def _header(key: str, arrays: Arrays) -> dict[str, Any]:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    sizes = {name: [list(a.shape), a.dtype.str] for name, a in sorted(arrays.items())}
    return {"format": "visit static index", "version": STATIC_VERSION, "key": key, "sizes": sizes,
            "sha256": digest.hexdigest()}  # fmt: skip


INDEX_WORDS = 20  # words kept of each sign
ROWS_PER_ITEM = (
    128  # rows of a run's item: fewer at once would read W_U for next to nothing, on a busy machine above all
)
ITEMS_AT_ONCE = 8  # items read between two reports of progress

_BUILT: weakref.WeakKeyDictionary[Model, StaticIndex] = weakref.WeakKeyDictionary()
_LOCKS: weakref.WeakKeyDictionary[Model, threading.Lock] = weakref.WeakKeyDictionary()
_LOCKS_LOCK = threading.Lock()


@dataclass(frozen=True, eq=False)
class StaticIndex:
    """All static rows of a model: `row = starts[matrix, layer] + n`, n the neuron (of W_O: head · d_head + place).

    `ids[row, 0]` are the top words of the row, best first, `ids[row, 1]` those of the row turned round (a neuron used
    with a negative coefficient). `entropy` in bits, of the lens of the row as it is.
    """

    ids: np.ndarray  # [row, sign, word] uint16, uint32 where the vocabulary is larger than 65,536
    entropy: np.ndarray  # [row] float32
    norm: np.ndarray  # [row] float32
    starts: dict[tuple[str, int], int]
    sizes: dict[str, int]  # rows of one layer
    vocabulary: list[str]
    d_head: int

    @property
    def row_bytes(self) -> int:
        """Bytes that one row takes, in memory and on disk."""
        return sum(a.nbytes for a in (self.ids, self.entropy, self.norm)) // max(1, len(self.norm))

    def span(self, matrix: str, layer: int) -> slice:
        """The rows of one matrix of one layer. Raises `VisitError` for one that the model does not have."""
        if (matrix, layer) not in self.starts:
            layers = 1 + max(layer for _, layer in self.starts)
            raise VisitError(
                f"Static rows are of {', '.join(self.sizes)}, layers 0 to {layers - 1}; got {matrix}, layer {layer}."
            )
        start = self.starts[matrix, layer]
        return slice(start, start + self.sizes[matrix])


def static_index(model: Model, progress: Callable[[int, int], None] | None = None) -> StaticIndex:
    """The static index of a model: from memory, from disk, or computed now in chunks (and then kept).

    `progress(done, total)` is called while rows are read; an exception of it ends the work and nothing is kept. One
    thread of a process computes, the others that want the same model wait for it. A folder that cannot be written is
    no error: the index then lasts as long as the process.
    Source: method section 4 (static neurons); the idea of LM-Debugger (Geva et al. 2022a), here without a server.
    """
    with _LOCKS_LOCK:
        own = _LOCKS.setdefault(model, threading.Lock())
    with own:
        if model not in _BUILT:
            arrays = load_index(weights_key(model), _shapes(model))
            _BUILT[model] = compute(model, progress) if arrays is None else _with_places(model, arrays)
        return _BUILT[model]


def is_ready(model: Model) -> bool:
    """Whether the index is at hand in this process: a page may then show what needs it without a progress bar."""
    return model in _BUILT


def found_index(model: Model) -> StaticIndex | None:
    """The static index where nothing must be computed for it: from memory or from disk. None where it is to be made."""
    if model not in _BUILT:
        arrays = load_index(weights_key(model), _shapes(model))
        if arrays is None:
            return None
        _BUILT.setdefault(model, _with_places(model, arrays))
    return _BUILT[model]


class StaticRun:
    """The static index as a job of `visit.runs.worker`: an item is `ROWS_PER_ITEM` rows, named by the first of them.

    It takes no lock of the model: rows are read from the weights, not by a forward pass. A part of it is kept like that
    of any run; the whole lies in the index's own file, where every process finds it, and is not written a second time.
    """

    def __init__(self, model: Model) -> None:
        self.model, self._shapes, self._turn = model, _shapes(model), _turn(model)
        self.total, self.done = rows_in_all(model), 0
        self.items = range(0, self.total, ROWS_PER_ITEM)
        self._arrays = {name: np.empty(shape, kind) for name, (shape, kind) in self._shapes.items()}

    @torch.no_grad()
    def update(self, items: Sequence[int]) -> None:
        first, last = items[0], min(items[-1] + ROWS_PER_ITEM, self.total)
        start = 0
        for layer in range(self.model.n_layers):
            for matrix, count in matrices(self.model).items():
                a, b = max(first, start), min(last, start + count)
                if a < b:
                    part = weight_rows(self.model, matrix, layer)[a - start : b - start]
                    _read_into(self.model, part, self._arrays, a, self._turn)
                start += count
        self.done = last
        if last == self.total:
            save_index(weights_key(self.model), self._arrays)
            _BUILT[self.model] = _with_places(self.model, self._arrays)

    def snapshot(self) -> StaticIndex | None:
        """The index once it is whole; a part of it answers no question about all neurons."""
        return _BUILT.get(self.model) if self.done == self.total else None

    def state(self) -> Arrays:
        if self.done == self.total:
            return {}
        return {name: array[: self.done] for name, array in self._arrays.items()}

    def load(self, state: Arrays) -> None:
        if not state:  # it was whole: then the index's own file is
            arrays = load_index(weights_key(self.model), self._shapes)
            if arrays is None:
                raise VisitError("The file of the static index is gone. It can be made again.")
            self._arrays, self.done = arrays, self.total
            _BUILT.setdefault(self.model, _with_places(self.model, arrays))
            return
        self.done = len(state["norm"])
        for name, array in self._arrays.items():
            array[: self.done] = state[name]


@torch.no_grad()
def forecast_seconds(model: Model) -> float:
    """About how long the whole index takes on this machine, if it has nothing else to do: one chunk is read for it."""
    rows = max(1, CHUNK_BYTES // (model.d_vocab * model.wide.itemsize))  # fewer at once would be slower a row
    x, turn = weight_rows(model, "W_out", 0)[:rows], _turn(model)
    arrays = {name: np.empty((len(x), *shape[1:]), kind) for name, (shape, kind) in _shapes(model).items()}
    started = time.perf_counter()
    _read_into(model, x, arrays, 0, turn)
    return (time.perf_counter() - started) * rows_in_all(model) / len(x)


def rows_in_all(model: Model) -> int:
    """How many rows the index has."""
    return model.n_layers * sum(matrices(model).values())


def matrices(model: Model) -> dict[str, int]:
    """Name -> rows per layer of the matrices whose rows are read."""
    gate = {} if model.family.w_gate is None else {"W_gate": model.d_mlp}
    return {"W_out": model.d_mlp, "W_in": model.d_mlp, **gate, "W_O": model.n_heads * model.d_head}


def weight_rows(model: Model, matrix: str, layer: int) -> Tensor:
    """`[n, d_model]`: the vectors that the index reads, a row per neuron (of W_O: per place of each head)."""
    if matrix == "W_out":
        return model.W_out(layer)
    if matrix == "W_O":
        return model.W_O(layer).flatten(0, 1)
    weight = model.W_in(layer) if matrix == "W_in" else model.W_gate(layer)
    assert weight is not None
    return weight.T


def _shapes(model: Model) -> dict[str, tuple[tuple[int, ...], str]]:
    total = rows_in_all(model)
    kind = "uint16" if model.d_vocab <= 1 << 16 else "uint32"
    return {
        "ids": ((total, 2, min(INDEX_WORDS, model.d_vocab)), kind), "entropy": ((total,), "float32"),
        "norm": ((total,), "float32"),
    }  # fmt: skip


def _with_places(model: Model, arrays: dict[str, np.ndarray]) -> StaticIndex:
    sizes, starts, row = matrices(model), {}, 0
    for layer in range(model.n_layers):
        for matrix, count in sizes.items():
            starts[matrix, layer] = row
            row += count
    return StaticIndex(**arrays, starts=starts, sizes=sizes, vocabulary=model.vocabulary, d_head=model.d_head)


def compute(model: Model, progress: Callable[[int, int], None] | None = None) -> StaticIndex:
    """The whole index, read here and now. Memory: its arrays and one chunk of logits."""
    job = StaticRun(model)
    for start in range(0, len(job.items), ITEMS_AT_ONCE):
        job.update(job.items[start : start + ITEMS_AT_ONCE])
        if progress is not None:
            progress(job.done, job.total)
    found = job.snapshot()
    assert found is not None
    return found


def _turn(model: Model) -> Tensor | None:
    """Logits of −x are `turn − logits(x)`: the final norm is odd but for its bias, the unembedding but for its own.

    None where both are without one: the top words of −x are then the bottom words of x.
    """
    if model.final_bias is None and model.b_U is None:
        return None
    bias = torch.zeros_like(model.final_gain) if model.final_bias is None else model.final_bias
    return 2 * unembed(model, bias.to(model.wide)[None])


def _read_into(model: Model, x: Tensor, arrays: dict[str, np.ndarray], row: int, turn: Tensor | None) -> None:
    arrays["norm"][row : row + len(x)] = x.norm(dim=-1).float().cpu().numpy()
    for rows, chunk in lens_logits(model, x):
        tile = max(1, TILE_BYTES // (model.d_vocab * chunk.element_size()))
        for start in range(0, len(chunk), tile):
            logits = chunk[start : start + tile]
            at = slice(row + rows.start + start, row + rows.start + start + len(logits))
            ids, entropy = _read_signs(logits, turn, arrays["ids"].shape[-1], model.logit_cap)
            arrays["ids"][at], arrays["entropy"][at] = ids.cpu().numpy(), entropy.float().cpu().numpy()
        del chunk  # before the next one is made


def _read_signs(logits: Tensor, turn: Tensor | None, k: int, cap: float | None) -> tuple[Tensor, Tensor]:
    """Word ids `[row, sign, k]` and entropy in bits `[row]`. Works in place: the chunk is ours."""
    high, top = top_of(logits, k)
    capped = logits if cap is None else soft_cap(logits, cap)  # of no effect on any word's place
    capped -= capped.amax(-1, keepdim=True) if cap else high[:, :1]
    weights = capped.exp()
    total = weights.sum(-1)
    entropy = (total.log() - torch.linalg.vecdot(weights, capped) / total) / np.log(2)
    if turn is not None:
        logits -= turn
    turned = top_of(logits, k, largest=False)[1]
    return torch.stack([top, turned], dim=1), entropy.clamp_(min=0)


def row_words(
    index: StaticIndex, matrix: str, layer: int, numbers: Sequence[int], words: int = INDEX_WORDS
) -> pd.DataFrame:
    """What some rows of one matrix read: `layer`, `matrix`, `neuron`, `tokens`, `negated_tokens` (the row turned
    round), `entropy` (bits), `norm`. `words`: how many of each. Raises `VisitError` for rows that do not exist.
    """
    span = index.span(matrix, layer)
    wrong = [n for n in numbers if not 0 <= n < index.sizes[matrix]]
    if wrong:
        raise VisitError(f"Rows of {matrix} run from 0 to {index.sizes[matrix] - 1}; got {wrong[0]}.")
    at = span.start + np.asarray(numbers, dtype=np.int64)
    found = {"ids": index.ids[at], "entropy": index.entropy[at], "norm": index.norm[at]}
    return _spoken(index.vocabulary, matrix, layer, numbers, found, words)


@torch.no_grad()
def read_rows(model: Model, matrix: str, layer: int, numbers: Sequence[int], words: int = INDEX_WORDS) -> pd.DataFrame:
    """What `row_words` says of a few rows, read here and now: where there is no index, none is made for them."""
    rows = weight_rows(model, matrix, layer)
    wrong = [n for n in numbers if not 0 <= n < len(rows)]
    if wrong:
        raise VisitError(f"Rows of {matrix} run from 0 to {len(rows) - 1}; got {wrong[0]}.")
    x = rows[torch.tensor(list(numbers), dtype=torch.long, device=rows.device)]
    found = {name: np.empty((len(x), *shape[1:]), kind) for name, (shape, kind) in _shapes(model).items()}
    _read_into(model, x, found, 0, _turn(model))
    return _spoken(model.vocabulary, matrix, layer, numbers, found, words)


def _spoken(
    vocabulary: list[str], matrix: str, layer: int, numbers: Sequence[int], found: dict[str, np.ndarray], words: int
) -> pd.DataFrame:
    spoken = [[[vocabulary[i] for i in side] for side in row] for row in found["ids"][:, :, :words].tolist()]
    return pd.DataFrame({
        "layer": layer, "matrix": matrix, "neuron": list(numbers), "tokens": [row[0] for row in spoken],
        "negated_tokens": [row[1] for row in spoken], "entropy": found["entropy"].tolist(),
        "norm": found["norm"].tolist(),
    })  # fmt: skip


def search_weights(index: StaticIndex, token: int, words: int = 5) -> pd.DataFrame:
    """Every static row whose top words hold a token, over all layers and matrices, best place first.

    Columns: `layer`, `matrix`, `neuron`, `head` (of W_O, else missing), `sign` (+1: the row itself, −1: the row turned
    round reads the word), `place` (1 = top word), `tokens` (the first `words` of that sign), `entropy` (bits, of the
    row as it is), `norm`. Raises `VisitError` for an id outside the vocabulary. Source: ours.
    """
    if not 0 <= token < len(index.vocabulary):
        raise VisitError(f"A token id is from 0 to {len(index.vocabulary) - 1}; got {token}.")
    row, side, place = np.unravel_index(np.flatnonzero(index.ids == index.ids.dtype.type(token)), index.ids.shape)
    order = np.lexsort((row, place))
    row, side, place = row[order], side[order], place[order]
    names = list(index.starts)
    begin = np.fromiter(index.starts.values(), np.int64)
    part = np.searchsorted(begin, row, side="right") - 1
    number = row - begin[part]
    matrix = np.array([name for name, _ in names], dtype=object)[part]
    layer = np.array([at for _, at in names])[part]
    spoken = [[index.vocabulary[i] for i in ids] for ids in index.ids[row, side, :words].tolist()]
    head = pd.array(number // index.d_head, dtype="Int64")
    head[matrix != "W_O"] = pd.NA
    return pd.DataFrame({
        "layer": layer, "matrix": matrix, "neuron": number, "head": head, "sign": np.where(side == 0, 1, -1),
        "place": place + 1, "tokens": spoken, "entropy": index.entropy[row], "norm": index.norm[row],
    })  # fmt: skip
