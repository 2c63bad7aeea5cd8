"""Where two runs part, as a grid: layers × pairs of tokens."""

from __future__ import annotations

from typing import Any

import pandas as pd

from visit.figures.grids import Grid
from visit.figures.lens_rows import name_of
from visit.text.numbers import bits, number
from visit.text.visible import as_word, visible

_PARTING_SAID = {
    "place": "after", "tokens": "tokens", "word_a": "A reads", "word_b": "B reads", "js": "divergence",
    "apart": "1 − I₅₀", "cosine": "cosine distance", "cosine_centred": "… mean and rogue dimensions removed",
}  # fmt: skip


def parting_grid(
    table: pd.DataFrame, measure: str, title: str, pos: int, first: tuple[int, int] | None = None, of: Any = None
) -> Grid:
    """How far two runs are apart after every block (rows, upwards) at every pair of tokens (columns).

    `table`: `divergence.part`; `measure`: one of its columns, `title` its name. A click gives [depth, pos_a, pos_b].
    The column of position `pos` of A is looked at; `first`, the (pair, depth) where the runs first part, has a frame.
    """
    top = 1.0 if measure in ("js", "apart") else max(float(table[measure].max()), 1e-12)
    depths = sorted((int(d) for d in table["depth"].unique()), reverse=True)
    pairs = sorted(int(p) for p in table["pair"].unique())
    names = [_token_names(a, b) for a, b in zip(table["token_a"], table["token_b"], strict=True)]
    shown = dict(zip(table["pair"], names, strict=True))
    places = zip(table["depth"], table["pos_a"], table["pos_b"], strict=True)
    cells = pd.DataFrame({
        "row": [depths.index(d) for d in table["depth"]], "column": [pairs.index(p) for p in table["pair"]],
        "strength": (table[measure] / top).fillna(0.0).clip(0, 1), "hue": "d",
        "text": ["" if v != v or v < 0.005 * top else f"{v:.2f}" for v in table[measure]],
        "id": [[int(d), int(a), int(b)] for d, a, b in places],
        "framed": [(p, d) == first for p, d in zip(table["pair"], table["depth"], strict=True)],
        "place": [name_of(d) for d in table["depth"]],
        "tokens": [f"{t} ({a} / {b})" for t, a, b in zip(names, table["pos_a"], table["pos_b"], strict=True)],
        "word_a": [as_word(w) for w in table["word_a"]], "word_b": [as_word(w) for w in table["word_b"]],
        "js": [bits(v) for v in table["js"]],
        **{name: [number(v) for v in table[name]] for name in ("apart", "cosine", "cosine_centred")},
    })  # fmt: skip
    here = table.loc[table["pos_a"] == pos, "pair"]
    looked = None if here.empty else pairs.index(int(here.iloc[0]))
    names_of_rows, columns = [name_of(d) for d in depths], [shown[p] for p in pairs]
    label = f"{title}, after every block at every pair of tokens"
    return Grid(label, cells, names_of_rows, columns, _PARTING_SAID, "after", column=looked, of=of)


def _token_names(a: str, b: str) -> str:
    return " / ".join(dict.fromkeys((visible(a), visible(b))))
