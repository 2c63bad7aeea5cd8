"""The Causal trace page: what is made unreadable, and what brings the answer back, in sentences, maps and a table."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from visit.app.cache import kept
from visit.app.fields import field
from visit.app.figure_list import collect_figure
from visit.app.grid import grid
from visit.app.prompt_sets import on_model, watched
from visit.app.sessions import change, session, state
from visit.app.state import CONTROLS
from visit.app.subject import Subject
from visit.app.widgets import (
    FOLDED_CONTROLS,
    READING_AID,
    beside,
    downloads,
    folded,
    in_cells,
    pager,
    plain,
    section,
    sentences,
    unfolding,
)  # fmt: skip
from visit.errors import VisitError
from visit.models.catalog import is_hosted
from visit.runs.worker import WORKER
from visit.text.glossary import explain
from visit.text.numbers import band, duration, percent, ratio
from visit.text.visible import visible

MOST_SAMPLES = 1000
TRACED_UNASKED = 5.0  # seconds: what takes no longer is traced unasked
TRACE_PATIENCE = 4.0  # seconds that a page waits for such a trace before it is drawn without it
MOST_SECONDS = 600  # of a trace on a server for many
CHIPS, COLUMNS = 24, 32  # positions shown at a time: as chips of the subject, in the maps
BESIDE = 14  # positions up to which the three maps have room beside each other
TRACE_RUN = "trace 1"  # of the key of runs: raised with every change of what one computes


@dataclass(frozen=True, eq=False)
class AskedTrace:
    """One trace: a pass and its answer, the positions made unreadable, and the numbers."""

    subject: Subject
    where: tuple[int, ...]
    samples: int
    noise: float
    seed: int
    window: int | None

    @property
    def settings(self) -> tuple[int, int, float, int | None]:
        """In the order in which a trace takes them."""
        return self.samples, self.seed, self.noise, self.window


# ---- what is asked ---------------------------------------------------------------------------------------------------
def chosen_trace(subject: Subject) -> AskedTrace | None:
    """The chips of the subject and the numbers; None where nothing can be traced, which is said."""
    from visit.causal.trace_plan import check_settings, check_subject, guessed_subject

    guess = guessed_subject(subject.question)
    with st.container(key="part_subject"):
        if not guess:
            st.info("A trace needs a word before the position looked at: it is what is made unreadable. Type a longer "
                    "prompt, or choose a later position.", icon=":material/info:")  # fmt: skip
            return None
        where, problem = guess, ""
        try:
            where = _asked_positions(subject, guess)
            check_subject(subject.question, where)
        except VisitError as wrong:
            where, problem = guess, str(wrong)
        _subject_chips(subject, where)
        if problem:
            text = plain(visible("".join(subject.acts.tokens[p] for p in guess)))
            st.warning(f"{plain(problem)} Made unreadable instead: “{text}”, a guess.", icon=":material/edit:")
    session().looked["subject"] = where
    now = state().trace
    asked = AskedTrace(subject, where, now.samples, now.noise, now.noise_seed, now.window)
    try:
        check_settings(subject.model, *asked.settings)
    except VisitError as wrong:
        st.warning(f"{plain(str(wrong))} The usual numbers are taken instead.", icon=":material/edit:")
        usual = (CONTROLS[name].default for name in ("samples", "noise", "noise_seed", "window"))
        asked = AskedTrace(subject, where, *usual)
    return asked


def _asked_positions(subject: Subject, guess: tuple[int, ...]) -> tuple[int, ...]:
    """The positions that the address asks for: `@3,4`, a text, or none for the guess."""
    from visit.causal.trace_plan import subject_positions

    text = state().trace.subject
    if not text:
        return guess
    parts = text.removeprefix("@").split(",")
    if text.startswith("@") and all(part.strip().isdecimal() for part in parts):
        return subject_positions(subject.acts, [int(part) for part in parts])
    return subject_positions(subject.acts, text)


def _subject_chips(subject: Subject, where: tuple[int, ...]) -> None:
    """The tokens up to the position looked at, those of the subject switched on; it as a text; the numbers, folded."""
    count, shown = subject.pos + 1, range(subject.pos + 1)
    if count > CHIPS:
        shown = pager("subject_first", (subject.key, subject.pos), count, where[-1], CHIPS)
    names, key = [visible(t) for t in subject.named], f"subject_chips {subject.key} {where} {shown}"

    def taken() -> None:
        inside = {int(p) for p in st.session_state[key]}
        found = sorted(inside | {p for p in where if p not in shown})
        change(subject="@" + ",".join(map(str, found)) if found else "", cell="")

    label = f"Made unreadable ({'' if state().trace.subject else 'a guess; '}click words to change it)"
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="subject_line"):
        st.pills(
            label, list(shown), selection_mode="multi", key=key,
            default=[p for p in where if p in shown], format_func=lambda p: plain(names[p]), on_change=taken, wrap=True,
            help=explain("causal trace"),
        )  # fmt: skip
        text = "".join(subject.acts.tokens[p] for p in where) if _one_stretch(where) else ""
        st.text_input("or type it", max_chars=200, width=180, placeholder="several places",
                      **field("subject", text.strip()))  # fmt: skip
        with folded(*FOLDED_CONTROLS):
            _noise_numbers(subject.model.n_layers)


def _one_stretch(where: tuple[int, ...]) -> bool:
    return where[-1] - where[0] == len(where) - 1


def _noise_numbers(most: int) -> None:
    """The numbers of a trace, each with what it means. `most`: the model's blocks."""
    now = state().trace
    window = None if now.window is None else min(most, now.window)
    st.number_input("Samples of the noise", 1, MOST_SAMPLES, step=1,
                    **field("samples", min(MOST_SAMPLES, now.samples)),
                    help="The maps are means over them; their 95 % band stands in the table.")  # fmt: skip
    st.number_input("Noise, × the spread of the subject's embeddings", 0.001, 999.999, step=0.5, format="%g",
                    **field("noise"), help="3 as in the paper: what is under it cannot be read any more.")  # fmt: skip
    st.number_input("Seed", 0, 999_999, step=1, **field("noise_seed"), help="Equal seeds give equal maps.")
    st.number_input("Blocks of a window", 1, most, step=1, placeholder="a fifth of the model's, at least 3",
                    **field("window", window))  # fmt: skip


