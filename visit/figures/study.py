"""The study's tables as Altair charts: lines over the layers with bands, and maps of ranks and heads. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from visit.drawing.style import QUIET, SERIES
from visit.figures.maps import INK, heat_map
from visit.figures.neurons import norm_entropy, weight_lines
from visit.figures.norms import layer_panels, shift_scatter
from visit.studies.captions import AXIS_TITLES, GROUP_NAMES, MEASURE_NAMES, SERIES_NAMES
from visit.studies.settings import DRAWN, EARLY
from visit.text.numbers import number, percent

KEYS = ["figure", "series", "group", "measure", "layer", "head", "rank"]
NUMBERS = ["mean", "low", "high", "prompts"]
COLUMNS = KEYS + NUMBERS
HEIGHT, TALL = 250, 330  # px; on a page, where names and legend are within it
CELL = 17  # height of a cell of a map, px
MAX_ROWS = 40  # of a map: ranks beyond are in the table only
_RAMP = ["rgba(7,127,107,0.05)", "rgba(7,127,107,1)"]
_FLOORS: dict[str, tuple[str, list[int]]] = {"chance": ("dotted", [2, 4]), "random vectors": ("dashed", [7, 4])}
_LONGEST = ("the longest head", "the second", "the third")
_ATTENDED = ("most attended", "second", "third")


@dataclass(frozen=True)
class Panel:
    """One chart of a figure. `title`: what sets it apart from the figure's other panels; may be empty.

    `fixed`: it has a width of its own, so that a narrow page must scroll.
    """

    title: str
    chart: Any
    fixed: bool = False


@dataclass(frozen=True)
class Run:
    """A study's table of one figure under the name that a legend gives it."""

    name: str
    table: pd.DataFrame
    chance: dict[str, float] = field(default_factory=dict)  # measure → what lists drawn at random score
    random: dict[str, float] = field(default_factory=dict)  # measure → what random vectors score through the lens


@dataclass(frozen=True)
class _Plan:
    """How a figure is laid out: which column parts the lines, which the panels, which the dashes."""

    color: str = "series"
    panel: str = ""
    dash: str = ""
    rows: str = ""  # of a map
    measures: tuple[str, ...] = ()  # that are drawn; none: all
    ranks: tuple[str, ...] = _ATTENDED


_PLANS = {
    "3": _Plan(color="rank", panel="series", ranks=_LONGEST),
    "5": _Plan(color="rank"),
    "13": _Plan(panel="of", dash="group"),
    "14": _Plan(color="group", panel="series"),
    EARLY: _Plan(measures=DRAWN),
    "16": _Plan(rows="rank"),
    "17": _Plan(rows="head", panel="rank"),
}  # fmt: skip


def is_study_table(table: pd.DataFrame) -> bool:
    """Whether this is a table of means per layer; others (words, neurons) have their own charts."""
    return set(COLUMNS) <= set(table.columns)


def panels(run: Run, figure: str, other: Run | None = None, width: Any = "container") -> list[Panel]:
    """The charts of one figure, a panel for each measure and whatever else it is parted by; none for a mere table.

    `other`: a second run, laid over with dashed lines (maps and dots stand beside each other). `width`: pixels, or
    "container" for a page.
    """
    plan = _PLANS.get(figure, _Plan())
    if not is_study_table(run.table):
        both = [run] if other is None else [run, other]
        return [
            Panel("" if other is None else one.name, *made) for one in both for made in _of_words(one, figure, width)
        ]
    if other is not None and not is_study_table(other.table):
        other = None
    runs = [run] if other is None else [run, other]
    rows = pd.concat([_rows(one, plan, other is not None) for one in runs], ignore_index=True)
    found = []
    drawn = set(rows["measure"]) & set(plan.measures or MEASURE_NAMES)
    for measure in [m for m in MEASURE_NAMES if m in drawn]:
        own = rows[rows["measure"] == measure]
        top = float(own["mean" if plan.rows else "high"].fillna(own["mean"]).max())
        for panel in own["panel"].drop_duplicates():
            part = own[own["panel"] == panel]
            title = ", ".join(t for t in (panel, MEASURE_NAMES[measure]) if t)
            if plan.rows:  # two maps cannot lie on each other
                for name, one in part.groupby("run", sort=False):
                    of = title if other is None else f"{name}: {title}"
                    found.append(Panel(of, _map(one, plan, measure, top, width)))
            else:
                floors = {"chance": run.chance.get(measure), "random vectors": run.random.get(measure)}
                found.append(Panel(title, _lines(part, plan, measure, top, floors, width)))
    return found


# ---- the rows of a chart ---------------------------------------------------------------------------------------------


