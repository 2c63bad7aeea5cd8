"""What is kept: the cache folder, arrays in one file that is there as a whole or not at all, and a store in memory.

Also who computes what is not kept yet: few threads at once, each thing once.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import threading
import time
from bisect import insort
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache, partial
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


# ---- turns: what many ask at once is computed by few, in the order in which they came, small things before large ----
MOMENT = 0.3  # seconds that one waits for a turn without being told
DEARER = 20.0  # seconds by which a page counts as come later, for each that it has had a turn
MOST_LATER = 4.0  # seconds: all by which it does so, and by which what is known to need much does so at once
WhileWaiting: TypeAlias = Callable[[int], AbstractContextManager[Any]]  # entered while one waits behind so many


def _untold(_before: int) -> AbstractContextManager[Any]:
    return nullcontext()


class Turns:
    """At most `most` threads have a turn; who has one keeps it for all it asks for meanwhile.

    Who came first goes first. A page (`through`) asks several times, and came when it began; what it has had already
    makes it count as come later, so that a change which needs little does not wait behind all that need much: thirty
    new prompts. `before` is called when a turn begins, with how many have one or wait for one; `after` when it has
    ended, before the next begins.
    """

    def __init__(
        self,
        most: int,
        after: Callable[[], object] = lambda: None,
        before: Callable[[int], object] = lambda asked: None,
    ) -> None:
        self.most, self._after, self._before = most, after, before
        self._having: set[threading.Event] = set()  # tickets; each its own: thirty who wait for one sign all wake up
        self._waiting: list[tuple[float, int, threading.Event]] = []  # sorted: when it counts as come, its number, …
        self._came = 0  # how often a turn was asked for
        self._changed = threading.Condition()  # for those who wait for quiet
        self._mine = threading.local()

    @contextmanager
    def taken(self, told: WhileWaiting = _untold, much: bool = False) -> Iterator[None]:
        """A turn, waited for. `told(before)` is entered while one waits for longer than a moment, behind `before`.

        `much`: what needs it is known to need much.
        """
        if self.has_turn:
            yield
            return
        ticket = threading.Event()
        with self._changed:
            self._came += 1
            insort(self._waiting, (self._counts_as_come(much), self._came, ticket))
            self._call_next()
            self._changed.notify_all()
        try:
            if not ticket.wait(MOMENT):
                with told(self._place(ticket)):
                    ticket.wait()
            self._before(len(self._having) + len(self._waiting))
            began = time.monotonic()
            with self.aside():
                yield
            self._mine.later = min(MOST_LATER, self._later + DEARER * (time.monotonic() - began))
            self._after()
        finally:  # also where the visitor has gone on while waiting
            with self._changed:
                self._having.discard(ticket)
                self._waiting = [one for one in self._waiting if one[2] is not ticket]
                self._call_next()
                self._changed.notify_all()

    @contextmanager
    def through(self) -> Iterator[None]:
        """All that this thread asks for inside belongs to one page."""
        self._mine.since, self._mine.later = time.monotonic(), 0.0
        try:
            yield
        finally:
            self._mine.since = None

    @property
    def _later(self) -> float:
        return getattr(self._mine, "later", 0.0)

    def _counts_as_come(self, much: bool) -> float:
        since = getattr(self._mine, "since", None)
        if since is None or much:
            self._mine.later = MOST_LATER if much else 0.0
        return (time.monotonic() if since is None else since) + self._later

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Compute without a turn, and without waiting for one. Not for many at once."""
        before, self._mine.turn = self.has_turn, True
        try:
            yield
        finally:
            self._mine.turn = before

    def quiet(self, seconds: float, still: float = 0.0) -> bool:
        """Wait until nobody has or wants a turn, and nobody came for `still` seconds; whether it came to that.

        `seconds`: how long it is waited at most.
        """
        until = time.monotonic() + seconds
        with self._changed:
            while self._changed.wait_for(self._is_free, max(0.0, until - time.monotonic())):
                before, wait = self._came, min(still, until - time.monotonic())
                if not self._changed.wait_for(partial(self._came_since, before), max(0.0, wait)):
                    return wait >= still
        return False

    def _is_free(self) -> bool:
        return not self._having and not self._waiting

    def _came_since(self, count: int) -> bool:
        return self._came > count

    @property
    def has_turn(self) -> bool:
        """Whether this thread computes already."""
        return getattr(self._mine, "turn", False)

    def _place(self, ticket: threading.Event) -> int:
        """How many come before; 1 at least, for somebody has a turn while one waits."""
        with self._changed:
            return 1 + next((n for n, one in enumerate(self._waiting) if one[2] is ticket), 0)

    def _call_next(self) -> None:
        while self._waiting and len(self._having) < self.most:
            ticket = self._waiting.pop(0)[2]
            self._having.add(ticket)
            ticket.set()