# ---- the run ---------------------------------------------------------------------------------------------------------
@kept()
def st_trace_seconds(
    name: str, prompt: Any, pos: int, target: int, distractor: int | None, where: tuple[int, ...], samples: int,
    window: int | None, _question: Any = None,
) -> float:  # fmt: skip
    """How long a trace will take here."""
    from visit.causal.cost import trace_cost

    return trace_cost(_question, where, samples, window).seconds


def traced(asked: AskedTrace) -> pd.DataFrame | None:
    """The table so far: traced at once where that is quick, else when it is asked for; None while there is nothing."""
    from visit.causal.tracing import TraceJob
    from visit.exact.question import Question
    from visit.runs.answers import model_run_key

    about, where = asked.subject, asked.where
    pos, target, settings = about.pos, about.target, asked.settings
    key = model_run_key(TRACE_RUN, about.model, (*about.acts.token_ids,), pos, target, where, *settings)

    def job(model: Any) -> TraceJob:  # it waits without its pass: that is made again where it has gone
        return TraceJob.of(Question(model, about.acts, pos, target), where, *settings)

    make = on_model(about.model, job)
    seconds = st_trace_seconds(*about.about, where, asked.samples, asked.window, about.question)
    if WORKER.find(key) is None and seconds <= TRACED_UNASKED:
        with suppress(VisitError), st.spinner("Putting one state back at a time…"):  # a failed run is told below
            _begin_trace(key, make, unasked=True).wait(TRACE_PATIENCE)
    going, one = WORKER.find(key), pos + 1 - where[0]
    samples = 0 if going is None else max(0, going.progress.done - 1) // one  # that are whole; before them, the checks
    follow = 1 + one * (samples + 1)
    run = watched("trace", key, make, start=lambda: _offer_trace(asked, seconds, key, make), follow=follow)
    table = None if run is None else run.result
    return None if table is None or table.attrs["samples"] == 0 else table


