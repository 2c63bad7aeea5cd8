"""The static index on disk: one file per set of weights, in the user's cache folder, believed only when it is whole.

A file is a plain `.npz` (no pickle): the arrays and a header with the format's version, the key of the weights, the
sizes and a checksum. It is written beside its place and renamed, so that a reader sees the whole file or none; of two
processes that build at once, the later rename wins, with the same content.
"""

from __future__ import annotations

import hashlib
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import torch

from visit.cache import State, cache_folder, read_arrays, write_arrays
from visit.models.model import Model

VERSION = 1  # of the format and of what is computed: a change of either makes old files foreign
STALE = 3600.0  # seconds after which nobody is still writing a file
HEADERS = 1 << 16  # bytes that a file may have beside its numbers
_KEYS: weakref.WeakKeyDictionary[Model, str] = weakref.WeakKeyDictionary()


def weights_key(model: Model) -> str:
    """64 hexadecimal digits that name the weights which the index reads, every byte of them.

    A folder's or a hub's revision is no such name: it samples the files, and says nothing of the type that was loaded.
    """
    if model not in _KEYS:
        digest = hashlib.sha256(repr((VERSION, model.family, model.final_eps, _numbers(model.hf.config))).encode())
        for tensor in _weights(model):
            digest.update(f"{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().contiguous().cpu().view(torch.uint8).numpy().data)
        _KEYS[model] = digest.hexdigest()
    return _KEYS[model]


def _numbers(config: Any) -> list[tuple[str, Any]]:
    """The config's numbers: some families scale their logits by one of them."""
    return sorted((k, v) for k, v in vars(config).items() if isinstance(v, (bool, int, float)) and k[0] != "_")


def _weights(model: Model) -> list[torch.Tensor]:
    """Everything that a static row's reading depends on, as the model stores it."""
    family = model.family
    own = (family.w_out, family.w_in, family.w_gate, family.w_o, family.post_attn, family.post_mlp)
    paths = [path for path in own if path]
    found = [model.module(path, layer).weight for layer in range(model.n_layers) for path in paths]
    ends: list[Any] = [end for end in (model.ln_final, model.unembedding) if end is not None]
    found += [] if model.project_out is None else [model.project_out]
    found += [getattr(end, name, None) for end in ends for name in ("weight", "bias")]
    return [weight for weight in found if weight is not None]


def index_file(key: str) -> Path:
    """Where the index of these weights is kept."""
    return cache_folder() / "static" / f"{key[:32]}.npz"


def save(key: str, arrays: State) -> bool:
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


def load(key: str, shapes: dict[str, tuple[tuple[int, ...], str]]) -> State | None:
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


def _header(key: str, arrays: State) -> dict[str, Any]:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    sizes = {name: [list(a.shape), a.dtype.str] for name, a in sorted(arrays.items())}
    return {"format": "visit static index", "version": VERSION, "key": key, "sizes": sizes,
            "sha256": digest.hexdigest()}  # fmt: skip
