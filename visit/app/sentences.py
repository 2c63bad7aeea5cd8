"""Computed sentences on a page, each underlined part of which can be clicked; and lengths of time as one says them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import streamlit as st

_STORY_JS = """
export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector('.story');
  root.replaceChildren(...data.sentences.map((pieces) => {
    const line = document.createElement('p');
    for (const [text, id] of pieces) {
      const part = document.createElement(id ? 'button' : 'span');
      part.textContent = text;
      if (id) { part.title = 'Show ' + id + ' in the graph'; part.onclick = () => setTriggerValue('pick', id); }
      line.append(part);
    }
    return line;
  }));
}
"""
_STORY_CSS = """
.story { font-family: var(--st-font); color: var(--st-text-color); font-size: 1.05rem; line-height: 1.6;
  border-left: 3px solid var(--st-primary-color); padding-left: 0.9rem; }
p { margin: 0 0 0.25rem; }
span { white-space: pre-wrap; }
button { all: unset; cursor: pointer; color: var(--st-primary-color); font-weight: 600;
  border-bottom: 1px dotted currentColor; }
button:hover { border-bottom-style: solid; }
button:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: 2px; }
"""


@cache
def _component() -> Any:
    return st.components.v2.component("visit_story", html="<div class='story'></div>", css=_STORY_CSS, js=_STORY_JS)


def sentences(found: list[Any], key: str, pick: Callable[[str], None]) -> None:
    """Show sentences of (text, node id or None); a click on a part with an id calls `pick` with it."""
    _component()(
        key=key,
        data={"sentences": [[list(piece) for piece in sentence] for sentence in found]},
        on_pick_change=lambda: pick(st.session_state[key]["pick"]),
    )
