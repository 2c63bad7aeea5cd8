"""The parts of the neuron page: a layer's most active neurons, one neuron's card, a set's statistics, the search."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from visit import figures_neurons
from visit.errors import VisitError
from visit.glossary import explain
from visit.permalink import CHOICES
from visit.ui import graphs
from visit.ui.cached import st_active
from visit.ui.prompt import Subject, plain
from visit.ui.sets import choose_set, watched
from visit.ui.state import change, field, state
from visit.words import visible

SHOWN = 30  # of the most active neurons
_KINDS = {"mlp": "MLP neurons", "attention": "rows of W_O"}
_ORDERS = {"norm": "by |coefficient| × ‖row‖", "contribution": "by |contribution|", "coefficient": "by |coefficient|"}


def index_of(subject: Subject) -> Any:
    """The model's static index; computed once per model, with a progress bar."""
    from visit.static import is_ready, static_index

    if is_ready(subject.model):
        return static_index(subject.model)
    place = st.empty()
    bar = place.progress(0.0, "Every neuron is read as words, once per model…")

    def progress(done: int, total: int) -> None:
        bar.progress(min(1.0, done / max(total, 1)))

    found = static_index(subject.model, progress)
    place.empty()
    return found


def _layer(subject: Subject) -> int:
    last = subject.model.n_layers - 1
    return min(last, int(state().layer)) if state().layer else last


def _neuron(subject: Subject) -> tuple[int, int] | None:
    """(layer, neuron) of the address, if the model has it."""
    text = state().neuron
    if not text:
        return None
    layer, number = (int(n) for n in text[1:].split(".mlp_value"))
    return (layer, number) if layer < subject.model.n_layers and number < subject.model.d_mlp else None


def _words(tokens: Any, count: int = 5) -> str | None:
    return ", ".join(visible(t) for t in tokens[:count]) if isinstance(tokens, (list, tuple)) else None


# ---- one prompt ------------------------------------------------------------------------------------------------------


def active(subject: Subject) -> None:
    """The most active neurons of a layer at this position."""
    layer = _layer(subject)
    token = plain(visible(subject.acts.tokens[subject.pos]))
    st.subheader(f"Most active at position {subject.pos} ({token})", anchor=False, help=explain("mlp_value"))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        key = "w_neuron_layer"
        if st.session_state.get(key) != layer:
            st.session_state[key] = layer
        st.selectbox("Layer", range(subject.model.n_layers), key=key, width=110,
                     on_change=lambda: change(layer=str(st.session_state[key])))  # fmt: skip
        kind: Any = st.segmented_control("Kind", list(_KINDS), format_func=lambda k: _KINDS[k], required=True,
                                         help=explain("attn_neuron"), **field("kind"))  # fmt: skip
        st.selectbox("Order", list(_ORDERS), format_func=lambda o: _ORDERS[o], width=260, **field("nsort"))
    table = st_active(*subject.about, layer, kind, state().nsort, SHOWN)
    _active_table(table, kind, visible(subject.model.vocabulary[subject.target]))
    st.caption(
        f"The {SHOWN} most active of layer {layer}. Words: what the neuron writes with this coefficient's sign, and "
        "the "
        "direction it answers to. The last rows are all other neurons together and the bias: with them the "
        "contributions "
        "add up to what the whole layer part adds. Choose a row for the neuron's card."
    )
    graphs.downloads(partial(_file, subject, table), "neurons", ("zip", "json"))


def _active_table(table: pd.DataFrame, kind: str, target: str) -> None:
    names = [_name(row) for row in table.to_dict("records")]
    shown = pd.DataFrame({
        "name": names, "coefficient": table["coefficient"], "row_norm": table["row_norm"], "norm": table["norm"],
        "share": table["share"], "contribution": table["contribution"], "rank": table["rank"],
        "writes": [_words(w) for w in table["tokens"]], "bottom": [_words(w, 3) for w in table["bottom_tokens"]],
    })  # fmt: skip
    for column, title in (("key_tokens", "reads"), ("gate_tokens", "gate")):
        if column in table and table[column].notna().any():
            shown[title] = [_words(w) for w in table[column]]
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    st.dataframe(
        shown, hide_index=True, height=420, placeholder="–", key=f"active_{kind}", selection_mode="single-row",
        on_select=partial(_take_row, f"active_{kind}", table["node"].tolist()),
        column_config={
            "name": text("Neuron", pinned=True),
            "coefficient": number("Coefficient", format="%+.3f", help=explain("coefficient")),
            "row_norm": number("‖row‖", format="%.3g"), "norm": number("|coefficient| × ‖row‖", format="%.3g"),
            "share": number("Share", format="percent"),
            "contribution": number("Contribution", format="%+.4f", help=explain("contribution")),
            "rank": number(f"Rank of {target}", help=explain("rank")), "writes": text("Writes"),
            "bottom": text("Writes least"), "reads": text("Reads", help=explain("mlp_key")),
            "gate": text("Its gate reads"),
        },
    )  # fmt: skip


