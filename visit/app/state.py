"""The state of a session and its address: one frozen `State`, read from the URL and written back to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

import streamlit as st

from visit.app.address import State, parse, to_params
from visit.errors import VisitError


def ensure_entrypoint(page: str) -> None:
    """Send a page that was run by itself through the entry point.

    A folder `pages/` beside st.navigation lets a fresh server run the first deep link's page alone. The entry point
    leaves its mark right before it runs a page; a page that finds none takes the way round.
    """
    if not st.session_state.pop("visit_entry", False):
        st.session_state["visit_goto"] = page
        st.switch_page("streamlit_app.py", query_params=st.query_params.to_dict())


def begin(page: str) -> None:
    """Bring the page's state and the URL together. Call once a run, before any widget."""
    memory = st.session_state
    params = st.query_params.to_dict()
    moved = memory.get("visit_page") not in (None, page)  # a click in the sidebar drops the query: ours goes on
    fresh = "visit_state" not in memory or (params != memory.get("visit_written") and not moved)
    if fresh:
        memory["visit_state"], memory["visit_notes"] = parse(params)
    if fresh or moved:  # a field of another page with the same key would hand its value to nobody, and stand empty
        for name in [k for k in memory if str(k).startswith("w_")]:
            del memory[name]
    memory["visit_page"] = page
    write_url()


def write_url() -> None:
    """Make the address say what is shown."""
    params = to_params(state())
    if st.query_params.to_dict() != params:
        st.query_params.from_dict(params)
    st.session_state["visit_written"] = params


def state() -> State:
    """What this session shows."""
    return st.session_state["visit_state"]


def whole_words() -> bool:
    """Whether lists of top words leave out what is no whole word: pieces, signs, white space, bytes."""
    return bool(state().whole)


def change(**values: Any) -> None:
    """Change the state and the address, and let the widgets follow. Only from callbacks, before widgets are made."""
    st.session_state["visit_state"] = replace(state(), **values)
    st.session_state["visit_notes"] = []
    for name in values:
        st.session_state.pop(f"w_{name}", None)


def field(name: str, among: Sequence[str] | None = None) -> dict[str, Any]:
    """Widget arguments that tie it to one field of the state: `st.text_input("…", **field("target"))`.

    `among`: what can be chosen here; where the state holds something else, the first of these is shown.
    """
    key, value = f"w_{name}", getattr(state(), name)
    if among is not None and value not in among:
        value = among[0]
    if st.session_state.get(key) != value:
        st.session_state[key] = value
    return {"key": key, "on_change": _store, "args": (name,)}


def checked(name: str) -> dict[str, Any]:
    """A checkbox tied to a field of the state, which holds "1" or nothing."""
    key = f"w_{name}"
    wanted = bool(getattr(state(), name))
    if st.session_state.get(key) != wanted:
        st.session_state[key] = wanted
    return {"key": key, "on_change": lambda: change(**{name: "1" if st.session_state[key] else ""})}


def _store(name: str) -> None:
    if (
        f"w_{name}" not in st.session_state
    ):  # another field of the same rerun has just made this one's value meaningless
        return
    value = st.session_state[f"w_{name}"]
    change(**{name: "" if value is None else value}, **_FORGOTTEN.get(name, {}))


def visitor() -> str:
    """A name for this session among those who watch a run, or a download, that they share."""
    return st.session_state.setdefault("visit_visitor", uuid4().hex)


def choose_model(name: str) -> None:
    """What choosing a model in the list does; for buttons that lead to one."""
    change(model=name, **_FORGOTTEN["model"])


_SHOWN = {"node": "", "detail": "", "pin": "", "align": "", "head": "", "source": ""}
# what a new value makes meaningless
_FORGOTTEN: dict[str, dict[str, Any]] = {
    "prompt": {"pos": -1, "target": "", "distractor": "", **_SHOWN},
    "prompt_b": {"pos_b": -1, "target_b": "", "distractor_b": "", **_SHOWN},
    "system": {"pos": -1, "pos_b": -1, **_SHOWN},
    "model": {"pos": -1, "layers": "", **_SHOWN},
    "model_b": {"pos_b": -1, "layers": "", **_SHOWN},
}


@contextmanager
def shown_errors() -> Iterator[None]:
    """The one place where a `VisitError` becomes a note; what was drawn before it stays."""
    try:
        yield
    except VisitError as problem:
        st.error(str(problem), icon=":material/error:")