def _rows(run: Run, plan: _Plan, dashed: bool) -> pd.DataFrame:
    """One run's part of a figure, each row with the line, panel and dash it belongs to."""
    table = run.table.dropna(subset=["mean", "layer", *([plan.rows] if plan.rows else [])])
    if plan.color == "group":
        table = table[(table["group"] != "all") | (table["group"] == "all").all()]
    elif plan.dash == "group":
        table = table[table["group"] != "incorrect"]
    else:
        table = table[table["group"] == "all"]
    parts = {name: _texts(table, name, plan.ranks) for name in ("series", "rank", "group", "of")}
    panel = parts[plan.panel] if plan.panel else [""] * len(table)
    if plan.dash and dashed:  # the dashes are needed for the runs
        panel = [", ".join(t for t in both if t) for both in zip(panel, parts["group"], strict=True)]
    line = parts["series"] if plan.rows else parts[plan.color]
    return pd.DataFrame({
        "measure": table["measure"], "layer": table["layer"].astype(int), "line": line, "panel": panel,
        "row": table[plan.rows].astype("Int64") if plan.rows else 0, "run": run.name,
        "dash": parts["group"] if plan.dash and not dashed else run.name,
        "mean": table["mean"], "low": table["low"], "high": table["high"], "prompts": table["prompts"],
        "shown": [number(m) for m in table["mean"]],
        "band": [f"{number(a)} to {number(b)}" for a, b in zip(table["low"], table["high"], strict=True)],
    })  # fmt: skip


def _texts(table: pd.DataFrame, column: str, ranks: tuple[str, ...]) -> list[str]:
    """What a legend or a panel's title says for each row."""
    if column == "rank":
        return ["" if pd.isna(r) else ranks[r - 1] if r <= len(ranks) else f"rank {r}" for r in table["rank"]]
    if column == "group":
        return [GROUP_NAMES.get(g, g) for g in table["group"]]
    of, _, own = zip(*(str(s).rpartition(": ") for s in table["series"]), strict=True) if len(table) else ([], [], [])
    return [SERIES_NAMES.get(s, s) for s in (of if column == "of" else own)]


# ---- lines -----------------------------------------------------------------------------------------------------------


_PHONE = 310  # px, for a legend: what is wider is cut


