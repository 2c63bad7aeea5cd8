"""What is kept: the cache folder, arrays in one file that is there as a whole or not at all, and a store in memory."""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:  # else the first visitor of a server waits for it on pages that need none
    import numpy as np

Arrays: TypeAlias = "dict[str, np.ndarray]"


# ---- on disk -------------------------------------------------------------------------------------------------------
def cache_folder() -> Path:
    """Where this user's programs keep what can be made again: `VISIT_CACHE`, or the system's cache folder.

    A user without a home (a container that runs under a bare number) has the temporary folder, which is said once.
    """
    given = {"win32": "LOCALAPPDATA", "darwin": ""}.get(sys.platform, "XDG_CACHE_HOME")
    beside = {"win32": "AppData/Local", "darwin": "Library/Caches"}.get(sys.platform, ".cache")
    try:
        if os.environ.get("VISIT_CACHE"):
            return Path(os.environ["VISIT_CACHE"]).expanduser()
        return Path(os.environ.get(given) or Path.home() / beside) / "visit"
    except RuntimeError:
        return _without_home(os.getuid() if hasattr(os, "getuid") else "user")


@cache
def _without_home(user: object) -> Path:
    folder = Path(tempfile.gettempdir()) / f"visit-{user}"
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():  # somebody else was there first
            folder = Path(tempfile.mkdtemp(prefix="visit-"))
    logging.getLogger("visit").warning(
        "visit: This user has no home folder. Results and fetched models are kept in %s, until the system clears it; "
        "set VISIT_CACHE to a folder that stays.", folder
    )  # fmt: skip
    return folder


def write_arrays(path: Path, arrays: Arrays, header: dict[str, Any]) -> None:
    """Arrays and a JSON header in one `.npz`, there as a whole or not at all. Raises OSError where it cannot be.

    The header lies inside: two files could not be replaced at one moment.
    """
    import numpy as np

    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    write_whole(path, lambda file: np.savez(file, allow_pickle=False, **{"header.json": text, **arrays}))


def write_whole(path: Path, write: Callable[[Any], object]) -> None:
    """A file that is there as a whole or not at all. Raises OSError where it cannot be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_arrays(path: Path) -> tuple[Arrays, dict[str, Any]] | None:
    """(arrays, header) of a file of `write_arrays`; None when there is none, or it is damaged or something else."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(arrays.pop("header.json").tobytes())
        return (arrays, header) if isinstance(header, dict) else None
    except Exception:  # a damaged file fails in any way it likes, and it can be made again
        return None


def array_header(path: Path) -> dict[str, Any] | None:
    """The header of a file of `write_arrays` without its arrays; None as in `read_arrays`."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(file["header.json"].tobytes())
        return header if isinstance(header, dict) else None
    except Exception:
        return None


# ---- in memory: bounded in bytes, for a record of a long prompt can weigh as much as a hundred of short ones ---------
class Store:
    """Records, `max_bytes` of them together: the least recently used go first, the newest stays however large it is.

    Safe with threads; two of them may make one record at the same time.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: Hashable) -> Any:
        """The record of `key`, which counts as used now; None where there is none (any more)."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The record of `key`, made now if it is not at hand."""
        found = self.find(key)
        if found is None:
            found = make()
            self.put(key, found)
        return found

    def put(self, key: Hashable, record: Any, size: int | None = None) -> None:
        """Keep a record, as the newest. `size`: its bytes (default: `weight`)."""
        size = weight(record) if size is None else size
        with self._lock:
            self._kept[key] = (record, size)
            self._kept.move_to_end(key)
            while self.bytes > self.max_bytes and len(self._kept) > 1:
                self._kept.popitem(last=False)

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._kept.clear()

    @property
    def records(self) -> dict[Any, Any]:
        """All that is kept by its key, the newest last."""
        with self._lock:
            return {key: record for key, (record, _) in self._kept.items()}

    @property
    def bytes(self) -> int:
        """What the kept records weigh together."""
        return sum(size for _, size in self._kept.values())


def weight(record: Any, depth: int = 5, seen: set[int] | None = None) -> int:
    """About how many bytes a record takes: arrays, tensors, tables, and what holds them, `depth` levels deep.

    Views of one tensor count once.
    """
    seen = set() if seen is None else seen
    if hasattr(record, "untyped_storage"):  # torch is not imported for this
        storage = record.untyped_storage()
        new = storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        return storage.nbytes() if new else 0
    if hasattr(record, "memory_usage"):
        import numpy as np

        return int(np.sum(record.memory_usage(deep=True)))
    if hasattr(record, "nbytes"):
        return int(record.nbytes)
    inside = list(vars(record).values()) if hasattr(record, "__dict__") else record
    inside = list(inside.values()) if isinstance(inside, dict) else inside
    if depth and isinstance(inside, list | tuple | set | frozenset):
        return sum(weight(part, depth - 1, seen) for part in inside) + 16 * len(inside)
    return sys.getsizeof(record)
