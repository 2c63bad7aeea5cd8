"""A neuron's card on the page: its words, its neighbours, what a set does to it, and every token of the set."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from visit.app import graph_panel as graphs
from visit.app.neurons import neuron_of, spoken, take_row
from visit.app.prompt_bar import Subject
from visit.app.prompt_sets import watched
from visit.app.state import change
from visit.figures import neurons as figures_neurons
from visit.runs.prompts import PromptSet
from visit.text.glossary import explain
from visit.text.visible import visible

KWIC = 36  # characters shown on either side of a token
_TINT = {1: "rgba(11, 122, 117, 0.35)", -1: "rgba(213, 94, 0, 0.35)"}  # behind the token, on light and on dark


def card(subject: Subject, prompts: PromptSet | None, found: tuple[Any, Any] | None) -> None:
    """Everything about the neuron that the address names. `found`: the statistics of the set, once it was run.

    Its rows are read here and now where not every neuron is read yet.
    """
    from visit.analyses.neurons import neuron_card
    from visit.lenses.weights import found_index

    chosen = neuron_of(subject)
    if chosen is None:
        st.caption("Choose a neuron in a table or figure of this page: its card stands here.")
        return
    if st.session_state.get("neuron_card") != chosen:  # chosen further down, the card is out of sight
        st.toast(f"The card of L{chosen[0]} N{chosen[1]} stands under the most active neurons.")
        st.session_state["neuron_card"] = chosen
    stats, sums = found or (None, None)
    index = found_index(subject.model)
    made = neuron_card(subject.model, index, *chosen, stats, sums, () if prompts is None else prompts.prompts)
    st.subheader(f"Neuron L{chosen[0]} N{chosen[1]}", anchor=False)
    if "freq" in made:
        always = ", a regularization neuron" if made["is_regularization"] else ""
        st.markdown(f"Among its layer's most active on **{made['freq']:.0%}** of {made['prompts']:,} prompts{always}; "
                    f"activation {made['mean']:+.3f} on average, {made['max']:+.3f} at most.")  # fmt: skip
    _weights(made["tables"]["words"], index is not None)
    with graphs.beside("card"):
        left, right = st.columns(2, gap="large")
    if "histogram" in made["tables"]:
        with left:
            _over_set(made)
    with right if "histogram" in made["tables"] else left:
        _similar(made["tables"]["similar"])
    dims = ", ".join(str(d) for d in made["outlier_dims"][:12])
    dims = f"dimensions {dims}" if dims else "none"
    last = " Histogram and examples are of the set above, at the last token." if "histogram" in made["tables"] else ""
    st.caption(f"Outlier weights (beyond three standard deviations of its own): {dims}.{last}")
    if prompts is not None:
        _tokens(subject, prompts, *chosen)


def _weights(words: pd.DataFrame, all_read: bool) -> None:
    number = st.column_config.NumberColumn
    among = "Among the neurons of its layer." + ("" if all_read else " Known once every neuron is read as words.")
    shown = pd.DataFrame({
        "role": words["role"], "tokens": [spoken(w, 10) for w in words["tokens"]],
        "negated": [spoken(w, 10) for w in words["negated_tokens"]],
        **{name: words[name] for name in ("entropy", "entropy_percentile", "norm", "norm_percentile")},
    })  # fmt: skip
    st.dataframe(shown, hide_index=True, placeholder="–", column_config={
        "role": st.column_config.TextColumn("Its", width=60),
        "tokens": "Top words",
        "negated": "Top words, turned round",
        "entropy": number("Entropy, bits", format="%.2f", help=explain("entropy")),
        "entropy_percentile": number("… percentile", format="%.0f", help=among),
        "norm": number("Norm", format="%.3g", help=explain("norm")),
        "norm_percentile": number("… percentile", format="%.0f", help="Among the neurons of its layer."),
    })  # fmt: skip


def _over_set(made: dict[str, Any]) -> None:
    st.markdown("**The prompts that activate it most at their last token**")
    rows = made["tables"]["examples"]
    st.dataframe(
        pd.DataFrame({"prompt": [visible(t) for t in rows["prompt"]], "activation": rows["activation"]}),
        hide_index=True, column_config={
            "prompt": "Prompt",
            "activation": st.column_config.NumberColumn("Activation", format="%+.3f"),
        },
    )  # fmt: skip
    chart = figures_neurons.activation_histogram(made["tables"]["histogram"], made["mean"])
    st.altair_chart(chart, width="stretch", alt="Activations over the set")


def _similar(near: pd.DataFrame) -> None:
    st.markdown("**Neurons that write most nearly the same**")
    names = [f"L{n} N{m}" for n, m in zip(near["layer"], near["neuron"], strict=True)]
    nodes = [f"L{n}.mlp_value{m}" for n, m in zip(near["layer"], near["neuron"], strict=True)]
    st.dataframe(
        pd.DataFrame({"name": names, "cosine": near["cosine"], "tokens": [spoken(w) for w in near["tokens"]]}),
        hide_index=True, key="similar", selection_mode="single-row", on_select=partial(take_row, "similar", nodes),
        column_config={
            "name": "Neuron", "cosine": st.column_config.NumberColumn("Cosine", format="%.3f"),
            "tokens": "Writes",
        },
    )  # fmt: skip


# ---- every token of the set ------------------------------------------------------------------------------------------


def _tokens(subject: Subject, prompts: PromptSet, layer: int, neuron: int) -> None:
    """What activates it anywhere in the set, not at the last tokens only."""
    from visit.analyses.neuron_tokens import TokensRun, token_tables
    from visit.runs.promptset import run_key

    st.markdown("**The tokens that activate it most**")
    model = subject.model
    key = run_key("neuron tokens 1", model, prompts, layer, neuron)
    run = watched(("tokens", prompts.hash, layer, neuron), key,
                  lambda: TokensRun(model, prompts.rows, layer, neuron), "Look at every token of the set")  # fmt: skip
    sums = None if run is None else run.result
    if sums is None or not sums.prompts:
        return
    made = token_tables(model, sums, prompts.prompts)
    with graphs.beside("tokens"):
        left, right = st.columns([5, 3], gap="large")
    with left:
        for sign, title in ((1, "Most active"), (-1, "Most negative")):
            rows = made["tokens"]
            _contexts(rows[sign * rows["activation"] > 0], sign, title, prompts)
    with right:
        _means(made["token_means"])
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
    key = f"contexts {title}"
    places = list(zip(rows["number"], rows["position"], strict=True))
    st.dataframe(
        shown.style.set_properties(subset=["token"], **{"background-color": _TINT[sign]}), hide_index=True,
        height=min(36 * (len(shown) + 1) + 2, 362), key=key, selection_mode="single-row",
        on_select=partial(_take_context, key, places, prompts),
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


def _take_context(key: str, places: list[tuple[int, int]], prompts: PromptSet) -> None:
    """Look at the prompt of a row, at its token."""
    rows = st.session_state[key]["selection"]["rows"]
    if rows and rows[0] < len(places):
        number, position = places[rows[0]]
        change(prompt=prompts.prompts[number], pos=int(position), target="", distractor="", node="", detail="", pin="",
               align="", head="", source="")  # fmt: skip


def _means(means: pd.DataFrame) -> None:
    number = st.column_config.NumberColumn
    shown = means.drop(columns=["token_id", "min"]).assign(token=[visible(t) for t in means["token"]])
    st.dataframe(shown, hide_index=True, height=362, column_config={
        "token": "Token, highest mean first", "mean": number("Mean", format="%+.3f"),
        "count": number("Places", help="How many positions of the set hold this token."),
        "max": number("Largest", format="%+.3f"),
    })  # fmt: skip
