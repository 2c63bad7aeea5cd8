"""A component's files for a page without Streamlit: its script as a plain function, its style, its colours."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_EXPORT = "export default function"


@cache
def page_script(name: str, shared: str = "") -> str:
    """The script of a component as `function shown(…)`; `shared`: a script that stands before it."""
    whole = "\n".join(_text_of(f"{one}.js") for one in (shared, name) if one)
    head, exported, body = whole.partition(_EXPORT)
    assert exported, f"{name}.js must export its function"
    return f"{head}function shown{body[body.index('(') :]}"


@cache
def page_style(name: str) -> str:
    """The style sheet of a component."""
    return _text_of(f"{name}.css")


def _text_of(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