# ---- in memory: bounded in bytes, for a record of a long prompt can weigh as much as a hundred of short ones ---------
class Store:
    """Records, `max_bytes` of them together: the least recently used go first, the newest stays however large it is.

    Safe with threads. With `turns` what is asked for by many at once is made once, and whoever makes something has a
    turn first: a thread that held a record back while it waits for a turn could be waited for by those who have one.
    `much`: as in `Turns.taken`, of what is made here.
    """

    def __init__(self, max_bytes: int, turns: Turns | None = None, much: bool = False) -> None:
        self.max_bytes, self._bytes = max_bytes, 0
        self._turns, self._much = turns, much
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._going: dict[Hashable, threading.Event] = {}
        self._lock = threading.Lock()

    def find(self, key: Hashable) -> Any:
        """The record of `key`, which counts as used now; None where there is none (any more)."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def get(
        self,
        key: Hashable,
        make: Callable[[], Any],
        size: Callable[[Any], int] | None = None,
        told: WhileWaiting = _untold,
    ) -> Any:
        """The record of `key`, made now if it is not at hand. `told`: as in `Turns.taken`."""
        while (found := self.find(key)) is None:
            if (going := self._going.get(key)) is not None:
                going.wait()
                continue
            with nullcontext() if self._turns is None else self._turns.taken(told, self._much):
                with self._lock:
                    if key in self._kept or key in self._going:  # another was quicker: look again, without a turn
                        continue
                    going = self._going[key] = threading.Event()
                try:
                    found = make()
                    self.put(key, found, None if size is None else size(found))
                    return found
                finally:
                    with self._lock:
                        del self._going[key]
                    going.set()
        return found

    def put(self, key: Hashable, record: Any, size: int | None = None) -> None:
        """Keep a record, as the newest. `size`: its bytes (default: `weight`)."""
        size = weight(record) if size is None else size
        with self._lock:
            self._bytes += size - self._kept.pop(key, (None, 0))[1]
            self._kept[key] = (record, size)
            while self._bytes > self.max_bytes and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1][1]

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0

    @property
    def records(self) -> dict[Any, Any]:
        """All that is kept by its key, the newest last."""
        with self._lock:
            return {key: record for key, (record, _) in self._kept.items()}

    @property
    def bytes(self) -> int:
        """What the kept records weigh together."""
        return self._bytes


_LOOKED_AT = 64  # of many parts of a record
_WORD_LETTERS = 32  # letters of a text that is taken for a word of a vocabulary, which is in memory anyway


def weight(record: Any, depth: int = 5, seen: set[int] | None = None) -> int:
    """About how many bytes a record takes: arrays, tensors, tables, and what holds them, `depth` levels deep.

    Views of one tensor count once, words not at all: a graph's nodes hold twenty each, all of them the vocabulary's.
    """
    seen = set() if seen is None else seen
    if isinstance(record, str):
        return sys.getsizeof(record) if len(record) > _WORD_LETTERS else 0
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
        some = list(inside)[:: 1 + len(inside) // _LOOKED_AT]  # of eight hundred nodes some tell what all weigh
        there = sum(weight(part, depth - 1, seen) for part in some)
        return (there * len(inside) // len(some) if some else 0) + 8 * len(inside)
    return sys.getsizeof(record)
