"""What the page *Heads over a set* asks, and the way from a part of its maps to a prompt of the set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from visit.app.edit_list import Listed
from visit.app.sessions import change, defaults, session, state
from visit.app.state import LOOKED_AT
from visit.app.widgets import plain, unfolding
from visit.runs.prompts import ABOUT_SETS, NOTES_SHOWN, Row
from visit.text.glossary import explain
from visit.text.node_id import part_name
from visit.text.visible import visible

if TYPE_CHECKING:
    from visit.causal.head_sets import HeadSums
    from visit.causal.set_lines import Asked
    from visit.models.model import Model
    from visit.runs.prompts import PromptSet


FIRST_LINES = 5  # of a set, that are shown as the model is asked them


@dataclass(frozen=True, eq=False)
class SetQuestion:
    """What is asked of which model, and what was found so far: `sums` None before there is a result.

    `whole`: the set that the lines of `asked` are taken from.
    """

    model: Model
    whole: PromptSet
    asked: Asked
    kind: Any
    how: Any
    key: Any
    sums: HeadSums | None = None

    @property
    def table(self) -> pd.DataFrame:
        """`visit.head_question` of the lines that are done."""
        from visit.causal.head_sets import set_table

        assert self.sums is not None
        return set_table(self.model, self.asked, self.sums, self.how)

    @property
    def named(self) -> str:
        """`ioi, 48 prompts`, `facts, 48 of 552 prompts`: the set, and of how many of its lines there are numbers."""
        done, all_of_it = 0 if self.sums is None else self.sums.moments["parts"].count, len(self.whole.rows)
        many = f"{done:,}" if done >= all_of_it else f"{done:,} of {all_of_it:,}"
        return f"{self.whole.name}, {many} prompt{'s' if all_of_it != 1 else ''}"


def set_explained(chosen: PromptSet) -> None:
    """What a shipped set asks, with its first line as an example. Of a pasted or uploaded one its owner knows."""
    about = ABOUT_SETS.get(chosen.name)
    if about is None or not chosen.rows:
        return
    row = chosen.rows[0]
    other = "" if row.distractor is None else f", not “{visible(row.distractor)}”"
    example = (
        "" if row.target is None else f" Its first line: “{visible(row.prompt)}” → “{visible(row.target)}”{other}."
    )
    st.caption(plain(f"{chosen.name}: {about}{example}"))


def lines_told(one: SetQuestion, rows: Sequence[Row]) -> None:
    """The lines as the model is asked them: open before there is a result, folded behind it. `rows`: of the set."""
    for note in one.asked.notes:
        st.caption(plain(note))
    out = len(rows) - len(one.asked.lines)
    if out:
        st.warning(f"{out:,} of {len(rows):,} lines cannot be asked this; the table of lines says why.",
                   icon=":material/warning:")  # fmt: skip
    label = f"The lines: {len(one.asked.lines):,} prompts as the model is asked them"
    if one.sums is None:
        st.markdown(f"**{label}**")
        _lines_table(one, rows)
        return
    with unfolding("lines", label, ":material/notes:") as opened:
        if opened:
            _lines_table(one, rows)


def _lines_table(one: SetQuestion, rows: Sequence[Row]) -> None:
    table = lines_shown(one.model, one.asked, rows, FIRST_LINES, NOTES_SHOWN)
    if table["partner"].isna().all():
        table = table.drop(columns="partner")
    table = table.drop(columns=[name for name in ("target", "distractor", "wrong") if not table[name].any()])
    wide = st.column_config.TextColumn
    st.dataframe(
        table, hide_index=True, placeholder="–", height="content" if len(table) <= FIRST_LINES else 320,
        column_config={
            "line": "Line", "tokens": wide("Its tokens", width="large"), "length": "Tokens", "target": "Target",
            "distractor": "Distractor", "position": wide("Looked at", help="The position, from 0, and its token."),
            "partner": "Tokens of its partner", "wrong": wide("What is wrong", width="large"),
        },
    )  # fmt: skip
    if len(rows) > FIRST_LINES:
        more = ", and those that cannot be asked" if "wrong" in table else ""
        st.caption(f"The first {FIRST_LINES} of {len(rows):,} lines{more}.")


def lines_shown(model: Model, asked: Asked, rows: Sequence[Row], first: int, most: int) -> pd.DataFrame:
    """The first lines of a set as the model is asked them, and up to `most` of those that it cannot be asked.

    Columns: `line`, `tokens` (a space is shown as ·, two of them stand between tokens), `length`, `position` (with its
    token), `target`, `distractor`, `partner` (its length), `wrong` (what is wrong with the line; empty where nothing
    is).
    """
    wrong = {note.line: note.reason for note in asked.promptset.notes}
    can = {line.row.line: line for line in asked.lines}
    bad = [row for row in rows if row.line in wrong and row.line not in can][:most]
    found = []
    for row in sorted({id(row): row for row in [*rows[:first], *bad]}.values(), key=lambda row: row.line):
        line, shown = can.get(row.line), {"line": row.line, "tokens": visible(str(row.prompt)), "length": None}
        words = {name: getattr(row, name) for name in ("target", "distractor")}
        shown |= {name: "" if word is None else visible(str(word)) for name, word in words.items()}
        shown |= {"position": "", "partner": None, "wrong": wrong.get(row.line, "")}
        if line is not None:
            ids = {"target": line.target, "distractor": line.distractor}
            shown |= {name: visible(model.vocabulary[i]) for name, i in ids.items() if i is not None}
            shown["tokens"] = "  ".join(visible(model.vocabulary[i]) for i in line.ids)
            shown["length"] = len(line.ids)
            shown["position"] = f"{line.pos} ({visible(model.vocabulary[line.ids[line.pos]])})"
            shown["partner"] = None if line.partner is None else len(line.partner)
        found.append(shown)
    return pd.DataFrame(found)


def with_band_columns(table: pd.DataFrame, effect: str = "Effect") -> tuple[pd.DataFrame, list[str], dict[str, Any]]:
    """(the table with a name and each band as one cell, the columns that are shown, what they are called).

    `effect`: what the effect is called; every band bears the name of its number.
    """
    shown = table.assign(name=[part_name(node) for node in table["node"]])
    names, config = ["name"], {"name": "Part"}
    for name, label, narrow in (("effect", effect, effect), ("contribution", "Adds directly", "Adds"),
                                ("influence", "Influence", "Influence")):  # fmt: skip
        names += [name, f"{name}_band"]
        ends = zip(shown[f"{name}_low"], shown[f"{name}_high"], strict=True)
        shown[f"{name}_band"] = ["" if a != a else f"{a:+.2f} … {b:+.2f}" for a, b in ends]
        number: Any = st.column_config.NumberColumn(label, format="%+.3f", help=explain(name))
        config |= {name: number, f"{name}_band": f"{narrow}: 95 % band"}
    return shown, names, config


def shown_in(row: Row, node: str, how: str) -> dict[str, Any]:
    """The change as What if takes it: a mean over a set is not one of its changes, there the part is taken out."""
    taken = Listed(node, "from" if how == "from" else "zero", at=str(-1 if row.pos is None else row.pos))
    return {"edits": taken.text, **({"prompt_b": row.abc} if how == "from" else {})}


def graph_button(line: Any, node: str, key: str) -> None:
    """The way to VISIT's flow graph of one line of the set, at the part that the set is asked about."""
    st.button("See it in the flow graph", icon=":material/account_tree:", key=key, on_click=look_in_prompt,
              args=(line, "flow", {"node": node, "detail": f"{node[1:].partition('.')[0]}w", "layers": ""}),
              help="In this prompt, towards its target against its distractor.")  # fmt: skip


def look_in_prompt(line: Any, page: str, values: dict[str, Any]) -> None:
    """Show a line of the set on another page; what was looked at in another prompt is forgotten, but for the part."""
    row, part = line.row, {"node": state().graph.node}
    change(prompt=row.prompt, target=row.target or "", distractor=row.distractor or "", chat=False,
           pos=-1 if row.pos is None else row.pos, **{**defaults(*LOOKED_AT), **part, **values})  # fmt: skip
    session().goto = f"pages/{page}.py"


def follow_goto() -> None:
    """Go where a button of this page has asked for."""
    if session().goto:
        goto, session().goto = session().goto, ""
        st.switch_page(goto)
