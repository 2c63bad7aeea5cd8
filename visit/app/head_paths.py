"""Paths between heads over the set of the page *Heads over a set*: asked, forecast, run, told, as a map and a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from visit.app.cache import kept
from visit.app.fields import choice, field, listed, segments
from visit.app.grid import grid
from visit.app.live import say
from visit.app.prompt_sets import on_model, start_run, watched
from visit.app.sessions import change, session, state
from visit.app.set_question import SetQuestion, follow_goto, graph_button, look_in_prompt, shown_in
from visit.app.set_runs import begin_button
from visit.app.widgets import READING_AID, downloads, folded, on_row, plain, section, sentences
from visit.errors import VisitError
from visit.runs.prompts import NOTES_SHOWN
from visit.text.glossary import explain
from visit.text.node_id import part_name
from visit.text.numbers import signed
from visit.text.visible import visible

if TYPE_CHECKING:
    from visit.causal.path_lines import PathLine, Receiver
    from visit.models.model import Model
    from visit.runs.prompts import Note, PromptSet

PATH_SECONDS = 600.0  # that a run may take on a hosted app, as it is forecast
MOST_MOVERS = 12  # taken as receivers: each is a map of its own


@dataclass(frozen=True, eq=False)
class PathQuestion:
    """What is asked: the lines that can be run, and where paths end."""

    model: Model
    lines: list[PathLine]
    notes: list[Note]
    receivers: list[Receiver]
    kind: Any
    key: Any


def paths_part(asked: SetQuestion) -> None:
    """The part of the page below the question: what heads say to one later place alone."""
    line = section("paths", "Paths: which head says it to whom?", explain("path patching"))
    with line, folded(*READING_AID):
        st.caption(
            "One head at a time gets the value that it has in the line’s partner, a text of the same form with other "
            "names. **All other heads are held** at what they were, at every position; MLPs and norms follow. What "
            "then arrives at one later place (a head’s query, key or value, or the logits) is put into the prompt’s "
            "own run, in which everything behind is free. So the map shows what a head says to that place alone, not "
            "what it says by way of other heads (Wang et al. 2022)."
        )
        st.caption(
            "The number: how target − distractor changes, in logits, mean over the prompts with its 95 % band "
            "(Student’s). Blue-green, below 0: with the partner’s value the difference falls, so here the head spoke "
            "for the target. It does not show what a head says that both texts share, nor what heads do together."
        )
    try:
        one = _path_question(asked)
    except VisitError as problem:
        st.info(plain(str(problem)), icon=":material/info:")
        return
    if one is not None:
        table = _path_run(one)
        session().looked["paths"] = table is not None
        if table is not None:
            _path_findings(asked, one, table)


# ---- what is asked ---------------------------------------------------------------------------------------------------
def _path_question(asked: SetQuestion) -> PathQuestion | None:
    now, rows = state().paths, asked.asked.promptset.rows
    if not any(row.abc for row in rows):
        st.info("Paths need a partner text in every line (a column abc), beside target and distractor. The set *ioi* "
                "has them; in a set of your own give that column.", icon=":material/info:")  # fmt: skip
        return None
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox("Paths end at", width=240, filter_mode=None, **choice("ends"))
        if now.ends == "own":
            st.text_input("Heads, apart by commas", width=320, placeholder="L23.head0, L23.head1", **field("receiving"))
        if now.ends != "logits":
            st.segmented_control("Into their", required=True, **segments("into"))
            columns = ["", "target", "distractor", *dict.fromkeys(name for row in rows for name, _ in row.others)]
            at = now.path_at if now.path_at in columns else ""
            st.selectbox("At the position", width=240, filter_mode=None,
                         format_func=lambda c: f"of the {c}, its last" if c else "looked at",
                         help="Where the sender stands and what receives is made. A column of the set names it, by a "
                              "number or by a word, whose last place is meant: “distractor” is the repeated name.",
                         **listed("path_at", columns, at))  # fmt: skip
    names = _receiving(asked)
    if names is None:
        return None
    kind, where = (now.into, now.path_at or -1) if now.ends != "logits" else ("q", -1)
    lines, notes, receivers, key = st_path_lines(
        asked.model.name,
        asked.asked.promptset.identity,
        tuple(names),
        kind,
        where,
        state().heads_page.first_token,
        asked.model,
        asked.asked.promptset,
    )
    if notes:
        with st.expander(f"{len(notes)} lines have no path; {len(lines):,} are run", icon=":material/warning:"):
            for note in notes[:NOTES_SHOWN]:
                st.caption(plain(str(note)))
    return PathQuestion(asked.model, lines, notes, receivers, kind, key)


def _receiving(asked: SetQuestion) -> list[str] | None:
    """The receivers chosen; None, with what is missing told, where there are none."""
    now = state().paths
    if now.ends == "logits":
        return ["logits"]
    if now.ends == "own":
        names = [name.strip() for name in now.receiving.split(",") if name.strip()]
        if not names:
            st.caption("Name the heads that receive, as L23.head0, L23.head1; several are also taken together.")
        return names or None
    table = None if asked.sums is None or asked.kind != "heads" else asked.table
    movers = [] if table is None else _movers_of(table)
    if not movers:
        first = "Measure every head above first: the movers are those that the roles of its table name."
        none = "No head is a mover by the criteria above; name heads of your own."
        st.caption(first if table is None else none)
        return None
    st.caption(f"Movers: {', '.join(part_name(node) for node in movers)}.")
    return movers


def _movers_of(table: pd.DataFrame) -> list[str]:
    """The movers that add most, but for those of layer 0, which no head can send to."""
    rows = table[(table["role"] == "mover") & (table["layer"] > 0)]
    most = rows.sort_values("contribution", ascending=False).head(MOST_MOVERS)
    return most.sort_values(["layer", "head"])["node"].tolist()


@kept(spinner="Reading the set…")
def st_path_lines(
    name: str,
    identity: str,
    names: tuple[str, ...],
    kind: Any,
    at: Any,
    first_token: bool,
    _model: Model,
    _prompts: PromptSet,
) -> Any:
    from visit.causal.path_lines import path_lines, receivers_of
    from visit.causal.path_patching import path_key

    receivers = receivers_of(_model, names, kind)
    lines, notes = path_lines(_model, _prompts, None, receivers, at, at, first_token)
    return lines, notes[len(_prompts.notes) :], receivers, path_key(_model, lines, receivers, kind)


# ---- the run ---------------------------------------------------------------------------------------------------------
def _path_run(one: PathQuestion) -> pd.DataFrame | None:
    lines, receivers, kind = one.lines, one.receivers, one.kind

    def job(model: Model) -> Any:
        from visit.causal.path_patching import path_job

        return path_job(model, lines, receivers, kind)

    make = on_model(one.model, job)
    run = watched(
        ("paths", *one.key[1:]), one.key, make, start=partial(_before_paths, one, partial(start_run, one.key, make))
    )
    if run is None or run.result is None or not run.result.attrs["prompts"]:
        return None
    table: pd.DataFrame = run.result
    return table


@kept(spinner="Measuring what it will take…")
def st_path_seconds(key: Any, _one: PathQuestion) -> float:
    from visit.causal.cost import paths_seconds

    return paths_seconds(_one.model, _one.lines, _one.receivers)


def _before_paths(one: PathQuestion, run: Callable[[], None]) -> None:
    count = len(one.lines)
    several = f", {len(one.receivers)} maps" if len(one.receivers) > 1 else ""
    many = f"{count:,} prompt{'s' if count != 1 else ''}{several}"
    seconds = st_path_seconds(one.key, one)
    begin_button(seconds, many, PATH_SECONDS, "prompts or heads", "Patch the paths", "run paths", run)


# ---- what was found --------------------------------------------------------------------------------------------------
def _path_findings(asked: SetQuestion, one: PathQuestion, table: pd.DataFrame) -> None:
    from visit.causal.path_patching import inhibitors_of, inhibitors_otherwise
    from visit.figures.path_patching import paths_grid
    from visit.narrate.paths import inhibitor_story, path_pieces, through_words

    names = [receiver.name for receiver in one.receivers]
    to = state().paths.path_to if state().paths.path_to in names else names[0]
    if len(names) > 1:
        st.selectbox("Shown", width=320, filter_mode=None, **listed("path_to", names, to),
                     format_func=lambda n: "all of them together" if n == "together" else part_name(n))  # fmt: skip
    story = [path_pieces(table, to)]
    if state().paths.ends == "movers" and one.kind == "q" and asked.sums is not None:
        both = inhibitors_of(asked.table, table), inhibitors_otherwise(asked.table, table)
        story.append(inhibitor_story(*both))
    sentences(story, "path_story", _choose_sender)
    say("".join(text for text, _ in story[0]))
    for receiver in one.receivers:
        if receiver.name == to and ".kv_head" in to:
            st.caption(f"{part_name(to)} is shared: what changes in it acts on {len(receiver.heads)} heads.")
    title = f"What every head sends to the answer {through_words(table, to)}"
    found = paths_grid(table, to, title, state().graph.node, (one.key, to))
    grid("path_map", found, _choose_sender, lambda: table[table["receiver"] == to], _of_paths(asked, table),
         "paths")  # fmt: skip
    _path_card(asked, table, to)
    _senders_table(table, to, _of_paths(asked, table))


def _of_paths(asked: SetQuestion, table: pd.DataFrame) -> dict[str, Any]:
    """What the paths are of: the run knows its lines, but not the set that they are from."""
    chosen = asked.asked.promptset
    return {**table.attrs, "prompt_set": {"name": chosen.name, "hash": chosen.hash}}


def _choose_sender(node: str) -> None:
    change(node=node)


def _path_picture(table: pd.DataFrame, to: str, kind: str) -> bytes:
    from visit.files.path_picture import path_picture

    return path_picture(table, kind, to)


def _path_card(asked: SetQuestion, table: pd.DataFrame, to: str) -> None:
    """The chosen sender, and the way to a prompt in which its value in the partner can be put in."""
    from visit.narrate.paths import effect_with_band, through_words

    rows = table[(table["receiver"] == to) & (table["sender"] == state().graph.node)]
    if rows.empty:
        st.caption("Choose a cell or a row to see that head, and to put its value in the partner into a prompt.")
        return
    row = rows.iloc[0].to_dict()
    direct = "" if row["direct"] != row["direct"] else f"; of it {signed(row['direct'])} past every MLP"
    with st.container(border=True, key="path_card"):
        where = f"**{part_name(row['sender'])}** {through_words(table, to)}"
        st.markdown(f"{where}: {effect_with_band(row)} logits{direct}.")
        lines = [line for line in asked.asked.lines if line.row.abc][:100]
        at = st.selectbox("In the prompt", range(len(lines)), filter_mode=None, key="path_prompt",
                          format_func=lambda n: visible(str(lines[n].row.prompt)))  # fmt: skip
        with st.container(horizontal=True):
            graph_button(lines[at or 0], row["sender"], "path_to_flow")
            st.button("What if it had the partner’s value?", icon=":material/content_cut:", on_click=look_in_prompt,
                      args=(lines[at or 0], "whatif", shown_in(lines[at or 0].row, row["sender"], "from")),
                      help="There everything is free: its effect by all ways, not by this path alone.")  # fmt: skip
    follow_goto()


def _senders_table(table: pd.DataFrame, to: str, about: dict[str, Any]) -> None:
    """Every sender, the largest first; and all receivers as files."""
    rows = table[table["receiver"] == to]
    order = rows.reindex(rows["effect"].abs().sort_values(ascending=False, kind="stable").index)
    chosen = on_row("path_table", order["sender"].tolist(), _choose_sender)
    shown = order.assign(
        name=[part_name(node) for node in order["sender"]],
        band=["" if a != a else f"{a:+.2f} … {b:+.2f}" for a, b in zip(order["low"], order["high"], strict=True)],
    )
    keep = ["name", "effect", "band", *(["direct"] if to == "logits" else [])]
    shown = shown[keep]
    shown.attrs = {}
    column = st.column_config.NumberColumn
    config: Any = {
        "name": "Sender", "effect": column("Changes the answer by", format="%+.3f"), "band": "95 % band",
        "direct": column("Past every MLP", format="%+.3f", help="Norms held: the partner’s contribution less its own."),
    }  # fmt: skip
    st.dataframe(shown, hide_index=True, height=320, placeholder="–", column_config=config, **chosen)
    downloads("paths", lambda: (about, {"paths": table}), partial(_path_picture, table, to))