def _begin_trace(key: Any, make: Any, unasked: bool = False) -> Any:
    """`unasked`: it takes the place of nothing that this visitor has asked for, and waits behind it."""
    visitor = session().visitor if is_hosted() else None
    if unasked and any(visitor in run.asked_by for run in WORKER.runs()):
        return WORKER.submit(key, make, background=True)
    return WORKER.submit(key, make, visitor=visitor)


def _offer_trace(asked: AskedTrace, seconds: float, key: Any, make: Any) -> None:
    """What a trace will take, and the button that starts it."""
    from visit.causal.trace_plan import restored_runs

    model = asked.subject.model
    cells = len(restored_runs(model.n_layers, asked.window)) * (asked.subject.pos + 1 - asked.where[0])
    many = f"{asked.samples:,} samples" if asked.samples > 1 else "1 sample"
    st.markdown(f"{cells:,} states and windows are put back one by one, in {many} of the noise: "
                f"about **{duration(seconds)}** on this machine. The maps show after the first sample.")  # fmt: skip
    if is_hosted() and seconds > MOST_SECONDS:
        st.info(f"This app is hosted for many: a run may take {duration(MOST_SECONDS)}. Take fewer samples or a later "
                "subject, or run VISIT on your own machine.", icon=":material/group:")  # fmt: skip
        return
    with st.container(horizontal=True):
        st.button(f"Trace it (about {duration(seconds)})", key="run trace", type="primary",
                  icon=":material/play_arrow:", on_click=_begin_trace, args=(key, make))  # fmt: skip
        fewer = max(2, asked.samples // 4)
        if fewer < asked.samples:
            st.button(f"{fewer} samples: about {duration(seconds * fewer / asked.samples)}", key="fewer samples",
                      on_click=change, kwargs={"samples": fewer})  # fmt: skip


# ---- what was found --------------------------------------------------------------------------------------------------
def trace_told(table: pd.DataFrame) -> None:
    """The finding in sentences, with the numbers it rests on and their checks."""
    from visit.narrate.traces import trace_story

    about = table.attrs
    with st.container(key="trace_story"):
        sentences([[(text, None)] for text in trace_story(table)], "trace_sentences", lambda _: None)
    for note in about["notes"]:
        st.info(plain(note), icon=":material/info:")
    done, wanted = about["samples"], about["samples_asked"]
    samples = f"{f'{done:,} of ' if done < wanted else ''}{wanted:,} sample{'s' if wanted > 1 else ''}"
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="trace_numbers"):
        st.caption(f"{samples} of noise {about['noise']:g} × {about['sd']:.3g}, seed {about['seed']}, windows of "
                   f"{about['window']} block{'s' if about['window'] > 1 else ''}.", width="content")  # fmt: skip
        with folded("Are these numbers right?", "verified", "trace_ledger"):
            _trace_checks(about["ledger"])


def _trace_checks(ledger: dict[str, Any]) -> None:
    from visit.narrate.traces import ledger_in_words

    st.markdown(f"**{plain(ledger_in_words(ledger))}**")
    for one in ledger["checks"]:
        mark = ":material/check:" if one["holds"] else ":material/close:"
        st.caption(f"{mark} {plain(one['name'])}: {one['max_rel_error']:.0e} (allowed {one['tolerance']:.0e})")


def _cells_of(table: pd.DataFrame, site: str) -> pd.DataFrame:
    return table[table["site"] == site]


