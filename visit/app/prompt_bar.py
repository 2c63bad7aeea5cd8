"""The prompt bar that pages share: what is run, the position looked at, and the words it is asked about."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import streamlit as st

from visit.app.cache import Prompt, st_capture, st_model_watched, while_kept
from visit.app.fields import field
from visit.app.lens_choice import seen
from visit.app.link_values import PROMPT_CHARACTERS
from visit.app.live import say
from visit.app.marks import named_part
from visit.app.opened import check_live, opened_recording, recorded_bar, recorded_ledger
from visit.app.problems import comes_with_model
from visit.app.recorded import recording_named
from visit.app.save_run import save_menu
from visit.app.sessions import change, defaults, draw_anew, session, state
from visit.app.shipped import data_rows
from visit.app.sidebar import downloading, give_back, show_ledger
from visit.app.stand_in import stand_in_subject, standing_in
from visit.app.state import DEFAULT_PROMPT, DRAWN, value_of
from visit.app.subject import Subject
from visit.app.tokens import start_note, token_box
from visit.app.widgets import enter_runs, plain
from visit.errors import VisitError
from visit.models.catalog import LISTED, MINI, title
from visit.text.glossary import explain
from visit.text.markdown import escaped
from visit.text.numbers import percent
from visit.text.visible import visible

if TYPE_CHECKING:
    from visit.activations.record import Activations
    from visit.models.model import Model


def prompt_bar(guide: Callable[[Subject], None] | None = None) -> Subject:
    """The shared bar on top of a page, one line where it fits: the text, its tokens, what comes next; the rest folded.

    What is wrong with the prompt, its position or its words is said below the bar. `guide`: is told the subject before
    anything of it is drawn, and may point at parts of the page (visit.app.marks); what it shows stands below the bar.
    """
    show_notes()
    if (recording := opened_recording()) is not None:
        return recorded_bar(recording)
    enter_runs()
    with named_part("prompt"), st.container(key="prompt_line", horizontal=True, vertical_alignment="top", gap="small"):
        st.text_area("Prompt", height="content", label_visibility="collapsed", placeholder="A text; Enter runs it",
                     **field("prompt"))  # fmt: skip
        with st.container(key="prompt_buttons", horizontal=True, gap="small", width="content"):
            _examples()
            more = st.popover("More", icon=":material/tune:", key="prompt_more")
        tokens = st.container(key="prompt_tokens")  # last: a long text's have the next line for themselves
    if name := standing_in():
        subject = _standing(name, more)
    else:
        model, acts = run()
        show_ledger(model)
        pos = position(acts)
        _chat_notes((model, acts))
        notes = st.container()  # on the page: in a folded popover nobody sees them
        with more:
            subject = _more(model, acts, pos, notes)
    if guide is not None:
        guide(subject)
    with tokens:
        token_box(subject)
    _what_example_shows()
    save_menu(subject, None, seen(subject.model.name)[0][0])
    return subject


def _standing(name: str, more: Any) -> Subject:
    """The same from the recording that stands in for a model which is being loaded."""
    subject = stand_in_subject(name)
    recorded_ledger(recording_named(name), subject.key[0])
    st.empty(), st.container()  # the places of `run` and of notes: what stands below them stays where it is
    with more:
        comes_with_model()
    say(_in_short(subject, ""))
    return subject


def _more(model: Model, acts: Activations, pos: int, notes: Any) -> Subject:
    """What is asked, with what it is compared, how the prompt is given to the model."""
    subject = asked_words(model, acts, pos, notes=notes)
    key = f"w_prompt with {state().prompt}"
    st.text_area("Compare with: change a word and press Enter", state().prompt, key=key, on_change=_take_other,
                 height="content", args=(key,),
                 help="Opens both prompts side by side: what changes inside the model?")  # fmt: skip
    _chat_controls(model, acts)
    if said := start_note(subject):
        st.caption(f":material/anchor: {said}")
    return subject


_EXAMPLES = """<style>
[class*="st-key-example-"] button, [class*="st-key-example-"] button * {
  justify-content: flex-start; text-align: left; }
