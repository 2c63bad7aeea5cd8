"""The neuron page over a set of prompts: which neurons are always active (Figures 8 and 9 of the paper)."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from visit.app.every_neuron import every_neuron
from visit.app.fields import field, segments
from visit.app.figure_list import about_set, altair_figure
from visit.app.neurons import chosen_layer, take_neuron
from visit.app.opened import not_recorded
from visit.app.prompt_sets import choose_set, on_model, watched
from visit.app.sessions import state
from visit.app.subject import Subject
from visit.app.widgets import in_cells, on_point, plain, unfolding
from visit.figures import neurons as figures
from visit.runs.prompts import PromptSet


def prompts(subject: Subject) -> PromptSet | None:
    """The set that the rest of the page is about; None while there is nothing usable to run."""
    if not_recorded(subject, "Over a set of prompts"):
        return None
    st.header("Over a set of prompts", anchor=False)
    return choose_set(subject.model)


def statistics(subject: Subject, chosen: PromptSet) -> tuple[Any, Any] | bool:
    """The set's statistics: (table, sums); with Figure 8 and the findings.

    False before a run; True where they wait for every neuron to be read as words.
    """
    from visit.analyses.neuron_sets import NEURON_RUN, neuron_job, statistics_table
    from visit.analyses.neurons import regularization_findings, regularization_table, regularization_verdict
    from visit.runs.answers import run_key

    model = subject.model
    share: Any = st.segmented_control("Most active: so much of a layer", required=True, **segments("nshare"),
                                      help="The paper counts the 100 most active of 4,096 neurons, 2.44 %; elsewhere "
                                      "the same share.")  # fmt: skip
    key = run_key(NEURON_RUN, model, chosen, share)
    run = watched(
        ("neurons", chosen.hash, share),
        key,
        on_model(model, lambda model: neuron_job(model, chosen.rows, float(share) / 100)),
    )
    if run is None:
        return False
    index = every_neuron(model, "What this set's neurons write, and Figure 8, are shown")
    sums = run.result
    if index is None or sums is None or not sums.prompts:
        return index is None
    with st.container(horizontal=True, vertical_alignment="bottom"):
        about = "How active a neuron is: |activation|, or |activation| × ‖row‖, the length of what it adds."
        measure: Any = st.segmented_control("Activity", required=True, wrap=True, help=about, **segments("activity"))
        st.slider("Always active: among the most active on more than", 50, 100, format="%d %%", width=360,
                  **field("always"))  # fmt: skip
    threshold = state().neurons.always / 100
    stats = statistics_table(model, sums, index, measure, threshold)
    summary = regularization_table(stats)
    agrees, verdict = regularization_verdict(stats)
    st.markdown(f"**{'agrees' if agrees else 'differs'}**: {plain(verdict)}")
    with unfolding("neuron-findings", "The paper's claims about them, one by one") as opened:
        if opened:
            for sentence in regularization_findings(summary, stats, sums.prompts):
                st.caption(plain(sentence))
    altair_figure(
        figures.norm_entropy(stats, None, state().neurons.neuron, threshold), width="stretch",
        **on_point("figure8", "neuron", lambda point: take_neuron(point["node"])),
        alt="Norm against entropy of every neuron", about=about_set(model, chosen, sums.prompts),
    )  # fmt: skip
    st.caption(
        f"Figure 8, {sums.prompts:,} prompts: every dot is a neuron, the length of what it writes against how spread "
        "its words are; the colour is how often it is among its layer's most active. Click one for its card."
    )
    _card_summary(summary)
    return stats, sums


def _card_summary(summary: pd.DataFrame) -> None:
    named = [", ".join(f"N{n}" for n in row) for row in summary["neurons"]]
    spoken = [", ".join(f"N{n}" for n in row) for row in summary["function_neurons"]]
    shown = pd.DataFrame({
        "layer": summary["layer"], "count": summary["regularization"], "which": named,
        "top": [f"N{n}" for n in summary["most_frequent"]], "freq": summary["max_freq"],
        "norm": summary["norm_percentile"], "entropy": summary["entropy_percentile"],
        "words": summary["function_share"], "all": summary["layer_function_share"], "spoken": spoken,
        "rogue": summary["rogue"],
    })  # fmt: skip
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    cells = in_cells(shown, percents=["freq", "words", "all"])
    st.dataframe(cells, hide_index=True, placeholder="–", column_config={
        "layer": "Layer", "count": number("Always active", help="How many neurons of this layer."), "which": "Which",
        "top": text("Most frequent", help="The neuron that is most often among its layer's most active."),
        "freq": number("Its share", help="Of the prompts in which it is among the most active."),
        "norm": number("Norm", format="%.0f", help=f"{_MEDIAN} by norm, 0 to 100."),
        "entropy": number("Entropy", format="%.0f", help=f"{_MEDIAN} by entropy, 0 to 100."),
        "words": number("Function", help="Function words among the top words of one of those that are always active, "
                                         "the highest share."),
        "all": number("… of all", help="The mean share over all neurons of the layer."),
        "spoken": text("Write function words", help="Half of their top words or more."),
        "rogue": number("Rogue", help="How many of them have an outlier weight in a rogue dimension of the stream."),
    })  # fmt: skip
    st.caption("Layer by layer: the neurons that are always active, and how they compare with the others of their "
               "layer (norm and entropy: their median percentile).")  # fmt: skip


_MEDIAN = "The median percentile of those that are always active, among the neurons of their layer,"


def figure9(subject: Subject, prompts: PromptSet, stats: Any, sums: Any) -> None:
    """The weights of a layer's most frequent neurons, dimension by dimension."""
    from visit.analyses.neurons import weight_profile

    layer = chosen_layer(subject)
    profile = weight_profile(subject.model, stats, sums, layer)
    with st.container(height=96 * profile["series"].nunique() + 90, border=False):  # scrolls where it is narrow
        about = about_set(subject.model, prompts, sums.prompts)
        altair_figure(figures.weight_lines(profile), "Weights per dimension", about, width="content")
    st.caption(
        f"Figure 9, layer {layer}: what neurons write, dimension by dimension; dots are weights beyond three standard "
        "deviations of their own vector, upright grey lines, if any, the stream's rogue dimensions."
    )
