"""The lens map on a page: rows that say nothing are folded, the names of columns and rows stay in sight."""

from __future__ import annotations

from functools import cache
from typing import Any

import streamlit as st

from visit.app.cache import st_lens_map
from visit.app.prompt_bar import Subject
from visit.app.state import change, state
from visit.app.widgets import component, pager, plain
from visit.text.glossary import explain
from visit.text.visible import as_word, visible

POSITIONS = 14  # on screen at once; a longer prompt is paged


@cache
def _colours() -> str:
    from visit.drawing.style import style

    return "".join(style(theme, "safe", f".lensmap.{theme}", f".lensmap.{theme}") for theme in ("light", "dark"))


def lens_map(subject: Subject) -> None:
    """Layers × positions: the top word of every state, a click picks position and block."""
    from visit.analyses.function_words import function_words, is_function_word
    from visit.figures.lens_rows import rows_of
    from visit.models.tokens import character_parts

    acts, target = subject.acts, subject.model.vocabulary[subject.target]
    word = as_word(target)
    st.subheader("The stream, read after every block", anchor=False, help=explain("lens map"))
    names = {"target": f"probability of {word}", "rank": f"rank of {word}", "top": "probability of the top word"}
    color: Any = st.segmented_control(
        "Colour", list(names), format_func=lambda c: plain(names[c]), default="target", required=True, key="map_color",
        wrap=True,
    )  # fmt: skip
    shown = pager("map", subject.key, len(acts.token_ids), subject.pos, POSITIONS)
    table = st_lens_map(*subject.key, subject.target, tuple(shown))
    spelled = character_parts(subject.model.tokenizer, acts.token_ids)
    heads = [f"{visible(spelled[i][0])} {spelled[i][1]}/{spelled[i][2]}" if i in spelled else visible(acts.tokens[i])
             for i in shown]  # fmt: skip
    listed = function_words()
    found = rows_of(
        table, subject.model.d_vocab, color, target, lambda t: is_function_word(t, listed), state().whole, heads
    )
    data = found | {
        "chosen": subject.pos - shown.start, "node": state().graph.node,
        "of": repr((subject.key, tuple(shown), subject.target)),
    }  # fmt: skip

    def take_cell() -> None:
        chosen = st.session_state["lens_map"]["cell"]
        if isinstance(chosen, dict):
            change(pos=subject.in_address(int(chosen["pos"])), detail=f"{max(0, int(chosen['depth']) - 1)}w",
                   node=str(chosen["state"]))  # fmt: skip

    component("lens_map", "<div class='lensmap light'></div>", _colours())(
        key="lens_map", data=data, on_cell_change=take_cell
    )
    text = (
        "Each cell is the residual stream at one position (column) after one block (row, upwards), passed through the "
        "final norm and the unembedding: the word it reads, in grey below 5 % and where it is white space or bytes. "
        f"The stronger the colour, the closer the stream is to “{plain(word)}” there. Read a column upwards to see an "
        "answer form; click a cell to open its block below."
    )
    if found["folds"]:
        text += (
            " Folded blocks say nothing: at four of five positions they read a sign, white space, bytes, a function "
            f"word that is not predicted there, or nothing above 5 %, and “{plain(word)}” is below 5 % everywhere."
        )
    st.caption(text)
