"""The neuron page on one prompt: a layer's most active neurons, and the search of all neurons by a word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from visit.app.cached_heads import st_active
from visit.app.every_neuron import every_neuron
from visit.app.fields import choice, field, listed, segments
from visit.app.figure_list import collect_figure
from visit.app.opened import not_recorded
from visit.app.sessions import change, session, state
from visit.app.subject import Subject
from visit.app.widgets import downloads, in_cells, on_row, plain, sentences, words_cell
from visit.errors import VisitError
from visit.text.glossary import explain
from visit.text.markdown import escaped
from visit.text.visible import visible

if TYPE_CHECKING:
    pass

MOST_ACTIVE = 30  # neurons shown of a layer


def chosen_layer(subject: Subject) -> int:
    """The layer of the address, else the last."""
    layer, last = state().layer, subject.model.n_layers - 1
    session().looked["layer"] = last if layer is None else min(last, layer)
    return int(session().looked["layer"])


def chosen_neuron(subject: Subject) -> tuple[int, int] | None:
    """(layer, neuron) of the address, if the model has it."""
    text = state().neurons.neuron
    if not text:
        return None
    layer, number = (int(n) for n in text[1:].split(".mlp_value"))
    return (layer, number) if layer < subject.model.n_layers and number < subject.model.d_mlp else None


# ---- one prompt ------------------------------------------------------------------------------------------------------


def active(subject: Subject) -> None:
    """The most active neurons of a layer at this position, in sentences and as a table."""
    from visit.narrate.norms import neuron_story

    layer, answer = chosen_layer(subject), st.container()
    st.header(f"Most active at position {subject.pos} ({plain(subject.token)})", anchor=False,
                 help=explain("mlp_value"))  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox("Layer", width=110, **listed("layer", range(subject.model.n_layers), layer))
        kind: Any = st.segmented_control(
            "Kind", required=True, wrap=True, help=explain("attn_neuron"), **segments("kind")
        )
        about = "The largest first, whatever the sign. Length: that of the row that the neuron writes, ‖row‖."
        st.selectbox("Order", width=260, help=about, **choice("nsort"))
    table = st_active(*subject.about, layer, kind, state().neurons.nsort, MOST_ACTIVE)
    with answer:
        sentences(neuron_story(table, subject.word, kind), "neuron_story", take_neuron)
    _active_table(table, kind, subject.word)
    collect_figure(f"The most active neurons of layer {layer}", None, lambda: table, code="neurons")
    st.caption(
        f"The {MOST_ACTIVE} most active of layer {layer}. Words: what the neuron writes with this coefficient's sign, "
        "and the direction it answers to. The last rows are all other neurons together and the bias: with them the "
        "contributions add up to what the whole layer part adds. Choose a row for the neuron's card."
    )

    def tables() -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
        return subject.meta, {"neurons": table}

    downloads("neurons", tables)


def _active_table(table: pd.DataFrame, kind: str, target: str) -> None:
    names = [_row_name(row) for row in table.to_dict("records")]
    shown = pd.DataFrame({
        "name": names, "coefficient": table["coefficient"], "row_norm": table["row_norm"], "norm": table["norm"],
        "share": table["share"], "contribution": table["contribution"], "rank": table["rank"],
        "writes": [words_cell(w) for w in table["tokens"]],
        "bottom": [words_cell(w, 3) for w in table["bottom_tokens"]],
    })  # fmt: skip
    if "influence" in table:
        shown.insert(6, "influence", table["influence"])
    for column, title in (("key_tokens", "reads"), ("gate_tokens", "gate")):
        if column in table and table[column].notna().any():
            shown[title] = [words_cell(w) for w in table[column]]
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    st.dataframe(
        in_cells(shown, percents=["share"], counts=["rank"]), hide_index=True, height=420, placeholder="–",
        **on_row(f"active_{kind}", table["node"].tolist(), take_neuron),
        column_config={
            "name": text("Neuron", pinned=True),
            "coefficient": number("Coefficient", format="%+.3f", help=explain("coefficient")),
            "row_norm": number("Row's length", format="%.3g", help="‖row‖: of what it writes at coefficient 1."),
            "norm": number("Coefficient × length", format="%.3g", help="|coefficient| × ‖row‖: how much it writes."),
            "share": number("Share"),
            "contribution": number("Contribution", format="%+.4f", help=explain("contribution")),
            "influence": number("Influence", format="%+.4f", help=explain("influence")),
            "rank": number(f"Rank of {target}", help=explain("rank")), "writes": text("Writes"),
            "bottom": text("Writes least"), "reads": text("Reads", help=explain("mlp_key")),
            "gate": text("Its gate reads"),
        },
    )  # fmt: skip


def _row_name(row: dict[str, Any]) -> str:
    if pd.isna(row["neuron"]):
        return "all others" if str(row["node"]).endswith("rest") else "the bias"
    return f"N{row['neuron']}" + ("" if pd.isna(row["head"]) else f" (H{row['head']})")


def take_neuron(node: Any) -> None:
    """Open a neuron's card."""
    if isinstance(node, str) and ".mlp_value" in node:
        change(neuron=node)


# ---- search ----------------------------------------------------------------------------------------------------------


def word_search(subject: Subject, waits: bool) -> None:
    """Every neuron of the model whose words hold a word. `waits`: what it needs is asked for further up already."""
    if not_recorded(subject, "Search all neurons by word"):
        return
    from visit.lenses.weights import search_weights

    st.header("Search all neurons by word", anchor=False)
    st.text_input("A word (one token; its leading space is added if needed)", max_chars=100, **field("word"))
    if not state().neurons.word:
        return
    token = _token(subject, state().neurons.word)
    if token is None:
        return
    if waits:
        st.caption("The rows with this word are listed once every neuron is read, see above.")
        return
    index = every_neuron(subject.model, "The rows with this word are listed")
    if index is None:
        return
    found = search_weights(index, token)
    word = plain(visible(subject.model.vocabulary[token]))
    if found.empty:
        st.info(f"No neuron has {word} among its top words.", icon=":material/search:")
        return
    few = found.head(500)
    shown = few.assign(
        sign=["as it is" if sign > 0 else "turned round" for sign in few["sign"]],
        tokens=[words_cell(tokens) for tokens in few["tokens"]],
    )
    nodes = [
        None if matrix == "W_O" else f"L{layer}.mlp_value{neuron}"
        for layer, matrix, neuron in few[["layer", "matrix", "neuron"]].itertuples(index=False)
    ]
    number = st.column_config.NumberColumn
    st.dataframe(
        shown, hide_index=True, height=360, placeholder="–", **on_row("found", nodes, take_neuron), column_config={
            "layer": "Layer", "matrix": "Matrix", "neuron": "Row", "head": "Head",
            "sign": st.column_config.TextColumn("Read", help="Negative: its least probable words."),
            "place": number("Place", help="Of the word among the row's top words."), "tokens": "Top words",
            "entropy": number("Entropy, bits", format="%.2f", help=explain("entropy")),
            "norm": number("Norm", format="%.3g", help=explain("norm")),
        },
    )  # fmt: skip
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
    st.warning(escaped(str(last)), icon=":material/edit:")
    return None
