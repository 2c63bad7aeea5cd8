"""A causal trace as three maps with one scale, blocks upwards and tokens to the right: grids, and a chart for files. No
torch.

The fill is the share of what the noise took away that comes back: nothing is pale, all is full; vermilion is less than
with nothing put back.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from visit.figures.grids import SHADES, Grid
from visit.figures.maps import HUE, INK, heat_map
from visit.text.numbers import percent, ratio
from visit.text.visible import visible

WORSE = "#c24a08"  # vermilion, as in grids
SUBJECT_SIGN = "* "  # before the name of a token that is made unreadable
STEP_X, STEP_Y = 30, 15  # px of a cell of the chart
_BACK_STEPS = ((0.0, "0 %"), (0.25, "25 %"), (0.5, "50 %"), (0.75, "75 %"), (1.0, "100 % back"))
TAKES_AWAY = "even less"  # than with nothing put back
_TRACE_SAYS = {
    "place": "", "told": "", "share": "of what was lost comes back", "band": "95 % band",
}  # fmt: skip


def site_title(site: str, window: int) -> str:
    """What one map puts back: "The stream after a block", "Attention of 6 blocks"."""
    if site == "resid":
        return "The stream after a block"
    return f"{'Attention' if site == 'attn_out' else 'MLPs'} of {window} block{'s' if window > 1 else ''}"


def trace_grid(table: pd.DataFrame, site: str, shown: range, chosen: str = "", of: Any = None) -> Grid:
    """One site of `visit.trace` as a grid, of the positions `shown`. A click gives `resid.12.3`: site, layer, position;
    that of `chosen` has a frame. The first map has the scale of all."""
    about = table.attrs
    rows = table[(table["site"] == site) & table["pos"].isin(shown)]
    layers = sorted((int(n) for n in rows["layer"].unique()), reverse=True)
    cells = _trace_cells(rows, about)
    cells["framed"] = cells["id"] == chosen
    cells["row"] = [layers.index(n) for n in rows["layer"]]
    cells["column"] = [shown.index(p) for p in rows["pos"]]
    scale = _trace_scale(table) if site == "resid" else ()
    label = f"{site_title(site, about['window'])}, put back at one position: how much of the answer comes back"
    here = about["position"]
    column = shown.index(here) if here in shown else None
    names = [str(n) for n in layers], trace_columns(table, shown)
    return Grid(label, cells, *names, _TRACE_SAYS, "block", column=column, square=True, scale=scale, of=of)


def _trace_scale(table: pd.DataFrame) -> tuple[tuple[str, str], ...]:
    """What fills mean in all three maps; vermilion only where a cell has it."""
    steps = tuple((f"p{round(SHADES * share)}", words) for share, words in _BACK_STEPS)
    worse = (_trace_cells(table, table.attrs)["hue"] == "n").any()
    return ((f"n{SHADES // 2}", TAKES_AWAY), *steps) if worse else steps


def trace_columns(table: pd.DataFrame, shown: range) -> list[str]:
    """The tokens of the positions shown, those of the subject with a sign."""
    subject, tokens = table.attrs["subject"]["positions"], table.attrs["tokens"]
    return [f"{SUBJECT_SIGN if p in subject else ''}{visible(tokens[p])}" for p in shown]


def _trace_cells(rows: pd.DataFrame, about: dict[str, Any]) -> pd.DataFrame:
    """A row a cell: its place, what it says, its colour."""
    lost = about["clean"] - about["corrupted"]
    share = rows["effect"] / lost if lost > 0 else rows["effect"] * 0.0
    return pd.DataFrame({
        "id": [f"{site}.{n}.{p}" for site, n, p in zip(rows["site"], rows["layer"], rows["pos"], strict=True)],
        "place": [restored_in_words(row) for row in rows.to_dict("records")],
        "told": [f"probability of the answer: {percent(about['corrupted'])} → {percent(p)}" for p in rows["prob"]],
        "share": [ratio(s) for s in share],
        "band": ["–" if low != low else f"{ratio(low / lost)} to {ratio(high / lost)}" if lost > 0 else "–"
                 for low, high in zip(rows["low"], rows["high"], strict=True)],
        "strength": share.abs().clip(0, 1).fillna(0.0), "hue": ["n" if s < -0.005 else "p" for s in share], "text": "",
    }).reset_index(drop=True)  # fmt: skip


def restored_in_words(row: Any) -> str:
    """ "The stream after block 12 at “·Japan” (position 3)": what a row of `visit.trace` puts back, and where."""
    return f"{_blocks_of(row)} at “{visible(row['token'])}” (position {row['pos']})"


def _blocks_of(row: Any) -> str:
    """ "The stream after block 12", "Attention of blocks 9 to 14 (around 12)" """
    if row["site"] == "resid":
        return f"The stream after block {row['layer']}"
    name = "Attention" if row["site"] == "attn_out" else "MLPs"
    if row["first"] == row["last"]:
        return f"{name} of block {row['layer']}"
    return f"{name} of blocks {row['first']} to {row['last']} (around {row['layer']})"


# ---- a chart, for files ----------------------------------------------------------------------------------------------
def trace_lines(table: pd.DataFrame, model: str) -> list[str]:
    """What the chart shows, line by line. `model`: how it is called."""
    about = table.attrs
    word, subject = visible(about["target"]["token"]), visible(about["subject"]["text"])
    return [
        visible(about["prompt"]),
        f"“{word}” in {model}: {percent(about['clean'])}, with noise on “{subject}” (*) {percent(about['corrupted'])}; "
        "what one thing put back from the clean run brings back",
        f"Noise {about['noise']:g} × {about['sd']:.3g}, {about['samples']} samples, seed {about['seed']}. Fill: share "
        "of what was lost; it says what is enough under this noise, not where the answer is stored.",
    ]


def trace_chart(table: pd.DataFrame, title: list[str], stacked: bool = False) -> Any:
    """The three maps side by side under `title`, lines above them, and the scale below. `stacked`: all one below the
    other, for words that are larger than they are drawn."""
    import altair as alt

    about = table.attrs
    shown = range(about["position"] + 1)
    names = {p: f"{p}\u2003{name}" for p, name in zip(shown, trace_columns(table, shown), strict=True)}
    color = alt.Color("hue:N", scale=alt.Scale(domain=["p", "n"], range=[HUE, WORSE]), legend=None)
    order = [str(n) for n in sorted(table["layer"].unique(), reverse=True)]
    heads = alt.Axis(orient="bottom", title=None, labelAngle=-90, labelLimit=96, ticks=False, domain=False,
                     labelExpr="split(datum.label, '\u2003')[1]")  # fmt: skip
    x = alt.X("token_x:N", sort=list(names.values()), axis=heads)
    maps = []
    for site in table["site"].unique():
        rows = table[table["site"] == site]
        cells = _trace_cells(rows, about).drop(columns=["id", "text"])
        cells = cells.assign(token_x=[names[p] for p in rows["pos"]], block=[str(n) for n in rows["layer"]])
        side = alt.Axis(title="block" if site == "resid" else None, ticks=False, domain=False, labelOverlap=True)
        drawn = heat_map(cells, x, alt.Y("block:N", sort=order, axis=side), {}, color)
        head = alt.TitleParams(text=site_title(site, about["window"]), anchor="start", color=INK, fontSize=12)
        maps.append(drawn.properties(width={"step": STEP_X}, height={"step": STEP_Y}, title=head))
    said = alt.TitleParams(text=title[0].split("\n"), subtitle=title[1:], anchor="start", color=INK, subtitleColor=INK,
                           fontSize=14, subtitleFontSize=12, offset=12)  # fmt: skip
    beside = [*maps] if stacked else [alt.hconcat(*maps, spacing=24)]
    return alt.vconcat(*beside, _share_scale(color, stacked)).properties(title=said)


def _share_scale(color: Any, stacked: bool) -> Any:
    """The scale as a row of filled cells, or a column."""
    import altair as alt

    words = [TAKES_AWAY, *(name for _, name in _BACK_STEPS)]
    cells = pd.DataFrame({"text": words, "hue": ["n", *["p"] * len(_BACK_STEPS)],
                          "strength": [0.5, *(share for share, _ in _BACK_STEPS)], "line": ""})  # fmt: skip
    x, y = alt.X("text:N", sort=words, axis=None), alt.Y("line:N", axis=None)
    if stacked:
        x, y = alt.X("line:N", axis=None), alt.Y("text:N", sort=words, axis=None)
    return heat_map(cells, x, y, {}, color).properties(width={"step": 160 if stacked else 92}, height={"step": 20})
