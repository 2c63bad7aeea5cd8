"""The lens map on a page: rows that say nothing are folded, the names of columns and rows stay in sight."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import streamlit as st

from visit.app.cache import lens_under
from visit.app.cached_flow import st_lens_map, st_map_rows
from visit.app.fields import segments
from visit.app.figure_list import altair_figure, collect_figure
from visit.app.lens_choice import seen, switch, told
from visit.app.lens_trust import why_believe
from visit.app.marks import marked
from visit.app.sessions import change, session, state
from visit.app.subject import Subject
from visit.app.widgets import (
    FOLDED_CONTROLS,
    READING_AID,
    component,
    folded,
    in_cells,
    pager,
    plain,
    section,
    unfolding,
)
from visit.text.glossary import explain
from visit.text.visible import as_word, visible

if TYPE_CHECKING:
    from visit.lenses.linear import Lens

POSITIONS = 14  # on screen at once; a longer prompt is paged


@cache
def _colours() -> str:
    from visit.drawing.style import style

    return "".join(style(theme, "safe", f".lensmap.{theme}", f".lensmap.{theme}") for theme in ("light", "dark"))


def lens_map(subject: Subject) -> None:
    """Layers × positions: the top word of every state, a click picks position and block."""
    acts, target, name = subject.acts, subject.model.vocabulary[subject.target], subject.model.name
    word, key = as_word(target), seen(name)[0][0]
    lens = lens_under(name, key)
    through = f", through the lens {plain(lens.name)}" if lens else ""
    line = section("map", f"The stream, read after every block{through}", explain("lens map"))
    names = {"target": f"probability of {word}", "rank": f"rank of {word}", "top": "probability of the top word"}
    with line, folded(*FOLDED_CONTROLS) as controls:
        switch((name,))
        color: Any = st.segmented_control(
            "Colour", required=True, wrap=True, **segments("map_color", show=lambda c: plain(names[c]))
        )
    with line:
        reading = folded(*READING_AID)
    line = st.container()
    shown = pager("map", subject.key, len(acts.token_ids), subject.pos, POSITIONS)
    table = st_lens_map(*subject.key, subject.target, tuple(shown), key)
    with line:
        told(name, None if lens else table, controls)
    found = st_map_rows(*subject.key, subject.target, tuple(shown), key, color, state().whole)
    data = found | {
        "chosen": subject.pos - shown.start, "node": state().graph.node, "meant": list(marked("map").nodes),
        "of": repr((state().model, acts.token_ids, tuple(shown), subject.target, key)),
        "unfolded": state().graph.unfolded,
    }  # fmt: skip

    def take_cell() -> None:
        chosen = st.session_state["lens_map"]["cell"]
        fixed = subject.recorded is not None and not subject.stands_in
        if isinstance(chosen, dict) and fixed and int(chosen["pos"]) != subject.pos:
            session().notes = [f"This was recorded at position {subject.pos}; another one needs the model."]
        elif isinstance(chosen, dict):
            change(pos=subject.in_address(int(chosen["pos"])), detail=f"{max(0, int(chosen['depth']) - 1)}w",
                   node=str(chosen["state"]))  # fmt: skip

    component("lens_map", "<div class='lensmap light'></div>", _colours(), shared="cells")(
        key="lens_map", data=data, on_cell_change=take_cell,
        on_unfolded_change=lambda: change(unfolded=folds_of(st.session_state["lens_map"]["unfolded"])),
    )  # fmt: skip
    whole = partial(st_lens_map, *subject.key, subject.target, tuple(shown), key, True)
    shows = f"What the stream reads after every block; fill: probability of {word}"
    collect_figure(shows, partial(_map_svg, whole, word), whole, code="lens_map")
    _as_table(whole, word)
    if lens is not None:
        _specific(subject, key)
    with reading:
        st.caption(_map_caption(plain(word), lens, bool(found["folds"])))
    if lens is not None and subject.recorded is None:
        _nearness(lens)
        why_believe(name, lens, key)


def folds_of(sent: Any) -> str:
    """The first blocks of the folds that are open, as the browser tells them."""
    first = sent if isinstance(sent, list) else []
    return ",".join(str(int(one)) for one in first[:100] if isinstance(one, int | float) and 0 <= one < 10_000)


def _map_svg(table: Callable[[], Any], word: str, words: float) -> str:
    from visit.figures.lens_map import reading_map
    from visit.figures.svg import chart_svg
    from visit.files.chart_file import chart_alone

    drawn = reading_map(table(), ["", "", f"Fill: probability of {word}. Grey: under 5 %."])
    return chart_alone(chart_svg(drawn, "lens map", words))


def _as_table(table: Callable[[], Any], word: str) -> None:
    """The map's cells as a table, from the last block down. `table`: made when it is unfolded."""
    with unfolding("map-table", "The same as a table") as opened:
        if not opened:
            return
        from visit.figures.lens_rows import name_of

        rows = table().sort_values(["depth", "pos"], ascending=[False, True], kind="stable")
        shown = {
            "After": rows["depth"].map(name_of), "Position": rows["pos"], "Token": rows["token"].map(visible),
            "Reads": rows["top"].map(as_word), "P of what it reads": rows["top_prob"], f"P of {word}": rows["prob"],
            f"Rank of {word}": rows["rank"], "Entropy, bits": rows["entropy"],
        }  # fmt: skip
        cells = in_cells(rows.assign(**shown)[list(shown)], ["P of what it reads", f"P of {word}"], [f"Rank of {word}"])
        st.dataframe(cells, hide_index=True, height=380, column_config={
            "Entropy, bits": st.column_config.NumberColumn(format="%.2f")})  # fmt: skip


