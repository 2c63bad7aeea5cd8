"""The neuron page on one prompt, a layer's most active neurons, and the search of all neurons by a word."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from visit.app import graph_panel as graphs
from visit.app.cache import st_active
from visit.app.neurons_all import every_neuron
from visit.app.prompt_bar import Subject, plain
from visit.app.state import change, field, state, whole_words
from visit.errors import VisitError
from visit.text.glossary import explain
from visit.text.visible import visible, word_list

SHOWN = 30  # of the most active neurons
_KINDS = {"mlp": "MLP neurons", "attention": "rows of W_O"}
_ORDERS = {"norm": "by |coefficient| × ‖row‖", "contribution": "by |contribution|", "coefficient": "by |coefficient|"}


def layer_of(subject: Subject) -> int:
    """The layer of the address, else the last."""
    last = subject.model.n_layers - 1
    return min(last, int(state().layer)) if state().layer else last


def neuron_of(subject: Subject) -> tuple[int, int] | None:
    """(layer, neuron) of the address, if the model has it."""
    text = state().neuron
    if not text:
        return None
    layer, number = (int(n) for n in text[1:].split(".mlp_value"))
    return (layer, number) if layer < subject.model.n_layers and number < subject.model.d_mlp else None


def spoken(tokens: Any, count: int = 5) -> str | None:
    """A list of tokens for a table's cell."""
    return ", ".join(word_list(tokens, count, whole_words())) if isinstance(tokens, (list, tuple)) else None


# ---- one prompt ------------------------------------------------------------------------------------------------------


def active(subject: Subject) -> None:
    """The most active neurons of a layer at this position."""
    layer = layer_of(subject)
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
        "writes": [spoken(w) for w in table["tokens"]], "bottom": [spoken(w, 3) for w in table["bottom_tokens"]],
    })  # fmt: skip
    for column, title in (("key_tokens", "reads"), ("gate_tokens", "gate")):
        if column in table and table[column].notna().any():
            shown[title] = [spoken(w) for w in table[column]]
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    st.dataframe(
        shown, hide_index=True, height=420, placeholder="–", key=f"active_{kind}", selection_mode="single-row",
        on_select=partial(take_row, f"active_{kind}", table["node"].tolist()),
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


def take_row(key: str, nodes: list[Any]) -> None:
    """Open the card of a chosen row's neuron."""
    rows = st.session_state[key]["selection"]["rows"]
    if rows and rows[0] < len(nodes):
        take_neuron(nodes[rows[0]])


def take_neuron(node: Any) -> None:
    """Open a neuron's card."""
    if isinstance(node, str) and ".mlp_value" in node:
        change(neuron=node)


def _file(subject: Subject, table: pd.DataFrame, kind: str) -> bytes | str:
    from visit.files import tables
    from visit.narrate.memory import memory_meta

    meta = memory_meta(subject.model, subject.acts, subject.pos, subject.target, subject.distractor)
    made = {"neurons": table}
    return tables.to_json(meta, made) if kind == "json" else tables.to_zip(meta, made)


# ---- search ----------------------------------------------------------------------------------------------------------


def search(subject: Subject, waits: bool) -> None:
    """Every neuron of the model whose words hold a word. `waits`: what it needs is asked for further up already."""
    from visit.lenses.weights import search as look_up

    st.subheader("Search all neurons by word", anchor=False)
    st.text_input("A word (one token; its leading space is added if needed)", max_chars=100, **field("word"))
    if not state().word:
        return
    token = _token(subject, state().word)
    if token is None:
        return
    if waits:
        st.caption("The rows with this word are listed once every neuron is read, see above.")
        return
    index = every_neuron(subject.model, "The rows with this word are listed")
    if index is None:
        return
    found = look_up(index, token)
    word = plain(visible(subject.model.vocabulary[token]))
    if found.empty:
        st.info(f"No neuron has {word} among its top words.", icon=":material/search:")
        return
    few = found.head(500)
    shown = few.assign(
        sign=["as it is" if sign > 0 else "turned round" for sign in few["sign"]],
        tokens=[spoken(tokens) for tokens in few["tokens"]],
    )
    number = st.column_config.NumberColumn
    st.dataframe(
        shown, hide_index=True, height=360, placeholder="–", key="found", selection_mode="single-row",
        on_select=partial(_take_found, few), column_config={
            "layer": "Layer", "matrix": "Matrix", "neuron": "Row", "head": "Head",
            "sign": st.column_config.TextColumn("Read", help="With a negative coefficient a row is turned round."),
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
    st.warning(str(last), icon=":material/edit:")
    return None


def _take_found(found: pd.DataFrame) -> None:
    rows = st.session_state["found"]["selection"]["rows"]
    if rows and rows[0] < len(found):
        row = found.iloc[rows[0]]
        if row["matrix"] != "W_O":
            take_neuron(f"L{row['layer']}.mlp_value{row['neuron']}")
