"""What the study's figures show, how to read them, and what the paper found: the texts lie in `data/captions.json`.

The paper's findings are of GPT-2 medium on 100 CounterFact prompts that it answers correctly, said in our words. What
several texts have in common stands there once, under `shared`, and in them as `{its name}`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CAPTION_FILE = Path(__file__).parents[1] / "data" / "captions.json"
_WORDING: dict[str, Any] = json.loads(CAPTION_FILE.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class FigureCaption:
    """The words of one figure or table. `different`: where this study is not the paper's; may be empty.

    `called`: the name of a figure that the paper has not; `others`: what was found of it elsewhere.
    """

    id: str
    title: str
    called: str = ""
    measured: str = ""
    reading: str = ""
    paper: str = ""
    different: str = ""
    others: str = ""

    @property
    def name(self) -> str:
        """`Fig. 2b`, or `Table 4`."""
        if self.called:
            return self.called
        return self.id.replace("tables-", "Table ") if self.id.startswith("tables-") else f"Fig. {self.id}"

    @property
    def anchor(self) -> str:
        """The name of the figure's place on a page."""
        return f"fig-{self.id}"


CAPTIONS = {
    texts["id"]: FigureCaption(**{name: text.format(**_WORDING["shared"]) for name, text in texts.items()})
    for texts in _WORDING["captions"]
}
SERIES_NAMES: dict[str, str] = _WORDING["series"]  # in a legend; one that is not listed goes by its own name
MEASURE_NAMES: dict[str, str] = _WORDING["measures"]
AXIS_TITLES: dict[str, str] = _WORDING["axes"]
GROUP_NAMES: dict[str, str] = _WORDING["groups"]
ANSWERS: str = _WORDING["answers"]
SECOND: str = _WORDING["second"]


def caption_of(figure: str) -> FigureCaption:
    """The caption of a figure or table; one without words of its own gets its id as title."""
    return CAPTIONS.get(figure) or FigureCaption(figure, f"Figure {figure}")
