"""The prompt bar that pages share: what is run, the position looked at, and the words it is asked about."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import streamlit as st

import visit
from visit.app.address import DEFAULT_PROMPT, DEFAULT_PROMPT_B, PROMPT_CHARACTERS
from visit.app.cache import About, Prompt, st_capture, st_model_watched
from visit.app.sidebar import give_back, lead_to_real, show_ledger
from visit.app.state import change, field, state
from visit.app.token_box import Token, enter_runs, token_box
from visit.errors import VisitError
from visit.models.catalog import LISTED, MINI, title
from visit.models.hub import DOWNLOADS
from visit.text.glossary import explain
from visit.text.numbers import percent
from visit.text.visible import visible

if TYPE_CHECKING:
    from visit.activations.forward import Activations
    from visit.models.model import Model


@dataclass(frozen=True, eq=False)
class Subject:
    """What a page is about: a model, a captured pass, a position, and the words it is asked about."""

    model: Model
    acts: Activations
    pos: int
    target: int
    distractor: int | None

    @property
    def key(self) -> tuple[str, Prompt]:
        """The pass: the model, and what was typed."""
        return self.model.name, self.acts.prompt if self.acts.chat is None else self.acts.chat.typed

    @property
    def about(self) -> About:
        """What a cached analysis needs to know: model, prompt, position, target, distractor."""
        return *self.key, self.pos, self.target, self.distractor


def prompt_bar() -> Subject:
    """The shared bar on top of a page: prompt, examples, token chips, prediction, target and distractor."""
    show_notes()
    enter_runs()
    left, right, with_ = st.columns([4, 2, 2], vertical_alignment="bottom")
    left.text_area("Prompt", help=explain("prompt"), height="content", **field("prompt"))
    examples = _examples(state().model == MINI)
    now = state().prompt, state().target, state().distractor
    chosen = next((label for label, example in examples.items() if example[:3] == now), None)
    st.session_state["example"] = chosen
    right.selectbox("Examples", list(examples), index=None, placeholder="Try one", key="example",
                    on_change=_take_example)  # fmt: skip
    with with_:
        _compare_with()
    if chosen:
        st.caption(f":material/lightbulb: {examples[chosen][3]}")
    line = st.container()
    model, acts = run()
    with line:
        chat_line((model, acts))
    show_ledger(model)
    bar, chart = st.columns([3, 2], gap="medium")
    with bar:
        pos = _chips(model, acts)
        subject = words(model, acts, pos)
        lead_to_real()
    with chart:
        _prediction(model, acts, pos, subject.target)
    return subject


def _compare_with() -> None:
    """The way to the compare page: change a word of this prompt, and look at both."""
    with st.popover("Compare", width="stretch"):
        now = state().prompt
        key = f"w_prompt with {now}"
        st.text_area("Change a word and press Enter", now, key=key, on_change=_take_other, height="content",
                     args=(key,))  # fmt: skip
        st.caption("Opens both prompts side by side: what changes inside the model?")
    if page := st.session_state.pop("visit_open", None):
        st.switch_page(page)


def _take_other(key: str) -> None:
    change(prompt_b=st.session_state[key], pos_b=-1, target_b="", distractor_b="", align="", node="", detail="", pin="")
    st.session_state["visit_open"] = "pages/compare.py"


def chat_line(*sides: tuple[Model, Activations]) -> None:
    """Below the prompt of a chat model: whether its template wraps the prompt, and what that means; for both sides."""
    from visit.models.chat import chat_template
    from visit.models.tokens import doubled_start

    for model, acts in sides:
        if note := doubled_start(model.tokenizer, acts.token_ids):
            st.caption(f":material/info: {plain(note)}")
    chatty = [model for model, _ in sides if chat_template(model.tokenizer) is not None]
    if state().chat and len(chatty) < len(sides):
        bare = next(model for model, _ in sides if model not in chatty)
        st.caption(f":material/info: {plain(title(bare.name))} has no chat template: its prompt is run as plain text.")
    if not chatty:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.session_state["w_chat"] = bool(state().chat)
        st.toggle("As a chat message", key="w_chat", on_change=_take_chat, help=explain("chat message"))
        if not state().chat:
            st.caption(f"{plain(title(chatty[0].name))} was trained on chats: a plain text is out of its habit.")
            return
        wrapped = next((acts.chat for _, acts in sides if acts.chat is not None), None)
        added = None if wrapped is None else wrapped.added_system
        with st.popover("System message", type="tertiary", icon=":material/tune:"):
            st.text_area("System message", placeholder=added or "none", max_chars=PROMPT_CHARACTERS, **field("system"))
            st.caption("What the model is told before the message. Empty: what its template says by itself.")
        if added is not None and not state().system:
            st.caption(f"The template adds a system message by itself: “{plain(visible(added[:120]))}”.")


def _take_chat() -> None:
    on = bool(st.session_state["w_chat"])
    change(chat="1" if on else "", pos=-1, pos_b=-1, node="", detail="", pin="", align="", head="", source="")


def show_notes() -> None:
    """What a link asked for and could not have."""
    for note in st.session_state.get("visit_notes", []):
        st.info(note, icon=":material/link:")


def words(model: Model, acts: Activations, pos: int, side: str = "") -> Subject:
    """The fields of target and distractor. `side`: "_b" for the second prompt of a page that has two."""
    places = st.columns(2)
    target = _word(model, places[0], f"target{side}", "its prediction")
    distractor = _word(model, places[1], f"distractor{side}", "none")
    if target is None:
        assert acts.logits is not None
        target = int(acts.logits[pos].argmax())
    if target == distractor:
        st.warning("Target and distractor are one word; the distractor is left out.", icon=":material/edit:")
        distractor = None
    return Subject(model, acts, pos, target, distractor)


@st.cache_resource(show_spinner=False)
def _examples(mini: bool) -> dict[str, tuple[str, str, str, str]]:
    """label → (prompt, target, distractor, what it shows): of visit-mini's own world, or of ours for real models."""
    file = Path(visit.__file__).parent / "data" / ("visit-mini/examples.csv" if mini else "examples.csv")
    with file.open(encoding="utf-8", newline="") as rows:
        return {
            r["label"]: (r["prompt"], r["target"] or "", r["distractor"] or "", r["shows"])
            for r in csv.DictReader(rows)
        }


