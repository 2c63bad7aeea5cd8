"""The parts of a page that can be pointed at: whoever draws one wraps it, `with ui.part("map"): lens_map(subject)`."""

from __future__ import annotations

from typing import Any

import streamlit as st


def named_part(name: str) -> Any:
    """A container around one part of a page, which the guide and lessons find by its name. It changes no layout.

    `name`: an identifier such as "graph", unique within its page; in the browser the class is `st-key-part_graph`.
    """
    return st.container(key=f"part_{name}")
