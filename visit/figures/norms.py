"""What norms do to words, as Altair charts: rank lines, targets per layer, Figures 7, 21, 22, and the word classes."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from visit.figures.maps import HUE, INK
from visit.text.numbers import percent, signed
from visit.text.visible import as_word

FUNCTION, CONTENT = "#7a5cc0", "#64748b"  # kinds of words, which are neither good nor bad
FALL = "#c24a08"  # what loses, as in the drawing
POINTS = 1500  # of a scatter: the words that move most; the others lie on the line at 0
_COLOURS = [
    HUE,
    "#c8901e",
    "#6a4fb3",
    "#c24a08",
    "#3b78c2",
    "#8a6d3b",
    "#b34a7d",
    "#5b8c2a",
    "#777777",
    "#1f9aa6",
]


def rank_lines(table: pd.DataFrame, k: int = 10) -> Any:
    """The top words before and after a norm, joined by lines: blue-green where a word rises, vermilion where it falls.

    `table`: `norms.token_shift` (or `set_shift`). Both sides show their first k; a word that stands lower on the other
    side ends under them, all at one height; its rank there is in the tooltip. The target's line is thick, and where it
    stands lower it has a row of its own.
    """
    import altair as alt

    ends = _line_ends(table, k)
    order = alt.X("side:N", sort=["before", "after"], axis=alt.Axis(title=None, labelAngle=0, orient="top"))
    y = alt.Y("height:Q", axis=None, scale=alt.Scale(reverse=True, domain=[0.5, k + 2.9]))
    tips = [alt.Tooltip(f"{n}:N", title=t) for n, t in
            (("word", "word"), ("ranks", "rank"), ("probs", "probability"), ("moved", "change"))]  # fmt: skip
    base = alt.Chart(ends).encode(x=order, y=y, tooltip=tips)
    lines = base.mark_line(point=True).encode(
        detail="id:N", strokeWidth=alt.condition("datum.is_target", alt.value(4), alt.value(1.6)),
        color=alt.Color("way:N", scale=alt.Scale(domain=["rises", "stays", "falls"], range=[HUE, "#888888", FALL]),
                        legend=alt.Legend(title="its rank", orient="bottom")),
    )  # fmt: skip
    named = pd.concat([ends[ends["own"]], ends[~ends["own"]].drop_duplicates("side").assign(label="lower")])
    text = alt.Chart(named).encode(x=order, y=y, text="label:N", tooltip=tips)
    left = text.mark_text(align="right", dx=-10, color=INK, limit=150)
    right = text.mark_text(align="left", dx=10, color=INK, limit=150)
    layers = alt.layer(lines, left.transform_filter("datum.side == 'before'"),
                       right.transform_filter("datum.side == 'after'"))  # fmt: skip
    return layers.properties(height=24 * (k + 3), width="container")


def _line_ends(table: pd.DataFrame, k: int) -> pd.DataFrame:
    """Two points a word; `own`: it is among the first k of that side, or the target, and is labelled there."""
    names = {"before": table.nsmallest(k, "before_rank"), "after": table.nsmallest(k, "after_rank")}
    listed = pd.concat([*names.values(), *([table[table["is_target"]]] if "is_target" in table else [])])
    rows = []
    for row in listed.drop_duplicates("id").to_dict("records"):
        b, a = int(row["before_rank"]), int(row["after_rank"])
        target = bool(row.get("is_target", False))
        for side, rank in (("before", b), ("after", a)):
            own = rank <= k or target
            height = rank if rank <= k else k + (2.4 if target else 1.2)
            word = as_word(row["token"])
            rows.append({
                "id": row["id"], "side": side, "height": height, "own": own, "word": word,
                "label": f"{word}  {rank:,}", "is_target": target, "way": "rises" if a < b else "falls" if a > b else
                "stays", "ranks": f"{b:,} → {a:,}", "moved": f"{signed(100 * row['delta'])} points",
                "probs": _change_text(row["before_prob"], row["after_prob"]),
            })  # fmt: skip
    return pd.DataFrame(rows)


def _change_text(before: float, after: float) -> str:
    return f"{percent(before, fine=True)} → {percent(after, fine=True)}"


def target_chart(table: pd.DataFrame, norm: str, chosen: int | None = None) -> Any:
    """The target's probability before and after one norm of every layer; a click selects `layer` under "place".

    `table`: `visit.analyses.norms.target_shifts`; of the final norm, which has no layer, nothing is drawn.
    """
    import altair as alt

    rows = table[table["norm"] == norm].assign(
        prob_before=lambda t: t["before_prob"], prob_after=lambda t: t["after_prob"],
        words=[f"{as_word(b)} → {as_word(a)}" for b, a in
               zip(table.loc[table["norm"] == norm, "before_token"], table.loc[table["norm"] == norm, "after_token"],
                   strict=True)],
        ranks=lambda t: [f"{b:,} → {a:,}" for b, a in zip(t["before_rank"], t["after_rank"], strict=True)],
        probs=lambda t: [_change_text(*both) for both in zip(t["before_prob"], t["after_prob"], strict=True)],
        way=lambda t: ["falls" if d < 0 else "rises" for d in t["delta"]],
    ).dropna(subset=["layer"]).astype({"layer": int})  # fmt: skip
    rows["chosen"] = rows["layer"] == chosen
    pick = alt.selection_point(name="place", fields=["layer"], on="click", empty=False)
    tips = [alt.Tooltip("layer:O"), alt.Tooltip("probs:N", title="probability"), alt.Tooltip("ranks:N", title="rank"),
            alt.Tooltip("words:N", title="top word")]  # fmt: skip
    x = alt.X("layer:O", axis=alt.Axis(title="layer", labelAngle=0))
    base = alt.Chart(rows).encode(x=x, tooltip=tips)
    most = float(rows[["prob_before", "prob_after"]].to_numpy().max(initial=0))
    scale = alt.Scale(domain=[0, 1 if most > 0.1 else most or 1], nice=True)  # small ones would all lie on the floor
    back = base.mark_bar(opacity=0.12, color="#888888", cursor="pointer").encode(
        y=alt.value(0), y2=alt.value("height"), opacity=alt.condition("datum.chosen", alt.value(0.28), alt.value(0.04)),
    ).add_params(pick)  # fmt: skip
    colour = alt.Color("way:N", scale=alt.Scale(domain=["rises", "falls"], range=[HUE, FALL]),
                       legend=alt.Legend(title=None, orient="top"))  # fmt: skip
    rule = base.mark_rule(strokeWidth=2.5).encode(
        y=alt.Y("prob_before:Q", axis=alt.Axis(title="before ○, after ●", format="~%"), scale=scale),
        y2="prob_after:Q", color=colour)  # fmt: skip
    hollow = base.mark_point(size=55).encode(y=alt.Y("prob_before:Q", scale=scale), color=colour)
    full = base.mark_circle(size=70, opacity=1).encode(y=alt.Y("prob_after:Q", scale=scale), color=colour)
    return alt.layer(back, rule, hollow, full).properties(height=220, width="container")


def shift_scatter(real: pd.DataFrame, control: pd.DataFrame, named: int = 6) -> Any:
    """Figure 7: token id against Δ, real vectors and the random control group side by side, the extremes named.

    `real`, `control`: `visit.analyses.norm_sets.set_shift` of the sums and of `control_sums`. One scale for both;
    of each the 1,500 words that move most are drawn.
    """
    import altair as alt

    sides = {"real vectors": real, "random control group": control}
    most = max(float(t["delta"].abs().max()) for t in sides.values())
    charts = []
    for name, table in sides.items():
        shown = table.loc[table["delta"].abs().nlargest(POINTS).index]
        extreme = _legible(shown.nsmallest(named, "falls"), most) | _legible(shown.nsmallest(named, "rises"), most)
        points = pd.DataFrame({
            "id": shown["id"], "delta": shown["delta"], "word": [as_word(t) for t in shown["token"]],
            "way": ["falls" if d < 0 else "rises" for d in shown["delta"]], "extreme": shown["id"].isin(extreme),
            "probs": [_change_text(*both) for both in zip(shown["before_prob"], shown["after_prob"], strict=True)],
        })  # fmt: skip
        base = alt.Chart(points).encode(
            x=alt.X("id:Q", axis=alt.Axis(title="token id", grid=False)),
            y=alt.Y("delta:Q", axis=alt.Axis(title="Δ probability (symmetric log scale)", format="+~%"),
                    scale=alt.Scale(type="symlog", constant=max(most / 100, 1e-12), domain=[-most, most])),
            color=alt.Color("way:N", scale=alt.Scale(domain=["rises", "falls"], range=[HUE, FALL]), legend=None),
            tooltip=[alt.Tooltip("word:N"), alt.Tooltip("probs:N", title="probability"), alt.Tooltip("id:Q")],
        )  # fmt: skip
        names = base.transform_filter("datum.extreme").mark_text(align="left", dx=5, fontSize=11).encode(text="word:N")
        dots = base.mark_circle(size=22, opacity=0.7)
        charts.append(alt.layer(dots, names).properties(title=name, height=300, width=330))
    return alt.hconcat(*charts)


def _legible(words: pd.DataFrame, most: float) -> set[int]:
    """Ids of the words whose names do not lie on the name of a word before them, on the scale of `shift_scatter`."""
    kept: list[tuple[int, float]] = []
    for word, delta in zip(words["id"].tolist(), words["delta"].tolist(), strict=True):
        height = math.asinh(100 * delta / most / 2) / math.asinh(50) if most else 0.0
        room = 0.25 * max(1, int(words["id"].max()))
        if all(abs(word - other) > room or abs(height - there) > 0.08 for other, there in kept):
            kept.append((word, height))
    return {word for word, _ in kept}


def layer_panels(table: pd.DataFrame) -> Any:
    """Figures 21 and 22: before, after and their difference per layer, a line a word. `table`: `layer_words`."""
    import altair as alt

    words = {i: f"{as_word(t)}" for i, t in zip(table["id"], table["token"], strict=True)}
    twice = [w for w in words.values() if list(words.values()).count(w) > 1]
    names = {i: f"{w} [{i}]" if w in twice else w for i, w in words.items()}
    shown = table.assign(
        word=[names[i] for i in table["id"]], moved=[f"{signed(100 * d)} %" for d in table["delta"]],
        probs=[_change_text(*both) for both in zip(table["before_prob"], table["after_prob"], strict=True)],
    )  # fmt: skip
    colour = alt.Color("word:N", scale=alt.Scale(domain=list(names.values()), range=_COLOURS),
                       legend=alt.Legend(title=None, orient="bottom", columns=5))  # fmt: skip
    most = float(table[["before_prob", "after_prob"]].to_numpy().max())
    panels = []
    for column, title in (("before_prob", "before"), ("after_prob", "after"), ("delta", "difference")):
        of = alt.Scale() if column == "delta" else alt.Scale(domain=[0, most], nice=True)  # two sides, one scale
        y = alt.Y(f"{column}:Q", scale=of, axis=alt.Axis(title=None, format="+~%" if column == "delta" else "~%"))
        chart = alt.Chart(shown).mark_line(point=True).encode(
            x=alt.X("layer:Q", axis=alt.Axis(title="layer", tickMinStep=1, grid=False)), y=y, color=colour,
            tooltip=[alt.Tooltip("word:N"), alt.Tooltip("layer:Q"), alt.Tooltip("probs:N", title="probability"),
                     alt.Tooltip("moved:N", title="difference")],
        )  # fmt: skip
        panels.append(chart.properties(title=title, width=220, height=240))
    return alt.hconcat(*panels)


def class_distributions(summary: pd.DataFrame) -> Any:
    """Δ of function and content words per layer: bar the middle half, line 5 % to 95 %, tick median, ◆ mean.

    `summary`: `visit.analyses.norm_tables.class_summary`. Symmetric log scale: most words hardly move.
    """
    import altair as alt

    rows = summary.assign(
        place=["final" if pd.isna(n) else str(n) for n in summary["layer"]],
        share=[percent(p) for p in summary["falling"]],
        probs=[_change_text(*both) for both in zip(summary["before_mass"], summary["after_mass"], strict=True)],
    )
    order = rows["place"].drop_duplicates().tolist()
    rows = rows.assign(**{name: 100 * rows[name] for name in ("q05", "q25", "median", "q75", "q95", "mean")})
    small = float(rows[["q05", "q95", "mean"]].abs().to_numpy().max()) / 1000
    scale = alt.Scale(type="symlog", constant=max(small, 1e-15))
    axis = alt.Axis(title="change, percentage points a word (symmetric log scale)", format="+.1~g", tickCount=7)
    colour = alt.Color("kind:N", scale=alt.Scale(domain=["function", "content"], range=[FUNCTION, CONTENT]),
                       legend=alt.Legend(title=None, orient="top"))  # fmt: skip
    tips = [alt.Tooltip("kind:N", title="words"), alt.Tooltip("words:Q", title="how many"),
            alt.Tooltip("mean:Q", format="+.2e"), alt.Tooltip("median:Q", format="+.2e"),
            alt.Tooltip("share:N", title="share that falls"), alt.Tooltip("probs:N", title="probability")]  # fmt: skip
    base = alt.Chart(rows).encode(
        x=alt.X("place:N", sort=order, axis=alt.Axis(title="layer", labelAngle=0)),
        xOffset=alt.XOffset("kind:N", sort=["function", "content"]), color=colour, tooltip=tips,
    )  # fmt: skip
    whisker = base.mark_rule().encode(y=alt.Y("q05:Q", axis=axis, scale=scale), y2="q95:Q")
    box = base.mark_bar(size=9, opacity=0.75).encode(y=alt.Y("q25:Q", scale=scale), y2="q75:Q")
    middle = base.mark_tick(color=INK, thickness=2, size=11).encode(y=alt.Y("median:Q", scale=scale),
                                                                    color=alt.value(INK))  # fmt: skip
    mean = base.mark_point(shape="diamond", filled=True, size=60, opacity=1).encode(y=alt.Y("mean:Q", scale=scale))
    zero = alt.Chart(pd.DataFrame({"zero": [0.0]})).mark_rule(color="#888888", strokeDash=[3, 3])
    zero = zero.encode(y=alt.Y("zero:Q", scale=scale))
    return alt.layer(zero, whisker, box, middle, mean).properties(height=300, width="container")


_SAYS = {"yes": "function words lose more", "no": "they lose less", "undecided": "undecided"}


def interval_chart(test: pd.DataFrame) -> Any:
    """Function words minus content words per layer, with its 95 % interval; coloured by what the interval says.

    `test`: `visit.analyses.norm_tables.filter_test`; its last row, all layers, stands apart.
    """
    import altair as alt

    points = {name: 100 * test[name] for name in ("difference", "low", "high")}
    says = [_SAYS[answer] for answer in test["falls_more"]]
    rows = test.assign(place=["all" if pd.isna(n) else str(n) for n in test["layer"]], says=says, **points)
    small = float(rows[["low", "high"]].abs().to_numpy().max()) / 1000
    scale = alt.Scale(type="symlog", constant=max(small, 1e-15))
    axis = alt.Axis(
        title="function − content, percentage points a word (symmetric log scale)", format="+.1~g", tickCount=7
    )
    legend = alt.Legend(title=None, orient="top", labelLimit=320)
    scale_of = alt.Scale(domain=list(_SAYS.values()), range=[HUE, FALL, "#888888"])
    base = alt.Chart(rows).encode(
        x=alt.X("place:N", sort=rows["place"].tolist(), axis=alt.Axis(title="layer", labelAngle=0)),
        color=alt.Color("says:N", scale=scale_of, legend=legend),
        tooltip=[alt.Tooltip("place:N", title="layer"), alt.Tooltip("difference:Q", format="+.2e"),
                 alt.Tooltip("low:Q", format="+.2e"), alt.Tooltip("high:Q", format="+.2e")],
    )  # fmt: skip
    bar = base.mark_rule(strokeWidth=3).encode(y=alt.Y("low:Q", axis=axis, scale=scale), y2="high:Q")
    dot = base.mark_circle(size=70, opacity=1).encode(y=alt.Y("difference:Q", scale=scale))
    zero = alt.Chart(pd.DataFrame({"zero": [0.0]})).mark_rule(color="#888888", strokeDash=[3, 3])
    return alt.layer(zero.encode(y=alt.Y("zero:Q", scale=scale)), bar, dot).properties(height=240, width="container")
