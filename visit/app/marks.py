"""The parts of a page that can be pointed at: whoever draws one wraps it, `with ui.part("map"): lens_map(subject)`."""

from __future__ import annotations

from typing import Any

import streamlit as st

from visit.app.state import session


def named_part(name: str) -> Any:
    """A container around one part of a page, which the guide and lessons find by its name. It changes no layout.

    `name`: an identifier such as "graph", unique within its page; in the browser the class is `st-key-part_graph`.
    """
    return st.container(key=f"part_{name}")


def shows(name: str) -> bool:
    """Whether a part is drawn now. One that a lesson holds back is not: it would give away what is just being asked."""
    if name not in session().held:
        return True
    with named_part(name):
        st.caption(":material/visibility_off: This part would give the answer away. It appears when you have answered "
                   "the question of the lesson, or skipped it.")  # fmt: skip
    return False
