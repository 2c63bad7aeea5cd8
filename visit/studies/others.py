"""The paper's figures and tables of norms and neurons, from sums that the study's run kept beside its own."""

from __future__ import annotations

import pandas as pd

from visit.analyses.function_words import class_shifts, filter_test
from visit.analyses.neuron_sets import statistics_table
from visit.analyses.neurons import weight_profile
from visit.analyses.norm_sets import ShiftSums, control_sums, falling_words, layer_words, quarters, set_shift, top_words
from visit.analyses.norm_steps import has_norm
from visit.analyses.norms import extremes
from visit.lenses.weights import static_index
from visit.models.model import Model
from visit.studies.settings import ALIGNED, FIGURES
from visit.studies.sums import StudySums, Words

EXTREMES = 50  # words of each kind in Figures 7 and 23


def words_of(model: Model, sums: StudySums) -> Words:
    """All of them that the study asks for, made at once."""
    tables: dict[str, pd.DataFrame] = {}
    for figure in (figure for figure in FIGURES if figure in sums.settings.figures and figure not in ALIGNED):
        if figure not in tables:  # 8 and 9 come together
            tables |= other_tables(model, sums, figure)
    return Words(tables, norm_test(model, sums) if "7" in tables else None)


def norm_test(model: Model, sums: StudySums) -> pd.DataFrame:
    """Whether function words fall more than content words at ln1, layer by layer and over all."""
    return filter_test(class_shifts(model, sums.more["shifts"], "ln1"), seed=sums.settings.seed)


def other_tables(model: Model, sums: StudySums, figure: str) -> dict[str, pd.DataFrame]:
    """The tables of Figure 7, 8, 9, 21, 22, 23 or of the paper's tables; none where the model has no such norm.

    Figures 8 and 9 come together, where both are asked for, and need the model's static index, which the first call
    computes (and keeps on disk).
    """
    more = sums.more
    shifts, plain, neurons = more.get("shifts"), more.get("plain"), more.get("neurons")
    if figure == "tables":
        return _tables(model, shifts, plain)
    norms = {"7": ("ln1", shifts), "21": ("ln1", shifts), "22": ("ln2", shifts), "23": ("ln1", plain)}
    if figure in norms:
        norm, own = norms[figure]
        if own is None or not has_norm(model, norm):
            return {}
        if figure in ("21", "22"):
            return {figure: layer_words(model, own, norm)}
        return {figure: _real_and_random(model, own, sums.settings.seed)}
    if neurons is None:
        return {}
    stats = statistics_table(model, neurons, static_index(model))
    made = {"8": lambda: stats, "9": lambda: weight_profile(model, stats, neurons, model.n_layers - 1)}
    return {name: make() for name, make in made.items() if name in sums.settings.figures}


def _real_and_random(model: Model, sums: ShiftSums, seed: int) -> pd.DataFrame:
    """What ln1 does to the words of real vectors, and of random ones with their mean and spread."""
    layer = quarters(model.n_layers)[0]
    both = {"real": sums, "random": control_sums(model, sums, layer, "ln1", seed)}
    found = [extremes(set_shift(model, own, layer), EXTREMES).assign(vectors=name) for name, own in both.items()]
    return pd.concat(found, ignore_index=True).assign(layer=layer)


def _tables(model: Model, shifts: ShiftSums | None, plain: ShiftSums | None) -> dict[str, pd.DataFrame]:
    """Tables 1 to 6; the paper's of top words stand at the ends of the first two quarters."""
    layers = quarters(model.n_layers)
    found: dict[str, pd.DataFrame] = {}
    if shifts is not None and has_norm(model, "ln1"):
        for number, layer in zip((1, 2), layers, strict=False):
            found[f"tables-{number}"] = top_words(model, shifts, layer, "ln1").assign(layer=layer)
        found["tables-3"] = falling_words(model, shifts, "ln1")
    if shifts is not None and has_norm(model, "ln2"):
        found["tables-4"] = top_words(model, shifts, layers[0], "ln2").assign(layer=layers[0])
        found["tables-5"] = falling_words(model, shifts, "ln2")
    if plain is not None and has_norm(model, "ln1"):
        found["tables-6"] = falling_words(model, plain, "ln1")
    return found