def _take_example() -> None:
    label = st.session_state["example"]
    if label is not None:
        prompt, target, distractor, _ = _examples(state().model == MINI)[label]
        change(prompt=prompt, target=target, distractor=distractor, pos=-1, node="", detail="", pin="", align="")


def shown_model(side: str = "", name: str = "") -> Model:
    """The model of the address, loaded behind a status. One that cannot be used is said; the last good one stays."""
    memory = st.session_state
    wanted = (state().model_b or state().model) if side else state().model
    _show_problem(side)
    place = st.empty()
    if memory.get(f"visit_model{side}") != wanted:
        place.progress(0.0, f"Loading {title(wanted)}: the first visitor waits a few seconds…")
    try:
        model = st_model_watched(wanted, place)
    except VisitError as problem:
        place.empty()
        _take_back(side, wanted, f"{name}{problem}")
    memory[f"visit_model{side}"] = model.name
    return model


def run(side: str = "", name: str = "") -> tuple[Model, Activations]:
    """Load and capture behind a status that says what takes the time. `name`: how a message calls the side.

    A model or prompt that cannot be used is said, and the last one that could be used stays on screen.
    """
    memory = st.session_state
    prompt = state().prompt_b if side else state().prompt
    model = shown_model(side, name)
    try:
        if len(prompt) > PROMPT_CHARACTERS:
            raise VisitError(f"A prompt may have {PROMPT_CHARACTERS:,} characters; {len(prompt):,} came. Shorten it.")
        acts = st_capture(model.name, _typed(model, prompt))
    except VisitError as problem:
        known, kept = memory.get(f"visit_prompt{side}", ("", DEFAULT_PROMPT_B if side else DEFAULT_PROMPT))
        text = kept if isinstance(kept, str) else kept.text
        st.error(f"{name}{problem} Shown meanwhile: “{plain(visible(text[:80]))}”.", icon=":material/error:")
        acts = st_capture(model.name, kept if known == model.name else text)
    memory[f"visit_prompt{side}"] = model.name, acts.prompt if acts.chat is None else acts.chat.typed
    return model, acts


def _typed(model: Model, prompt: str) -> Prompt:
    """The prompt as the address asks for it: a message where the model's template is to wrap it, and it has one."""
    from visit.models.chat import Message, chat_template

    if state().chat and chat_template(model.tokenizer) is not None:
        return Message(prompt, state().system or None)
    return prompt


def _take_back(side: str, wanted: str, problem: str) -> NoReturn:
    """A model that cannot be loaded: the one before it stays in the state, and the page begins again with it."""
    kept = st.session_state.get(f"visit_model{side}", MINI)
    if kept == wanted:
        raise VisitError(problem)
    give_back(f"model{side}", kept)
    st.session_state[f"visit_problem{side}"] = (f"{problem} Shown meanwhile: {kept}.", state())
    st.rerun()


def _show_problem(side: str) -> None:
    """Why the last choice of a model could not be had, until something else is asked for."""
    problem, then = st.session_state.get(f"visit_problem{side}", ("", None))
    if problem and then == state():
        st.error(problem, icon=":material/error:")
    elif problem:
        del st.session_state[f"visit_problem{side}"]
    pending = st.session_state.get("visit_pending")
    if pending and pending[0] == f"model{side}":
        going = "is being downloaded; the sidebar shows how far it is" if _downloads(pending[1]) else (
            "is not on this machine yet; the sidebar offers its download"
        )  # fmt: skip
        kept = title(st.session_state.get(f"visit_model{side}", MINI))
        named = title(pending[1]) if pending[1] in LISTED else pending[1]
        st.info(f"{plain(named)} {going}. Shown meanwhile: {plain(kept)}.", icon=":material/download:")


