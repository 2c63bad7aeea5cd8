"""What the page *Heads over a set* asks, and the way from a part of its maps to a prompt of the set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from visit.app.edit_list import Listed
from visit.app.sessions import change, session
from visit.runs.prompts import Row

if TYPE_CHECKING:
    from visit.causal.head_sets import Asked, HeadSums
    from visit.models.model import Model


@dataclass(frozen=True, eq=False)
class SetQuestion:
    """What is asked of which model, and what was found so far: `sums` None before there is a result."""

    model: Model
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


def shown_in(row: Row, node: str, how: str) -> dict[str, Any]:
    """The change as What if takes it: a mean over a set is not one of its changes, there the part is taken out."""
    taken = Listed(node, "from" if how == "from" else "zero", at=str(-1 if row.pos is None else row.pos))
    return {"edits": taken.text, **({"prompt_b": row.abc} if how == "from" else {})}


def look_in_prompt(line: Any, page: str, values: dict[str, Any]) -> None:
    row = line.row
    change(prompt=row.prompt, target=row.target or "", distractor=row.distractor or "", chat=False,
           pos=-1 if row.pos is None else row.pos, **values)  # fmt: skip
    session().goto = f"pages/{page}.py"


def follow_goto() -> None:
    """Go where a button of this page has asked for."""
    if session().goto:
        goto, session().goto = session().goto, ""
        st.switch_page(goto)
