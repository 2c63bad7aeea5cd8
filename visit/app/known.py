"""The card "What visit-mini knows": its kinds of sentences, each with one to click."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from visit.app.sessions import change, close_dialog, defaults, draw_anew, session
from visit.app.shipped import data_rows
from visit.app.state import DRAWN
from visit.app.widgets import plain
from visit.models.catalog import MINI

if TYPE_CHECKING:
    from visit.activations.record import Activations

WORLD = (
    "A small model of a world of its own: 119 countries, 84 companies, 122 people, sentences with two names, lists "
    "that repeat, a little grammar. What lies outside, it guesses by grammar alone."
)
_LOOK = """<style>
[class*="st-key-known"] button, [class*="st-key-known"] button * { justify-content: flex-start; text-align: left; }
[class*="st-key-known"] button p { white-space: normal; }
</style>"""


def when_lost(name: str, acts: Activations, pos: int) -> None:
    """The card in short, below a reading that the model is too unsure for, or whose words it has to spell."""
    from visit.narrate.flow import UNSURE, spelled_words

    if name != MINI or acts.logits is None:
        return
    best = float(acts.logits[pos].softmax(-1).max())
    if best >= UNSURE and not spelled_words(acts.tokens[: pos + 1]):
        return
    with st.container(border=True, key="known_here"):
        st.markdown("**What visit-mini knows**")
        st.caption(WORLD)
        with st.container(horizontal=True, gap="xsmall"):
            for kind, row in _kinds().items():
                st.button(kind, key=f"known here {kind}", on_click=_take, args=(row,), help=plain(row["prompt"]))


@st.dialog("What visit-mini knows", width="medium", icon=":material/public:", on_dismiss=close_dialog)
def known_dialog() -> None:
    """The card in full."""
    st.html(_LOOK)
    st.markdown(WORLD)
    with st.container(key="known_list", gap=None):
        for kind, row in _kinds().items():
            label = f"**{kind}**: {plain(row['prompt'])} …"
            if st.button(label, key=f"known {kind}", on_click=_take, args=(row,), type="tertiary", width="stretch"):
                draw_anew()


def _kinds() -> dict[str, dict[str, str]]:
    return data_rows("kinds.csv", True)


def _take(row: dict[str, str]) -> None:
    """The example's prompt on the flow page."""
    close_dialog()
    change(model=MINI, prompt=row["prompt"], **defaults("pos", "target", "distractor", "chat", "layers", *DRAWN))
    if session().page != "flow":
        session().goto = "pages/flow.py"