def _downloads(name: str) -> bool:
    download = DOWNLOADS.find(name)
    return download is not None and download.state == "running"


def position(acts: Activations, side: str = "") -> int:
    """The position looked at; one that the prompt does not have is said, and the last is taken."""
    wanted = state().pos_b if side else state().pos
    try:
        return acts.index(wanted)
    except VisitError as problem:
        st.info(f"{problem} The last position is shown instead.", icon=":material/link:")
        return len(acts.token_ids) - 1


def _chips(model: Model, acts: Activations) -> int:
    """The prompt's tokens as chips; the chosen one is the position that everything is about."""
    from visit.models.tokens import character_parts, special_ids, start_tokens

    count = len(acts.token_ids)
    spelled = character_parts(model.tokenizer, acts.token_ids)
    starts = start_tokens(model.tokenizer)
    starts = starts if starts and acts.token_ids[: len(starts)] == starts else ()
    special = special_ids(model.tokenizer)
    pos = position(acts)

    def shown(i: int) -> Token:
        """One of several tokens that spell a character says which and what part of it it is."""
        text = visible(acts.tokens[i])
        if i in spelled:
            character, part, parts = spelled[i]
            text = f"{visible(character)}, part {part} of {parts}"
        if i < len(starts):
            return text, "start", ": put in front by the tokenizer", False
        if acts.token_ids[i] in special:
            return text, "control", ": a control token", False
        return text, "", "", acts.tokens[i].endswith("\n")

    st.caption(f"Tokens ({count}), position {pos} is looked at", help=f"{explain('token')} {explain('position')}")
    token_box([shown(i) for i in range(count)], pos, f"Tokens ({count})", partial(_take_token, count))
    if starts and count > 1 and acts.pattern is not None:
        rest = float(acts.pattern[:, :, 1:, 0].float().mean())
        st.caption(
            f":material/anchor: The tokenizer puts {chip(acts.tokens[0])} in front. It is kept: it is the attention "
            f"sink, on which heads with nothing to fetch rest. Here {percent(rest)} of all attention lies on it."
        )
    return pos


def plain(text: str) -> str:
    """Text in a label or caption, where Markdown's signs would be read as such."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]()<>#+-.!|~:$^=&@" else c for c in text)


def chip(token: str) -> str:
    """A token in a label: visible, and with Markdown's signs escaped."""
    return plain(visible(token))


def _take_token(count: int, pos: int) -> None:
    change(pos=-1 if pos == count - 1 else pos, node="")


def _word(model: Model, place: Any, name: str, empty: str) -> int | None:
    """A target or distractor field. A word that is not one token is refused beside the field; the rest goes on."""
    what = name.removesuffix("_b")
    place.text_input(what.capitalize(), placeholder=empty, help=explain(what), max_chars=200, **field(name))
    text = getattr(state(), name)
    if not text:
        return None
    try:
        token = model.token_id(text, what)
        read, spaced = model.vocabulary[token], _spaced(model, text)
        if read == " " + text:
            place.caption(f"Read as “{chip(read)}”: inside a text a word's token begins with a space.")
        elif not text.startswith(" ") and spaced not in (None, token):
            place.caption(f"“{chip(text)}” as at the start of a text; inside one its token is “{chip(' ' + text)}”.")
        return token
    except VisitError as problem:
        spaced = _spaced(model, text)
        if spaced is not None:
            place.caption(f"Read as “{chip(' ' + text)}”: inside a text a word's token begins with a space.")
            return spaced
        place.warning(f"{problem} Shown instead: {empty}.", icon=":material/edit:")
        return None


def _spaced(model: Model, text: str) -> int | None:
    try:
        return model.token_id(" " + text)
    except VisitError:
        return None


def _prediction(model: Model, acts: Activations, pos: int, target: int) -> None:
    from visit.analyses.overview import predictions
    from visit.figures import maps as figures

    table = predictions(model, acts, pos)
    st.markdown("**What comes next**", help="The model's prediction after the chosen position. Click a bar to make "
                "it the target. " + explain("probability"))  # fmt: skip
    chart = figures.predictions(table, target)
    words = dict(zip(table["id"].tolist(), table["token"].tolist(), strict=True))
    st.altair_chart(
        chart, key="predictions", on_select=lambda: _take_prediction(words), selection_mode="word",
        alt="The ten most probable next tokens: " + ", ".join(visible(t) for t in table["token"]),
    )  # fmt: skip


def _take_prediction(words: dict[int, str]) -> None:
    chosen = st.session_state["predictions"]["selection"].get("word") or []
    if chosen and chosen[0]["id"] in words:
        change(target=words[chosen[0]["id"]])