def _name(row: dict[str, Any]) -> str:
    if pd.isna(row["neuron"]):
        return "all others" if str(row["node"]).endswith("rest") else "the bias"
    return f"N{row['neuron']}" + ("" if pd.isna(row["head"]) else f" (H{row['head']})")


def _take_row(key: str, nodes: list[Any]) -> None:
    rows = st.session_state[key]["selection"]["rows"]
    if rows and rows[0] < len(nodes):
        take_neuron(nodes[rows[0]])


def take_neuron(node: Any) -> None:
    """Open a neuron's card."""
    if isinstance(node, str) and ".mlp_value" in node:
        change(neuron=node)


def _file(subject: Subject, table: pd.DataFrame, kind: str) -> bytes | str:
    from visit import tables
    from visit.recollection import memory_meta

    meta = memory_meta(subject.model, subject.acts, subject.pos, subject.target, subject.distractor)
    made = {"neurons": table}
    return tables.to_json(meta, made) if kind == "json" else tables.to_zip(meta, made)


# ---- over a set ------------------------------------------------------------------------------------------------------


def statistics(subject: Subject, index: Any) -> tuple[Any, Any, Any] | None:
    """The set's statistics: (table, sums, the set), or None before a run; with Figures 8 and 9 and the findings."""
    from visit.neurons import NeuronRun, statistics_table
    from visit.neurons_card import regularization_findings, regularization_table
    from visit.promptset import run_key

    st.subheader("Over a set of prompts", anchor=False)
    model = subject.model
    chosen = choose_set(model)
    if chosen is None:
        return None
    share: Any = st.segmented_control("Most active: so much of a layer", CHOICES["nshare"], required=True,
                                      format_func=lambda s: f"{s} %", help=_SHARE, **field("nshare"))  # fmt: skip
    key = run_key("neurons 1", model, chosen, share)
    run = watched(("neurons", chosen.hash, share), key, lambda: NeuronRun(model, chosen.rows, float(share) / 100))
    sums = None if run is None else run.result
    if sums is None or not sums.prompts:
        return None
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
    return stats, sums, chosen


_SHARE = "The paper counts the 100 most active of 4,096 neurons, 2.44 %; elsewhere the same share."
_MEASURES = {"activation": "|activation| (the paper)", "weighted": "|activation| × ‖row‖ (the authors' code)"}


def _summary(summary: pd.DataFrame) -> None:
    shown = summary.assign(
        neurons=[", ".join(f"N{n}" for n in row) for row in summary["neurons"]],
        function_neurons=[", ".join(f"N{n}" for n in row) for row in summary["function_neurons"]],
    )
    number = st.column_config.NumberColumn
    st.dataframe(shown, hide_index=True, placeholder="–", column_config={
        "layer": "Layer", "regularization": "How many are always on", "neurons": "Which",
        "max_freq": number("Highest frequency", format="percent"), "most_frequent": "Most frequent neuron",
        "norm_percentile": number("Norm, percentile", format="%.0f"),
        "entropy_percentile": number("Entropy, percentile", format="%.0f"),
        "function_share": number("Function words among their top words, most", format="percent"),
        "layer_function_share": number("… of all neurons, mean", format="percent"),
        "function_neurons": "Read as function words", "rogue": "With an outlier in a rogue dimension",
    })  # fmt: skip


def _take_dot() -> None:
    found = st.session_state["figure8"]["selection"].get("neuron") or []
    if found:
        take_neuron(found[0]["node"])


def figure9(subject: Subject, stats: Any, sums: Any) -> None:
    """The weights of a layer's most frequent neurons, dimension by dimension."""
    from visit.neurons_card import weight_profile

    layer = _layer(subject)
    profile = weight_profile(subject.model, stats, sums, layer)
    st.altair_chart(figures_neurons.weight_lines(profile), width="content", alt="Weights per dimension")
    st.caption(
        f"Figure 9, layer {layer}: what neurons write, dimension by dimension; dots are weights beyond three standard "
        "deviations of their own vector, grey lines the stream's rogue dimensions."
    )