def maps(asked: AskedTrace, table: pd.DataFrame) -> None:
    """The three maps, the cell that is looked at, and all cells as a table."""
    from visit.figures.tracing import site_title, trace_grid
    from visit.files.trace_picture import trace_file

    about = table.attrs
    line = section("trace", "What brings the answer back", explain("causal trace"))
    count, first = about["position"] + 1, asked.where[0]
    shown = range(count) if count <= BESIDE else range(first, count)
    if len(shown) > COLUMNS:
        part = pager("trace_first", (asked.subject.key, asked.where), len(shown), len(shown) - 1, COLUMNS)
        shown = range(shown[part[0]], shown[part[-1]] + 1)
    sites = table["site"].unique()
    with beside("trace_maps"):
        places = st.columns(3, gap="small") if len(shown) <= BESIDE else [st.container() for _ in sites]
        for place, site in zip(places, sites, strict=True):
            with place:
                st.markdown(f"**{site_title(site, about['window'])}**")
                of = asked.subject.about, asked.where
                found = trace_grid(table, site, shown, state().trace.cell, of)
                grid(f"trace_{site}", found, _look_at_cell, partial(_cells_of, table, site), code="trace")
    left_out = "" if shown[0] == 0 else " Nothing changes before the subject: those tokens are left out."
    said = "Blocks upwards, tokens to the right, * is made unreadable. Fill: how much of what was lost comes back; "
    said += "vermilion: less of the answer than with nothing put back."
    st.caption(said + left_out)
    collect_figure("The three maps side by side", lambda words: trace_file(table, "svg", words).decode(),
                   lambda: table, code="trace")  # fmt: skip
    _chosen_cell(asked, table)
    with unfolding("trace-table", "The same as a table", ":material/table:") as opened:
        if opened:
            _cells_table(table)
    with line:
        with folded(*READING_AID):
            _how_to_read_trace()
        downloads("trace", lambda: (about, {"trace": table}), lambda kind: trace_file(table, kind))


def _look_at_cell(cell: str) -> None:
    change(cell="" if state().trace.cell == cell else cell)


def _chosen_cell(asked: AskedTrace, table: pd.DataFrame) -> None:
    """What the chosen cell measured, and the way to what it reads."""
    cell = state().trace.cell
    if not cell:
        st.caption("Click a cell for its numbers, and for what stands there.")
        return
    site, layer, pos = cell.split(".")
    found = table[(table["site"] == site) & (table["layer"] == int(layer)) & (table["pos"] == int(pos))]
    if found.empty:
        return
    row, about = found.iloc[0], table.attrs
    from visit.figures.tracing import restored_in_words

    lost = about["clean"] - about["corrupted"]
    share = f", {ratio(row['effect'] / lost)} of what was lost" if lost > 0 else ""
    sure = "" if row["low"] != row["low"] else f"; 95 % band of the difference {band(row['low'], row['high'])}"
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="trace_cell"):
        st.markdown(f"**{plain(restored_in_words(row))}**, put back alone: {percent(about['corrupted'])} → "
                    f"**{percent(row['prob'])}**{share}{sure}.", width="content")  # fmt: skip
        st.button("See it in the flow graph", icon=":material/account_tree:", key="trace_to_flow", type="tertiary",
                  on_click=_see_in_flow, args=(asked.subject, site, int(layer), int(pos)))  # fmt: skip


def _see_in_flow(subject: Subject, site: str, layer: int, pos: int) -> None:
    node = f"L{layer}.{'resid_post' if site == 'resid' else site}"
    change(pos=subject.in_address(pos), node=node, target=subject.model.vocabulary[subject.target])
    session().goto = "pages/flow.py"


def _cells_table(table: pd.DataFrame) -> None:
    from visit.figures.tracing import site_title

    window, column = table.attrs["window"], st.column_config.NumberColumn
    shown = table.drop(columns="site").assign(token=[visible(t) for t in table["token"]])
    shown.insert(0, "what", [site_title(site, window) for site in table["site"]])
    shown.attrs = {}
    st.dataframe(
        in_cells(shown, percents=["prob"]), hide_index=True, height=380, column_config={
            "what": "Put back", "layer": "Block", "pos": "Position", "token": "Token",
            "prob": column("P of the answer"), "effect": column("More than nothing", format="%+.3f"),
            "low": column("95 % from", format="%+.3f"), "high": column("to", format="%+.3f"),
            "first": "First block put back", "last": "Last",
        },
    )  # fmt: skip


def _how_to_read_trace() -> None:
    st.caption(
        "Noise on the embeddings of the subject (*) takes the answer away. Each cell is a run with that noise in which "
        "one thing is put back as it was without: the stream after a block, or what attention or the MLPs add in a "
        "window of blocks, at one position. The fuller, the more of the answer comes back."
    )
    st.caption(
        "What it does not show: a full cell is enough for the answer while the subject is noise; that is where the "
        "answer passes, not where it is stored. Neighbouring windows overlap, so neighbours are alike. Another noise "
        "gives other numbers. All else in a run is as the noise left it. Method: Meng et al. 2022 (ROME)."
    )
