"""The dialogs that sidebar and start page open: *Bring my model*, *Cite*, and the card of what visit-mini knows."""

from __future__ import annotations

import streamlit as st

from visit.app.known import known_dialog
from visit.app.opened import open_dialog_recording, take_dropped
from visit.app.sessions import close_dialog, draw_anew, session, state, take
from visit.app.sidebar import label
from visit.models.catalog import LISTED, MINI, is_hosted
from visit.text.citation import METHODS, bibtex

HOW = (
    "- **From the model hub**: its id, such as `openai-community/gpt2`. You see its size before the download.\n"
    "- **A folder**: the path of one that `save_pretrained` wrote.\n"
    "- **A GGUF file**: its path, which ends in `.gguf`.\n\n"
    "Paths are those of the computer that VISIT runs on. Only safetensors and GGUF are read, and no code of "
    "a model is run."
)
HOSTED = (
    "This server is open to everyone and loads only the models listed here. To bring your own, run VISIT on your "
    "computer: its README has the one line that does it."
)


def asked_dialog() -> None:
    """The dialog that was asked for, until it is closed: a page that follows a measurement draws it again.

    No page is drawn behind the field for a model: what is typed is lost when the page is run anew meanwhile.
    """
    take_dropped()
    if session().dialog == "known":
        known_dialog()
    elif session().dialog == "recording":
        open_dialog_recording()
    elif session().dialog == "cite":
        _cite()
    elif session().dialog == "own model":
        _own_model()
        st.stop()


@st.dialog("Cite", width="large", icon=":material/format_quote:", on_dismiss=close_dialog)
def _cite() -> None:
    """What to write under a figure or a number from here."""
    st.markdown(
        "Name the paper whose method this is, and the program with its version. Saved pages, drawings and JSON files "
        "carry both."
    )
    st.code(bibtex(), language=None, wrap_lines=True)
    for used, entry in METHODS.items():
        st.markdown(f"If you use **{used}**, name its source, too:")
        st.code(entry, language=None, wrap_lines=True)


@st.dialog("Bring my model", icon=":material/deployed_code:", on_dismiss=close_dialog)
def _own_model() -> None:
    """Where a model can come from, with a field for it."""
    if is_hosted():
        st.markdown(HOSTED)
    else:
        st.text_input(
            "Hub id, folder or GGUF file", placeholder="openai-community/gpt2", key="own_model", max_chars=300
        )
        if st.button("Load it", type="primary", key="own_load", on_click=_load):
            draw_anew()
        st.markdown(HOW)
    st.markdown("**Or one of these**")
    with st.container(gap=None):
        for name in [n for n in LISTED if n not in (MINI, state().model)][:3]:
            if st.button(label(name), key=f"own {name}", type="tertiary", on_click=_take_model, args=(name,)):
                draw_anew()
    st.caption("The list in the sidebar has more.")


def _load() -> None:
    if name := str(st.session_state.get("own_model", "")).strip():
        _take_model(name)


def _take_model(name: str) -> None:
    close_dialog()
    take(model=name)
