"""What the figures of norms and of always-active neurons say of the paper's findings (Figures 7, 8, 9, 21, 22, 23).

Each from its own table. Of a norm's words (21, 22, 23) the interval is over the words that are shown, drawn again; of
the outlier weights of a few neurons (9) it is Wilson's, which holds for few of them and for none or all. What a figure
shows of its few words is no statement about all words: that is Figure 7's test.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist

import numpy as np
import pandas as pd

from visit.analyses.function_words import word_classes
from visit.analyses.neurons import regularization_findings, regularization_table
from visit.analyses.norm_tables import DRAWS, filter_sentence, filter_verdict
from visit.models.model import Model
from visit.studies.record import Verdict
from visit.studies.verdicts import FEW_PROMPTS, Draws, judged, undecided
from visit.text.numbers import band, percent, signed

FEW_WORDS = 3  # with fewer nothing is decided


def word_verdicts(
    model: Model, made: dict[str, pd.DataFrame], prompts: int, test: pd.DataFrame | None,
    shift: pd.DataFrame | None = None, seed: int = 0,
) -> dict[str, list[Verdict]]:  # fmt: skip
    """Figure id → verdicts, of those among `made`. `test`: of Figure 7; `shift`: its table, which Figure 23 needs."""
    found: dict[str, list[Verdict]] = {}
    if "7" in made and test is not None:
        found["7"] = [filters_words(test, prompts)]
    if "8" in made:
        found["8"] = _always_active(made["8"], prompts)
    if "9" in made:
        found["9"] = [feeds_rogue(made["9"], prompts)]
    function = {i for i, kind in enumerate(word_classes(model)) if kind == "function"} if made else set()
    for figure, norm in (("21", "ln1"), ("22", "ln2")):
        if figure in made:
            found[figure] = [shown_words_lose(made[figure], function, norm, prompts, seed)]
    if "23" in made:
        found["23"] = [fewer_function_words(shift, made["23"], function, prompts, seed)]
    return found


def filters_words(test: pd.DataFrame, prompts: int) -> Verdict:
    """Whether ln1 filters function words. The interval is over words."""
    holds = filter_verdict(test)
    claim = "ln1 takes probability from function words and punctuation, more than from content words, in most layers"
    sentence = filter_sentence(test)
    if prompts < FEW_PROMPTS:
        holds, sentence = None, f"{sentence} {FEW_PROMPTS} prompts at least are needed to decide."
    return Verdict(claim, holds, sentence)


def _always_active(stats: pd.DataFrame, prompts: int) -> list[Verdict]:
    summary = regularization_table(stats)
    late = summary.tail(max(1, len(summary) // 4))
    few = prompts < FEW_PROMPTS
    have = None if few else bool((late["regularization"] > 0).all())
    first, *rest = regularization_findings(summary, stats, prompts)
    first += f" {FEW_PROMPTS} prompts at least are needed to decide." if few else ""
    found = [Verdict("Every late layer has a neuron that is nearly always among its most active", have, first)]
    if rest:
        reads = None if few else bool((late["function_neurons"].map(len) > 0).all())
        found.append(Verdict("In every late layer one of them reads as function words", reads, rest[0]))
    return found


def feeds_rogue(profile: pd.DataFrame, prompts: int) -> Verdict:
    """Whether the outlier weights of always-active neurons lie in the stream's rogue dimensions more than by chance.

    `profile`: `visit.analyses.neurons.weight_profile`. By chance: the rogue ones' share of all dimensions.
    """
    claim = "The outlier weights of the always-active neurons lie in the stream's rogue dimensions, beyond chance"
    own = profile[profile["kind"] == "regularization"]
    if own.empty:
        return undecided(claim, "no neuron of this layer is always active")
    far = own[own["outlier"]]
    rogue, hits, count = float(own["rogue"].mean()), int(far["rogue"].sum()), len(far)
    if not rogue:
        return undecided(claim, "the stream after this layer has no rogue dimension")
    if not count:
        return undecided(claim, "they have no outlier weight")
    low, high = wilson(hits, count)
    holds = None if prompts < FEW_PROMPTS else True if low > rogue else False if high < rogue else None
    answer = {True: "yes", False: "no", None: "undecided"}[holds]
    few = f"; {prompts} prompts are too few" if prompts < FEW_PROMPTS else ""
    return Verdict(
        claim, holds, f"{claim}: {answer}, {hits} of {count} outlier weights; by chance {percent(rogue)}{few}",
        f"share {percent(hits / count)} {band(low, high)}",
    )  # fmt: skip


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share, by Wilson's score: it holds for few cases, and for none or all of them."""
    z = NormalDist().inv_cdf(0.975)
    share, scale = hits / count, 1 + z * z / count
    middle = share + z * z / (2 * count)
    reach = z * sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)


def shown_words_lose(words: pd.DataFrame, function: set[int], norm: str, prompts: int, seed: int = 0) -> Verdict:
    """Whether the function words among those that change most lose probability, mean over layers.

    `words`: `visit.analyses.norm_sets.layer_words`; `function`: ids.
    """
    claim = f"The function words among those shown lose at {norm}, over all layers"
    own = words[words["id"].isin(function)]
    count, shown = own["id"].nunique(), words["id"].nunique()
    if count < FEW_WORDS:
        are = "is a function word" if count < 2 else "are function words"
        return undecided(claim, f"{count or 'none'} of the {shown} words shown {are}")
    layers = own.groupby("layer")["delta"].mean()
    lose = f"they lose in {int((layers < 0).sum())} of {len(layers)} layers"
    per_word = 100 * own.groupby("id")["delta"].mean().to_numpy()
    note = f"; {count} of {shown} words, the interval is over them"
    return judged(claim, "points a word", [_redrawn(per_word, np.random.default_rng(seed))], prompts, 0.0, True,
                  note=note, size=lambda value, _: f"{signed(value)} percentage points a word; {lose}")  # fmt: skip


def fewer_function_words(
    with_final: pd.DataFrame | None, without: pd.DataFrame, function: set[int], prompts: int, seed: int = 0
) -> Verdict:
    """Whether, read without the final norm, fewer of the words that lose most are function words than with it."""
    claim = "Without the final norm fewer of the words that lose most are function words"
    if with_final is None:
        return undecided(claim, "Figure 7 is needed beside it")
    sides = [_falling(table, function) for table in (with_final, without)]
    if min(map(len, sides)) < FEW_WORDS:
        return undecided(claim, "too few words lose")
    generator = np.random.default_rng(seed)
    gap = _redrawn(sides[0], generator) - _redrawn(sides[1], generator)
    shares = [percent(float(side.mean())) for side in sides]
    told = f"{shares[1]} of {len(sides[1])}, with it {shares[0]} of {len(sides[0])}"
    return judged(claim, "share with it − without", [gap], prompts, note="; the interval is over the words shown",
                  size=lambda *_: told)  # fmt: skip


def _falling(table: pd.DataFrame, function: set[int]) -> np.ndarray:
    """Of the words of real vectors that lose most: 1.0 for a function word, 0.0 for another."""
    real = table[(table["vectors"] == "real") & (table["delta"] < 0)]
    return real.nsmallest(50, "falls")["id"].isin(function).to_numpy(float)


def _redrawn(values: np.ndarray | Sequence[float], generator: np.random.Generator) -> Draws:
    """The mean, then those of as many values drawn again."""
    own = np.asarray(values, float)
    drawn = generator.integers(0, len(own), (DRAWS, len(own)))
    return np.append(own.mean(), own[drawn].mean(1))
