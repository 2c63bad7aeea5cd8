"""What is kept: the cache folder, arrays in one file that is there as a whole or not at all, and a store in memory."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import numpy as np

State = dict[str, np.ndarray]


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
