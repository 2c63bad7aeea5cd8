"""All tables of one norm over a prompt set, with their provenance."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd

from visit.analyses.function_words import class_shifts, class_summary, filter_sentence, filter_test
from visit.analyses.norm_sets import (  # fmt: skip
    ShiftSums,
    control_sums,
    falling_words,
    layer_words,
    quarters,
    set_shift,
    shift_job,
    top_words,
)
from visit.analyses.norms import extremes, norm_module
from visit.errors import VisitError
from visit.models.model import Model
from visit.models.provenance import provenance
from visit.runs.job import finish
from visit.runs.prompts import as_rows


def set_tables(
    model: Model, prompts: Sequence[str], norm: str = "ln1", layer: int | None = None, pos: int = -1,
    mean: str = "probabilities", final_norm: bool | None = None, words: Collection[str] | None = None, seed: int = 0,
) -> tuple[dict[str, pd.DataFrame], str]:  # fmt: skip
    """Run prompts and return the tables of one norm, and the sentence that answers "are function words filtered?".

    `layer`: of `top`, `shift`, `control` (None: the last of the model's first quarter). Tables: `top` (Tables 1, 2,
    4), `falling` (Tables 3, 5, 6), `shift` and `control` (Figure 7, 50 extremes of each kind), `layers` (Figures 21
    and 22; not of the final norm), `classes`, `test`. Raises `VisitError` as the functions they come from.
    """
    layer = quarters(model.n_layers)[0] if layer is None else layer
    norm_module(model, layer, norm)
    sums = finish(shift_job(model, as_rows(prompts), (norm,), final_norm, pos))
    return tables_of(model, sums, norm, layer, mean, words, seed)


def tables_of(
    model: Model, sums: ShiftSums, norm: str, layer: int | None, mean: str = "probabilities",
    words: Collection[str] | None = None, seed: int = 0,
) -> tuple[dict[str, pd.DataFrame], str]:  # fmt: skip
    """The tables of `set_tables` from sums at hand."""
    shifts = class_shifts(model, sums, norm, words, mean)
    test = filter_test(shifts, seed=seed)
    layers = [None] if norm == "final" else None
    tables = {
        "top": top_words(model, sums, layer, norm, mean),
        "falling": falling_words(model, sums, norm, mean, layers=layers),
        "shift": extremes(set_shift(model, sums, layer, norm, mean), 50),
        "control": extremes(set_shift(model, control_sums(model, sums, layer, norm, seed), layer, norm, mean), 50),
        "classes": class_summary(shifts),
        "test": test,
    }
    if norm != "final":
        tables["layers"] = layer_words(model, sums, norm, mean)
    return tables, filter_sentence(test)


def set_meta(model: Model, prompts: Sequence[str], options: Any, sentence: str) -> dict[str, Any]:
    """What the tables are of. `options`: what has `norm`, `layer`, `pos`, `mean`, `seed`, `no_final_norm`."""
    if not prompts:
        raise VisitError("A set needs at least one prompt; got none.")
    return {
        **provenance(model),
        "prompts": len(prompts), "position": options.pos, "norm": options.norm,
        "layer": quarters(model.n_layers)[0] if options.layer is None else options.layer,
        "mean": options.mean or "probabilities", "final_norm": False if options.no_final_norm else None,
        "seed": options.seed, "finding": sentence,
    }  # fmt: skip
