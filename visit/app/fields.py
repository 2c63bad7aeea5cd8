"""What ties a widget to a field of the state: arguments for `st.selectbox` and its kin, and what stores a new value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from visit.app.link_values import FIELD_CHARACTERS
from visit.app.sessions import session, state, take
from visit.app.state import CONTROLS, value_of

SEEN = ("prompt", "prompt_b", "model", "reads", "subject")  # never folded away; what is made anew loses the cursor
PASTED_CHARACTERS = 100_000  # of a prompt as it is typed: what is longer is said to be, and not kept


def field(name: str, shown: Any = None) -> dict[str, Any]:
    """Arguments that tie a text, a number or a toggle to a field of the state: `st.text_input("…", **field("target"))`.

    `shown`: what the widget shows where the state says nothing that can be had here.
    """
    return {"value": value_of(state(), name) if shown is None else shown, **_tied(name, shown)}


def listed(name: str, options: Sequence[Any], shown: Any = None, again: str = "") -> dict[str, Any]:
    """The same for a selectbox with these options. `again`: what tells a second widget of a field from the first."""
    now = value_of(state(), name) if shown is None else shown
    return {"options": options, "index": list(options).index(now), **_tied(name, shown, again)}


def choice(name: str) -> dict[str, Any]:
    """The same for a selectbox with the field's own choices."""
    choices = CONTROLS[name].choices
    return {"format_func": choices.__getitem__, **listed(name, list(choices))}


def segments(
    name: str, among: Sequence[str] | None = None, show: Callable[[str], str] | None = None, chosen: str | None = None
) -> dict[str, Any]:  # fmt: skip
    """The same for a segmented control. `among`: those that can be chosen here; the first where the state has none.

    `show`: how an option is called, where that depends on what the page shows; `chosen`: which one stands for the
    state's value, where that does, too.
    """
    choices, value = CONTROLS[name].choices, chosen or value_of(state(), name)
    options = list(choices if among is None else among)
    shown = value if value in options else options[0]
    names = show or (lambda v: choices.get(v, v))
    return {"options": options, "format_func": names, "default": shown, **_tied(name, shown)}


def _tied(name: str, shown: Any = None, again: str = "") -> dict[str, Any]:
    """The key of a widget, which has the field's value, and what stores another one.

    The value is given as the widget's default too: Streamlit sends a value once, and drops what it has not yet sent
    when another run begins; a field that never heard of its value would answer with an empty one.
    """
    value = value_of(state(), name) if shown is None else shown
    base = f"w_{name}{again}"
    key = _widget(base, value, name in SEEN)
    return {"key": key, "on_change": _store, "args": (name, base, key)}


def _widget(base: str, value: Any, seen: bool) -> str:
    """The key of the widget that shows this value: a new one for a value that was not chosen in the widget itself.

    A widget in a popover that is closed does not hear of a value that the page gives it, and answers with what was
    typed in it before as soon as anything else is clicked. One that is always on the page (`seen`) does hear.
    """
    times, last = session().widgets.get(base, (0, value))
    if last != value and not seen:
        times += 1
    session().widgets[base] = times, value
    key = _key_of(base)
    if key not in st.session_state or st.session_state[key] != value:
        st.session_state[key] = value
    return key


def _key_of(base: str) -> str:
    times = session().widgets[base][0]
    return f"{base} {times}" if times else base


def _store(name: str, base: str, key: str) -> None:
    if key != _key_of(base):
        return  # what a widget that is there no more says: the browser may send it once again
    if key in st.session_state:  # else another field of the same rerun has just made this one's value meaningless
        value = st.session_state[key]
        most = PASTED_CHARACTERS if name in ("prompt", "prompt_b", "system") else FIELD_CHARACTERS
        if isinstance(value, str) and len(value) > most:
            del st.session_state[key]
            session().notes = [f"A text of {len(value):,} characters is not taken: at most {most:,} are read here."]
            return
        session().widgets[base] = session().widgets[base][0], value
        take(**{name: CONTROLS[name].default if value is None else value})
