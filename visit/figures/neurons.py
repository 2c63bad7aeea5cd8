"""The neurons' tables as Altair charts: the paper's Figures 8 and 9, and one neuron's activations."""

from __future__ import annotations

from typing import Any

import pandas as pd

from visit.figures.maps import CHOSEN, HUE, INK
from visit.text.numbers import bits, number, percent
from visit.text.visible import as_word

GREY = "#8a8a8a"
SHOWN = 2000  # dots of the scatter: every neuron often active, and as many of the others as a page draws at ease
_SERIES = {"regularization": "#c24a08", "most frequent": "#c24a08", "mean": HUE, "random": GREY}


def norm_entropy(stats: pd.DataFrame, layer: int | None = None, chosen: str = "", threshold: float = 0.85) -> Any:
    """Figure 8: norm against entropy of every neuron, its frequency as colour; a click selects `node` under "neuron".

    `stats`: `neuron_sets.statistics_table`; `layer`: None for all. Beyond 2,000 neurons the less frequent ones are
    drawn as an even sample; those above the threshold are drawn always, last and larger.
    """
    import altair as alt

    shown = _dots(stats if layer is None else stats[stats["layer"] == layer], chosen, threshold)
    pick = alt.selection_point(name="neuron", fields=["node"], on="click", empty=False)
    tips = [alt.Tooltip(f"{name}:N", title=title) for name, title in _TIPS.items()]
    ramp = alt.Scale(domain=[0, 1], range=["#b9c4cc", HUE, "#c24a08"])
    base = alt.Chart(shown).encode(
        x=alt.X("norm:Q", scale=alt.Scale(zero=False), axis=alt.Axis(title="norm of the W_out row", grid=False)),
        y=alt.Y("entropy:Q", scale=alt.Scale(zero=False), axis=alt.Axis(title="entropy in bits", grid=False)),
        tooltip=tips,
    )  # fmt: skip
    legend = alt.Legend(title="share of prompts in the top", orient="top", gradientLength=160, format=".0%")
    dots = base.mark_circle(cursor="pointer").encode(
        color=alt.Color("freq:Q", scale=ramp, legend=legend),
        size=alt.condition("datum.always", alt.value(110), alt.value(28)),
        opacity=alt.condition("datum.always", alt.value(1), alt.value(0.55)),
        order=alt.Order("freq:Q"),
    ).add_params(pick)  # fmt: skip
    names = (
        base.transform_filter("datum.always")
        .mark_text(dx=9, align="left", fontSize=11, color=INK)
        .encode(text="name:N")
    )
    ring = base.transform_filter("datum.chosen").mark_point(size=190, color=CHOSEN, strokeWidth=2.5)
    layers = [dots, ring] if int(shown["always"].sum()) > 12 else [dots, names, ring]
    return alt.layer(*layers).properties(height=340, width="container")


_TIPS = {
    "name": "neuron", "often": "in the top of its layer", "words": "writes", "sign": "used with a sign",
    "size": "norm", "bits": "entropy in bits", "mean": "mean activation", "function": "function words",
}  # fmt: skip


def _dots(stats: pd.DataFrame, chosen: str, threshold: float) -> pd.DataFrame:
    nodes = [f"L{layer}.mlp_value{n}" for layer, n in zip(stats["layer"], stats["neuron"], strict=True)]
    table = stats.assign(node=nodes, always=stats["freq"] > threshold)
    table["chosen"] = table["node"] == chosen
    if len(table) > SHOWN:
        kept = table["always"] | table["chosen"]
        table = pd.concat([table[kept], table[~kept].sample(max(0, SHOWN - int(kept.sum())), random_state=0)])
    table = table.sort_values("freq", kind="stable")
    return pd.DataFrame({
        "node": table["node"], "norm": table["norm"], "entropy": table["entropy"], "freq": table["freq"],
        "always": table["always"], "chosen": table["chosen"],
        "name": [f"L{layer} N{n}" for layer, n in zip(table["layer"], table["neuron"], strict=True)],
        "often": [f"{percent(f)} of the prompts" for f in table["freq"]],
        "words": [", ".join(as_word(token) for token in row[:5]) for row in table["used_tokens"]],
        "sign": ["negative, so that it writes its row turned round" if m < 0 else "positive" for m in table["mean"]],
        "size": [f"{n:.3g}" for n in table["norm"]], "bits": [bits(e) for e in table["entropy"]],
        "mean": [number(m, True) for m in table["mean"]], "function": [percent(s) for s in table["function_share"]],
    })  # fmt: skip


