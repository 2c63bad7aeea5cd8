"""One's own question over a set as maps: layers × heads (or the two sums of each layer), three numbers on one scale.

Blue-green speaks for the target, vermilion against it, in all three maps: of an effect, which is what the answer does
without the part, that is a fall. A cell whose 95 % band contains 0 is faint and bears no number. No torch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from visit.figures.effects import WITHOUT_IT
from visit.figures.grids import SHADES, Grid
from visit.figures.heads import layers_and_heads
from visit.figures.maps import HUE, INK, MAP_CELL, ROW, heat_map
from visit.narrate.head_sets import sure, with_band
from visit.text.node_id import part_name
from visit.text.numbers import percent, short, signed

SET_NUMBERS = {"effect": "Effect", "influence": "Influence", "contribution": "Contribution"}
VERMILION = "#c24a08"  # as in grids
FAINTNESS = 0.18  # of its strength is left of a cell whose band contains 0
BANDS_SHOWN = 20  # parts of the chart of bands
_SET_HINTS = {"name": "", "contribution": "adds directly, logits", "influence": "influence, logits",
         "effect": WITHOUT_IT, "looks": "attends to target, distractor",
         "role": "role"}  # fmt: skip


def scale_of(*tables: pd.DataFrame) -> float:
    """The largest number of all maps that are looked at together: they share one scale."""
    return max([float(table[name].abs().max()) for table in tables for name in SET_NUMBERS] + [1e-9])


def set_grid(table: pd.DataFrame, measure: str, top: float, chosen: str = "", of: Any = None) -> Grid:
    """`visit.head_question` of heads or layers as a grid by one of `SET_NUMBERS`; a click gives the node's id.

    `top`: the number that has the full colour. A dot marks heads with a role.
    """
    cells = _set_cells(table, measure, top)
    cells["framed"] = cells["id"] == chosen
    said = {name: title for name, title in _SET_HINTS.items() if name in cells}
    label = (
        f"{SET_NUMBERS[measure]} of every {'head' if table.attrs['nodes'] == 'heads' else 'sum'} of every layer, a mean"
    )
    scale = _scale(measure, top)
    if table.attrs["nodes"] == "heads":
        mark = "has a role, see the table" if cells["marked"].any() else ""
        return replace(layers_and_heads(cells, table, said, label, of), scale=scale, mark=mark)
    layers = sorted((int(n) for n in table["layer"].unique()), reverse=True)
    placed = cells.assign(
        row=[layers.index(n) for n in table["layer"]], column=[int(n.endswith("mlp_out")) for n in table["node"]]
    )
    return Grid(
        label, placed, [f"layer {n}" for n in layers], ["attn_out", "mlp_out"], said, "layer", scale=scale, of=of
    )


def _set_cells(table: pd.DataFrame, measure: str, top: float) -> pd.DataFrame:
    value, certain = table[measure].astype(float), sure(table, measure)
    favours = -value if measure == "effect" else value
    full = (value.abs() / top).clip(0, 1) ** 0.5  # one outlier must not make all others white
    strength = full.where(certain, FAINTNESS * full)
    rows = table.to_dict("records")
    numbers = [f"{v:+.2f}".replace("-", "−") if abs(v) >= 0.005 else "" for v in value]
    cells = pd.DataFrame({
        "id": table["node"], "hue": ["n" if v < 0 else "p" for v in favours], "strength": strength,
        "text": [text if is_sure else "" for text, is_sure in zip(numbers, certain, strict=True)],
        "name": [part_name(node) for node in table["node"]],
        **{name: [with_band(row, name) for row in rows] for name in SET_NUMBERS},
    })  # fmt: skip
    if "role" in table:
        looks = zip(table["attends_target"], table["attends_distractor"], strict=True)
        cells["looks"] = [", ".join("–" if a != a else short(a) for a in both) for both in looks]
        cells["role"] = [role if isinstance(role, str) else "none by the criteria" for role in table["role"]]
        cells["marked"] = [isinstance(role, str) for role in table["role"]]
    return cells


def _scale(measure: str, top: float) -> tuple[tuple[str, str], ...]:
    """What fills mean; their strength is the root of the number.

    Of an effect the sign is turned: where the answer falls without a part, the part spoke for the target.
    """
    turned = -1 if measure == "effect" else 1
    ends = ((-1.0, " against the target"), (-0.5, ""), (0.0, ""), (0.5, ""), (1.0, " for the target"))
    return tuple(
        (
            f"{'n' if end < 0 else 'p'}{round(SHADES * abs(end))}",
            f"{signed(turned * end * abs(end) * top) if end else '0'}{words}",
        )
        for end, words in ends
    )


# ---- for files -------------------------------------------------------------------------------------------------------
def set_chart(table: pd.DataFrame, title: list[str]) -> Any:
    """The three maps beside each other on one scale, with `title`, lines above them; of neurons their bands."""
    import altair as alt

    said = alt.TitleParams(text=title[0], subtitle=title[1:], anchor="start", color=INK, subtitleColor=INK, fontSize=14,
                           subtitleFontSize=12, offset=12)  # fmt: skip
    if table.attrs["nodes"] == "neurons":
        return set_bands(table).properties(title=said)
    top = scale_of(table)
    maps = [_one_map(set_grid(table, measure, top), name) for measure, name in SET_NUMBERS.items()]
    return alt.hconcat(*maps, spacing=18).properties(title=said)


def _one_map(found: Grid, name: str) -> Any:
    import altair as alt

    shown = found.cells.drop(columns=["id", "row", "column"]).assign(
        line=[found.rows[n] for n in found.cells["row"]], place=[found.columns[n] for n in found.cells["column"]]
    )
    top = alt.Axis(orient="top", title=name, titleColor=INK, labelAngle=0, ticks=False, domain=False)
    x = alt.X("place:N", sort=found.columns, axis=top)
    y = alt.Y("line:N", sort=found.rows, axis=alt.Axis(title=None, ticks=False, domain=False))
    color = alt.Color("hue:N", scale=alt.Scale(domain=["p", "n"], range=[HUE, VERMILION]), legend=None)
    step = MAP_CELL - 24
    return heat_map(shown, x, y, {}, color, limit=step).properties(width={"step": step}, height={"step": ROW - 6})


def set_bands(table: pd.DataFrame, count: int = BANDS_SHOWN) -> Any:
    """The parts with the largest effects, each with its three means and their 95 % bands."""
    import altair as alt

    order = table.reindex(table["effect"].abs().sort_values(ascending=False, kind="stable").index).head(count)
    rows = [
        {"name": part_name(row["node"]), "number": SET_NUMBERS[measure], "mean": row[measure],
         "low": row[f"{measure}_low"], "high": row[f"{measure}_high"], "said": with_band(row, measure)}
        for row in order.to_dict("records") for measure in SET_NUMBERS
    ]  # fmt: skip
    names = list(dict.fromkeys(row["name"] for row in rows))
    scale = alt.Scale(domain=list(SET_NUMBERS.values()), range=["#7a3e9d", "#b8860b", HUE])
    colour = alt.Color("number:N", scale=scale, legend=alt.Legend(title=None, orient="top"))
    base = alt.Chart(pd.DataFrame(rows)).encode(
        y=alt.Y("name:N", sort=names, title=None), yOffset=alt.YOffset("number:N", sort=list(SET_NUMBERS.values())),
        color=colour, tooltip=[alt.Tooltip("name:N", title="part"), alt.Tooltip("number:N"), alt.Tooltip("said:N")],
    )  # fmt: skip
    lines = base.mark_rule(strokeWidth=1.5).encode(x=alt.X("low:Q", title="logits"), x2="high:Q")
    return alt.layer(lines, base.mark_point(filled=True, size=28).encode(x="mean:Q")).properties(
        height={"step": 9}, width=420
    )


def set_title(table: pd.DataFrame, model: str) -> list[str]:
    """What a picture shows, line by line. `model`: as it is called on screen."""
    attrs = table.attrs
    of_neurons = attrs["nodes"] == "neurons"
    what = {
        "heads": "Every head", "layers": "Attention and MLP of every layer",
        "neurons": f"The {min(BANDS_SHOWN, len(table))} neurons with the largest effects",
    }[attrs["nodes"]]  # fmt: skip
    answer = "target − distractor" if attrs["answer"] == "difference" else "the target's logit above the mean"
    how = {"zero": "taken out", "mean": "replaced by its mean over the set", "from": "replaced by its partner's"}
    bands = "Means with 95 % bands." if of_neurons else "Means; faint: the 95 % band contains 0."
    return [
        f"{what} of {model} over {attrs['prompts']:,} prompts of {attrs['prompt_set']['name']}",
        f"Answer: {answer}, {signed(attrs['before']['answer'])} logits; the target is the top word in "
        f"{percent(attrs['before']['top'])}.",
        f"Effect: what the answer does with the part {how[attrs['how']]} at the last position. {bands}",
        *([] if of_neurons else ["Blue-green speaks for the target, vermilion against it, in all maps."]),
    ]
