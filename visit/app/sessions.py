"""One visitor's session: what it holds beside the values of its widgets, and the address that follows what it shows."""

from __future__ import annotations

import dataclasses
import re
import time
from dataclasses import dataclass, replace
from typing import Any, NoReturn
from urllib.parse import urlencode
from uuid import uuid4

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.state import session_state_proxy
from streamlit.runtime.state.common import is_element_id
from streamlit.runtime.state.session_state import STREAMLIT_INTERNAL_KEY_PREFIX

from visit.app.address import Seat, address_params, parse, query, seat_of
from visit.app.state import CONTROLS, DEFAULT_PROMPT_B, State, value_of, with_values
from visit.lessons.room import Tries
from visit.models.catalog import first_model

FIGURES_DIALOG, NOTEBOOK_DIALOG = FILE_DIALOGS = "figures", "notebook"  # their names in `Session.dialog`
MOST_OPENED = 20  # parts of a page that an address names
HEARD_WITHIN = 2.0  # seconds after the address has changed in which a browser may not have heard of it yet


@dataclass(eq=False)
class Session:
    """What one visitor's session holds beside the values of its widgets."""

    state: State = dataclasses.field(default_factory=State)
    notes: list[str] = dataclasses.field(default_factory=list)  # what a link asked for and could not have
    address: dict[str, str] | None = None  # as it was last written
    left: dict[str, float] = dataclasses.field(default_factory=dict)  # an address that was replaced → when
    linked: dict[str, str] | None = None  # what a link said that was opened just now, until a lesson has looked at it
    seat: Seat = dataclasses.field(default_factory=Seat)
    way: str = ""  # the name of this visitor's progress in lessons, once there is some
    tries: Tries = dataclasses.field(default_factory=Tries)  # codes of rooms that there are not
    page: str = ""  # where it stands; `entered`: through the entry point; `goto`: where to go first
    entered: bool = False
    goto: str = ""
    visitor: str = dataclasses.field(default_factory=lambda: uuid4().hex)  # its name among those who share a run
    shown_models: dict[str, str] = dataclasses.field(default_factory=dict)  # field of the state → the last that loaded
    shown_prompts: dict[str, Any] = dataclasses.field(default_factory=dict)  # … → (model, the last that ran)
    positions: dict[str, int] = dataclasses.field(default_factory=dict)  # side → that shown, as an address holds it
    problems: dict[str, tuple[str, State]] = dataclasses.field(default_factory=dict)  # … → (why it could not, asked of)
    pending: tuple[str, str] | None = None  # (field, model) that waits for its download
    download_problem: str = ""
    doctor: bool = False  # its dialog is to be opened
    dialog: str = ""  # "known", "own model", "cite" or "figures": which is open
    ledger: Any = None  # the place of it in the sidebar
    save_place: Any = None  # the place of *Save this run* in the head of the page
    levels: dict[int, str] = dataclasses.field(default_factory=dict)  # of the blocks in the drawing
    look: dict[tuple[str, str], str] = dataclasses.field(default_factory=dict)  # two prompts → what to look for
    windows: dict[str, Any] = dataclasses.field(default_factory=dict)  # pager → what it is of
    figures: list[Any] = dataclasses.field(default_factory=list)  # of visit.app.figure_list, of this run of the page
    looked: dict[str, Any] = dataclasses.field(default_factory=dict)  # what the page chose itself: `recipes.Looked`
    card: tuple[int, int] | None = None  # the neuron whose card was last announced
    run_study: bool = False  # the run that the controls ask for is to be started
    later: list[Any] = dataclasses.field(default_factory=list)  # of visit.app.follow
    widgets: dict[str, tuple[int, Any]] = dataclasses.field(default_factory=dict)  # key → (how often made anew, value)
    drawn: float | None = None
    presses: dict[str, float] = dataclasses.field(default_factory=dict)  # … button → when it was pressed
    saying: list[str] = dataclasses.field(default_factory=list)  # of visit.app.live
    held: frozenset[str] = frozenset()  # parts of the page that a lesson holds back, for visit.app.marks
    held_later: bool = False  # … only for a question that comes later
    held_told: bool = False  # … and it was said once
    progress: dict[str, Any] = dataclasses.field(default_factory=dict)  # of visit.app.lesson_progress, by lesson
    clicked: dict[str, str] = dataclasses.field(default_factory=dict)  # … question → what was clicked for it last
    pasted: str = ""  # the text of a lesson
    picked: bool = False  # a node was chosen inside a fragment
    marks: list[Any] = dataclasses.field(default_factory=list)  # of visit.app.marks, of this run of the page
    standing: str | None = None  # the recording that stands in for the model in this run; None: not looked up yet
    stood: str = ""  # … and the one that did so last


def session() -> Session:
    """This session's record."""
    if "visit" not in st.session_state:
        st.session_state["visit"] = Session()
    found: Session = st.session_state["visit"]
    return found


def state() -> State:
    """What this session shows."""
    return session().state


def shown_position(side: str = "") -> int:
    """The position that a page shows, as an address holds it: the last one where the prompt has not what was asked."""
    return session().positions.get(side, value_of(state(), f"pos{side}"))


def open_dialog(name: str) -> None:
    """Have a dialog drawn until it is closed. For callbacks."""
    session().dialog = name


def close_dialog() -> None:
    session().dialog = ""


