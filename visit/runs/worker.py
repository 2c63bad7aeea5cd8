"""Long runs live here, in a thread of the process, and not in a page's script: a closed tab stops nothing.

A run takes its items batch by batch; between two batches the model is free for everybody else. Equal keys share one
run, others wait in a queue. What a run has done so far can be read, is kept when it is cancelled, and is written to a
file now and then, so that a run that was cut off goes on from there. The file of a whole run stays, in a folder with a
bound, and answers equal requests after the program was started again. A run in the background, which nobody has asked
for, makes room for every other between two batches.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
import traceback
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from pathlib import Path
from typing import Any

from visit.cache import cache_folder
from visit.errors import VisitError
from visit.runs.job import Checkpoint, Job, Progress, how_far, steps, weigh

CHECKPOINT_SECONDS = 10.0
MAX_WAITING = 20  # runs in the queue
WATCHING = 15.0  # seconds for which somebody who has looked at a run counts as one who watches it
NICE = 10  # of a lane that stands back: at 5 it read no faster, and a page took 1.4 times as long beside it, not 1.1
RESULT_BYTES = 256 << 20  # of ended runs' results, the least recently asked for going first


class Run:
    """One run, seen from outside. `state`: waiting, running, done, cancelled or failed."""

    def __init__(self, key: Hashable, make: Callable[[], Job], worker: Worker, background: bool = False) -> None:
        self.key, self._make, self._worker, self.background = key, make, worker, background
        self.state = "waiting"
        self.progress = Progress()
        self.error: VisitError | None = None
        self._stop, self._ended = threading.Event(), threading.Event()
        self._result: Any = None
        self._watchers: dict[Hashable, float] = {}  # who -> when they last looked
        self._looked_at = True  # somebody wants to see the result so far: make one after the next batch

    @property
    def result(self) -> Any:
        """The result; while the run goes on or after it was cancelled, of what is done so far. None before that."""
        self._looked_at = True
        return self._result

    @property
    def place(self) -> int | None:
        """0 while it runs, 1 for the next in the queue, and so on; None when it has ended."""
        return self._worker.place(self)

    @property
    def alive(self) -> bool:
        """It waits or goes on, and nobody has cancelled it."""
        return self.state in ("waiting", "running") and not self._stop.is_set()

    def cancel(self) -> None:
        """Stop after the batch at hand. What is done is kept, and a new run with this key goes on from there."""
        self._stop.set()
        self._worker.drop(self)

    def watch(self, who: Hashable) -> None:
        """Say, again and again, that `who` looks at this run."""
        self._watchers[who] = time.monotonic()

    def leave(self, who: Hashable) -> bool:
        """`who` watches no longer. If nobody else does, the run is cancelled; True then."""
        self._watchers.pop(who, None)
        since = time.monotonic() - WATCHING
        if any(seen > since for seen in list(self._watchers.values())):
            return False
        self.cancel()
        return True

    def wait(self, seconds: float | None = None) -> Any:
        """Wait for the end, `seconds` at most, and return `result`. Raises the `VisitError` of a failed run."""
        self._ended.wait(seconds)
        if self.error:
            raise self.error
        return self.result

    def work(self, checkpoint: Checkpoint) -> None:
        """In the worker's thread: all batches, or as many as there are before somebody cancels."""
        job, done = checkpoint.resume(self._make)
        marks = deque([(time.monotonic(), done)], maxlen=30)
        self.progress = how_far(job, marks)
        self._result = job.snapshot() if done else None
        for at in () if self._stop.is_set() else steps(job, done):
            marks.append((time.monotonic(), at))
            self._publish(job, marks)
            checkpoint.write_if_due(job, at)
            if self._stop.is_set() or self._worker.wanted_by_others(self):
                break
        before, done = done, self.progress.done
        if done or not len(job.items):
            self._result = job.snapshot()
        if done > before:
            checkpoint.write(job, done)
        left = "cancelled" if self._stop.is_set() else "waiting"
        self.state = "done" if done == len(job.items) else left

    def take(self, job: Job) -> None:
        """A job that is done already."""
        self.progress, self._result = how_far(job, [(0.0, len(job.items))]), job.snapshot()

    def _publish(self, job: Job, marks: deque[tuple[float, int]]) -> None:
        if self._looked_at:
            self._looked_at = False
            self._result = job.snapshot()
        self.progress = how_far(job, marks)

    def end(self, state: str, error: VisitError | None = None) -> None:
        """Let everybody know, and let go of what made the job (a model, perhaps)."""
        self.state, self.error = state, error
        self._make = _nothing
        self._ended.set()


def _nothing() -> Job:
    raise VisitError("This run has ended.")