</style>"""


def _examples() -> None:
    """Sentences to try, each with what it shows; made when the list is opened."""
    with st.popover("Examples", icon=":material/lightbulb:", key="examples", on_change="rerun") as menu:
        if not menu.open:
            return
        st.html(_EXAMPLES)
        for label, row in data_rows("examples.csv", state().model == MINI).items():
            st.button(f"**{plain(row['prompt'])} …**  \n{plain(row['shows'])}", key=f"example {label}",
                      on_click=_take_example, args=(row,), type="tertiary", width="stretch")  # fmt: skip


def _take_example(row: dict[str, str]) -> None:
    change(**{name: row[name] for name in ("prompt", "target", "distractor")}, **defaults("pos", *DRAWN))
    st.session_state["examples"] = False


def _what_example_shows() -> None:
    now = state().prompt, state().target, state().distractor
    rows = data_rows("examples.csv", state().model == MINI).values()
    if shown := next((r["shows"] for r in rows if (r["prompt"], r["target"], r["distractor"]) == now), None):
        st.caption(f":material/lightbulb: {shown}")


def _take_other(key: str) -> None:
    change(prompt_b=st.session_state[key], **defaults("pos_b", "target_b", "distractor_b", *DRAWN))
    session().goto = "pages/compare.py"


def chat_line(*sides: tuple[Model, Activations]) -> None:
    """Below the prompts of chat models: whether their templates wrap them, and what that means; for both sides."""
    from visit.models.chat import chat_template

    _chat_notes(*sides)
    chatty = [side for side in sides if chat_template(side[0].tokenizer) is not None]
    if chatty:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            _chat_switch(chatty[0][0])
            if state().chat:
                with st.popover("System message", type="tertiary", icon=":material/tune:"):
                    _system_message([acts for _, acts in chatty])


def _chat_notes(*sides: tuple[Model, Activations]) -> None:
    """What is out of order: a start token given twice, a template that is asked for and not there."""
    from visit.models.chat import chat_template
    from visit.models.tokens import doubled_start

    for model, acts in sides:
        if note := doubled_start(model.tokenizer, acts.token_ids):
            st.caption(f":material/info: {plain(note)}")
    bare = [model for model, _ in sides if chat_template(model.tokenizer) is None]
    if state().chat and bare:
        text = f"{plain(title(bare[0].name))} has no chat template: its prompt is run as plain text."
        st.caption(f":material/info: {text}")


def _chat_controls(model: Model, acts: Activations) -> None:
    """Of a chat model: whether its template wraps the prompt, and with which system message."""
    from visit.models.chat import chat_template

    if chat_template(model.tokenizer) is not None:
        _chat_switch(model)
        if state().chat:
            _system_message([acts])


def _chat_switch(model: Model) -> None:
    st.toggle("As a chat message", help=explain("chat message"), **field("chat"))
    if not state().chat:
        st.caption(f"{plain(title(model.name))} was trained on chats: a plain text is out of its habit.")


def _system_message(passes: list[Activations]) -> None:
    added = next((acts.chat.added_system for acts in passes if acts.chat is not None), None)
    st.text_area("System message", placeholder=added or "none", max_chars=PROMPT_CHARACTERS, **field("system"))
    st.caption("What the model is told before the message. Empty: what its template says by itself.")
    if added is not None and not state().system:
        st.caption(f"The template adds a system message by itself: “{plain(visible(added[:120]))}”.")


def show_notes() -> None:
    """What a link asked for and could not have."""
    for note in session().notes:
        st.info(plain(note), icon=":material/link:")


def asked_words(model: Model, acts: Activations, pos: int, side: str = "", notes: Any = None) -> Subject:
    """The fields of target and distractor. `side`: "_b" for the second prompt of a page that has two.

    `notes`: where it is said that a word cannot be used; None: beside its field.
    """
    places = st.columns(2)
    target = _word_field((model, acts, pos), places[0], notes or places[0], f"target{side}", "its prediction")
    distractor = _word_field((model, acts, pos), places[1], notes or places[1], f"distractor{side}", "none")
    if target is None:
        target = _predicted(acts, pos)
    if target == distractor:
        (notes or st).warning("Target and distractor are one word; the distractor is left out.", icon=":material/edit:")
        distractor = None
    typed = acts.prompt if acts.chat is None else acts.chat.typed
    session().looked["revision"] = model.revision if re.fullmatch("[0-9a-f]{40}", model.revision) else ""  # of the hub
    key = model.name, typed
    subject = Subject(key, pos, target, distractor, *while_kept(key, model, acts))
    say(_in_short(subject, side))
    return subject


def _in_short(subject: Subject, side: str) -> str:
    """“Tokyo” 99.5 %; position 7 (of)"""
    name = "B: " if side else ""
    return (
        f"{name}“{subject.word.removeprefix('·')}” {percent(subject.chance)}, position {subject.pos} ({subject.token})"
    )


def _predicted(acts: Activations, pos: int) -> int:
    assert acts.logits is not None
    return int(acts.logits[pos].argmax())


def shown_model(side: str = "", name: str = "") -> Model:
    """The model of the address, loaded behind a status. One that cannot be used is said; the last good one stays."""
    check_live()
    loaded, control = session().shown_models, f"model{side}"
    wanted = value_of(state(), control) or state().model
    _show_problem(control)
    place = st.empty()
    if loaded.get(control) != wanted:
        place.progress(0.0, f"Loading {plain(title(wanted))}: the first visitor waits a few seconds…")
    try:
        model = st_model_watched(wanted, place)
    except VisitError as problem:
        place.empty()
        last = loaded.get(control, MINI)
        if last == wanted:
            raise VisitError(f"{name}{problem}") from problem
        give_back(control, last)
        session().problems[control] = f"{name}{problem} Shown meanwhile: {last}.", state()
        draw_anew()
    loaded[control] = model.name
    return model


def run(side: str = "", name: str = "") -> tuple[Model, Activations]:
    """Load and capture behind a status that says what takes the time. `name`: how a message calls the side.

    A model or prompt that cannot be used is said, and the last one that could be used stays on screen.
    """
    prompt = value_of(state(), f"prompt{side}") or (state().prompt if side else "")
    model = shown_model(side, name)
    try:
        if len(prompt) > PROMPT_CHARACTERS:
            raise VisitError(f"A prompt may have {PROMPT_CHARACTERS:,} characters; got {len(prompt):,}. Shorten it.")
        acts = st_capture(model.name, as_typed(model, prompt))
    except VisitError as problem:
        known, last = session().shown_prompts.get(side, ("", DEFAULT_PROMPT))
        text = last if isinstance(last, str) else last.text
        said = f"{name}{problem} Shown meanwhile: “{visible(text[:80])}”."
        st.error(escaped(said), icon=":material/error:")
        acts = st_capture(model.name, last if known == model.name else text)
    session().shown_prompts[side] = model.name, acts.prompt if acts.chat is None else acts.chat.typed
    return model, acts


def as_typed(model: Model, prompt: str) -> Prompt:
    """The prompt as the address asks for it: a message where the model's template is to wrap it, and it has one."""
    from visit.models.chat import chat_template
    from visit.models.tokens import Message

    if state().chat and chat_template(model.tokenizer) is not None:
        return Message(prompt, state().system or None)
    return prompt


