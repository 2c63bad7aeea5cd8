"""What a long run does: a job, taken in batches that are short however fast the machine is, and kept in a file."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from visit.cache import Arrays, array_header, read_arrays, write_arrays

AIM = 0.25  # seconds a batch is meant to take; the model's lock must be free at least every half second
FIRST = 4  # items of the first batch, whose speed nobody knows yet
TOGETHER = 64  # items of a batch that no clock decides on
PAUSE = 0.001  # seconds between batches, in which a waiting thread gets the model's lock for sure
MAX_FILES, MAX_STORED = 100, 512 << 20  # runs on disk, and bytes; those that nobody has asked for longest go first
CHECKPOINT_SECONDS = 10.0  # between two times that a run's file is written, and
SPARE = 20  # times as long as writing a file took passes before the next time
RUN_FORMAT = 3  # of the file's header, and of what all kinds of runs keep alike


class Job(Protocol):
    """What a run does. `items` are taken in order; those with a `prompt` are weighed by its length.

    A job may also have `work`, the seconds that every item is expected to take (items of several kinds), `stops`, the
    numbers of items after which a batch may end (what is computed together must not depend on a clock), and
    `doing(done)`, words for where it is. Most are a `visit.runs.sums.SumsJob`.
    """

    @property
    def items(self) -> Sequence[Any]: ...

    def update(self, items: Sequence[Any], /) -> None:
        """Take in the next items. Holds no lock when it returns."""

    def snapshot(self) -> Any:
        """The result so far, which later updates do not change."""

    def state(self) -> Arrays:
        """Everything that `update` has changed, as arrays that later updates leave as they are."""

    def load(self, arrays: Arrays, /) -> None:
        """Go on from a state; any error means that the state is of something else."""


@dataclass(frozen=True)
class Progress:
    """How far a run is: items, and `share` of the work. `rate` in items per second; None before it is known."""

    done: int = 0
    total: int = 0
    rate: float | None = None
    seconds_left: float | None = None
    share: float = 0.0
    doing: str = ""


def how_far(job: Job, marks: Sequence[tuple[float, int]]) -> Progress:
    """The progress of a job that had done some items at some times: (`time.monotonic()`, items done), oldest first."""
    (then, before), (now, done) = marks[0], marks[-1]
    total, work = len(job.items), getattr(job, "work", None)
    ends = np.arange(total + 1.0) if work is None else np.append(0.0, np.cumsum(work))
    share = float(ends[done] / ends[-1]) if ends[-1] > 0 else 1.0
    doing = job.doing(done) if hasattr(job, "doing") else ""
    if done == before or ends[done] <= ends[before]:
        return Progress(done, total, share=share, doing=doing)
    seconds = max(now - then, 1e-9)
    left = float(ends[-1] - ends[done]) * seconds / float(ends[done] - ends[before])
    return Progress(done, total, (done - before) / seconds, left, share, doing)


# ---- a job is run ----------------------------------------------------------------------------------------------------
def finish(job: Job, progress: Callable[[int, int], None] | None = None) -> Any:
    """The result of a whole job, run here and now: no clock decides on its batches, and equal calls give equal bits.

    `progress(done, total)` in items.
    """
    for start in range(0, len(job.items), TOGETHER):
        job.update(job.items[start : start + TOGETHER])
        if progress is not None:
            progress(min(start + TOGETHER, len(job.items)), len(job.items))
    return job.snapshot()


def drive(make: Callable[[], Job], file: RunFile | None = None) -> Generator[tuple[Any, Progress], None, None]:
    """Go on with a job from where its file left it: (job, how far it is) at first and after every step.

    Whatever ends it early (an error, Ctrl-C, nobody who asks for the next step), the last whole step is in the file.
    """
    job, begun = (make(), 0) if file is None else file.resume(make)
    marks = deque([(time.monotonic(), begun)], maxlen=30)
    yield job, how_far(job, marks)
    state: Arrays = {}
    try:
        for done in steps(job, begun):
            state = job.state()
            marks.append((time.monotonic(), done))
            if file is not None:
                file.write_if_due(state, done, len(job.items))
            yield job, how_far(job, marks)
    finally:
        if file is not None and marks[-1][1] > begun:
            file.write(state, marks[-1][1], len(job.items))


def steps(job: Job, done: int = 0) -> Iterator[int]:
    """Run a job here and now, in batches of about a quarter of a second; yields how many items are done."""
    work, stops = getattr(job, "work", None), getattr(job, "stops", None)
    budget = AIM if work is not None else FIRST * _cost(job.items[done]) if done < len(job.items) else 0.0
    while done < len(job.items):
        stop, weight = _next_batch(job.items, done, budget) if work is None else _worth(work, stops, done, budget)
        started = time.perf_counter()
        job.update(job.items[done:stop])
        seconds = time.perf_counter() - started
        # towards the aim, at most twofold at once: one slow moment of a busy machine must not decide the next minute
        budget = weight * min(2.0, max(0.25, AIM / max(seconds, 1e-9)))
        budget = max(1.0, budget) if work is None else budget
        done = stop
        yield done
        time.sleep(PAUSE)


def _worth(work: Sequence[float], stops: Sequence[int] | None, start: int, budget: float) -> tuple[int, float]:
    """(where the next batch ends, its work): as many items as the budget pays for, but one group at least."""
    ends = range(start + 1, len(work) + 1) if stops is None else [stop for stop in stops if stop > start]
    found, weight = ends[0], sum(work[start : ends[0]])
    for stop in ends[1:]:
        more = weight + sum(work[found:stop])
        if more > budget:
            break
        found, weight = stop, more
    return found, weight


def _cost(item: Any) -> int:
    return max(1, len(getattr(item, "prompt", "")))


def _next_batch(items: Sequence[Any], start: int, budget: float) -> tuple[int, int]:
    """(where the next batch ends, its weight): prompts are padded to the longest, so that one counts for all."""
    longest = _cost(items[start])
    stop = start + 1
    while stop < len(items):
        wider = max(longest, _cost(items[stop]))
        if wider * (stop + 1 - start) > budget:
            break
        longest, stop = wider, stop + 1
    return stop, longest * (stop - start)


# ---- what is done is kept in a file ---------------------------------------------------------------------------------
@cache
def program() -> str:
    """A hash of what computes beside the analysis itself, whose `version` is in a run's key: the libraries' versions.

    No source file is in it: a changed caption must not throw away the runs of an hour.
    """
    digest = hashlib.sha256()
    for library in ("torch", "transformers", "tokenizers", "numpy"):
        with suppress(metadata.PackageNotFoundError):
            digest.update(metadata.version(library).encode())
    return digest.hexdigest()[:16]


class RunFile:
    """What a run has done, in a file of its key's own: a part of it to go on from, or all of it, to be asked for again.

    A file that is damaged, of something else or of another program is not used.
    """

    def __init__(self, folder: Path, key: Hashable, seconds: float = CHECKPOINT_SECONDS) -> None:
        """`seconds`: that pass at least between two times that it is written."""
        self.key, self.seconds = repr(key), seconds
        self.path = folder / f"{hashlib.sha256(self.key.encode()).hexdigest()[:32]}.npz"
        self.due = time.monotonic() + seconds

    def finished(self) -> bool:
        """Whether the file says that it holds a whole run; its arrays are not looked at."""
        header = array_header(self.path)
        return header is not None and header == self._header(header.get("total"), header.get("total"))

    def resume(self, make: Callable[[], Job]) -> tuple[Job, int]:
        """A job and how many of its items are done."""
        job, found = make(), read_arrays(self.path)
        if found is None:
            return job, 0
        state, header = found
        done = header.get("done")
        if header != self._header(len(job.items), done) or not isinstance(done, int) or not 0 < done <= len(job.items):
            return job, 0
        try:
            job.load(state)
            job.snapshot()
        except Exception:  # the file is of an older program; half loaded, this job is of no use either
            return make(), 0
        with suppress(OSError):
            os.utime(self.path)  # asked for now: others go first
        return job, done

    def _header(self, total: Any, done: Any) -> dict[str, Any]:
        return {"visit": RUN_FORMAT, "program": program(), "key": self.key, "total": total, "done": done}

    def write_if_due(self, state: Arrays, done: int, total: int) -> None:
        now = time.monotonic()
        if now >= self.due and done < total:
            self.write(state, done, total)
            cost = time.monotonic() - now
            self.due = now + max(self.seconds, SPARE * cost)

    def write(self, state: Arrays, done: int, total: int) -> None:
        """`state`: of a job after `done` of its `total` items. A full or read-only disk stops nothing."""
        try:
            write_arrays(self.path, state, self._header(total, done))
        except OSError as error:
            logging.getLogger("visit").warning("no checkpoint could be written: %s", error)
        _bound(self.path)

    def remove(self) -> None:
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


def _bound(newest: Path) -> None:
    """Remove the oldest files of a folder until it holds MAX_FILES and MAX_STORED at most; the newest stays always."""
    ages = []
    for path in newest.parent.glob("*"):
        with suppress(OSError):  # another process has just removed it
            ages.append((path != newest, -path.stat().st_mtime, path.stat().st_size, path))
    held = 0
    for place, (other, _, size, path) in enumerate(sorted(ages)):
        held += size
        if other and (place >= MAX_FILES or held > MAX_STORED):
            with suppress(OSError):
                path.unlink()


def shorter_of_two(call: Callable[[], object]) -> float:
    """Seconds of a call, for a forecast: the shorter of two runs, as the first one warms up."""
    found = []
    for _ in range(2):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return min(found)
