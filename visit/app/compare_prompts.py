"""The two prompts of the compare page: written, chosen from pairs to try, and aligned token by token."""

from __future__ import annotations

from functools import partial
from typing import Any

import streamlit as st

from visit.app.cache import st_ledger
from visit.app.cached_heads import st_heads
from visit.app.cached_pairs import st_pairing
from visit.app.fields import field, listed
from visit.app.marks import named_part
from visit.app.opened import NEEDS_MODEL, opened_recording, recorded_ledger, recorded_line, recorded_subject
from visit.app.problems import comes_with_model
from visit.app.prompt_bar import asked_words, chat_line, position, run, show_notes
from visit.app.recorded import recording_named
from visit.app.save_run import save_menu
from visit.app.sessions import change, defaults, session, state
from visit.app.shipped import data_rows
from visit.app.sidebar import need_numbers, show_ledger
from visit.app.stand_in import stand_in_subject, standing_in
from visit.app.state import DRAWN, value_of
from visit.app.subject import Subject
from visit.app.two_sides import Two
from visit.app.widgets import enter_runs, plain, token_pairs
from visit.errors import VisitError
from visit.models.catalog import LISTED, MINI, is_hosted, title
from visit.text.glossary import explain
from visit.text.markdown import escaped
from visit.text.numbers import percent
from visit.text.visible import visible

_SIDES = ("prompt", "pos", "target", "distractor")
_FRESH = ("pos", "pos_b", *DRAWN)  # of two other prompts


def two_prompts() -> Two | None:
    """Both prompts, pairs to try and what is rarely needed, folded; then the aligned tokens.

    None where two recordings are laid beside each other, or one waits for another (visit.app.two_recordings).
    """
    show_notes()
    if (recording := opened_recording()) is not None:
        if len(recording.runs) == 1 or state().compare.recording_b:
            return None
        return _recorded_two(recording)
    enter_runs()
    with named_part("prompts"):
        with st.container(key="prompt_line", horizontal=True, vertical_alignment="bottom", gap="small"):
            st.text_area("Prompt A", help=explain("prompt"), height="content", **field("prompt"))
            st.text_area("Prompt B", help="Begins as a copy of A: change a word of it and press Enter. Emptied it is a "
                         "copy again.", height="content",
                         **field("prompt_b", state().compare.prompt_b or state().prompt))  # fmt: skip
            _pairs_to_try()
            more = st.popover("More", icon=":material/tune:", key="prompt_more")
        if name := standing_in():
            return _standing_two(name, more)
        passes = [run(side, f"Prompt {name}: ") for side, name in (("", "A"), ("_b", "B"))]
        two = _aligned(*_asked(more, passes))
        _what_pair_shows()
        alone = two.same or two.a.model is not two.b.model or bool(two.align)
        save_menu(two.a, None if alone else two.b, two.seen[0][0])
        token_pairs(
            two.pairing, (two.a.acts.tokens, two.b.acts.tokens), (_control_tokens(two.a), _control_tokens(two.b)),
            (two.a.pos, two.b.pos), bool(two.align), partial(_pick, two), partial(_fix, two), lambda: change(align=""),
        )  # fmt: skip
    return two


def _standing_two(name: str, more: Any) -> Two:
    """Both prompts of the recording that stands in for a model which is being loaded."""
    a, b = stand_in_subject(name), stand_in_subject(name, "b")
    recorded_ledger(recording_named(name), a.key[0])
    st.empty(), st.empty(), st.container()  # the places of `run` and of notes: what stands below stays where it is
    with more:
        comes_with_model()
    two = Two(a, b, st_pairing(a.key, b.key, ""), "")
    _what_pair_shows()
    save_menu(a, b)
    token_pairs(two.pairing, (a.acts.tokens, b.acts.tokens), (_control_tokens(a), _control_tokens(b)), (a.pos, b.pos),
                False, partial(_pick, two), partial(_fix, two), lambda: change(align=""))  # fmt: skip
    return two


