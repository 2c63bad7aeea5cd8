"""Long runs live here, in a thread of the process, and not in a page's script: a closed tab stops nothing.

A run takes its items batch by batch; between two batches the model is free for everybody else. Equal keys share one
run, others wait in a queue. What a run has done so far can be read, is kept when it is cancelled, and is written to a
file now and then, so that a run that was cut off goes on from there. The file of a whole run stays, in a folder with a
bound, and answers equal requests after the program was started again. A run that stands back, because nobody has asked
for it or nobody has looked at it for a minute, makes room for every other between two batches; no number of such runs
keeps out one that somebody waits for.

A server for many gives the visitor's name with each request: one has one run in a lane, and a new one takes its place.

The thread is a daemon of our own: those of `ThreadPoolExecutor` are waited for when the program ends, before anything
could tell them to stop, and Ctrl-C would take as long as the run.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from visit.cache import Store, cache_folder, weight
from visit.errors import VisitError
from visit.runs.job import CHECKPOINT_SECONDS, Job, Progress, RunFile, drive, how_far

MAX_WAITING = 60  # runs in the queue
MAX_STANDING_BACK = 40  # beside them, those that nobody watches: of more, what came first is given up
WATCHED = 60.0  # seconds after a look in which somebody counts as one who waits
NICE = 10  # of a lane that stands back: at 5 it read no faster, and a page took 1.4 times as long beside it, not 1.1
RESULT_BYTES = 256 << 20  # of ended runs' results, the least recently asked for going first


class Run:
    """One run, seen from outside. `state`: waiting, running, done, cancelled or failed."""

    def __init__(self, key: Hashable, make: Callable[[], Job], worker: Worker, background: bool = False) -> None:
        self.key, self._worker, self.background = key, worker, background
        self._make: Any = make
        self.state = "waiting"
        self.progress = Progress()
        self.asked_by: set[str] = set()
        self._looks: dict[str, float] = {"": time.monotonic()}  # who -> when they last looked; "": its beginning
        self.worked = 0.0  # seconds
        self.error: VisitError | None = None
        self._stop, self._ended = threading.Event(), threading.Event()
        self._result: Any = None
        self._looked_at = True  # somebody wants to see the result so far: make one after the next batch

    @property
    def result(self) -> Any:
        """The result; while the run goes on or after it was cancelled, of what is done so far. None before that."""
        self._looked_at = True
        return self._result

    def look(self, who: str = "") -> None:
        """Say, again and again, that `who` waits for it."""
        self._looks[who] = time.monotonic()

    def leave(self, who: str) -> None:
        """`who` waits no longer: it is cancelled, unless somebody else does."""
        self._looks.pop(who, None)
        self.asked_by.discard(who)
        since = time.monotonic() - WATCHED
        if not self.asked_by and not any(seen > since for name, seen in list(self._looks.items()) if name):
            self.cancel()

    @property
    def stands_back(self) -> bool:
        """Whether it makes room for others: nobody has asked for it, or nobody looks any more."""
        return self.background or time.monotonic() - max(list(self._looks.values())) > WATCHED

    @property
    def seconds_before(self) -> float | None:
        """About how long until its turn comes; None where nobody knows yet, or it has come."""
        return self._worker.seconds_before(self)

    @property
    def place(self) -> int | None:
        """0 while it runs, 1 for the next in the queue, and so on; None when it has ended."""
        runs = self._worker.runs()
        return runs.index(self) + (runs[0].state == "waiting") if self in runs else None

    @property
    def alive(self) -> bool:
        """It waits or goes on, and nobody has cancelled it."""
        return self.state in ("waiting", "running") and not self._stop.is_set()

    @property
    def stopping(self) -> bool:
        """Somebody has cancelled it, and the batch at hand has not ended yet."""
        return self.state == "running" and self._stop.is_set()

    def cancel(self) -> None:
        """Stop after the batch at hand. What is done is kept, and a new run with this key goes on from there."""
        self._stop.set()
        self._worker.drop(self)

    def wait(self, seconds: float | None = None) -> Any:
        """Wait for the end, `seconds` at most, and return `result`. Raises the `VisitError` of a failed run."""
        self._ended.wait(seconds)
        if self.error:
            raise self.error
        return self.result

    def work(self, file: RunFile) -> str:
        """In the worker's thread: all batches, or as many as there are before somebody cancels. The state after it."""
        with closing(drive(self._make, file)) as going:
            for job, now in going:
                if self._looked_at and now.done:
                    self._looked_at = False
                    self._result = job.snapshot()
                self.progress = now
                if self._stop.is_set() or self._worker.wanted_by_others(self):
                    break
        if now.done or not now.total:
            self._result = job.snapshot()
        return "done" if now.done == now.total else "cancelled" if self._stop.is_set() else "waiting"

    def end(self, state: str, error: VisitError | None = None) -> None:
        """Let everybody know, and let go of what made the job (a model, perhaps)."""
        self.state, self.error = state, error
        self._make = None
        self._ended.set()


