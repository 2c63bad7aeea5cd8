"""*Save run*, in the head of a page: what is on screen, recorded beside the page into a file of one's own."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import streamlit as st

from visit.app.cache import kept, lens_under, st_model, st_pass
from visit.app.cached_effects import st_effects_seconds
from visit.app.follow import look_again
from visit.app.measuring import Measuring, too_long_here
from visit.app.problems import comes_with_model
from visit.app.recorded import RECORDED_PAGES
from visit.app.sessions import draw_anew, session
from visit.app.subject import Subject
from visit.errors import VisitError
from visit.text.markdown import escaped
from visit.text.numbers import duration, size_text


@dataclass(eq=False)
class Saving:
    """A recording that is made beside the page: how far it is, and its bytes when it is there."""

    work: Measuring = field(default_factory=Measuring)
    share: float = 0.0
    doing: str = "begins"
    stop: bool = False

    def told(self, share: float, what: str) -> None:
        self.share, self.doing = share, what
        if self.stop:
            raise VisitError("Stopped; nothing is kept of it.")

    def halt(self) -> None:
        """End after the step at hand."""
        self.stop = True

    def again(self) -> None:
        """As if it had not begun."""
        self.work, self.share, self.doing, self.stop = Measuring(), 0.0, "begins", False


@kept(weighs=4 << 20)
def st_saving(a: Any, b: Any, lens: str, keep: Any, with_effects: bool) -> Saving:
    return Saving()


def save_menu(subject: Subject, other: Subject | None = None, lens: str = "") -> None:
    """*Save this run*, in the head of the page: what is on screen as a file that opens without the model."""
    place = session().save_place
    if place is None or session().page not in RECORDED_PAGES:  # of a trace, nothing is kept
        return
    with place:
        box = st.popover("Save run", icon=":material/inventory_2:", type="tertiary", key="save_run",
                         on_change="rerun")  # fmt: skip
        if box.open:
            with box:
                _save(subject, other, lens)


def _save(subject: Subject, other: Subject | None, lens: str) -> None:
    st.caption("One file that opens without the model: Open a recording, in the sidebar.")
    if subject.stands_in:
        comes_with_model()
        return
    st.markdown(what_is_kept(other is not None, session().page == "compare"))
    effects = st.checkbox("With what each head does when it is taken out", key="save_effects")
    one = st_saving(subject.about, (other or subject).about, lens, subject is not other and other is not None, effects)
    if not one.work.begun.locked():
        with st.spinner("How long will it take?"):
            takes = _saving_seconds(subject, other, effects)
        if too_long_here(takes):
            return
        st.caption(f"It takes about {duration(takes)} on this machine, beside the page; it can be stopped.")
        make = partial(recorded_bytes, one, subject.about, other.about if other else None, lens, effects)
        st.button("Record it", key="save_record", type="primary", on_click=one.work.ask, args=(make,))
    elif not one.work.ended.is_set():
        look_again(0.7, _watch_saving, one)
    elif one.work.problem is not None:
        (st.info if one.stop else st.error)(escaped(str(one.work.problem)), icon=":material/info:")
        st.button("Begin again", key="save_again", on_click=one.again)
    else:
        name = "".join(c if c.isalnum() else "-" for c in subject.acts.prompt[:30].lower()).strip("-") or "run"
        st.download_button(f"Download, {size_text(len(one.work.found))}", one.work.found, f"{name}.visit",
                           icon=":material/download:", type="primary", on_click="ignore", key="save_file")  # fmt: skip


def what_is_kept(two: bool, on_compare: bool) -> str:
    """What a file that is saved here will hold, and what not."""
    of = "both texts, at their positions" if two else "A alone, at its position" if on_compare else "this position"
    compared = ", Compare’s reading and graphs" if two else ""
    pair = "" if two else (
        ", B and what differs (one file compares two different texts of one model, with the alignment uncorrected)"
        if on_compare else ", a second text (save on Compare for two)"
    )  # fmt: skip
    return (
        f"**Kept**, of {of}: the flow graph and its reading{compared}, attention memory, layer norm, the most active "
        "neurons, the model’s name and revision; effects of heads where chosen below.\n\n"
        f"**Not kept**: patches, traces, results over sets of prompts, changes of What if{pair}. They need the model."
    )


def _watch_saving(one: Saving) -> None:
    if one.work.ended.is_set():
        draw_anew()
    st.progress(min(1.0, one.share), f"Recording: {one.doing}…")
    st.button("Stops after this step…" if one.stop else "Stop", key="save_stop", icon=":material/stop:",
              disabled=one.stop, on_click=one.halt)  # fmt: skip


def _saving_seconds(subject: Subject, other: Subject | None, effects: bool) -> float:
    """About how long it takes here: of every side, and of both graphs once more where they are compared."""
    sides = [subject, *([other] if other else [])]
    seconds = sum(st_recording_seconds(*side.key, side.pos, side.target) for side in sides)
    return seconds + sum(st_effects_seconds(*side.key, side.pos) for side in sides if effects)


@kept(weighs=1 << 10)
def st_recording_seconds(name: str, prompt: Any, pos: int, target: int) -> float:
    from visit.files.recording_cost import recording_seconds

    return recording_seconds(*st_pass(name, prompt), pos, target)


def recorded_bytes(one: Saving, a: Any, b: Any, lens: str, effects: bool) -> bytes:
    """The file, made from the keys of what is on screen."""
    from visit import save_recording
    from visit.models.chat import chat_prompt
    from visit.models.tokens import Message

    model, out = st_model(a[0]), io.BytesIO()

    def run_text(prompt: Any) -> Any:
        return chat_prompt(model, prompt.text, prompt.system) if isinstance(prompt, Message) else prompt

    second: dict[str, Any] = {} if b is None else {
        "compare": run_text(b[1]), "pos_b": b[2], "target_b": b[3], "distractor_b": b[4]}  # fmt: skip
    told: Callable[[float, str], object] = one.told
    save_recording(out, model, run_text(a[1]), pos=a[2], target=a[3], distractor=a[4], lens=lens_under(a[0], lens),
                   effects=effects, told=told, **second)  # fmt: skip
    return out.getvalue()