def _map_caption(word: str, lens: Lens | None, folds: bool) -> str:
    from visit.narrate.lens import which_lens

    how = "passed through the final norm and the unembedding" if lens is None else (
        "carried to the last block by the fitted map of its own block, and then passed through the final norm and the "
        "unembedding"
    )  # fmt: skip
    grey = "where it is white space or bytes" if lens is None else "where any text leads to expect it in this block"
    text = (
        f"Each cell is the residual stream at one position (column) after one block (row, upwards), {how}: the word it "
        f"reads, in grey below 5 % and {grey}. The stronger the colour, the closer the stream is to “{word}” there, "
        f"{which_lens(lens is not None)}. Read a column upwards to see an answer form; click a "
        "cell to open its block below."
    )
    if folds and lens is None:
        text += (
            " Folded blocks say nothing: at four of five positions they read a sign, white space, bytes, a function "
            f"word that is not predicted there, or nothing above 5 %, and “{word}” is below 5 % everywhere."
        )
    elif folds:
        text += (
            " Folded blocks show what any text leads to expect: on text that the lens was not fitted to, its top word "
            "there is the model's final one at fewer than three of ten positions."
        )
    return text


def _specific(subject: Subject, key: str) -> None:
    """Whether what the fitted lens reads at the position looked at is of this prompt."""
    from visit.narrate.lens import specificity

    states = st_lens_map(*subject.key, subject.target, (subject.pos,), key, True)
    st.markdown(plain(specificity(states, as_word(subject.model.vocabulary[subject.target]))))


def _nearness(lens: Lens) -> None:
    """How near the lens comes to the prediction, block by block."""
    from visit.figures.lens_report import report_lines

    label = "How near the lens comes, block by block"
    with unfolding("nearness", label, ":material/show_chart:") as opened:
        if not opened:
            return
        # of the text that the model wrote for it, and of no prompt
        altair_figure(report_lines(lens.report, lens.readable_from), width="stretch", about=lens.meta,
                        alt="Bits between what each lens reads and the model's prediction, per block")  # fmt: skip
        st.caption(
            "How far what is read lies from the model's final prediction (Kullback–Leibler divergence, 0 bits where "
            "they agree): the mean over text that the lens was not fitted to. Contributions never go through it."
        )
