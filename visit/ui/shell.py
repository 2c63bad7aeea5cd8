"""What every page shares: the sidebar with model and ledger, and the prompt bar.

Nothing here imports torch before the controls stand: the page paints first, then a status says what is loading.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

import visit
from visit.errors import VisitError
from visit.glossary import explain
from visit.listed import LISTED, MINI, is_hosted
from visit.permalink import DEFAULT_PROMPT, PROMPT_CHARACTERS
from visit.ui.cached import st_capture, st_ledger, st_model
from visit.ui.state import change, field, state
from visit.words import visible

if TYPE_CHECKING:
    from visit.forward import Activations
    from visit.model import Model

CHIPS = 200  # tokens offered as chips at once; a number field reaches all of a longer prompt


def sidebar() -> None:
    """Model and ledger. Needs no torch: the ledger fills in when the page has loaded the model."""
    with st.sidebar:
        names = list(dict.fromkeys([*LISTED, state().model]))
        st.selectbox(
            "Model",
            names,
            format_func=lambda n: f"{n.split('/')[-1]} ({LISTED[n]})" if n in LISTED else n,
            accept_new_options=not is_hosted(),
            help="The embedded model works offline. "
            + ("" if is_hosted() else "Or type a hub id (openai-community/gpt2) or the path of a model folder. ")
            + "Only safetensors are read.",
            **field("model"),
        )
        st.session_state["visit_ledger"] = st.empty()


def _show_ledger(model: Model) -> None:
    """How exactly this model is read, in the sidebar."""
    table = st_ledger(model.name)
    holds = bool(table["holds"].all())
    worst = float(table["max_rel_error"].max())
    with st.session_state["visit_ledger"].container():
        st.caption(
            f"{model.family.name} · {model.n_layers} blocks × {model.n_heads} heads · d_model {model.d_model} · "
            f"{model.d_vocab:,} words"
        )
        label = f"Ledger: {'exact' if holds else 'NOT exact'} ({worst:.0e})"
        with st.expander(label, icon=":material/verified:" if holds else ":material/warning:"):
            st.caption(explain("ledger"))
            errors = table.groupby(["identity", "name"], as_index=False).agg(
                error=("max_rel_error", "max"), allowed=("tolerance", "max"), holds=("holds", "all")
            )
            for _, row in errors.iterrows():
                mark = ":material/check:" if row["holds"] else ":material/close:"
                st.caption(f"{mark} {row['name']}: {row['error']:.0e} (allowed {row['allowed']:.0e})")
    if not holds:
        st.error(
            "This model's ledger fails: what is shown cannot be trusted. The sidebar says which identity.",
            icon=":material/warning:",
        )


@dataclass(frozen=True, eq=False)
class Subject:
    """What a page is about: a model, a captured pass, a position, and the words it is asked about."""

    model: Model
    acts: Activations
    pos: int
    target: int
    distractor: int | None

    @property
    def key(self) -> tuple[str, str]:
        return self.model.name, self.acts.prompt


def prompt_bar() -> Subject:
    """The shared bar on top of a page: prompt, examples, token chips, prediction, target and distractor."""
    for note in st.session_state.get("visit_notes", []):
        st.info(note, icon=":material/link:")
    left, right = st.columns([4, 1], vertical_alignment="bottom")
    left.text_input("Prompt", help=explain("prompt"), max_chars=PROMPT_CHARACTERS, **field("prompt"))
    examples = _examples()
    right.selectbox(
        "Examples", list(examples), index=None, placeholder="Try one…", key="example", on_change=_take_example
    )
    model, acts = _run()
    _show_ledger(model)
    bar, chart = st.columns([3, 2], gap="medium")
    with bar:
        pos = _chips(acts)
        words = st.columns(2)
        target = _word(model, words[0], "target", "the model's own prediction")
        distractor = _word(model, words[1], "distractor", "none")
    if target is None:
        assert acts.logits is not None
        target = int(acts.logits[pos].argmax())
    with chart:
        _prediction(model, acts, pos, target)
    return Subject(model, acts, pos, target, distractor)


@st.cache_resource(show_spinner=False)
def _examples() -> dict[str, tuple[str, str, str]]:
    """label → (prompt, target, distractor): the embedded model's own list."""
    file = Path(visit.__file__).parent / "mini" / "examples.csv"
    with file.open(encoding="utf-8", newline="") as rows:
        return {r["label"]: (r["prompt"], r["target"] or "", r["distractor"] or "") for r in csv.DictReader(rows)}


