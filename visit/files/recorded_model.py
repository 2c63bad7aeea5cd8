"""The model of a recording, as far as pages ask for it: its name, family and dimensions, and no weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from visit.files.recorded_values import LONGEST_WORD, check_text, check_whole
from visit.files.recording_file import broken_file
from visit.models.families import FAMILIES, Family

MOST_BLOCKS = 1_000  # of a model, and heads of a block: pages list them


@dataclass(frozen=True)
class RecordedModel:
    """What a page needs to know of the model that made a recording; it computes nothing.

    `loads`: the name by which `visit.load_model` has it, None where it was a file of the machine that recorded.
    """

    name: str
    loads: str | None
    revision: str | None
    family: Family
    dtype: str
    quantization: str | None
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_mlp: int
    d_vocab: int


def model_read(given: Any) -> RecordedModel:
    """A model as a file describes it. Raises `VisitError` where no model can be so."""
    family = next((row for row in FAMILIES if row.name == given["family"]), None)
    if family is None:
        raise broken_file(f"its model is of the unknown family {str(given['family'])[:40]!r}")
    numbers = {name: check_whole(name, given[name], 1, most) for most, names in
               ((MOST_BLOCKS, ("n_layers", "n_heads", "n_kv_heads")),
                (1 << 24, ("d_model", "d_head", "d_mlp", "d_vocab"))) for name in names}  # fmt: skip
    texts = {name: None if given[name] is None else check_text(name, given[name], LONGEST_WORD)
             for name in ("name", "loads", "revision", "dtype", "quantization")}  # fmt: skip
    return RecordedModel(family=family, **texts, **numbers)  # type: ignore[arg-type]