def _show_problem(control: str) -> None:
    """Why the last choice of a model could not be had, until something else is asked for."""
    now = session()
    problem, then = now.problems.get(control, ("", None))
    if problem and then == state():
        st.error(escaped(problem), icon=":material/error:")
    elif problem:
        del now.problems[control]
    if now.pending and now.pending[0] == control:
        name = now.pending[1]
        download = downloading().find(name)
        going = "is not on this machine yet; the sidebar offers its download"
        if download is not None and download.state == "running":
            going = "is being downloaded; the sidebar shows how far it is"
        named, last = title(name) if name in LISTED else name, title(now.shown_models.get(control, MINI))
        st.info(f"{plain(named)} {going}. Shown meanwhile: {plain(last)}.", icon=":material/download:")


def position(acts: Activations, side: str = "") -> int:
    """The position looked at; one that the prompt does not have is said, and the last is taken."""
    asked, shown = value_of(state(), f"pos{side}"), session().positions
    try:
        pos = acts.index(asked)
    except VisitError as problem:
        st.info(f"{escaped(str(problem))} The last position is shown instead.", icon=":material/link:")
        asked, pos = -1, len(acts.token_ids) - 1
    shown[side] = asked
    return pos


def _word_field(asked: tuple[Model, Activations, int], place: Any, notes: Any, name: str, empty: str) -> int | None:
    """A target or distractor field. A word that is not one token is refused in `notes`; the rest goes on."""
    what, text = name.removesuffix("_b"), value_of(state(), name)
    place.text_input(what.capitalize(), placeholder=empty, help=explain(what), max_chars=200, **field(name))
    token, refused, how = read_word(asked[0], text, what)
    if refused:
        notes.warning(f"{escaped(refused)} Shown instead: {empty}.", icon=":material/edit:")
    if how:
        place.caption(how)
    if token is not None:
        _without_space(asked, token, notes, name)
    return token


