"""What is measured beside a page: on a thread of its own, for all who ask, after the page is drawn.

1. `measured` looks for the result; where it is there, it is returned, and the page shows it.
2. Else a look is taken again and again (`follow`) at its place: the first begins the measurement when it is cheap, and
   offers a button with its time when it is not; a later one has the page drawn anew when it has ended.
3. It gives way to pages: it begins in a quiet moment, if there is one, and on a thread of low priority.
4. When the program ends, the one at hand is waited for: a thread that is cut off inside a matrix product takes the
   process down with an abort.
5. What nobody looks at any more when its turn comes is not measured, but for what a visitor has asked for by a button.
6. On a hosted app a visitor has asked for one thing at a time, for a while and of no more than HOSTED_MEASURED seconds:
   all others wait for their turn meanwhile.
"""

from __future__ import annotations

import atexit
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import streamlit as st

from visit.app.cache import Prompt, kept, turns
from visit.app.follow import look_again
from visit.app.heap import trim_heap
from visit.app.sessions import draw_anew, session
from visit.app.widgets import plain
from visit.errors import told_panics
from visit.models.catalog import is_hosted
from visit.text.numbers import duration

ONE_AT_A_TIME = threading.Lock()  # measurements wait for each other: what is drawn for others needs the processor, too
WAITS_FOR_QUIET = 20.0  # seconds that a measurement waits for a moment in which nobody computes for a page
STILL = 0.4  # seconds in which nobody came, on a hosted app: a class leaves moments between its pages that are no quiet
UNASKED = 5.0  # seconds: what takes longer is measured when somebody asks
LOOK_EVERY = 0.6  # seconds; twice as long on a hosted app: thirty who look take a tenth of a core
ENDS_WITHIN = 10.0  # seconds that the end of the program waits for a measurement
LEFT = 4.0  # seconds without a look, after which nobody looks at it: a page in the background looks once a second
HOSTED_MEASURED = 180.0  # seconds that a measurement may take on a hosted app, as it is forecast
HOSTED_WISH = 60.0  # seconds for which a wish by a button holds there without a look
_wishes: dict[str, Measuring] = {}  # visitor of a hosted app → what they have asked for last, while it has not ended


@dataclass(eq=False)
class Measuring:
    """One measurement: not begun, going on, or ended with what it found or why it could not."""

    ended: threading.Event = field(default_factory=threading.Event)
    begun: threading.Lock = field(default_factory=threading.Lock)
    found: Any = None
    problem: Exception | None = None
    looked: float = 0.0  # when somebody looked whether it is there

    def ask(self, make: Callable[[], Any]) -> None:
        """Start it, unless somebody has, and measure it whether somebody looks or not."""
        self.looked = math.inf
        if is_hosted():
            now, visitor = time.monotonic(), session().visitor
            self.looked = now + HOSTED_WISH
            for who, other in list(_wishes.items()):
                if other.ended.is_set():
                    _wishes.pop(who, None)
                elif who == visitor and other is not self:
                    other.looked = min(other.looked, now)
            _wishes[visitor] = self
        self.begin(make)

    def settle(self, found: Any) -> None:
        """It is known already, unless somebody measures it."""
        if self.begun.acquire(blocking=False):
            self.found = found
            self.ended.set()

    def look(self) -> None:
        """Somebody waits for it now."""
        self.looked = max(self.looked, time.monotonic())

    def begin(self, make: Callable[[], Any]) -> None:
        """Start it, unless somebody has. What nobody looks at when its turn comes can be begun again later."""

        def run() -> None:
            while not ONE_AT_A_TIME.acquire(timeout=LEFT):  # a class that goes on leaves no threads that wait
                if not self._is_watched():
                    self.begun.release()
                    return
            try:
                with told_panics("The model's library"):
                    _give_way()
                    turns().quiet(WAITS_FOR_QUIET if self._is_watched() else 0, STILL if is_hosted() else 0)
                    if not self._is_watched():
                        self.begun.release()
                        return
                    with turns().aside():
                        self.found = make()
            except Exception as problem:  # it is shown where the result would stand
                self.problem = problem
            finally:
                trim_heap()  # the runs of a map of effects take a quarter of a gigabyte
                ONE_AT_A_TIME.release()
            self.ended.set()

        if self.begun.acquire(blocking=False):
            threading.Thread(target=run, daemon=True, name=_MEASURING).start()

    def _is_watched(self) -> bool:
        return not _measuring_ends.is_set() and time.monotonic() - self.looked < LEFT


_MEASURING = "measuring"  # how its threads are called
_measuring_ends = threading.Event()  # nothing begins any more


@atexit.register
def _wait_for_measurements() -> None:
    _measuring_ends.set()
    until = time.monotonic() + ENDS_WITHIN
    for thread in threading.enumerate():
        if thread.name == _MEASURING:
            thread.join(max(0.0, until - time.monotonic()))


def _give_way() -> None:
    """Let the processor prefer pages to this thread; only Linux can say so of one thread."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


@kept(grows=True, light=True)
def st_measuring(name: str, prompt: Prompt, pos: int, target: int, distractor: int | None, what: str) -> Measuring:
    """The measurement `what` of a pass: begun by the first who asks, the same for all."""
    return Measuring()


def measured(one: Measuring, make: Callable[[], Any], seconds: Callable[[], float], what: str) -> Any:
    """What `make()` has found; None while it is not there: then this place says how far it is.

    `seconds`: how long it will take; `what`: what is measured, as "what each head does".
    """
    if not one.ended.is_set():
        one.look()
        look_again(LOOK_EVERY * (2 if is_hosted() else 1), _look_at_measuring, one, make, seconds, what)
    elif one.problem is not None:
        st.caption(f"It could not be measured {what}: {plain(str(one.problem))}")
    return one.found


def too_long_here(seconds: float) -> bool:
    """Whether a measurement would keep a hosted app's other visitors waiting for too long; then it is said."""
    if not is_hosted() or seconds <= HOSTED_MEASURED:
        return False
    st.caption(
        f":material/group: This takes about {duration(seconds)}, and this app is hosted for many: at most "
        f"{duration(HOSTED_MEASURED)} are measured here. Take a shorter text, or run VISIT on your own machine."
    )
    return True


def _look_at_measuring(one: Measuring, make: Callable[[], Any], seconds: Callable[[], float], what: str) -> None:
    one.look()
    if one.ended.is_set():
        draw_anew()
    if not one.begun.locked():
        takes = seconds()
        if too_long_here(takes):
            return
        if takes > UNASKED:
            st.button(f"Measure {what} (about {duration(takes)})", icon=":material/content_cut:",
                      key=f"measure {what}", on_click=partial(one.ask, make))  # fmt: skip
            return
        one.begin(make)
    st.caption(f":material/hourglass_top: Measuring {what}…")