# ---- one neuron ------------------------------------------------------------------------------------------------------


def card(subject: Subject, index: Any, found: tuple[Any, Any, Any] | None) -> None:
    """Everything about the neuron that the address names."""
    from visit.neurons_card import neuron_card

    chosen = _neuron(subject)
    if chosen is None:
        st.caption("Choose a neuron in a table or figure to see its card.")
        return
    stats, sums, prompts = found if found is not None else (None, None, None)
    made = neuron_card(subject.model, index, *chosen, stats, sums, () if prompts is None else prompts.prompts)
    st.subheader(f"Neuron L{chosen[0]} N{chosen[1]}", anchor=False)
    if "freq" in made:
        always = ", a regularization neuron" if made["is_regularization"] else ""
        st.markdown(f"Among its layer's most active on **{made['freq']:.0%}** of {made['prompts']:,} prompts{always}; "
                    f"activation {made['mean']:+.3f} on average, {made['max']:+.3f} at most.")  # fmt: skip
    words = made["tables"]["words"]
    shown = words.assign(
        tokens=[_words(w, 10) for w in words["tokens"]], negated=[_words(w, 10) for w in words["negated_tokens"]]
    )
    st.dataframe(shown.drop(columns=["negated_tokens", "matrix"]), hide_index=True, column_config={
        "role": "Its", "tokens": "Top words", "negated": "Top words, turned round",
        "entropy": st.column_config.NumberColumn("Entropy, bits", format="%.2f"),
        "norm": st.column_config.NumberColumn("Norm", format="%.3g"),
        "norm_percentile": st.column_config.NumberColumn("Norm, percentile in its layer", format="%.0f"),
        "entropy_percentile": st.column_config.NumberColumn("Entropy, percentile", format="%.0f"),
    })  # fmt: skip
    with graphs.beside("card"):
        left, right = st.columns(2, gap="large")
    if "histogram" in made["tables"]:
        chart = figures_neurons.activation_histogram(made["tables"]["histogram"], made["mean"])
        left.altair_chart(chart, width="stretch", alt="Activations over the set")
        rows = made["tables"]["examples"]
        left.dataframe(rows.assign(token=[visible(t) for t in rows["token"]]), hide_index=True,
                       column_config={"prompt": "The prompts that activate it most"})  # fmt: skip
    near = made["tables"]["similar"]
    right.markdown("**Neurons that write most nearly the same**")
    right.dataframe(near.assign(tokens=[_words(w) for w in near["tokens"]]), hide_index=True)
    dims = ", ".join(str(d) for d in made["outlier_dims"][:12]) or "none"
    st.caption(
        f"Outlier weights (beyond three standard deviations of its own): dimensions {dims}. Histogram and examples are "
        "of the set above, at the last token."
    )


# ---- search ----------------------------------------------------------------------------------------------------------


def search(subject: Subject, index: Any) -> None:
    """Every neuron of the model whose words hold a word."""
    from visit.static import search as look_up

    st.subheader("Search all neurons by word", anchor=False)
    st.text_input("A word (one token; its leading space is added if needed)", max_chars=100, **field("word"))
    if not state().word:
        return
    token = _token(subject, state().word)
    if token is None:
        return
    found = look_up(index, token)
    word = plain(visible(subject.model.vocabulary[token]))
    if found.empty:
        st.info(f"No neuron has {word} among its top words.", icon=":material/search:")
        return
    listed = [c for c in found.columns if found[c].map(lambda v: isinstance(v, (list, tuple))).any()]
    shown = found.head(500).assign(**{c: [_words(w) for w in found[c].head(500)] for c in listed})
    st.dataframe(shown, hide_index=True, height=360, placeholder="–", key="found", selection_mode="single-row",
                 on_select=partial(_take_found, found.head(500)))  # fmt: skip
    st.caption(
        f"{len(found):,} rows of all layers have {word} among their top words of either sign. Choose a row of W_in or "
        "W_out for the neuron's card."
    )


def _token(subject: Subject, text: str) -> int | None:
    for one in (text if text.startswith(" ") else f" {text}", text):
        try:
            return subject.model.token_id(one, "word")
        except VisitError as problem:
            last = problem
    st.warning(str(last), icon=":material/edit:")
    return None


def _take_found(found: pd.DataFrame) -> None:
    rows = st.session_state["found"]["selection"]["rows"]
    if rows and rows[0] < len(found):
        row = found.iloc[rows[0]]
        if row["matrix"] != "W_O":
            take_neuron(f"L{row['layer']}.mlp_value{row['neuron']}")
