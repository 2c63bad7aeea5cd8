"""Does a norm take from function words? Two classes of words, their shifts, and an interval that answers.

The list of function words is a file of the package (`function_words.txt`), to be shown and edited. Punctuation is in
it: what a norm takes away is both, and without the marks the largest falls of a real model would not be counted.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from visit.analyses.norm_sets import ShiftSums, set_shift
from visit.errors import VisitError
from visit.models.model import Model
from visit.text.numbers import signed

FILE = Path(__file__).parents[1] / "data" / "function_words.txt"
DRAWS = 1000  # of the bootstrap
_RESAMPLED = 16 << 20  # numbers of a resampling held at once
_QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}


def function_words(text: str | None = None) -> frozenset[str]:
    """The words of a list in lower case (None: the shipped one): separated by spaces, `#` begins a remark's line."""
    lines = (FILE.read_text(encoding="utf-8") if text is None else text).splitlines()
    return frozenset(w for line in lines if not line.lstrip().startswith("#") for w in line.lower().split())


def is_function_word(token: str, listed: Collection[str]) -> bool:
    """Whether a token is in a list of function words: spaces around it and capitals aside, or as marks one by one."""
    bare = token.strip().lower()
    return bare in listed or (len(bare) > 1 and all(c in listed and not c.isalnum() for c in bare))


def word_classes(model: Model, words: Collection[str] | None = None) -> list[str]:
    """ "function", "content" or "other" for every token id.

    Function: the token is in the list (`is_function_word`), which holds punctuation, too. Content: it begins a word
    (has a leading space, where the vocabulary has such tokens at all) and is letters alone. Other: pieces of words,
    numbers, other signs, bytes. Source: ours; the paper names examples only.
    """
    listed = function_words() if words is None else frozenset(w.strip().lower() for w in words)
    spaced = any(t[:1] == " " and t[1:].isalpha() for t in model.vocabulary)
    found = []
    for token in model.vocabulary:
        bare = token.removeprefix(" ")
        begins = bare.isalpha() and (token != bare or not spaced)
        found.append("function" if is_function_word(token, listed) else "content" if begins else "other")
    return found


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