def _take_example() -> None:
    label = st.session_state["example"]
    if label is not None:
        prompt, target, distractor = _examples()[label]
        change(prompt=prompt, target=target, distractor=distractor, pos=-1, node="", detail="", pin="")
        st.session_state["example"] = None


def _run() -> tuple[Model, Activations]:
    """Load and capture behind a status that says what takes the time.

    A model or prompt that cannot be used is said, and the last one that could be used stays on screen.
    """
    memory = st.session_state
    place = st.empty()
    if memory.get("visit_model") != state().model:
        place.status(f"Loading {state().model}: the first visitor waits a few seconds…")
    try:
        model = st_model(state().model)
    except VisitError as problem:
        kept = memory.get("visit_model", MINI)
        st.error(f"{problem} Shown meanwhile: {kept}.", icon=":material/error:")
        model = st_model(kept)
    finally:
        place.empty()
    try:
        acts = st_capture(model.name, state().prompt)
    except VisitError as problem:
        kept = memory.get("visit_prompt", DEFAULT_PROMPT)
        st.error(f"{problem} Shown meanwhile: “{_chip(kept[:80])}”.", icon=":material/error:")
        acts = st_capture(model.name, kept)
    memory["visit_model"], memory["visit_prompt"] = model.name, acts.prompt
    return model, acts


def _chips(acts: Activations) -> int:
    """The prompt's tokens as chips; the chosen one is the position that everything is about."""
    count = len(acts.token_ids)
    try:
        pos = acts.index(state().pos)
    except VisitError as problem:
        st.info(f"{problem} The last position is shown instead.", icon=":material/link:")
        pos = count - 1
    if count > CHIPS:
        st.session_state["w_number"] = pos
        st.number_input(f"Position (of {count} tokens)", 0, count - 1, key="w_number", on_change=_take_number)
        first = max(0, min(pos - CHIPS // 2, count - CHIPS))
        st.caption(f"Tokens {first} to {first + CHIPS - 1} of {count}; the number field reaches all of them.")
    else:
        first = 0
    st.session_state["w_chip"] = pos
    st.pills(
        f"Tokens ({count}), position {pos} is looked at",
        range(first, min(first + CHIPS, count)),
        format_func=lambda i: _chip(acts.tokens[i]),
        help=f"{explain('token')} {explain('position')}",
        key="w_chip",
        wrap=True,
        on_change=_take_chip,
        args=(count,),
    )
    return pos


def _chip(token: str) -> str:
    """A token as the label of a chip: visible, and with Markdown's signs escaped (labels are Markdown)."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]()<>#+-.!|~:$^=&@" else c for c in visible(token))


def _take_chip(count: int) -> None:
    chosen = st.session_state["w_chip"]
    if chosen is not None:  # a second click on the chosen chip changes nothing
        change(pos=-1 if chosen == count - 1 else chosen, node="")


def _take_number() -> None:
    change(pos=int(st.session_state["w_number"]), node="")


def _word(model: Model, place: Any, name: str, empty: str) -> int | None:
    """A target or distractor field. A word that is not one token is refused beside the field; the rest goes on."""
    place.text_input(name.capitalize(), placeholder=empty, help=explain(name), max_chars=200, **field(name))
    text = getattr(state(), name)
    if not text:
        return None
    try:
        token = model.token_id(text, name)
        if not text.startswith(" ") and _spaced(model, text) is not None:
            place.caption(f"“{_chip(text)}” as at the start of a text; inside one its token is “{_chip(' ' + text)}”.")
        return token
    except VisitError as problem:
        spaced = _spaced(model, text)
        if spaced is not None:
            place.caption(f"Read as “{_chip(' ' + text)}”: inside a text a word's token begins with a space.")
            return spaced
        place.warning(f"{problem} Shown instead: {empty}.", icon=":material/edit:")
        return None


def _spaced(model: Model, text: str) -> int | None:
    try:
        return model.token_id(" " + text)
    except VisitError:
        return None


def _prediction(model: Model, acts: Activations, pos: int, target: int) -> None:
    from visit import figures
    from visit.overview import predictions

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
