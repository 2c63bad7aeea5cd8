"""All tables of one norm over a prompt set, with their provenance, and the test: does it take from function words?

Two classes of words (`function_words`), their shifts, and an interval that answers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd

from visit.analyses.function_words import word_classes
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
from visit.text.numbers import short, signed

DRAWS = 1000  # of the bootstrap
_RESAMPLED = 16 << 20  # numbers of a resampling held at once
_QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}


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


# ---- do function words fall more than content words? ----------------------------------------------------------------
def class_shifts(
    model: Model, sums: ShiftSums, norm: str = "ln1", words: Collection[str] | None = None,
    mean: str = "probabilities",
) -> pd.DataFrame:  # fmt: skip
    """The shift of every function and content word at every layer of the sums: two distributions per layer.

    Columns: `layer` (missing for the final norm), `norm`, `kind` ("function", "content"), `id`, `token`, `before_prob`,
    `delta` (probability). Summarised: `class_summary`.
    """
    parts = []
    classes = pd.Series(word_classes(model, words))
    layers = [layer for layer, own in sums.sites if own == norm]
    if not layers:
        raise VisitError(f"These sums hold no {norm}. Sum again with it among the norms.")
    for layer in layers:
        table = set_shift(model, sums, layer, norm, mean)
        table = table.assign(layer=layer, norm=norm, kind=classes[table["id"]].to_numpy())
        parts.append(
            table.loc[table["kind"] != "other", ["layer", "norm", "kind", "id", "token", "before_prob", "delta"]]
        )
    return pd.concat(parts, ignore_index=True).astype({"layer": "Int64"})


def class_summary(shifts: pd.DataFrame) -> pd.DataFrame:
    """The distributions of `class_shifts` in numbers: a row per layer and class.

    Columns: `layer`, `norm`, `kind`, `words`, `mean`, `q05`, `q25`, `median`, `q75`, `q95` (of delta, probability),
    `falling` (share of the words with delta < 0), `before_mass`, `after_mass` (sums of probability).
    """
    rows: list[dict[str, Any]] = []
    for (layer, norm, kind), own in shifts.groupby(["layer", "norm", "kind"], dropna=False):
        delta, before = own["delta"], float(own["before_prob"].sum())
        row: dict[str, Any] = {"layer": layer, "norm": norm, "kind": kind, "words": len(own), "mean": delta.mean()}
        row |= {name: float(delta.quantile(q)) for name, q in _QUANTILES.items()}
        row |= {"falling": float((delta < 0).mean()), "before_mass": before, "after_mass": before + float(delta.sum())}
        rows.append(row)
    return pd.DataFrame(rows).astype({"layer": "Int64"})


def filter_test(shifts: pd.DataFrame, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """Do function words fall more than content words? A row per layer, and a last one for the mean over layers.

    Columns: `layer` (missing in the last row), `norm`, `function_words`, `content_words` (counts), `function_mean`,
    `content_mean`, `difference` (mean delta of function words − of content words, probability), `low`, `high` (95 %
    bootstrap interval, words of each class drawn again with replacement, the same draws at every layer),
    `function_falling`, `content_falling` (shares with delta < 0), `falls_more`: "yes" where the whole interval is below
    0 (function words lose more, or gain less: see `function_mean`), "no" where it is above, else "undecided".
    `shifts`: `class_shifts` of one norm. The interval is about which words there are, at fixed prompts. Raises
    `VisitError` where a class is empty. Source: ours.
    """
    if draws < 1:
        raise VisitError(f"The interval needs at least one draw; got {draws}.")
    layers = shifts["layer"].drop_duplicates().tolist()
    sides = {kind: _matrix(shifts, kind) for kind in ("function", "content")}
    means = {kind: np.append(own.mean(0), own.mean()) for kind, own in sides.items()}
    falling = {kind: np.append((own < 0).mean(0), (own < 0).mean()) for kind, own in sides.items()}
    generator = np.random.default_rng(seed)
    drawn = _resampled(sides["function"], draws, generator) - _resampled(sides["content"], draws, generator)
    drawn = np.column_stack([drawn, drawn.mean(1)])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    table = pd.DataFrame({
        "layer": pd.array([*layers, pd.NA], dtype="Int64"), "norm": shifts["norm"].iloc[0],
        "function_words": len(sides["function"]), "content_words": len(sides["content"]),
        "function_mean": means["function"], "content_mean": means["content"],
        "difference": means["function"] - means["content"], "low": low, "high": high,
        "function_falling": falling["function"], "content_falling": falling["content"],
    })  # fmt: skip
    table["falls_more"] = np.select([table["high"] < 0, table["low"] > 0], ["yes", "no"], "undecided")
    return table.iloc[:-1] if len(layers) == 1 else table


def _matrix(shifts: pd.DataFrame, kind: str) -> np.ndarray[Any, Any]:
    """Words × layers of one class."""
    own = shifts[shifts["kind"] == kind]
    if own.empty:
        raise VisitError(f"No token of this model counts as a {kind} word. Edit the list of function words.")
    width = shifts["layer"].nunique(dropna=False)
    return own.sort_values("id", kind="stable")["delta"].to_numpy().reshape(-1, width)


def _resampled(values: np.ndarray[Any, Any], draws: int, generator: Any) -> np.ndarray[Any, Any]:
    """Draws × layers: means of words drawn again. How often each word came, times the words: one product per chunk."""
    n = len(values)
    chunk = max(1, _RESAMPLED // n)
    parts = []
    for start in range(0, draws, chunk):
        counts = [np.bincount(generator.integers(0, n, n), minlength=n) for _ in range(min(chunk, draws - start))]
        parts.append(np.stack(counts).astype(float) @ values / n)
    return np.concatenate(parts)


def filter_verdict(test: pd.DataFrame) -> bool | None:
    """Whether the norm filters function words: they lose, more than content words do, over all and in most layers.

    False where they lose less, or gain more. That they merely gain less, or lose in a few layers, is no filter: None,
    undecided. `test`: `filter_test`.
    """
    every, layers = test.iloc[-1], test[test["layer"].notna()] if len(test) > 1 else test
    loses = (test["falls_more"] == "yes") & (test["function_mean"] < 0)
    if loses.iloc[-1] and float(loses[layers.index].mean()) >= 0.5:
        return True
    return False if every["falls_more"] == "no" else None


_TINY = 0.1  # percentage points a word


def filter_in_plain_words(test: pd.DataFrame) -> str:
    """The last row of `filter_test` for people: `On average a function word loses 0.008 points more than …`."""
    row = test.iloc[-1]
    points = 100 * abs(float(row["difference"]))
    size = f"{short(points)} percentage points"
    if row["falls_more"] == "undecided":
        return f"On average function and content words cannot be told apart: {size} between them may be chance."
    loses, more = row["function_mean"] < 0, row["falls_more"] == "yes"
    way = ("loses", "more" if more else "less") if loses else ("gains", "less" if more else "more")
    weight = ": tiny, but not by chance" if points < _TINY else ", and not by chance"
    return f"On average a function word {way[0]} {size} {way[1]} than a content word{weight}."


def filter_sentence(test: pd.DataFrame) -> str:
    """The answer of `filter_test` in words, from the intervals and the signs of the means alone."""
    rows = test[test["layer"].notna()] if len(test) > 1 else test
    norm, last = str(test["norm"].iloc[0]), test.iloc[-1]
    if len(rows) == 1:
        where = "the final norm" if norm == "final" else f"{norm} of layer {rows['layer'].iloc[0]}"
        return f"At {where} function words {_verb(last)}{_than(last)} {_interval(last)}."
    count = pd.Series([_verb(row) for _, row in rows.iterrows()]).value_counts()
    each = ", ".join(f"{said} in {number}" for said, number in count.items())
    return (
        f"Over all {len(rows)} layers function words {_verb(last)}{_than(last)} at {norm} {_interval(last)}. "
        f"Layer by layer, of {len(rows)}: they {each}."
    )


def _verb(row: pd.Series) -> str:
    """What a row says of function words. Against content words they may fall more or, both rising, only rise less."""
    if row["falls_more"] == "undecided":
        return "cannot be told apart"
    if row["falls_more"] == "yes":
        return "fall more" if row["function_mean"] < 0 else "rise less"
    return "fall less" if row["function_mean"] < 0 else "rise more"


def _than(row: pd.Series) -> str:
    return " from content words" if row["falls_more"] == "undecided" else " than content words"


def _interval(row: pd.Series) -> str:
    size, low, high = (signed(100 * row[name]) for name in ("difference", "low", "high"))
    return f"({size}, 95 % interval {low} to {high} percentage points a word)"
