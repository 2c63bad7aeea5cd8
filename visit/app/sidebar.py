"""The sidebar of every page: the model, its ledger once it is loaded, its examination. Nothing here imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from visit.app.cache import st_examination, st_ledger
from visit.app.model_choice import choose
from visit.app.state import checked, whole_words
from visit.errors import VisitError
from visit.text.glossary import explain

if TYPE_CHECKING:
    from visit.models.model import Model


def sidebar() -> None:
    """Model and ledger. Needs no torch: the ledger fills in when the page has loaded the model."""
    with st.sidebar:
        choose()
        st.session_state["visit_ledger"] = st.empty()
        st.toggle("Whole words only", help=explain("whole words"), **checked("whole"))
        if whole_words():
            st.caption("Lists of top words leave out pieces, signs and bytes. The numbers are the same.")


def show_ledger(model: Model) -> None:
    """How exactly this model is read, in the sidebar. Raises `VisitError` where its values are no numbers."""
    table = st_ledger(model.name)
    holds = bool(table["holds"].all())
    worst = float(table["max_rel_error"].max())
    with st.session_state["visit_ledger"].container():
        st.caption(
            f"{model.family.name} · {model.n_layers} blocks × {model.n_heads} heads · d_model {model.d_model} · "
            f"{model.d_vocab:,} words · {str(model.dtype).removeprefix('torch.')}"
        )
        if model.quantization:
            st.caption(f":material/compress: {model.provenance['quantization']}.")
        label = f"Ledger: {'exact' if holds else 'NOT exact'} ({worst:.0e})"
        with st.expander(label, icon=":material/verified:" if holds else ":material/warning:"):
            st.caption(explain("ledger"))
            errors = table.groupby(["identity", "name"], as_index=False).agg(
                error=("max_rel_error", "max"), allowed=("tolerance", "max"), holds=("holds", "all")
            )
            for _, row in errors.iterrows():
                mark = ":material/check:" if row["holds"] else ":material/close:"
                st.caption(f"{mark} {row['name']}: {row['error']:.0e} (allowed {row['allowed']:.0e})")
        st.button("Doctor", icon=":material/stethoscope:", width="stretch",
                  help="Examine this model: its family, dimensions and tokenizer, the memory it takes, and every "
                       "identity with its largest error.",
                  on_click=lambda: st.session_state.update(visit_doctor=True))  # fmt: skip
    if st.session_state.pop("visit_doctor", False):
        _doctor(model.name)
    need_numbers(model)
    if not holds:
        st.error(
            "This model's ledger fails: what is shown cannot be trusted. Press Doctor in the sidebar: it says which "
            "identity fails first, and why.",
            icon=":material/warning:",
        )


def need_numbers(model: Model) -> None:
    """Stop the page of a model whose weights are no numbers: charts of NaN would be errors of the browser."""
    if st_ledger(model.name)["max_rel_error"].isna().any():
        raise VisitError(
            f"The ledger fails: {model.name!r} computes values that are no numbers (NaN), so there is nothing to draw. "
            "Press Doctor in the sidebar: it names the weights that are to blame. Or choose another model."
        )


@st.dialog("Doctor", width="large", icon=":material/stethoscope:")
def _doctor(name: str) -> None:
    """What `python -m visit doctor` prints."""
    with st.spinner("Two forward passes and every identity…"):
        meta, tables = st_examination(name)
    good = meta["ledger"]["holds"] and meta["device"]["holds"]
    tell = st.success if good else st.error
    tell(meta["verdict"], icon=":material/verified:" if good else ":material/warning:")
    st.text(f"{meta['model']}, {meta['revision']}, {meta['dtype']}")
    left, right = st.columns(2, gap="medium")
    left.markdown("**Model**")
    left.table(tables["model"].set_index("property"), border="horizontal")
    right.markdown("**Memory**")
    right.table(tables["memory"].set_index("property"), border="horizontal")
    right.caption(
        "Forecast from the model's dimensions. At hand: the smaller of the machine's free memory and what the "
        "container's limit leaves."
    )
    st.markdown("**Ledger**", help=explain("ledger"))
    table = tables["ledger"]
    shown = table[["identity", "name"]].rename(columns={"identity": "no.", "name": "what must be equal"})
    shown["largest error"] = [f"{error:.1e}" if error else "0" for error in table["max_rel_error"]]
    shown["allowed"] = [f"{allowed:.0e}" if allowed else "0" for allowed in table["tolerance"]]
    shown["holds"] = [":material/check: yes" if holds else ":material/close: **no**" for holds in table["holds"]]
    shown["no."] = shown["no."].astype(str)  # a table hides an index of whole numbers
    st.table(shown.set_index("no."), border="horizontal")
    versions = ", ".join(f"{package} {number}" for package, number in meta["versions"].items())
    st.caption(
        f"Each row compares two ways of computing one thing on “{meta['prompt']}”: the largest difference, relative to "
        f"the largest value, at its worst layer. {versions}."
    )