class Worker:
    """One thread and its queue. Ended runs are kept, up to RESULT_BYTES of results."""

    def __init__(
        self, folder: Path | None = None, seconds: float = CHECKPOINT_SECONDS, stands_back: bool = False
    ) -> None:
        """`stands_back`: its thread takes what time the others leave, where the system can say so of one thread."""
        self.folder, self.seconds, self.stands_back = folder, seconds, stands_back
        self._change = threading.Condition()
        self._queue: deque[Run] = deque()
        self._current: Run | None = None
        self._kept: OrderedDict[Hashable, tuple[Run, int]] = OrderedDict()
        self._thread: threading.Thread | None = None

    def submit(self, key: Hashable, make: Callable[[], Job], background: bool = False) -> Run:
        """The run of this key: the one that waits, goes on or is done already, else a new one in the queue.

        `background`: it waits until nobody else's run does, and makes room for one that comes; it is taken out of the
        background when it is submitted again without this.

        `make` builds the job, in the worker's thread. A cancelled or failed run is started again, from its
        checkpoint where there is one; where that is whole, nothing is left to do. `key` says all that the result
        depends on, in strings and numbers: `run_key`.
        """
        with self._change:
            found = self.find(key)
            if found and (found.state == "done" or found.alive):
                found.background = found.background and background
                self._sort()
                return found
            if len(self._queue) >= MAX_WAITING:
                raise VisitError(f"{MAX_WAITING} runs are waiting already. Come back when some of them are done.")
            run = Run(key, make, self, background)
            self._queue.append(run)
            self._sort()
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name="visit-worker", daemon=True)
                self._thread.start()
            self._change.notify_all()
            return run

    def find(self, key: Hashable) -> Run | None:
        """The newest run of this key, whatever became of it; None when there is none (any more)."""
        with self._change:
            alive = [*reversed(self._queue), *([self._current] if self._current else [])]
            for run in alive:
                if run.key == key:
                    return run
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def recall(self, key: Hashable, make: Callable[[], Job]) -> Run | None:
        """The whole run of this key from its file, at once and in the caller's thread; None where there is none."""
        checkpoint = self._checkpoint(key)
        if not checkpoint.finished():
            return None
        job, done = checkpoint.resume(make)
        if done < len(job.items):  # it only says so
            checkpoint.remove()
            return None
        run = Run(key, make, self)
        run.take(job)
        with self._change:
            found = self.find(key)
            if found is None:
                run.end("done")
                self._keep(run)
            return found or run

    def _checkpoint(self, key: Hashable) -> Checkpoint:
        return Checkpoint(self.folder or cache_folder() / "runs", key, self.seconds)

    def runs(self) -> list[Run]:
        """The one that goes on and those that wait, in their order."""
        with self._change:
            return [*([self._current] if self._current else []), *self._queue]

    def _sort(self) -> None:
        """Those in the background go last; among equals who came first."""
        self._queue = deque(sorted(self._queue, key=lambda run: run.background))

    def wanted_by_others(self, run: Run) -> bool:
        """Whether a run in the background should make room."""
        with self._change:
            return run.background and any(not other.background for other in self._queue)

    def place(self, run: Run) -> int | None:
        with self._change:
            if run is self._current:
                return 0
            return self._queue.index(run) + 1 if run in self._queue else None

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
            for run in [*self._queue, *([self._current] if self._current else [])]:
                run.cancel()
            still = self._change.wait_for(lambda: self._current is None, seconds)
            self._kept.clear()
            return still

    def _work(self) -> None:
        if self.stands_back:
            _stand_back()
        while True:
            with self._change:
                self._change.wait_for(lambda: bool(self._queue))
                run = self._current = self._queue.popleft()
                run.state = "running"
            error = self._attempt(run)
            with self._change:
                self._current = None
                if error is None and run.state == "waiting":  # it has made room
                    self._queue.append(run)
                    self._sort()  # somebody may have asked for it meanwhile
                else:
                    run.end("failed" if error else run.state, error)
                    self._keep(run)
                self._change.notify_all()
            del run, error  # nothing of it stays alive while the queue is empty

    def _attempt(self, run: Run) -> VisitError | None:
        try:
            run.work(self._checkpoint(run.key))
        except VisitError as error:
            traceback.clear_frames(error.__traceback__)
            return error
        except BaseException as error:  # a bug in one job must not end the thread that all others need
            logging.getLogger("visit").exception("a run stopped")
            traceback.clear_frames(error.__traceback__)  # an error that is kept must not keep the job alive
            found = VisitError(f"The run stopped by a mistake of the program: {type(error).__name__}: {error}")
            found.__cause__ = error
            return found
        return None

    def _keep(self, run: Run) -> None:
        self._kept[run.key] = (run, 1000 + weigh(run._result))
        self._kept.move_to_end(run.key)
        while sum(size for _, size in self._kept.values()) > RESULT_BYTES and len(self._kept) > 1:
            self._kept.popitem(last=False)


def _stand_back() -> None:
    """This thread, and those that torch starts for it, give way to all others of the machine (Linux)."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


WORKER = Worker()  # the process's own; its thread starts with the first run
SLOW = Worker(stands_back=True)  # a lane of its own for what takes minutes: a set is not kept waiting by it
for _lane in (WORKER, SLOW):
    atexit.register(_lane.reset, 3.0)  # when the program ends, the run at hand writes what it has done
