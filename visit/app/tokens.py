"""A prompt's tokens as running text in a box of three lines, and after them the word that comes next."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import streamlit as st

from visit.app.marks import marked
from visit.app.sessions import change, session
from visit.app.widgets import component, plain
from visit.text.numbers import percent
from visit.text.visible import as_word, visible

if TYPE_CHECKING:
    from visit.app.subject import Subject

Chip = tuple[str, str, str, bool]  # as shown; "", "start" or "control"; what else is known; a line ends after it
Next = tuple[str, float, str, str]  # a word that may come next, its probability and as text; "", "target", "against"


def token_box(subject: Subject) -> None:
    """Chips of the tokens, the chosen one being the position looked at; the best guess, and what is asked about."""
    chips, following, words = _chips(subject), *_following(subject)
    count, meant = len(chips), marked("prompt")

    def chosen_of(name: str, among: int, then: Callable[[int], None]) -> Callable[[], None]:
        def call() -> None:
            chosen = st.session_state["tokens"][name]
            if subject.recorded is not None and not subject.stands_in:
                session().notes = [f"This was recorded at position {subject.pos}; another one needs the model."]
            elif isinstance(chosen, int | float) and 0 <= int(chosen) < among:
                then(int(chosen))

        return call

    if "next" in session().held:
        following = []
    data = {"tokens": [list(c) for c in chips], "chosen": subject.pos, "label": f"Tokens ({count})",
            "version": str(chips), "following": [list(f) for f in following],
            "meant": list(meant.tokens), "next": "logits" in meant.nodes}  # fmt: skip
    html = (
        "<div class='bar'><div class='tokens' role='radiogroup'></div><div class='following' role='group'></div></div>"
    )
    component("tokens", html)(
        key="tokens", data=data, on_pick_change=chosen_of("pick", count, partial(_look_at_token, count)),
        on_take_change=chosen_of("take", len(words), lambda n: change(target=words[n])),
    )  # fmt: skip


def _look_at_token(count: int, pos: int) -> None:
    change(pos=-1 if pos == count - 1 else pos, node="")


def _chips(subject: Subject) -> list[Chip]:
    """One of several tokens that spell a character says which and what part of it it is."""
    from visit.models.tokens import character_parts, special_ids

    if (run := subject.recorded) is not None:
        kinds = ["start" if i < run.starts else "control" if i in run.special else "" for i in range(len(run.tokens))]
        about = {"start": ": put in front by the tokenizer", "control": ": a control token", "": ""}
        return [
            (visible(name), kind, about[kind], not kind and token.endswith("\n"))
            for name, kind, token in zip(run.named, kinds, run.tokens, strict=True)
        ]
    acts, tokenizer = subject.acts, subject.model.tokenizer
    spelled, special = character_parts(tokenizer, acts.token_ids), special_ids(tokenizer)
    starts = _starts(subject)

    def chip(i: int) -> Chip:
        token, text = acts.tokens[i], visible(acts.tokens[i])
        if i in spelled:
            character, part, parts = spelled[i]
            text = f"{visible(character)}, part {part} of {parts}"
        if i < starts:
            return text, "start", ": put in front by the tokenizer", False
        if acts.token_ids[i] in special:
            return text, "control", ": a control token", False
        return text, "", "", token.endswith("\n")

    return [chip(i) for i in range(len(acts.token_ids))]


def _starts(subject: Subject) -> int:
    """How many tokens the tokenizer put in front."""
    from visit.models.tokens import start_tokens

    if subject.recorded is not None:
        return subject.recorded.starts

    starts = start_tokens(subject.model.tokenizer)
    return len(starts) if starts and subject.acts.token_ids[: len(starts)] == starts else 0


def start_note(subject: Subject) -> str:
    """What the token is for that the tokenizer puts in front; empty where it puts none."""
    acts = subject.acts
    if not _starts(subject) or len(acts.token_ids) == 1 or acts.pattern is None:
        return ""
    rest = float(acts.pattern[:, :, 1:, 0].mean())
    return (
        f"The tokenizer puts {plain(visible(acts.tokens[0]))} in front. It is kept: it is the attention sink, on which "
        f"heads with nothing to fetch rest. Here {percent(rest)} of all attention lies on it."
    )


def _following(subject: Subject) -> tuple[list[Next], list[str]]:
    """(what is shown, the words that can be made the target): the ten best guesses, and the words asked about."""
    if subject.recorded is not None:
        shown = _recorded_following(subject)
        return shown, _recorded_guesses(subject)["token"].tolist() if subject.stands_in else []
    from visit.analyses.overview import predictions

    model = subject.model
    table = predictions(model, subject.acts, subject.pos)
    ids, words = table["id"].tolist(), table["token"].tolist()
    roles = {subject.distractor: "against", subject.target: "target"}
    shown = [
        (as_word(word), prob, percent(prob), roles.get(i, ""))
        for word, prob, i in zip(words, table["prob"].tolist(), ids, strict=True)
    ]
    asked = [i for i in (subject.target, subject.distractor) if i is not None and i not in ids]
    if asked:
        assert subject.acts.logits is not None
        probs = subject.acts.logits[subject.pos].to(model.wide).softmax(-1)[asked].tolist()
        shown += [(as_word(model.vocabulary[i]), p, percent(p), roles[i]) for i, p in zip(asked, probs, strict=True)]
    return shown, words


def _recorded_following(subject: Subject) -> list[Next]:
    """The same of a recording, at the position that was recorded."""
    rows = _recorded_guesses(subject)
    roles = {subject.distractor: "against", subject.target: "target"}
    shown = [(as_word(word), float(prob), percent(float(prob)), roles.get(i, ""))
             for word, prob, i in zip(rows["token"], rows["prob"], rows["id"].tolist(), strict=True)]  # fmt: skip
    for role, token in (("target", subject.target), ("distractor", subject.distractor)):
        if token is not None and token not in set(rows["id"].tolist()):
            prob = float(rows[f"{role}_prob"].iloc[0])
            shown.append((as_word(subject.model.vocabulary[token]), prob, percent(prob), roles[token]))
    return shown


def _recorded_guesses(subject: Subject) -> Any:
    """The best guesses at the position looked at, a row each."""
    rows = subject.recorded.result("predictions")
    return rows[rows["pos"] == subject.pos]
