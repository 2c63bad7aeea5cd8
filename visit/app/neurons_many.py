"""The neuron page over a set of prompts: which neurons are always on, Figures 8 and 9."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from visit.app.address import CHOICES
from visit.app.neurons import layer_of, take_neuron
from visit.app.neurons_all import every_neuron
from visit.app.prompt_bar import Subject, plain
from visit.app.prompt_sets import choose_set, watched
from visit.app.state import field, state
from visit.figures import neurons as figures_neurons
from visit.runs.prompts import PromptSet


def prompts(subject: Subject) -> PromptSet | None:
    """The set that the rest of the page is about; None while there is nothing usable to run."""
    st.subheader("Over a set of prompts", anchor=False)
    return choose_set(subject.model)


def statistics(subject: Subject, chosen: PromptSet) -> tuple[Any, Any] | bool:
    """The set's statistics: (table, sums); with Figure 8 and the findings.

    False before a run; True where they wait for every neuron to be read as words.
    """
    from visit.analyses.neuron_sets import NeuronRun, statistics_table
    from visit.analyses.neurons import regularization_findings, regularization_table
    from visit.runs.promptset import run_key

    model = subject.model
    share: Any = st.segmented_control("Most active: so much of a layer", CHOICES["nshare"], required=True,
                                      format_func=lambda s: f"{s} %", help=_SHARE, **field("nshare"))  # fmt: skip
    key = run_key("neurons 1", model, chosen, share)
    run = watched(("neurons", chosen.hash, share), key, lambda: NeuronRun(model, chosen.rows, float(share) / 100))
    if run is None:
        return False
    index = every_neuron(model, "What this set's neurons write, and Figure 8, are shown")
    sums = run.result
    if index is None or sums is None or not sums.prompts:
        return index is None
    with st.container(horizontal=True, vertical_alignment="bottom"):
        measure: Any = st.segmented_control("Activity", ["activation", "weighted"], required=True, **field("activity"),
                                            format_func=lambda m: _MEASURES[m])  # fmt: skip
        threshold = st.slider("Always on: among the most active on more than", 0.5, 1.0, 0.85, 0.01, width=360)
    stats = statistics_table(model, sums, index, measure, threshold)
    summary = regularization_table(stats)
    for sentence in regularization_findings(summary, stats, sums.prompts):
        st.markdown(plain(sentence))
    chart = figures_neurons.norm_entropy(stats, None, state().neuron, threshold)
    st.altair_chart(chart, width="stretch", key="figure8", selection_mode="neuron", on_select=_take_dot,
                    alt="Norm against entropy of every neuron")  # fmt: skip
    st.caption(
        f"Figure 8, {sums.prompts:,} prompts: every dot is a neuron, the length of what it writes against how spread "
        "its words are; the colour is how often it is among its layer's most active. Click one for its card."
    )
    _summary(summary)
    return stats, sums


_SHARE = "The paper counts the 100 most active of 4,096 neurons, 2.44 %; elsewhere the same share."
_MEASURES = {"activation": "|activation| (the paper)", "weighted": "|activation| × ‖row‖ (the authors' code)"}


def _summary(summary: pd.DataFrame) -> None:
    named = [", ".join(f"N{n}" for n in row) for row in summary["neurons"]]
    spoken = [", ".join(f"N{n}" for n in row) for row in summary["function_neurons"]]
    shown = pd.DataFrame({
        "layer": summary["layer"], "count": summary["regularization"], "which": named,
        "top": [f"N{n}" for n in summary["most_frequent"]], "freq": 100 * summary["max_freq"],
        "norm": summary["norm_percentile"], "entropy": summary["entropy_percentile"],
        "words": 100 * summary["function_share"], "all": 100 * summary["layer_function_share"], "spoken": spoken,
        "rogue": summary["rogue"],
    })  # fmt: skip
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    st.dataframe(shown, hide_index=True, placeholder="–", column_config={
        "layer": "Layer", "count": number("Always on", help="How many neurons of this layer."), "which": "Which",
        "top": text("Most frequent", help="The neuron that is most often among its layer's most active."),
        "freq": number("Its share", format="%.0f %%", help="Of the prompts in which it is among the most active."),
        "norm": number("Norm", format="%.0f", help=f"{_MEDIAN} by norm, 0 to 100."),
        "entropy": number("Entropy", format="%.0f", help=f"{_MEDIAN} by entropy, 0 to 100."),
        "words": number("Function", format="%.0f %%", help="Function words among the top words of one of those that "
                                                           "are always on, the highest share."),
        "all": number("… of all", format="%.0f %%", help="The mean share over all neurons of the layer."),
        "spoken": text("Read so", help="Always on, and at least half of its top words are function words."),
        "rogue": number("Rogue", help="How many of them have an outlier weight in a rogue dimension of the stream."),
    })  # fmt: skip
    st.caption("Layer by layer: the neurons that are always on, and how they compare with the others of their layer "
               "(norm and entropy: their median percentile).")  # fmt: skip


_MEDIAN = "The median percentile of those that are always on, among the neurons of their layer,"


def _take_dot() -> None:
    found = st.session_state["figure8"]["selection"].get("neuron") or []
    if found:
        take_neuron(found[0]["node"])


def figure9(subject: Subject, stats: Any, sums: Any) -> None:
    """The weights of a layer's most frequent neurons, dimension by dimension."""
    from visit.analyses.neurons import weight_profile

    layer = layer_of(subject)
    profile = weight_profile(subject.model, stats, sums, layer)
    with st.container(height=96 * profile["series"].nunique() + 90, border=False):  # scrolls where it is narrow
        st.altair_chart(figures_neurons.weight_lines(profile), width="content", alt="Weights per dimension")
    st.caption(
        f"Figure 9, layer {layer}: what neurons write, dimension by dimension; dots are weights beyond three standard "
        "deviations of their own vector, upright grey lines, if any, the stream's rogue dimensions."
    )
