"""What a server does for a class before it is asked: `VISIT_PRELOAD` is fetched and loaded, `VISIT_MODEL` shown first.

Both name models of the list; as secrets of Streamlit Community Cloud they are environment variables. A platform that
forgets its files while it sleeps then fetches the model when the first visitor wakes it.

1. `preload` is called in every run, and begins once a process, on a thread of its own, when the first page has been
   sent and the browser has what it asks for then: an import of torch holds up whoever draws.
2. What is not here is fetched as the sidebar does it, so that a page that waits for the same model shows how far it is.
3. Then it is loaded. What goes wrong is one sentence, which `problem` has for the sidebar.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field

import streamlit as st

from visit.app.heap import bound_heap
from visit.app.shared import model_shelf
from visit.app.uploads import bound_uploads
from visit.errors import VisitError, told_panics
from visit.models.catalog import LISTED

FIRST_PAGE, SETTLED = 3.0, 1.0  # seconds: that the first page may take, and that its browser may take after it


@dataclass(eq=False)
class Preload:
    """The models that are fetched and loaded, once for this server; `problems`: why one could not be, in sentences.

    `sent`: the first page has been.
    """

    names: list[str]
    problems: list[str] = field(default_factory=list)
    sent: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        if self.names and self.sent.wait(FIRST_PAGE):
            time.sleep(SETTLED)
        for name in self.names:
            try:
                with told_panics("The model's library"):
                    _fetch_and_load(name)
            except Exception as problem:  # a class without its model must read why
                self.problems.append(f"VISIT_PRELOAD: {problem}")
        self.ended.set()


def _fetch_and_load(name: str) -> None:
    from visit.app.sidebar import downloading, is_here

    if name not in LISTED:
        raise VisitError(f"it names models of the list ({', '.join(LISTED)}); got {name[:60]!r}.")
    if not is_here(name):
        download = downloading().start(name)
        download.ended.wait()
        if download.state != "done":
            raise VisitError(download.error or f"The download of {name!r} was stopped.")
    model_shelf().get(name)


@st.cache_resource(show_spinner=False)
def preload() -> Preload:
    """The one preload of this server, begun by the first who asks. Heap and uploads are bounded before all else."""
    bound_heap()
    bound_uploads()
    names = os.environ.get("VISIT_PRELOAD", "").replace(",", " ").split()
    one = Preload(names)
    threading.Thread(target=one.run, daemon=True, name="preload").start()
    return one


def begin_preload() -> None:
    """Call where a page has been sent: what this server fetches and loads unasked waits for the first of them."""
    preload().sent.set()
