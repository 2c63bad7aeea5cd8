"""The strip of *Guide me*: on every page five steps over the pass on screen, each a sentence and a mark.

What the steps of a page say and mark is in `visit.app.guide_steps`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import streamlit as st

from visit.app.marks import Mark, point_at
from visit.app.sessions import change, session, state
from visit.app.widgets import sentences

LAST_STEP = 5
PAGES = ("flow", "compare", "whatif", "memory", "layernorm", "neurons", "study", "trace", "heads")
_STRIP_STYLE = Path(__file__).with_name("guide.css")
Way = tuple[str, str, dict[str, Any]]  # label, page, what the address then says


def offer() -> None:
    """The button that opens the strip, on pages that have one."""
    if session().page in PAGES and not (state().guide or state().lesson or state().recording):
        st.button("Guide me", icon=":material/explore:", key="guide_me", type="tertiary", on_click=change,
                  kwargs={"guide": 1}, help="Five short steps over this very text.")  # fmt: skip


def show_strip(
    steps: Sequence[Any], marks: Sequence[tuple[Mark, ...]], pick: Callable[[str], None], ways: Sequence[Way] = ()
) -> None:
    """The strip at the step of the address (of `narrate.guide`), and its marks. `ways`: where to go from the last step.

    `pick` is called with a node that is clicked in a sentence.
    """
    now = state().guide
    step = steps[now - 1]
    st.html(_STRIP_STYLE)
    with st.container(key="guide_strip"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small", key="guide_head"):
            with st.container(key="guide_asks", width="stretch"):
                st.markdown(f"**{now} of {LAST_STEP}** \u2002{step.asks}")
            with st.container(horizontal=True, gap="small", width="content", key="guide_ways"):
                last, back = now == LAST_STEP, {"guide": max(1, now - 1)}
                st.button("Back", key="guide_back", disabled=now == 1, on_click=change, kwargs=back)
                st.button("Done" if last else "Next", key="guide_next", type="primary", on_click=change,
                          kwargs={"guide": 0 if last else now + 1})  # fmt: skip
                if not last:
                    st.button("Leave", key="guide_leave", type="tertiary", on_click=change, kwargs={"guide": 0})
        sentences(step.said, "guide_said", pick)
        if last and ways:
            with st.container(horizontal=True, gap="small"):
                for n, (label, page, values) in enumerate(ways):
                    st.button(label, key=f"guide_way {n}", icon=":material/arrow_forward:", type="tertiary",
                              on_click=_lead_on, args=(page, values))  # fmt: skip
        point_at(
            f"{session().page} {now}", *(replace(one, label=step.asks) for one in marks[now - 1]), said=str(step.said)
        )


def _lead_on(page: str, values: dict[str, Any]) -> None:
    change(**values)
    session().goto = f"pages/{page}.py"