def _recorded_two(recording: Any) -> Two:
    """Both prompts of a recording, aligned as they were."""
    recorded_line(recording)
    two = recorded_subject("a"), recorded_subject("b")
    with named_part("prompts"):
        with st.container(key="prompt_line", horizontal=True, vertical_alignment="bottom", gap="small"):
            for run, name in zip(recording.runs, "AB", strict=True):
                st.text_input(f"Prompt {name}", visible(run.prompt), disabled=True, help=NEEDS_MODEL,
                              key=f"recorded_prompt {name} {state().recording}")  # fmt: skip
        pairing = st_pairing(two[0].key, two[1].key, "")
        token_pairs(
            pairing, (two[0].acts.tokens, two[1].acts.tokens), (_control_tokens(two[0]), _control_tokens(two[1])),
            (two[0].pos, two[1].pos), False, _told_recorded, _told_recorded, lambda: None,
        )  # fmt: skip
    return Two(*two, pairing, "")


def _told_recorded(*_asked: Any) -> None:
    session().notes = ["These two were recorded at these positions, aligned like this; another choice needs the model."]


def _asked(more: Any, passes: list[tuple[Any, Any]]) -> list[Subject]:
    """What either side is asked, with what is folded: both sides' words, the model of B, whether they are chats."""
    notes = st.container()
    subjects: list[Subject] = []
    with more:
        for side, name, (model, acts) in zip(("", "_b"), "AB", passes, strict=True):
            st.markdown(f"**{name}**{_model_and_size(model)}")
            copied = side and not state().compare.prompt_b and state().compare.pos_b == -1
            pos = subjects[0].pos if copied else position(acts, side)
            subjects.append(asked_words(model, acts, min(pos, len(acts.token_ids) - 1), side, notes))
        names = list(dict.fromkeys(["", *LISTED, state().compare.model_b]))
        st.selectbox(
            "Model of B", format_func=lambda n: title(n) if n else "the same as A",
            accept_new_options=not is_hosted(), help="Another model for side B: a distilled, a fine-tuned one. "
            "The alignment is then by token, or by character where the tokenizers differ.", **listed("model_b", names),
        )  # fmt: skip
        with st.container(horizontal=True):
            st.button("Swap A and B", icon=":material/swap_horiz:", on_click=_swap_sides)
            st.button("Copy A to B", icon=":material/content_copy:", on_click=_copy)
        chat_line(*passes)
    return subjects


def _model_and_size(model: Any) -> str:
    """A model's name and size, where the two sides have two."""
    if state().compare.model_b in ("", state().model):
        return ""
    return f" {plain(title(model.name))}: {model.n_layers} blocks × {model.n_heads} heads"


def _aligned(a: Subject, b: Subject) -> Two:
    """Both sides with their alignment; numbers that fail their check are said."""
    show_ledger(a.model)
    need_numbers(b.model)
    if b.model.name != a.model.name and not st_ledger(b.model.name)["holds"].all():
        st.error(
            f"{plain(b.model.name)} fails the check of its numbers: B is not to be trusted.", icon=":material/warning:"
        )
    align = state().compare.align
    try:
        pairing = st_pairing(a.key, b.key, align)
    except VisitError as problem:
        st.info(f"{escaped(str(problem))} The alignment is shown uncorrected.", icon=":material/link:")
        align, pairing = "", st_pairing(a.key, b.key, "")
    return Two(a, b, pairing, align)


# ---- pairs to try ----------------------------------------------------------------------------------------------------
_LEFT = """<style>:is([class*="st-key-pair-"], [class*="st-key-begin-"]) :is(button, button *) {
  justify-content: flex-start; text-align: left; }</style>"""


def _pairs_to_try() -> None:
    """Pairs of prompts, each with what it shows; made when the list is opened."""
    with st.popover("Pairs to try", icon=":material/lightbulb:", key="pairs_list", on_change="rerun") as menu:
        if menu.open:
            _pair_buttons("pair")