OWN_SHARE = 0.01  # of the answer: a word without its space that has it is what the model writes here


def _without_space(asked: tuple[Model, Activations, int], token: int, notes: Any, name: str) -> None:
    """A word typed without its space, where one with it is meant, as far as can be told: said, with the way to it.

    Behind white space, in a chat, and where the model itself writes it so, a word has no space.
    """
    (model, acts, pos), text = asked, value_of(state(), name)
    spaced = _with_space(model, text)
    if spaced in (None, token) or not text[0].isalpha() or acts.chat is not None or acts.tokens[pos][-1:].isspace():
        return
    assert acts.logits is not None
    chances = acts.logits[pos].softmax(-1)
    with_it, without = float(chances[spaced]), float(chances[token])
    if without > with_it and without >= OWN_SHARE:
        return
    inside, alone = plain(visible(" " + text)), plain(visible(text))
    notes.warning(
        f"The {name.removesuffix('_b')} “{alone}” has no space before it, so it is another token than “{inside}”. "
        f"Here the model gives “{inside}” {percent(with_it)} and “{alone}” {percent(without)}.",
        icon=":material/space_bar:",
    )
    notes.button(f"Use “{inside}”", key=f"with_space_{name}", on_click=change, kwargs={name: " " + text})


def _with_space(model: Model, text: str) -> int | None:
    """The token of a word inside a text; None where it is typed with its space, or is not one token."""
    if text.startswith(" "):
        return None
    try:
        return model.token_id(" " + text)
    except VisitError:
        return None


def read_word(model: Model, text: str, what: str) -> tuple[int | None, str, str]:
    """(token, why it cannot be used, how it is read) of a word that was typed as target or distractor."""
    if not text:
        return None, "", ""
    spaced = _with_space(model, text)
    inside, alone = plain(visible(" " + text)), plain(visible(text))
    with_space = f"Read as “{inside}”: inside a text a word's token begins with a space."
    try:
        token = model.token_id(text, what)
    except VisitError as problem:
        return spaced, str(problem) if spaced is None else "", "" if spaced is None else with_space
    if model.vocabulary[token] == " " + text:
        return token, "", with_space
    if spaced not in (None, token):
        return token, "", f"“{alone}” as at the start of a text; inside one its token is “{inside}”."
    return token, "", ""
