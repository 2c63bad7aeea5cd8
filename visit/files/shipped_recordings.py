"""The recordings that come with VISIT, and which question each answers: without reading any of them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

SHIPPED = Path(__file__).parent.parent / "data" / "recordings"
INDEX, WEIGHT_SUMS = "index.json", "weights.json"  # which question each shipped one answers; sums of the models' files


class ShippedRecording(NamedTuple):
    """The question that a shipped recording answers, at the last position, with the words as an address has them."""

    model: str
    prompt: str
    target: str = ""
    distractor: str = ""
    prompt_b: str = ""


@cache
def shipped_recordings() -> dict[ShippedRecording, Path]:
    """The recordings that come with VISIT: the opening example and the first steps of lessons."""
    index = json.loads((SHIPPED / INDEX).read_text(encoding="utf-8"))
    return {ShippedRecording(**asked): SHIPPED / f"{name}.visit" for name, asked in index.items()}
