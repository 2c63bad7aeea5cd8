"""The head of every page: its name and question, *Share* (the address as a link and a QR code) and *Projector*."""

from __future__ import annotations

import ipaddress
from io import BytesIO
from pathlib import Path
from urllib.parse import urlencode, urlparse

import streamlit as st

from visit.app.address import address_params
from visit.app.guide import offer
from visit.app.recipe_lines import Looked
from visit.app.recipes import HEADINGS, recipe
from visit.app.sessions import FIGURES_DIALOG, NOTEBOOK_DIALOG, change, draw_anew, open_dialog, session, state
from visit.app.widgets import component

QR_CHARACTERS = 600  # of a link: a code of more has squares too small for a telephone across a room
_PROJECTOR = Path(__file__).with_name("projector.css")
# page: the parts of it that projector mode shows; all of a page that is not named
PROJECTED = {
    "flow": ("prompt", "graph"),
    "compare": ("prompts", "reading", "apart", "graphs"),
    "whatif": ("prompt", "changes"),
    "trace": ("prompt", "reading", "maps"),
    "heads": ("found",),
    "memory": ("prompt", "reading", "heads"),
    "layernorm": ("prompt", "norm"),
    "neurons": ("prompt", "active", "card"),
    "study": ("found",),
}


def heading(title: str, answers: str) -> None:
    """The head of a page: its name, the question that it answers, and at its right what every page offers."""
    with st.container(key="heading", horizontal=True, vertical_alignment="bottom", gap="small"):
        st.title(title, anchor=False, width="content")
        st.caption(answers, width="content")
        actions()


def actions() -> None:
    """*Guide me*, *Share* and *Projector* in one quiet row."""
    with st.container(horizontal=True, width="content", gap="small", key="page_actions"):
        if state().projector:
            st.html(_PROJECTOR)
            st.html(_only(PROJECTED.get(session().page, ()) if not state().guide else ()))  # the guide shows any part
            st.button("Leave projector mode", icon=":material/close_fullscreen:", key="projector", on_click=change,
                      kwargs={"projector": False})  # fmt: skip
            return
        offer()
        session().save_place = st.container(width="content", key="save_place")
        _share_menu()
        if session().page in HEADINGS:
            _code_menu()
            st.button("Figures", icon=":material/image:", key="figures", type="tertiary", on_click=open_dialog,
                      args=(FIGURES_DIALOG,), help="Each figure of this page as a file.")  # fmt: skip
        st.button("Projector", icon=":material/present_to_all:", key="projector", type="tertiary", on_click=change,
                  kwargs={"projector": True},
                  help="Large type and the main part of this page alone, for the front of a room.")  # fmt: skip


def _only(parts: tuple[str, ...]) -> str:
    """A style that hides other parts than these, and columns in which none of them stands; for none: hides nothing."""
    kept = "".join(f":not(.st-key-part_{p}, .st-key-part_{p} *, :has(.st-key-part_{p}))" for p in parts)
    hidden = ":is([class*='st-key-part_'], [class*='st-key-beside_'])"
    return f"<style>{hidden}{kept} {{ display: none !important; }}</style>" if parts else "<style></style>"


@st.fragment
def _share_menu() -> None:
    """The popover with the link, made when it is opened: a fragment, so that opening it draws no page anew."""
    with st.popover("Share", icon=":material/share:", type="tertiary", key="share", on_change="rerun") as menu:
        if menu.open:
            address = link()
            code = qr_code(address)
            notes = [_THIS_COMPUTER] if is_local(address) else []
            if not code:
                notes.append(
                    f"The link has {len(address):,} characters, too many for a QR code that a telephone can read (at "
                    f"most {QR_CHARACTERS}). Copy it; a shorter prompt makes it shorter."
                )
            component("share", _HTML)(key="share_link", data={"link": address, "code": code, "notes": notes})


@st.fragment
def _code_menu() -> None:
    """The popover with what gives these numbers outside the app, made when it is opened."""
    with st.popover("Code", icon=":material/code:", type="tertiary", key="code", on_change="rerun") as menu:
        if menu.open:
            page, now = session().page, state()
            if now.recording:
                st.markdown("**In Python, without the model**")
                st.code(_OF_RECORDING, language="python", wrap_lines=True)
                return
            found = recipe(page, now, Looked(**session().looked))
            assert found is not None
            st.markdown("**On the command line**")
            st.code(found.command, language="sh", wrap_lines=True) if found.command else st.caption(found.missing)
            if found.steps:
                st.markdown("**In Python**")
                st.code(found.script, language="python", wrap_lines=True)
                st.button("Notebook", icon=":material/menu_book:", key="notebook", on_click=_ask_notebook,
                          help="The same lines, with the figures and numbers of this page.")  # fmt: skip
    if st.session_state.get("notebook"):  # it was pressed
        draw_anew()  # the whole page, which gathers what it draws


def _ask_notebook() -> None:
    """The dialog in the popover's place."""
    st.session_state["code"] = False
    open_dialog(NOTEBOOK_DIALOG)


_OF_RECORDING = """import visit

recording = visit.load_recording("run.visit")  # the file that is open here
run = recording.runs[0]
print(list(run.results))
print(run.result("heads").head())"""
_THIS_COMPUTER = (
    "This address is of this computer alone. Others reach it under its name or number in the network, with the same "
    "port: open it there, and share that."
)
_HTML = (
    "<div class='share'><b>This very view</b><div class='line'><input readonly aria-label='Link to this view'>"
    "<button type='button'>Copy</button></div><div class='code'></div><div class='notes'></div></div>"
)


def link() -> str:
    """The address of what is shown, as the browser shows it."""
    params = address_params(state()) if session().page else {}
    return (st.context.url or "") + (f"?{urlencode(params)}" if params else "")


def is_local(address: str) -> bool:
    """Whether an address leads every computer to itself."""
    host = urlparse(address).hostname or "localhost"
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def qr_code(text: str) -> str:
    """A QR code as an SVG element, black on white in a white rim; empty for a text that is too long."""
    import segno

    if not text or len(text) > QR_CHARACTERS:
        return ""
    out = BytesIO()
    segno.make(text, micro=False, error="l").save(out, kind="svg", xmldecl=False, nl=False, omitsize=True, light="#fff")
    return out.getvalue().decode()
