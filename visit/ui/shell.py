"""The sidebar of every page: the model, and its ledger once it is loaded. Nothing here imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from visit.glossary import explain
from visit.listed import LISTED, is_hosted
from visit.ui.cached import st_ledger
from visit.ui.state import field, state

if TYPE_CHECKING:
    from visit.model import Model


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


def show_ledger(model: Model) -> None:
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
