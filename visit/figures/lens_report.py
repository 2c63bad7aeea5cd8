"""How near a fitted lens and the plain one come to the model's prediction, block by block, as an Altair chart."""

from __future__ import annotations

from typing import Any, Literal

import pandas as pd

from visit.drawing.style import QUIET, SERIES
from visit.figures.maps import INK
from visit.text.numbers import bits, percent

_LENSES: tuple[Literal["left"], Literal["right"]] = ("left", "right")  # where a word beside a rule has room


def report_lines(report: pd.DataFrame, readable_from: int) -> Any:
    """KL in bits per block, held out: the fitted lens as a line, the plain one in grey; a rule where it can be read.

    `report`: `Lens.report`. `readable_from`: the first block from which on the lens says more than habit.
    """
    import altair as alt

    parts = []
    for name, kl, top in (("plain", "kl_plain", "top1_plain"), ("fitted", "kl", "top1")):
        numbers = {"bits": list(map(bits, report[kl])), "top1": list(map(percent, report[top]))}
        parts.append(pd.DataFrame({"layer": report["layer"], "lens": name, "kl": report[kl], **numbers}))
    lines = (
        alt.Chart(pd.concat(parts))
        .mark_line(point=alt.OverlayMarkDef(size=30))
        .encode(
            x=alt.X("layer:Q", scale=alt.Scale(nice=False), axis=alt.Axis(title="block", tickMinStep=1, grid=False)),
            y=alt.Y("kl:Q", axis=alt.Axis(title="bits away from the prediction")),
            color=alt.Color("lens:N", scale=alt.Scale(domain=["plain", "fitted"], range=[QUIET, SERIES[0]]),
                            legend=alt.Legend(title=None, orient="top")),
            tooltip=[alt.Tooltip(f"{n}:N", title=t) for n, t in
                     (("lens", "lens"), ("layer", "block"), ("bits", "away"), ("top1", "final word on top"))],
        )
    )  # fmt: skip
    layers = [lines]
    if 0 < readable_from < len(report):
        at = pd.DataFrame({"layer": [readable_from], "says": [f"says more than habit from block {readable_from}"]})
        base, side = alt.Chart(at).encode(x="layer:Q"), _LENSES[readable_from > len(report) / 2]
        layers.append(base.mark_rule(color=QUIET, strokeDash=[4, 4]))
        layers.append(base.mark_text(align=side, baseline="bottom", color=INK).encode(text="says:N", y=alt.value(-3)))
    return alt.layer(*layers).properties(height=220, width="container")