def weight_lines(profile: pd.DataFrame) -> Any:
    """Figure 9: the weights of single neurons, dimension by dimension, a panel each; outliers and rogue ones marked.

    `profile`: `neurons.weight_profile`. A dot is a weight beyond 3 standard deviations of its own vector, a
    grey line a rogue dimension of the stream.
    """
    import altair as alt

    order = list(dict.fromkeys(profile["series"]))
    table = profile.assign(
        text=[f"dimension {d}: {number(w, True)}" for d, w in zip(profile["dim"], profile["weight"], strict=True)],
        label=[_series_label(kind, name) for kind, name in zip(profile["kind"], profile["series"], strict=True)],
    )  # fmt: skip
    labels = [_series_label(table.loc[table["series"] == name, "kind"].iloc[0], name) for name in order]
    kinds = list(dict.fromkeys(table["kind"]))
    colors = alt.Scale(domain=kinds, range=[_SERIES[kind] for kind in kinds])
    y = alt.Y("weight:Q", axis=alt.Axis(title=None, grid=False, tickCount=3))
    x = alt.X("dim:Q", scale=alt.Scale(nice=False), axis=alt.Axis(title="dimension of the stream", grid=False))
    tips = [alt.Tooltip("label:N"), alt.Tooltip("text:N", title="weight")]
    base = alt.Chart(table).encode(x=x, tooltip=tips)
    color = alt.Color("kind:N", scale=colors, legend=None)
    bars = base.mark_line(strokeWidth=1).encode(y=y, color=color)
    rogue = base.transform_filter("datum.rogue").mark_rule(color=GREY, opacity=0.5)  # no y: from edge to edge
    dots = base.transform_filter("datum.outlier").mark_circle(size=45).encode(y=y, color=color)
    panels = alt.layer(rogue, bars, dots).properties(height=64, width=620)
    header = alt.Header(title=None, labelOrient="top", labelAnchor="start", labelFontSize=12)
    return panels.facet(row=alt.Row("label:N", sort=labels, header=header), spacing=6)


def _series_label(kind: str, series: str) -> str:
    return series if kind == "mean" else f"{series} ({kind})"


def activation_histogram(table: pd.DataFrame, mean: float | None = None) -> Any:
    """One neuron's activations over the set. `table`: `visit.analyses.neurons.histogram`; the mean is a line."""
    import altair as alt

    shown = table.assign(
        text=[f"{n:,} prompts from {a:.3g} to {b:.3g}"
              for n, a, b in zip(table["prompts"], table["low"], table["high"], strict=True)]
    )  # fmt: skip
    bars = alt.Chart(shown).mark_bar(color=HUE, binSpacing=1).encode(
        x=alt.X("low:Q", bin="binned", axis=alt.Axis(title="activation", grid=False)), x2="high:Q",
        y=alt.Y("prompts:Q", axis=alt.Axis(title="prompts", tickMinStep=1, grid=False)),
        tooltip=[alt.Tooltip("text:N", title="activation")],
    )  # fmt: skip
    if mean is None:
        return bars.properties(height=180, width="container")
    rule = alt.Chart(pd.DataFrame({"mean": [mean]})).mark_rule(color=CHOSEN, strokeWidth=2).encode(
        x="mean:Q", tooltip=[alt.Tooltip("mean:Q", title="mean activation", format=".3g")]
    )  # fmt: skip
    return alt.layer(bars, rule).properties(height=180, width="container")
