"""From sums to tables: the mean of every cell with its 95 % band, a tidy table per figure."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from jaxtyping import Float

from visit.models.model import Model
from visit.studies.others import other_tables
from visit.studies.plan import GROUPS, OTHERS, Block
from visit.studies.settings import ALIGNED, FIGURES
from visit.studies.sums import StudySums

COLUMNS = ("figure", "series", "group", "measure", "layer", "head", "rank", "mean", "low", "high", "prompts")
BAND = (2.5, 97.5)  # percentiles of the resampled means


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
        if figure not in ALIGNED:
            if figure not in found:
                found |= _of_words(model, sums, figure)
        elif not (table := figure_table(sums, figure)).empty:
            found[figure] = table
    return found


def _of_words(model: Model, sums: StudySums, figure: str) -> dict[str, pd.DataFrame]:
    """The tables of norms and neurons: those that the run's last step made, else made now."""
    if sums.words is None:
        return other_tables(model, sums, figure)
    return {name: table for name, table in sums.words.tables.items() if name.partition("-")[0] == figure}


def figure_table(sums: StudySums, figure: str) -> pd.DataFrame:
    """The table of one figure of section 3 or appendix D; empty where the run could not make it."""
    if figure == "13":
        parts = _against_all(sums)
    else:
        blocks = [block for block in sums.blocks if block.figure == figure]
        groups = GROUPS if figure == "14" else GROUPS[:1]
        parts = [_rows(block, groups, sums.cells[block.name].mean, sums.cells[block.name].count) for block in blocks]
    table = pd.concat([pd.DataFrame(columns=COLUMNS), *parts], ignore_index=True) if parts else pd.DataFrame()
    if table.empty:
        return pd.DataFrame(columns=COLUMNS)
    kinds = {"layer": "Int64", "head": "Int64", "rank": "Int64", "prompts": "Int64"}
    return table[list(COLUMNS)].astype({**kinds, "mean": float, "low": float, "high": float})


def _against_all(sums: StudySums) -> list[pd.DataFrame]:
    """Figure 13: the curves of Figures 2b and 3 by group, those of Figure 3 as the mean of the longest heads."""
    parts = []
    for title, figure in (("heads", "2b"), ("longest", "3")):
        for other in OTHERS:
            block, cells = sums.block(f"{figure}/{other}"), sums.cells[f"{figure}/{other}"]
            if len(block.groups) < 2:
                return []
            mean = cells.mean.mean(-1, keepdims=True)
            own = Block("13", f"{title}: {other}", block.measures, block.layers, groups=block.groups)
            parts.append(_rows(own, GROUPS, mean, cells.count[..., :1]))
    return parts


def _rows(block: Block, groups: tuple[str, ...], mean: np.ndarray, count: np.ndarray) -> pd.DataFrame:
    """A block's cells as rows, for those of its groups that are shown."""
    _, _, heads, ranks = block.shape
    own = [name for name in block.groups if name in groups]
    index = pd.MultiIndex.from_product(
        [own, block.measures, block.layers, range(heads), range(1, ranks + 1)],
        names=["group", "measure", "layer", "head", "rank"],
    )
    table = index.to_frame(index=False)
    mean = mean[:, : len(own)]
    count = np.broadcast_to(count[0, : len(own), None, None, None, :], mean.shape[1:])
    low, high = band(mean)
    table = table.assign(mean=mean[0].ravel(), low=low.ravel(), high=high.ravel(), prompts=count.ravel())
    table.loc[table["prompts"] < 2, ["low", "high"]] = np.nan
    if not block.heads:
        table["head"] = pd.NA
    if not block.ranks:
        table["rank"] = pd.NA
    return table[table["prompts"] > 0].assign(figure=block.figure, series=block.series)


def band(mean: Float[np.ndarray, "draw ..."]) -> tuple[np.ndarray, np.ndarray]:
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
