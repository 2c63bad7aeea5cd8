"""From sums to tables: the mean of every cell with its 95 % band, a tidy table per figure."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from visit.analyses.neuron_sets import statistics_table
from visit.analyses.neurons import weight_profile
from visit.analyses.norm_sets import ShiftSums, control_sums, falling_words, layer_words, quarters, set_shift, top_words
from visit.analyses.norm_tables import class_shifts, filter_test
from visit.analyses.norms import extremes
from visit.lenses.similarity import agreement, rank_weights, read_tops
from visit.lenses.weights import static_index
from visit.models.model import Model, has_norm
from visit.studies.plan import GROUPS, OTHERS, CellBlock
from visit.studies.record import BAND, TABLE_COLUMNS
from visit.studies.settings import ALIGNED, EARLY, FIGURES
from visit.studies.sums import StudySums, Words

# ---- what unrelated vectors score ------------------------------------------------------------------------------------
RANDOM_VECTORS = 64  # random vectors, every two of them compared
LONG = 200  # words from which on each is compared with one other alone: the time goes with k squared


def chance(d_vocab: int, k: int, measures: tuple[str, ...]) -> dict[str, float]:
    """What two lists of k words drawn at random score on average: k/V, and for rank-biased overlap `Σ_d w_d · d/V`.

    (Of the first d words of two random lists d²/V are common on average, that is a share of d/V.)
    """
    depth = torch.arange(1, k + 1, dtype=torch.float64)
    found = {"intersection": k / d_vocab, "rbo": float((rank_weights(k) * depth).sum()) / d_vocab}
    return {name: found[name] for name in measures}


def random_pairs(model: Model, k: int, measures: tuple[str, ...], seed: int = 0) -> dict[str, float]:
    """The mean score of pairs of random vectors, normal in every dimension, read through the lens.

    Higher than by chance: the final norm's bias and the unembedding favour the same words in every vector.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(RANDOM_VECTORS, model.d_model, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        ids = read_tops(model, x.to(model.device, model.wide), k).ids
    first, second = np.triu_indices(RANDOM_VECTORS, 1) if k <= LONG else np.arange(RANDOM_VECTORS).reshape(-1, 2).T
    found = agreement(ids[first], ids[second], measures).mean(-1)
    return dict(zip(measures, found.tolist(), strict=True))


# ---- the paper's figures and tables of norms and neurons, from sums that the study's run kept ------------------------
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
        return _paper_tables(model, shifts, plain)
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


def _paper_tables(model: Model, shifts: ShiftSums | None, plain: ShiftSums | None) -> dict[str, pd.DataFrame]:
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


# ---- from sums to tables ---------------------------------------------------------------------------------------------


def tables(model: Model, sums: StudySums, figures: Iterable[str] | None = None) -> dict[str, pd.DataFrame]:
    """Figure id → tidy table, of the figures that were asked for and can be given (columns: `visit.studies`).

    `figures`: some of them; those of section 3 and appendix D are made in no time (`ALIGNED`), the others read words
    or need the model's static index. Cells without a prompt are left out. `low`, `high`: 95 % bootstrap band over
    prompts, missing with fewer than two of them.
    """
    wanted = [f for f in FIGURES if f in sums.settings.figures and (figures is None or f in set(figures))]
    if not sums.prompts:
        return {}
    found: dict[str, pd.DataFrame] = {}
    for figure in wanted:
        if figure in ALIGNED:
            if not (table := figure_table(sums, figure)).empty:
                found[figure] = table
        elif sums.words is not None:  # the run's last step has made them
            found |= {name: table for name, table in sums.words.tables.items() if name.partition("-")[0] == figure}
        elif figure not in found:  # 8 and 9 come together
            found |= other_tables(model, sums, figure)
    return found


def figure_table(sums: StudySums, figure: str) -> pd.DataFrame:
    """The table of one figure of section 3 or appendix D; empty where the run could not make it."""
    if figure == "13":
        parts = _against_all(sums)
    else:
        blocks = [block for block in sums.blocks if block.figure == figure]
        groups = GROUPS if figure in ("14", EARLY) else GROUPS[:1]
        parts = [
            _block_rows(block, groups, sums.cells[block.name].mean, sums.cells[block.name].count) for block in blocks
        ]
    table = pd.concat([pd.DataFrame(columns=TABLE_COLUMNS), *parts], ignore_index=True) if parts else pd.DataFrame()
    if table.empty:
        return pd.DataFrame(columns=TABLE_COLUMNS)
    kinds = {"layer": "Int64", "head": "Int64", "rank": "Int64", "prompts": "Int64"}
    return table[list(TABLE_COLUMNS)].astype({**kinds, "mean": float, "low": float, "high": float})


def _against_all(sums: StudySums) -> list[pd.DataFrame]:
    """Figure 13: the curves of Figures 2b and 3 by group, those of Figure 3 as the mean of the longest heads."""
    parts = []
    for title, figure in (("heads", "2b"), ("longest", "3")):
        for other in OTHERS:
            block, cells = sums.block(f"{figure}/{other}"), sums.cells[f"{figure}/{other}"]
            if len(block.groups) < 2:
                return []
            mean = cells.mean.mean(-1, keepdims=True)
            own = CellBlock("13", f"{title}: {other}", block.measures, block.layers, groups=block.groups)
            parts.append(_block_rows(own, GROUPS, mean, cells.count[..., :1]))
    return parts


def _block_rows(block: CellBlock, groups: tuple[str, ...], mean: np.ndarray, count: np.ndarray) -> pd.DataFrame:
    """A block's cells as rows, for those of its groups that are shown."""
    _, _, heads, ranks = block.shape
    own = [name for name in block.groups if name in groups]
    index = pd.MultiIndex.from_product(
        [own, block.measures, block.layers or (0,), range(heads), range(1, ranks + 1)],
        names=["group", "measure", "layer", "head", "rank"],
    )
    table = index.to_frame(index=False)
    mean = mean[:, : len(own)]
    count = np.broadcast_to(count[0, : len(own), None, None, None, :], mean.shape[1:])
    low, high = bootstrap_band(mean)
    table = table.assign(mean=mean[0].ravel(), low=low.ravel(), high=high.ravel(), prompts=count.ravel())
    table.loc[table["prompts"] < 2, ["low", "high"]] = np.nan
    placed = table["measure"] == "rank"  # the mean of log2 ranks says a geometric mean
    table.loc[placed, ["mean", "low", "high"]] = np.exp2(table.loc[placed, ["mean", "low", "high"]])
    if not block.layers:
        table["layer"] = pd.NA
    if not block.heads:
        table["head"] = pd.NA
    if not block.ranks:
        table["rank"] = pd.NA
    return table[table["prompts"] > 0].assign(figure=block.figure, series=block.series)


def bootstrap_band(mean: Float[np.ndarray, "draw ..."]) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % band of the resampled means; sets that drew no such prompt are passed over."""
    drawn = mean[1:]
    if not len(drawn):
        return np.full(mean.shape[1:], np.nan), np.full(mean.shape[1:], np.nan)
    if np.isfinite(drawn).all():
        low, high = np.percentile(drawn, BAND, axis=0)
        return low, high
    flat = drawn.reshape(len(drawn), -1)
    found = np.full((2, flat.shape[1]), np.nan)
    for cell in range(flat.shape[1]):
        held = flat[np.isfinite(flat[:, cell]), cell]
        if len(held):
            found[:, cell] = np.percentile(held, BAND)
    low, high = found.reshape(2, *drawn.shape[1:])
    return low, high