def _lines(
    rows: pd.DataFrame, plan: _Plan, measure: str, top: float, floors: dict[str, float | None], width: Any
) -> Any:
    """Means per layer as lines with their bands; a second run or group is dashed."""
    import altair as alt

    names = rows["line"].drop_duplicates().tolist()
    dashes = rows["dash"].drop_duplicates().tolist()
    legend = None
    if len(names) > 1 or plan.color == "group":
        entry = 32 + 6.2 * max(map(len, names))  # px: its sign and its words
        columns = 1 if plan.color == "group" else max(1, min(3, int(_PHONE / entry)))
        legend = alt.Legend(title=None, orient="top", columns=columns, labelLimit=190, symbolOpacity=1)
    colour = alt.Color(
        "line:N", legend=legend, scale=alt.Scale(domain=names, range=[*SERIES, *[QUIET] * len(names)][: len(names)])
    )
    shape = alt.Shape("line:N", legend=legend, scale=alt.Scale(domain=names))
    last = max(int(rows["layer"].max()), 1)
    ticks = list(range(0, last + 1, max(1, -(-last // 12))))
    if measure == "rank":  # of 49,152 words: the places near the first are those that count
        scale = alt.Scale(type="log", domain=[1, max(top, 10)], nice=True)
    else:
        scale = alt.Scale(domain=[0, max(top, *(1.2 * (floor or 0) for floor in floors.values()), 1e-9)], nice=True)
    x = alt.X("layer:Q", scale=alt.Scale(domain=[0, last], nice=False, padding=6),
              axis=alt.Axis(title="layer", grid=False, format="d", values=ticks))  # fmt: skip
    y = alt.Y("mean:Q", scale=scale, axis=alt.Axis(title=AXIS_TITLES.get(measure, measure), tickCount=5))
    tips = [alt.Tooltip("line:N", title="line"), alt.Tooltip("dash:N", title="of"), alt.Tooltip("layer:Q"),
            alt.Tooltip("shown:N", title="mean"), alt.Tooltip("band:N", title="95 % band"),
            alt.Tooltip("prompts:Q", format=",")]  # fmt: skip
    several = len(dashes) > 1
    key = alt.Legend(title=None, orient="bottom", labelLimit=260, symbolSize=400, columns=1) if several else None
    dash = alt.StrokeDash("dash:N", legend=key, scale=alt.Scale(domain=dashes, range=[[1, 0], [6, 4], [2, 3]]))
    base = alt.Chart(rows).encode(x=x, color=colour, tooltip=tips)
    band = base.mark_area(opacity=0.1 if several else 0.18).encode(
        y=alt.Y("low:Q", scale=scale), y2="high:Q", detail="dash:N"
    )
    line = base.mark_line(strokeWidth=2).encode(y=y, strokeDash=dash)
    dots = base.mark_point(filled=True, size=34, opacity=1).encode(y=y, shape=shape, detail="dash:N")
    known = {name: floor for name, floor in floors.items() if floor is not None}
    chart = alt.layer(*_floors(known, scale), band, line, dots).properties(
        height=TALL if width == "container" else HEIGHT, width=width
    )
    return chart.properties(title=_heading(known)) if known else chart


def _floors(floors: dict[str, float], scale: Any) -> list[Any]:
    """What unrelated vectors score, as quiet lines; the chart's heading says which is which."""
    import altair as alt

    made = []
    for name, floor in floors.items():
        at = pd.DataFrame({"floor": [floor], "name": [f"{name} {number(floor)}"]})
        rule = alt.Chart(at).mark_rule(strokeDash=_FLOORS[name][1], color=QUIET, strokeWidth=1.5)
        made.append(rule.encode(y=alt.Y("floor:Q", scale=scale), tooltip=[alt.Tooltip("name:N", title="unrelated")]))
    return made


def _heading(floors: dict[str, float]) -> Any:
    """The numbers of the quiet lines, above the chart: beside the lines they would stand on the data."""
    import altair as alt

    said = "\u2003".join(f"{_FLOORS[name][0]}: {name} {number(floor)}" for name, floor in floors.items())
    return alt.TitleParams(text=said, anchor="start", color=INK, fontSize=11, fontWeight="normal", offset=6)


# ---- maps ------------------------------------------------------------------------------------------------------------


def _map(rows: pd.DataFrame, plan: _Plan, measure: str, top: float, width: Any) -> Any:
    """Layers to the right, ranks or heads upwards; the darker, the larger the mean."""
    import altair as alt

    shown = rows[rows["row"].rank(method="dense") <= MAX_ROWS].astype({"row": int})
    title = "attention rank" if plan.rows == "rank" else plan.rows
    tips = {"run:N": "of", "layer:O": "layer", "row:O": title, "shown:N": "mean", "band:N": "95 % band",
            "prompts:Q": "prompts"}  # fmt: skip
    legend = alt.Legend(title=AXIS_TITLES.get(measure, measure), orient="bottom", gradientLength=150, format=".2f")
    axis = alt.Axis(labelAngle=0, ticks=False, domain=False, labelOverlap=True)
    x = alt.X("layer:O", axis=axis, title="layer")
    y = alt.Y("row:O", sort="descending", axis=axis, title=title)
    color = alt.Color("mean:Q", scale=alt.Scale(domain=[0, max(top, 1e-9)], range=_RAMP), legend=legend)
    chart = heat_map(shown, x, y, tips, color)
    return chart.properties(height={"step": CELL}, width=width)


# ---- figures of the norm and neuron analyses -------------------------------------------------------------------------


def _of_words(run: Run, figure: str, width: Any) -> list[tuple[Any, bool]]:
    """(chart, whether its width is its own) of a figure that has a chart elsewhere; nothing for mere tables."""
    table = run.table
    if table.empty:
        return []
    if figure in ("7", "23") and "vectors" in table:
        real, control = (table[table["vectors"] == name] for name in ("real", "random"))
        return [] if real.empty or control.empty else [(shift_scatter(real, control), True)]
    if figure in ("21", "22"):
        return [(layer_panels(table), True)]
    if figure == "8":
        return [(norm_entropy(table).properties(width=width), False)]
    return [(weight_lines(table), True)] if figure == "9" else []


# ---- what a run will take --------------------------------------------------------------------------------------------


def forecast_bars(table: pd.DataFrame, most: int = 5) -> Any:
    """Where a run's seconds go, a bar each for the largest parts. `table`: `visit.studies.duration.forecast`."""
    import altair as alt

    parts = table.sort_values("seconds", ascending=False)[["part", "seconds"]]
    rest = parts[most:]
    if len(rest):
        last = pd.DataFrame({"part": ["everything else"], "seconds": [rest["seconds"].sum()]})
        parts = pd.concat([parts[:most], last], ignore_index=True)
    share = parts["seconds"] / max(float(parts["seconds"].sum()), 1e-12)
    said = [f"{s:.1f} s, {percent(p)}" for s, p in zip(parts["seconds"], share, strict=True)]
    shown = parts.assign(share=share, said=said)
    top = float(share.max()) * 1.35
    axis = alt.Axis(title=None, ticks=False, domain=False, labelLimit=260, labelOverlap=False)
    base = alt.Chart(shown).encode(
        y=alt.Y("part:N", sort=None, axis=axis),
        x=alt.X("share:Q", axis=None, scale=alt.Scale(domain=[0, top])),
        tooltip=[alt.Tooltip("part:N"), alt.Tooltip("said:N", title="takes about")],
    )
    bars = base.mark_bar(color=SERIES[0], cornerRadiusEnd=3, height=12)
    texts = base.mark_text(align="left", dx=5, fontSize=12, color=INK).encode(text="said:N")
    return alt.layer(bars, texts).properties(height={"step": 21}, width="container")
