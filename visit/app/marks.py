"""The parts of a page that can be pointed at, and pointing at them.

Whoever draws a part wraps it: `with ui.part("map"): lens_map(subject)`. The guide and lessons call `point_at` before
the parts are drawn: the first part named is brought into sight, once a step; all named are outlined, each labelled;
the others are dimmed until they are pointed at or hold the focus. What is inside a part and can be meant goes by the
names that the address uses: ids of nodes ("L4.head1" in the graph, a state such as "L6.resid_post" in the map, at the
position looked at, "logits" for the word that comes next), and positions of tokens. Whoever draws them asks `marked`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import streamlit as st

from visit.app.problems import show_problem
from visit.app.sessions import session
from visit.app.widgets import component
from visit.errors import NotRecorded


@dataclass(frozen=True)
class Mark:
    """A part of the page that is meant, what its label says, and what is meant inside it."""

    part: str
    label: str = ""
    nodes: tuple[str, ...] = ()
    tokens: tuple[int, ...] = ()


def named_part(name: str) -> Any:
    """A container around one part of a page, which the guide and lessons find by its name. It changes no layout.

    `name`: an identifier such as "graph", unique within its page; in the browser the class is `st-key-part_graph`.
    What a recording lacks is said in its part, and the others go on.
    """
    return NamedPart(st.container(key=f"part_{name}"))


@dataclass(frozen=True)
class NamedPart:
    """A part's container, entered with `with`."""

    place: Any

    def __enter__(self) -> Any:
        return self.place.__enter__()

    def __exit__(self, kind: Any, problem: BaseException | None, trace: Any) -> bool:
        if isinstance(problem, NotRecorded):
            show_problem(problem)
            self.place.__exit__(None, None, None)
            return True
        self.place.__exit__(kind, problem, trace)
        return False


def shows(name: str) -> bool:
    """Whether a part is drawn now. One that a lesson holds back is not: it would give away what is just being asked."""
    now = session()
    if name not in now.held:
        return True
    if not now.held_told:
        told = (
            "More stands here. It would give away what the next steps ask, and appears when you have been there."
            if now.held_later
            else "Predict first: what stands here would give the answer away. It appears when you have answered the "
            "question of the lesson, or skipped it."
        )
        st.info(told, icon=":material/visibility_off:")
        now.held_told = True
    return False


def point_at(step: str, *marks: Mark, said: str = "") -> None:
    """Point at these parts of the page until its next run.

    `step`: the same text scrolls no second time, unless what is `said` beside it has changed.
    Call it once a run, after `prompt_bar` has told the subject (its argument `guide`) and before the parts are drawn.
    """
    if not marks:
        return
    session().marks = list(marks)
    st.html(f"<style>{_style(marks)}</style>")
    component("marks", "<span></span>")(
        key="marks", data={"step": step, "said": said, "parts": [one.part for one in marks]}
    )


def marked(part: str) -> Mark:
    """What is meant inside a part of this page; nothing where it is not pointed at."""
    return next((one for one in session().marks if one.part == part), Mark(part))


def _style(marks: tuple[Mark, ...]) -> str:
    """What is meant is outlined, and all other parts are dimmed but those in it and around it."""
    classes = [f".st-key-part_{one.part}" for one in marks if re.fullmatch(r"[a-z0-9_]+", one.part)]
    names = ", ".join(classes)
    kept = f":not({names}):not(:has({names})):not(:is({names}) *)"
    other = f'[class*="st-key-part_"]{kept}'
    rules = [
        f"{other} {{ opacity: 0.3; }} {other}:is(:hover, :focus-within) {{ opacity: 1; }}",
        f"{names} {{ position: relative; border-radius: 4px; outline: 2px solid {_COLOUR}; outline-offset: 7px; }}",
        f"@media (prefers-reduced-motion: no-preference) {{ {other} {{ transition: opacity 0.2s; }} }}",
        ".st-key-marks { position: absolute; }",
    ]
    for one, place in zip(marks, classes, strict=False):
        if one.label:
            text = "".join(c if c.isalnum() or c in " ?" else f"\\{ord(c):06x}" for c in one.label)
            rules.append(f'{place}::before {{ content: "{text}"; {_LABEL} }}')
    return " ".join(rules)


_COLOUR = "light-dark(#b35c00, #ffc857)"
_LABEL = (
    f"position: absolute; z-index: 2; right: -7px; top: -7px; transform: translateY(-100%); background: {_COLOUR}; "
    "color: light-dark(#ffffff, #14181f); font-size: 0.78rem; font-weight: 600; line-height: 1.3; padding: 1px 8px; "
    "border-radius: 4px 4px 0 0; pointer-events: none;"
)