def source_prompt() -> str:
    """The prompt that values are taken from where they are put into another one."""
    return state().compare.prompt_b or DEFAULT_PROMPT_B


# ---- the address -----------------------------------------------------------------------------------------------------
def ensure_entrypoint(page: str) -> None:
    """Send a page that was run by itself through the entry point.

    A folder `pages/` beside st.navigation lets a fresh server run the first deep link's page alone. The entry point
    leaves its mark right before it runs a page; a page that finds none takes the way round.
    """
    now = session()
    if not now.entered:
        now.goto = now.goto or page
        st.switch_page("streamlit_app.py", query_params=st.query_params.to_dict())
    now.entered = False


def open_page(page: str) -> None:
    """Bring the page's state and the URL together. Call once a run, before any widget."""
    forget_forged()
    now, params = session(), st.query_params.to_dict()
    moved = now.page not in ("", page)  # a click in the sidebar drops the query: ours goes on
    fresh = now.address is None or (params != now.address and not moved and not _is_late(params))
    if fresh:
        now.state, now.notes = parse(params)
        asked, now.windows = query(params)[0], {}
        now.linked = {name: text for name, text in asked.items() if name in CONTROLS}
        if page == "compare" and "opened" not in asked and asked.keys() & {"view", "node"}:
            now.state = replace(now.state, opened="flows")  # links from when the drawings always stood there
        if not any(name in CONTROLS for name in asked):
            now.state = with_values(now.state, {"model": first_model()})
        now.seat, notes = seat_of(params, now.seat)
        now.notes += notes
        if re.fullmatch(r"[\w-]{16}", params.get("way", ""), re.ASCII):
            now.way = params["way"]
    if fresh or moved:  # a field of another page with the same key would hand its value to nobody, and stand empty
        forget_fields()
    now.page = page
    write_url()


def forget_fields() -> None:
    """Let every field begin anew with the state's value."""
    for name in [name for name in st.session_state if str(name).startswith("w_")]:
        del st.session_state[name]


def forget_forged() -> None:
    """Let go of what was sent for widgets that there cannot be. Call before any widget is made.

    A browser of its owner's making sends any name; Streamlit cannot list a session with a foreign one in it, and every
    selection box does.
    """
    sent = session_state_proxy.get_session_state()._state._new_widget_state.states
    for name in list(sent):
        if not is_element_id(name) and not name.startswith(STREAMLIT_INTERNAL_KEY_PREFIX):
            del sent[name]


def write_url() -> None:
    """Make the address say what is shown."""
    params = address_params(state()) if session().page else {}  # the bare address is the start page's: no state
    params |= {name: text for name, text in vars(session().seat).items() if text}
    params |= {"way": session().way} if session().way else {}
    if (before := st.query_params.to_dict()) != params:
        session().left[urlencode(before)] = time.monotonic()
        st.query_params.from_dict(params)
    session().address = params


def draw_anew() -> NoReturn:
    """Run the whole page again, with what the session shows. Also where a part of it runs by itself.

    Its browser may have asked for that part before it heard of the address of now; `st.rerun()` alone would go back.
    """
    write_url()
    st.rerun()


def _is_late(params: dict[str, str]) -> bool:
    """Whether a browser has sent an address before it heard of its new one: a second click takes no first one back.

    Who goes back in the history of the browser means the old one.
    """
    now, left = time.monotonic(), session().left
    for address in [old for old, when in left.items() if now - when > HEARD_WITHIN]:
        del left[address]
    context = get_script_run_ctx(suppress_warning=True)
    return urlencode(params) in left and not (context is not None and context.is_history_navigation)


# ---- changes ---------------------------------------------------------------------------------------------------------
def change(**values: Any) -> None:
    """Change the state and the address, and let the widgets follow. Only from callbacks, before widgets are made."""
    now = session()
    now.state, now.notes = with_values(now.state, values), []
    for name in values:
        st.session_state.pop(f"w_{name}", None)


def take(**values: Any) -> None:
    """The same, as a visitor chooses them: what the new values make meaningless is forgotten."""
    change(**{**defaults(*(n for name in values for n in CONTROLS[name].forgets)), **values})


def defaults(*names: str) -> dict[str, Any]:
    """Fields with their defaults, for `change`."""
    return {name: CONTROLS[name].default for name in names}


# ---- what is open, and where what is paged begins --------------------------------------------------------------------
def set_opened(name: str, is_open: bool) -> None:
    """Open a part of a page, or fold it. From callbacks; of more than the address can name the first are forgotten."""
    others = [part for part in state().opened.split(",") if part not in ("", name)]
    change(opened=",".join([*others, name][-MOST_OPENED:] if is_open else others))


def is_opened(name: str) -> bool:
    """Whether the address says that a part of a page is open."""
    return name in state().opened.split(",")


def begins_at(name: str) -> int | None:
    """Where the address says that a part that is paged begins; None where it says nothing."""
    return _begins().get(name)


def begin_at(name: str, first: int | None) -> None:
    """Say so in the address; None: nothing."""
    found = {other: at for other, at in _begins().items() if other != name}
    if first is not None:
        found[name] = first
    change(first=",".join(f"{other}-{at}" for other, at in list(found.items())[-8:]))


def _begins() -> dict[str, int]:
    return {name: int(at) for name, _, at in (one.partition("-") for one in state().first.split(",") if one)}
