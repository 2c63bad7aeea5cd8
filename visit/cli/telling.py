"""What a command of minutes says while it runs, and how it is told to stop."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from visit.text.numbers import percent

if TYPE_CHECKING:
    from visit.runs.job import Progress

STATUS_SECONDS = 30.0  # seconds after which the command says where it is, terminal or not


class Teller:
    """Where the run is, on standard error: one line that changes on a terminal, a line every 30 s in a file."""

    def __init__(self) -> None:
        self.text, self.terminal, self.begun = "loading the model", sys.stderr.isatty(), False
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._tell, daemon=True)

    def _tell(self) -> None:
        while not self.over.wait(STATUS_SECONDS):
            if not self.terminal:
                print(self.text, file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        self.text = text
        if self.terminal:
            print(f"\r{text:<100}", end="", file=sys.stderr, flush=True)

    def step(self, now: Progress) -> None:
        if not self.begun and now.rate is None:  # told before the first step: some were done by an earlier run
            print(f"goes on from: {now.doing}", file=sys.stderr, flush=True)
        self.begun = True
        left = now.seconds_left
        more = "" if left is None else f", about {int(left) // 60}:{int(left) % 60:02d} min left"
        self.say(f"{now.doing}: {percent(now.share)}{more}")

    def end(self, text: str = "") -> None:
        self.over.set()
        if self.terminal:
            print(file=sys.stderr)
        if text:
            print(f"visit: {text}", file=sys.stderr, flush=True)


@contextmanager
def told() -> Iterator[Teller]:
    teller = Teller()
    teller.thread.start()
    try:
        yield teller
    finally:
        if not teller.over.is_set():
            teller.end()


@contextmanager
def stoppable() -> Iterator[list[int]]:
    """Being told to end (kill, a closed terminal) is like Ctrl-C; the signal that came is in the list."""
    came: list[int] = []

    def stop(number: int, _frame: Any) -> None:
        came.append(number)
        raise KeyboardInterrupt

    names = [n for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]
    if threading.current_thread() is not threading.main_thread():
        names = []  # only there can they be caught
    before = {getattr(signal, name): signal.signal(getattr(signal, name), stop) for name in names}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
