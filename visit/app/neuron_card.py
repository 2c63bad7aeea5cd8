"""The neuron page: a card for one neuron, with the tokens of the set that activate it most."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from visit.app.figure_list import about_set, altair_figure
from visit.app.neurons import chosen_neuron, take_neuron
from visit.app.opened import not_recorded
from visit.app.prompt_sets import on_model, watched
from visit.app.sessions import session, take
from visit.app.subject import Subject
from visit.app.widgets import beside, on_row, words_cell
from visit.figures import neurons as figures
from visit.runs.prompts import PromptSet
from visit.text.glossary import explain
from visit.text.numbers import percent, signed
from visit.text.visible import visible

KWIC = 36  # characters shown on either side of a token
_TINT = {1: "rgba(11, 122, 117, 0.35)", -1: "rgba(213, 94, 0, 0.35)"}  # behind the token, on light and on dark


def card(subject: Subject, prompts: PromptSet | None, found: tuple[Any, Any] | None) -> None:
    """Everything about the neuron that the address names. `found`: the statistics of the set, once it was run.

    Its rows are read here and now where not every neuron is read yet.
    """
    chosen = chosen_neuron(subject)
    if chosen is not None and not_recorded(subject, f"Neuron L{chosen[0]} N{chosen[1]}"):
        return
    if chosen is None:
        st.caption("Choose a neuron in a table or figure of this page: its card stands here.")
        return
    from visit.analyses.neurons import neuron_card
    from visit.lenses.weights import found_index

    if session().card != chosen:  # chosen further down, the card is out of sight
        st.toast(f"The card of L{chosen[0]} N{chosen[1]} stands under the most active neurons.")
        session().card = chosen
    stats, sums = found or (None, None)
    index = found_index(subject.model)
    made = neuron_card(subject.model, index, *chosen, stats, sums, () if prompts is None else prompts.prompts)
    st.header(f"Neuron L{chosen[0]} N{chosen[1]}", anchor=False)
    if "freq" in made:
        always = ", that is, always" if made["is_regularization"] else ""
        st.markdown(
            f"Among its layer's most active on **{percent(made['freq'])}** of {made['prompts']:,} prompts{always}; "
            f"activation {signed(made['mean'])} on average, {signed(made['max'])} at most."
        )
    _own_words(made["tables"]["words"], index is not None)
    with beside("card"):
        left, right = st.columns(2, gap="large")
    if "histogram" in made["tables"]:
        with left:
            _over_set(made, about_set(subject.model, prompts, made["prompts"]) if prompts is not None else None)
    with right if "histogram" in made["tables"] else left:
        _similar(made["tables"]["similar"])
    dims = ", ".join(str(d) for d in made["outlier_dims"][:12])
    dims = f"dimensions {dims}" if dims else "none"
    last = " Histogram and examples are of the set above, at the last token." if "histogram" in made["tables"] else ""
    st.caption(f"Outlier weights (beyond three standard deviations of its own): {dims}.{last}")
    if prompts is not None:
        _every_token(subject, prompts, *chosen)


def _own_words(words: pd.DataFrame, all_read: bool) -> None:
    number = st.column_config.NumberColumn
    among = "Among the neurons of its layer." + ("" if all_read else " Known once every neuron is read as words.")
    shown = pd.DataFrame({
        "role": words["role"], "tokens": [words_cell(w, 10) for w in words["tokens"]],
        "negated": [words_cell(w, 10) for w in words["negated_tokens"]],
        **{name: words[name] for name in ("entropy", "entropy_percentile", "norm", "norm_percentile")},
    })  # fmt: skip
    st.dataframe(shown, hide_index=True, placeholder="–", column_config={
        "role": st.column_config.TextColumn("Its", width=60),
        "tokens": "Top words",
        "negated": "Top words with a negative coefficient",
        "entropy": number("Entropy, bits", format="%.2f", help=explain("entropy")),
        "entropy_percentile": number("… percentile", format="%.0f", help=among),
        "norm": number("Norm", format="%.3g", help=explain("norm")),
        "norm_percentile": number("… percentile", format="%.0f", help="Among the neurons of its layer."),
    })  # fmt: skip


def _over_set(made: dict[str, Any], about: dict[str, Any] | None) -> None:
    st.markdown("**The prompts that activate it most at their last token**")
    rows = made["tables"]["examples"]
    st.dataframe(
        pd.DataFrame({"prompt": [visible(t) for t in rows["prompt"]], "activation": rows["activation"]}),
        hide_index=True, column_config={
            "prompt": "Prompt",
            "activation": st.column_config.NumberColumn("Activation", format="%+.3f"),
        },
    )  # fmt: skip
    chart = figures.activation_histogram(made["tables"]["histogram"], made["mean"])
    altair_figure(chart, "Activations over the set", about, width="stretch")


def _similar(near: pd.DataFrame) -> None:
    st.markdown("**Neurons that write most nearly the same**")
    names = [f"L{n} N{m}" for n, m in zip(near["layer"], near["neuron"], strict=True)]
    nodes = [f"L{n}.mlp_value{m}" for n, m in zip(near["layer"], near["neuron"], strict=True)]
    st.dataframe(
        pd.DataFrame({"name": names, "cosine": near["cosine"], "tokens": [words_cell(w) for w in near["tokens"]]}),
        hide_index=True, **on_row("similar", nodes, take_neuron),
        column_config={
            "name": "Neuron", "cosine": st.column_config.NumberColumn("Cosine", format="%.3f"),
            "tokens": "Writes",
        },
    )  # fmt: skip


# ---- every token of the set ------------------------------------------------------------------------------------------


def _every_token(subject: Subject, prompts: PromptSet, layer: int, neuron: int) -> None:
    """What activates it anywhere in the set, not at the last tokens only."""
    from visit.analyses.neuron_tokens import TOKENS_RUN, token_tables, tokens_job
    from visit.runs.answers import run_key

    st.markdown("**The tokens that activate it most**")
    model = subject.model
    key = run_key(TOKENS_RUN, model, prompts, layer, neuron)
    make = on_model(model, lambda model: tokens_job(model, prompts.rows, layer, neuron))
    run = watched(("tokens", prompts.hash, layer, neuron), key, make, "Look at every token of the set")
    sums = None if run is None else run.result
    if sums is None or not sums.prompts:
        return
    made = token_tables(model, sums, prompts.prompts)
    with beside("tokens"):
        left, right = st.columns([5, 3], gap="large")
    with left:
        for sign, title in ((1, "Most active"), (-1, "Most negative")):
            rows = made["tokens"]
            _contexts(rows[sign * rows["activation"] > 0], sign, title, prompts)
    with right:
        _token_means(made["token_means"])
    st.caption(
        f"Every one of the {sums.positions:,} tokens of {sums.prompts:,} prompts. A row is a token with what stands "
        "before and after it; the model sees only what is before, so that prompts which begin in the same way count as "
        "one row. Choose a row to look at its prompt. Right: the mean activation over all places where a token stands."
    )


def _contexts(rows: pd.DataFrame, sign: int, title: str, prompts: PromptSet) -> None:
    if rows.empty:
        return
    shown = pd.DataFrame({
        "activation": rows["activation"].tolist(), "before": [_cut(text, -KWIC) for text in rows["before"]],
        "token": [visible(t) for t in rows["token"]], "after": [_cut(text, KWIC) for text in rows["after"]],
        "prompts": rows["prompts"].tolist(),
    })  # fmt: skip
    text, number = st.column_config.TextColumn, st.column_config.NumberColumn
    places = list(zip(rows["number"].tolist(), rows["position"].tolist(), strict=True))

    def look_there(place: tuple[int, int]) -> None:
        take(prompt=prompts.prompts[place[0]], pos=place[1])

    st.dataframe(
        shown.style.set_properties(subset=["token"], **{"background-color": _TINT[sign]}), hide_index=True,
        height=min(36 * (len(shown) + 1) + 2, 362), **on_row(f"contexts {title}", places, look_there),
        column_config={
            "activation": number(title, format="%+.3f", help="The activation."),
            "before": text("Before", alignment="right"), "token": text("Token"), "after": text("After"),
            "prompts": number("Prompts", help="How many begin in the same way, up to this token."),
        },
    )  # fmt: skip


def _cut(text: str, room: int) -> str:
    """The first `room` characters of a text, or its last −`room`; `…` stands for what is cut."""
    if not text:
        return ""
    if len(text) <= abs(room):
        return visible(text)
    return visible(text[:room]) + "…" if room > 0 else "…" + visible(text[room:])


def _token_means(means: pd.DataFrame) -> None:
    number = st.column_config.NumberColumn
    shown = means.drop(columns=["token_id", "min"]).assign(token=[visible(t) for t in means["token"]])
    st.dataframe(shown, hide_index=True, height=362, column_config={
        "token": "Token, highest mean first", "mean": number("Mean", format="%+.3f"),
        "count": number("Places", help="How many positions of the set hold this token."),
        "max": number("Largest", format="%+.3f"),
    })  # fmt: skip
