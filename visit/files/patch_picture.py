"""A map of patches as a file."""

from __future__ import annotations

import pandas as pd

from visit.errors import VisitError
from visit.figures.patching import SITES, patch_chart
from visit.files.chart_file import chart_file
from visit.models.catalog import title
from visit.narrate.patching import scale_story
from visit.text.visible import fit, visible

TITLE_PX = 480  # of each prompt above a map: a long one must not make the picture wide


def patch_file(table: pd.DataFrame, kind: str) -> bytes:
    """`visit.patch` as the content of a file. `kind`: "svg", "png" or "html".

    Raises `VisitError` for heads at each position, which have three axes, and where a library that draws is missing.
    """
    about = table.attrs
    if (about["site"], about["at"]) == ("heads", "each"):
        raise VisitError('Heads at each position have three axes: a picture needs at="last" or at="all"; got "each".')
    lines = [
        f"A: {fit(visible(about['prompt']), TITLE_PX)}",
        f"B: {fit(visible(about['prompt_b']), TITLE_PX)}",
        f"B’s value of {SITES[about['site']]} into A, in {visible(title(about['model']))}: how far the answer moves",
        scale_story(about),
    ]
    return chart_file(patch_chart(table, lines), kind, lines[0], f"Patches: {lines[0]}", about)