def _pair_buttons(key: str) -> None:
    st.html(_LEFT)
    for label, row in data_rows("presets.csv", state().model == MINI).items():
        both = f"{plain(row['prompt'])} …  \n{plain(row['prompt_b'])} …"
        st.button(f":primary[**{plain(label)}**]  \n{both}  \n{plain(row['look'])}", key=f"{key} {label}",
                  on_click=_take_pair, args=(row,), type="tertiary", width="stretch")  # fmt: skip


def _take_pair(row: dict[str, str]) -> None:
    change(**defaults(*_FRESH), **{name: row[name] for name in row if name not in ("label", "look")})
    st.session_state["pairs_list"] = False


def _what_pair_shows() -> None:
    now = state().prompt, state().compare.prompt_b
    rows = data_rows("presets.csv", state().model == MINI).values()
    if look := next((r["look"] for r in rows if (r["prompt"], r["prompt_b"]) == now), None):
        st.caption(f":material/lightbulb: {plain(look)}")


def start_here(two: Two) -> None:
    """What a page says whose sides are the same: what to change, and pairs that show something."""
    from visit.narrate.memory import strongest_head

    table = st_heads(*two.a.about)
    head = table.set_index("node").loc[strongest_head(table)]
    assert two.a.acts.logits is not None
    share = float(two.a.acts.logits[two.a.pos].softmax(-1)[two.a.target])
    st.markdown(
        f"**A and B are the same text, so nothing differs yet.** Both give “{plain(two.a.word)}” {percent(share)}. "
        f"Change a word of Prompt B and press Enter: for one “{plain(visible(head['source_token']))}”, from which "
        f"L{head['layer']} H{head['head']}, the head that pushes hardest towards “{plain(two.a.word)}”, takes most. Or "
        "begin with a pair:"
    )
    _pair_buttons("begin")


# ---- clicks that change the pair -------------------------------------------------------------------------------------
def _control_tokens(subject: Subject) -> frozenset[int]:
    """The positions of control tokens."""
    from visit.models.tokens import special_ids

    if subject.recorded is not None:
        return subject.recorded.special
    special = special_ids(subject.model.tokenizer)
    return frozenset(i for i, token in enumerate(subject.acts.token_ids) if token in special)


def _swap_sides() -> None:
    now = state()
    there = {name: value_of(now, f"{name}_b") for name in _SIDES}
    there["prompt"] = there["prompt"] or now.prompt  # empty: a copy
    back = {f"{name}_b": value_of(now, name) for name in _SIDES}
    models = {"model": now.compare.model_b, "model_b": now.model} if now.compare.model_b else {}
    change(**{**defaults(*_FRESH), **there, **back, **models})


def _copy() -> None:
    same = {f"{name}_b": value_of(state(), name) for name in _SIDES}
    change(**{**defaults(*_FRESH), **same, "prompt_b": "", "pos": state().pos})


def _pick(two: Two, side: str, pos: int) -> None:
    partner = (two.pairing.to_b if side == "a" else two.pairing.to_a).get(pos)
    a, b = (pos, partner) if side == "a" else (partner, pos)
    values: dict[str, Any] = {"node": ""}
    if a is not None:
        values["pos"] = two.a.in_address(a)
    if b is not None:
        values["pos_b"] = two.b.in_address(b)
    change(**values)


def _fix(two: Two, a: int | None, b: int | None) -> None:
    """Put the tokens together; a token that already stood in another correction leaves that one."""
    from visit.analyses.token_alignment import parse_fixes

    partner = (None if a is None else two.pairing.to_b.get(a)) if b is None else two.pairing.to_a.get(b)
    together = a is not None and b is not None and two.pairing.to_b.get(a) == b
    if together or ((a is None) != (b is None) and partner is None):
        return
    kept = [(i, j) for i, j in parse_fixes(two.align) if not ((a is not None and i == a) or (b is not None and j == b))]
    text = ",".join(f"{'' if i is None else i}:{'' if j is None else j}" for i, j in [*kept, (a, b)])
    change(align=text)
