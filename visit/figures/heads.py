"""The attention memory's tables: grids of heads, of a pattern and of a value's life; the paper's figures as charts."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from visit.drawing.style import QUIET, SERIES
from visit.figures.grids import Grid
from visit.text.numbers import number, percent, short
from visit.text.visible import as_word, visible

GOLD = "#c8901e"  # the pattern, as in the drawing


def heads_grid(table: pd.DataFrame, measure: str, title: str, chosen: str, of: Any = None) -> Grid:
    """Heads (to the right) of every layer (upwards) by one measure, called `title`; a click gives the node's id.

    `table`: `heads.head_map`. Towards the target blue-green, away vermilion; every other measure from 0 in blue-green.
    A dot marks the three longest heads of a layer, a frame the chosen one. A table without words
    (`head_map(…, words=False)`) has none in its hints.
    """
    cells = _head_cells(table, measure)
    cells["framed"] = cells["id"] == chosen
    said = {name: title for name, title in _HEAD_SAID.items() if name in cells}
    return layers_and_heads(cells, table, said, f"{title} of every head of every layer", of)


def layers_and_heads(cells: pd.DataFrame, table: pd.DataFrame, said: dict[str, str], label: str, of: Any) -> Grid:
    """The grid of cells that stand for the rows of `table`: layers upwards, heads to the right."""
    layers = sorted((int(n) for n in table["layer"].unique()), reverse=True)
    heads = sorted(int(j) for j in table["head"].unique())
    placed = cells.assign(row=[layers.index(n) for n in table["layer"]], column=[heads.index(j) for j in table["head"]])
    return Grid(label, placed, [f"layer {n}" for n in layers], [f"H{j}" for j in heads], said, "layer", of=of)


_HEAD_SAID = {
    "name": "", "contribution": "contribution in logits", "words": "reads", "source": "takes most from",
    "norm": "norm", "share": "share of the layer", "rank": "rank of the target", "role": "over the whole prompt",
}  # fmt: skip


def _head_cells(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    value = table[measure].astype(float)
    if measure == "rank":  # near the top strong, on a log scale
        strength = 1 - value.map(math.log) / math.log(max(float(value.max()), 2.0))
        text = [f"{int(v):,}" for v in value]
    else:
        strength = value.abs() / max(float(value.abs().max()), 1e-12)
        sign = "+" if measure == "contribution" else ""
        text = [f"{v:{sign}.2f}" if abs(v) >= 0.005 else "0" for v in value]
    dots = ["●\u2009" if top else "" for top in table["top3"]]
    sources = zip(table["source_token"], table["source_pos"], table["source_pattern"], strict=True)
    reads = {} if "tokens" not in table else {
        "words": [", ".join(as_word(w) for w in words[:5]) for words in table["tokens"]],
        "rank": [f"{r:,}" for r in table["rank"]],
    }  # fmt: skip
    return pd.DataFrame({
        "id": table["node"], "hue": ["n" if v < 0 else "p" for v in value], "strength": strength.clip(0, 1),
        "text": [d + t for d, t in zip(dots, text, strict=True)],
        "name": [f"L{layer} H{head}" for layer, head in zip(table["layer"], table["head"], strict=True)],
        "source": [f"{visible(t)} (position {p}, pattern {short(a)})" for t, p, a in sources],
        "contribution": [number(c, True) for c in table["contribution"]], "norm": [f"{n:.3g}" for n in table["norm"]],
        "share": [percent(s) for s in table["share"]],
        "role": [r if isinstance(r, str) else "no simple rule" for r in table["role"]], **reads,
    })  # fmt: skip


def memory_grid(table: pd.DataFrame) -> Grid:
    """One head's past positions (downwards): what it attends to, how far each moves it, what each adds.

    `table`: `attention_memory.head_memory`; its last row, what the sum misses, is none of the map's.
    """
    rows = table[table["source_pos"].notna()].reset_index(drop=True)
    measures = {"pattern": ("attends", "a"), "moved": ("moves", "p"), "contribution": ("adds, logits", "p")}
    cells = []
    for column, (name, (_, hue)) in enumerate(measures.items()):
        most = max(float(rows[name].abs().max()), 1e-12)
        for i, row in enumerate(rows.to_dict("records")):
            value, words = (
                float(row[name]),
                row["tokens"] if isinstance(row["tokens"], list) else [],
            )  # not all are read
            cells.append({
                "row": i, "column": column, "id": int(row["source_pos"]), "strength": abs(value) / most,
                "hue": "n" if value < 0 else hue,
                "text": percent(value) if name == "pattern" else number(value, name == "contribution"),
                "name": f"{as_word(row['source_token'])} (position {int(row['source_pos'])})",
                "reads": ", ".join(as_word(w) for w in words[:5]),
                "adds": number(float(row["contribution"]), True), "attention": percent(float(row["pattern"])),
            })  # fmt: skip
    said = {"name": "", "reads": "its memory value reads", "attention": "attention", "adds": "adds, logits"}
    names = [visible(t) for t in rows["source_token"]]
    return Grid("What the head recalls from each position", pd.DataFrame(cells), names,
                [title for title, _ in measures.values()], said, "recalled from")  # fmt: skip


def pattern_grid(pattern: Any, tokens: list[str], first: int, pos: int, of: Any = None) -> Grid:
    """One head's query × key map; a click gives the query. `pattern`: rows of numbers, from position `first` on.

    Rows are the positions that look, columns those looked at; the row of `pos` is the one looked at.
    """
    names = [visible(t) for t in tokens]
    cells = pd.DataFrame([
        {"row": i, "column": j, "id": first + i, "strength": float(pattern[i][j]), "hue": "a", "text": "",
         "looks": f"{names[i]} looks at {names[j]}", "places": f"{first + i} at {first + j}",
         "shown": number(float(pattern[i][j]))}
        for i in range(len(names)) for j in range(i + 1)
    ])  # fmt: skip
    said = {"looks": "", "places": "positions", "shown": "attention"}
    row = pos - first if 0 <= pos - first < len(names) else None
    return Grid("How the head divides its attention: rows look, columns are looked at", cells, names, names, said,
                "looks ↓ at →", row, square=True, of=of)  # fmt: skip


def pattern_table(pattern: Any, tokens: list[str], first: int) -> pd.DataFrame:
    """The numbers of `pattern_grid`, a row a cell: `query`, `query_token`, `source`, `source_token`, `attention`."""
    return pd.DataFrame([
        {"query": first + i, "query_token": tokens[i], "source": first + j, "source_token": tokens[j],
         "attention": float(pattern[i][j])}
        for i in range(len(tokens)) for j in range(i + 1)
    ])  # fmt: skip


def pattern_multiples(pattern: Any, tokens: list[str], first: int, chosen: int, columns: int = 4) -> Any:
    """The patterns of all heads of a layer as small maps; a click selects `head` under "multiple"."""
    import altair as alt

    rows = [
        {"head": f"H{j}", "number": j, "query": first + i, "key": first + k, "pattern": round(float(cell), 4)}
        for j, one in enumerate(pattern) for i, line in enumerate(one) for k, cell in enumerate(line[: i + 1])
        if cell >= 0.01
    ]  # fmt: skip
    size = 92
    pick = alt.selection_point(name="multiple", fields=["number"], on="click", empty=False)
    axis: dict[str, Any] = {"axis": None, "scale": alt.Scale(domain=list(range(first, first + len(tokens))))}
    base = alt.Chart(pd.DataFrame(rows)).mark_rect(color=GOLD, cursor="pointer").encode(
        x=alt.X("key:O", **axis), y=alt.Y("query:O", **axis),
        opacity=alt.Opacity("pattern:Q", scale=alt.Scale(domain=[0, 1], range=[0.05, 1]), legend=None),
        tooltip=[alt.Tooltip("head:N"), alt.Tooltip("query:O"), alt.Tooltip("key:O"), alt.Tooltip("pattern:Q")],
    ).add_params(pick).properties(width=size, height=size)  # fmt: skip
    header = alt.Header(title=None, labelExpr=f"datum.label == 'H{chosen}' ? 'H{chosen} (chosen)' : datum.label")
    order = [f"H{j}" for j in range(len(pattern))]
    return base.facet(facet=alt.Facet("head:N", sort=order, header=header), columns=columns, spacing=8)


def life_grid(table: pd.DataFrame, token: str, chosen: str, by: str = "source_prob", of: Any = None) -> Grid:
    """What one token's memory value reads, layers × heads, coloured by one of its columns between 0 and 1.

    `table`: `visit.analyses.attention_memory.value_life`; a click gives the head's id.
    """
    nodes = [f"L{n}.head{j}" for n, j in zip(table["layer"], table["head"], strict=True)]
    cells = pd.DataFrame({
        "id": nodes, "strength": table[by], "hue": "p", "framed": [node == chosen for node in nodes],
        "text": [as_word(words[0]) for words in table["tokens"]],
        "name": [f"L{n} H{j}" for n, j in zip(table["layer"], table["head"], strict=True)],
        "words": [", ".join(as_word(w) for w in words) for words in table["tokens"]],
        "standing": [f"{visible(token)} at rank {r:,}, {percent(p)}"
                     for r, p in zip(table["source_rank"], table["source_prob"], strict=True)],
        "norm": [f"{n:.3g}" for n in table["norm"]],
    })  # fmt: skip
    said = {"name": "", "words": "reads", "standing": "its own token", "norm": "norm of the value"}
    return layers_and_heads(cells, table, said, "What the token's memory value reads in every head", of)


def alignment_chart(scores: pd.DataFrame, figure: int, chance: float) -> Any:
    """The paper's Figure 2, 3 or 5 for one prompt, mean I_50 per layer. scores: `overlap.alignment_scores`."""
    import altair as alt

    names = {"attn_out": "attention out", "block": "the block's output", "final": "the last state", "head": "its head"}
    rows = scores[scores["figure"] == figure]
    keys = ["layer", "other", "with_w_o"] if figure != 5 else ["layer", "source_rank"]
    mean = rows.groupby(keys, as_index=False)["score"].mean()
    if figure == 5:
        mean["series"] = [f"{('most', 'second', 'third')[int(r) - 1]} attended" for r in mean["source_rank"]]
        mean["without"] = False
    else:
        mean["series"] = [names[o] for o in mean["other"]]
        mean["without"] = ~mean["with_w_o"].astype(bool)
    mean["kind"] = ["without W_O" if w else "with W_O" for w in mean["without"]]
    tips = [alt.Tooltip("series:N", title="with"), alt.Tooltip("kind:N", title="projected"), alt.Tooltip("layer:O"),
            alt.Tooltip("score:Q", title="mean I₅₀", format=".3f")]  # fmt: skip
    base = alt.Chart(mean).encode(
        x=alt.X("layer:Q", axis=alt.Axis(tickMinStep=1, title="layer", grid=False)),
        y=alt.Y("score:Q", axis=alt.Axis(title="mean I₅₀"), scale=alt.Scale(domainMin=0)),
        color=alt.Color("series:N", scale=alt.Scale(range=list(SERIES[:3])),
                        legend=alt.Legend(title=None, orient="top", columns=2, labelLimit=130)),
        tooltip=tips,
    )  # fmt: skip
    both = alt.Legend(
        title=None, orient="bottom", columns=2, labelLimit=90, symbolType="stroke", symbolSize=900, symbolStrokeWidth=2,
        symbolStrokeColor=QUIET,
    ) if mean["without"].any() else None  # fmt: skip
    kinds = alt.Scale(domain=["with W_O", "without W_O"], range=[[1, 0], [5, 4]])
    line = base.mark_line().encode(strokeDash=alt.StrokeDash("kind:N", scale=kinds, legend=both))
    dots = base.mark_point(filled=True, size=30, opacity=1).encode(detail="kind:N")
    rule = alt.Chart(pd.DataFrame({"chance": [chance]})).mark_rule(strokeDash=[2, 3], color="#888888")
    rule = rule.encode(y="chance:Q")
    return alt.layer(line, dots, rule).properties(height=300)