class Worker:
    """A lane: a queue of runs, and one thread while there are any. Ended runs are kept, up to RESULT_BYTES."""

    def __init__(
        self, folder: Path | None = None, seconds: float = CHECKPOINT_SECONDS, stands_back: bool = False
    ) -> None:
        """`stands_back`: its thread takes what time the others leave, where the system can say so of one thread."""
        self.folder, self.seconds, self.stands_back = folder, seconds, stands_back
        self.ended = Store(RESULT_BYTES)
        self._change = threading.Condition()
        self._queue: list[Run] = []
        self._current: Run | None = None
        self._thread: threading.Thread | None = None
        self._took: deque[float] = deque(maxlen=8)  # seconds of the last runs

    def submit(
        self, key: Hashable, make: Callable[[], Job], background: bool = False, visitor: str | None = None
    ) -> Run:
        """The run of this key: the one that waits, goes on or is done already, else a new one in the queue.

        `background`: it waits until nobody else's run does, and makes room for one that comes; it is taken out of the
        background when it is submitted again without this.

        `visitor`: who asks, on a server for many: another run that only they have asked for is given up.

        `make` builds the job, in the worker's thread, when its turn comes: it should hold names, not a model. A
        cancelled or failed run is started again, from its file where there is one; where that is whole, nothing is left
        to do. `key` says all that the result depends on, in strings and numbers: `run_key`.
        """
        with self._change:
            run = self.find(key)
            if visitor is not None:
                for other in [other for other in self.runs() if visitor in other.asked_by and other is not run]:
                    other.leave(visitor)
            if run and (run.state == "done" or run.alive):
                run.background = run.background and background
                if visitor is not None:
                    run.asked_by.add(visitor)
                run.look(visitor or "")
                return run
            if sum(not one.stands_back for one in self._queue) >= MAX_WAITING:
                raise VisitError(f"{MAX_WAITING} runs are waiting already. Come back when some of them are done.")
            run = Run(key, make, self, background)
            if visitor is not None:
                run.asked_by.add(visitor)
                run.look(visitor)
            self._queue.append(run)
            unwatched = sorted((one for one in self._queue if one.stands_back), key=lambda one: not one.background)
            for other in unwatched[:-MAX_STANDING_BACK]:  # first those that nobody has asked for
                self.drop(other)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="visit-worker", daemon=True)
                self._thread.start()
            return run

    def find(self, key: Hashable) -> Run | None:
        """The newest run of this key, whatever became of it; None when there is none (any more)."""
        with self._change:
            return next((run for run in reversed(self.runs()) if run.key == key), None) or self.ended.find(key)

    def recall(self, key: Hashable, make: Callable[[], Job]) -> Run | None:
        """The whole run of this key from its file, at once and in the caller's thread; None where there is none."""
        file = self._file(key)
        if not file.finished():
            return None
        job, done = file.resume(make)
        if done < len(job.items):  # it only says so
            file.remove()
            return None
        with self._change:
            run = self.find(key)
            if run is None:
                run = Run(key, make, self)
                run.progress, run._result = how_far(job, [(0.0, done)]), job.snapshot()
                run.end("done")
                self._keep(run)
            return run

    def runs(self) -> list[Run]:
        """The one that goes on and those that wait, in their order."""
        with self._change:
            waiting = sorted(self._queue, key=lambda run: run.stands_back)  # among equals who came first
            return [*([self._current] if self._current else []), *waiting]

    def wanted_by_others(self, run: Run) -> bool:
        """Whether a run that stands back should make room."""
        with self._change:
            return run.stands_back and any(not other.stands_back for other in self._queue)

    def seconds_before(self, run: Run) -> float | None:
        """How long the runs before it will take: what they say of themselves, else what the last ones took."""
        with self._change:
            runs = self.runs()
            before = runs[: runs.index(run)] if run in runs else []
            usual = sum(self._took) / len(self._took) if self._took else None
            takes = [usual if one.progress.seconds_left is None else one.progress.seconds_left for one in before]
        known = [seconds for seconds in takes if seconds is not None]
        return sum(known) if before and len(known) == len(before) else None

    def drop(self, run: Run) -> None:
        """Take a run that waits out of the queue."""
        with self._change:
            if run in self._queue:
                self._queue.remove(run)
                run.end("cancelled")
                self._keep(run)

    def reset(self, seconds: float = 30.0) -> bool:
        """Cancel everything, forget all results but not their files, and wait until the thread stands still (True)."""
        with self._change:
            for run in self.runs():
                run.cancel()
            still = self._change.wait_for(lambda: self._current is None, seconds)
            self.ended.clear()
            return still

    def _file(self, key: Hashable) -> RunFile:
        return RunFile(self.folder or cache_folder() / "runs", key, self.seconds)

    def _keep(self, run: Run) -> None:
        self.ended.put(run.key, run, 1000 + weight(run._result))

    def _work(self) -> None:
        """In the thread: one run after the other, until none waits."""
        if self.stands_back and sys.platform == "linux":  # with the threads that torch starts for it
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while True:
            with self._change:
                if not self._queue:
                    self._thread = None
                    return
                run = self._current = min(self._queue, key=lambda run: run.stands_back)
                self._queue.remove(run)
                run.state = "running"
            began = time.monotonic()
            state, error = self._attempt(run)
            run.worked += time.monotonic() - began
            with self._change:
                self._current = None
                if state == "waiting":  # it has made room
                    run.state = state
                    self._queue.append(run)
                else:
                    if state == "done":
                        self._took.append(run.worked)
                    run.end(state, error)
                    self._keep(run)
                self._change.notify_all()

    def _attempt(self, run: Run) -> tuple[str, VisitError | None]:
        try:
            return run.work(self._file(run.key)), None
        except VisitError as error:
            traceback.clear_frames(error.__traceback__)  # an error that is kept must not keep the job alive
            return "failed", error
        except BaseException as error:  # a bug in one job must not end the thread that all others need
            logging.getLogger("visit").exception("a run stopped")
            traceback.clear_frames(error.__traceback__)
            told = VisitError(f"The run stopped by a mistake of the program: {type(error).__name__}: {error}")
            told.__cause__ = error
            return "failed", told


WORKER = Worker()  # the process's own; its thread starts with the first run
SLOW = Worker(stands_back=True)  # a lane of its own for what takes minutes: a set is not kept waiting by it
for _lane in (WORKER, SLOW):
    atexit.register(_lane.reset, 3.0)  # when the program ends, the run at hand writes what it has done
