"""A study as files: one HTML page that opens offline, and a CSV and a JSON for every figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from visit.drawing.style import page_colours
from visit.errors import VisitError
from visit.figures.study import Run, is_study_table, panels
from visit.figures.svg import chart_svg
from visit.files import tables
from visit.files.page import fill_template
from visit.models.catalog import display_name, portable, title
from visit.studies.captions import ANSWERS, SECOND, caption_of
from visit.studies.settings import ALIGNED
from visit.text.numbers import MISSING, number
from visit.text.visible import as_word, visible

WIDTH, WIDE = 400, 640  # of a chart, of one that stands alone, px
PAGE_ROWS = 100  # of a figure's table in the page; its CSV has all
MARKS = {True: "✓", False: "✗", None: "○"}
MARK_WORDS = {True: "yes", False: "no", None: "undecided"}


def write(study: Any, folder: Path | str, other: Any = None) -> list[Path]:
    """Write `report.html`, `study.json`, and `figure-<id>.csv` and `.json` each into a folder, which is made.

    `study`: what `visit.study` returns. `other`: a second study, laid over it in the page's figures. `study.json` holds
    the figures of means per layer, to be laid over another study later. Returns the files. Raises `VisitError` where
    the folder cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VisitError(
            f"{str(folder)!r} cannot be made ({error.strerror or error}). Choose another --out."
        ) from error
    content = {"report.html": html(study, other, files=True).encode(), **figure_files(study)}
    for name, data in content.items():
        tables.write_bytes(folder / name, data)
    return [folder / name for name in content]


def figure_files(study: Any) -> dict[str, bytes]:
    """File name → content: `study.json`, and a CSV and a JSON of every figure."""
    found = {"study.json": study_json(study).encode()}
    for figure, table in study.tables.items():
        meta = {**study.meta, "figure": figure, "verdicts": _verdicts(study, figure)}
        found[f"figure-{figure}.csv"] = tables.to_csv(table).encode()
        found[f"figure-{figure}.json"] = tables.to_json(meta, {figure: table}).encode()
    return found


def study_json(study: Any) -> str:
    """The figures of means per layer as strict JSON: `{"meta": …, "tables": {figure: [records]}}`, with verdicts.

    The tables of words and neurons, a hundred times as large, are in their own files.
    """
    means = {figure: table for figure, table in study.tables.items() if figure in ALIGNED}
    return tables.to_json({**study.meta, "verdicts": {f: _verdicts(study, f) for f in means}}, means)


def _verdicts(study: Any, figure: str) -> list[dict[str, Any]]:
    return [
        {"claim": v.claim, "holds": v.holds, "sentence": v.sentence, "numbers": v.numbers}
        for v in study.verdicts.get(figure, ())
    ]  # fmt: skip


def run_name(meta: dict[str, Any]) -> str:
    """What a legend calls a study: its model and its prompt set."""
    return f"{visible(title(str(meta.get('model', 'a model'))))}, {visible(set_name(meta))}"


def set_name(meta: dict[str, Any]) -> str:
    """The name of the prompt set of a study."""
    found = meta.get("prompt_set", "prompts")
    return str(found.get("name", "prompts") if isinstance(found, dict) else found)


def study_run(study: Any, figure: str) -> Run:
    """A study's figure as `visit.figures.study` takes it."""
    floors = [study.meta.get(name) or {} for name in ("baseline", "random_pairs")]
    return Run(run_name(study.meta), study.tables[figure], *floors)


def marks(study: Any, figure: str) -> str:
    """The verdicts of a figure at a glance: ✓ holds, ✗ does not, ○ undecided."""
    return " ".join(MARKS[v.holds] for v in study.verdicts.get(figure, ()))


# ---- the page --------------------------------------------------------------------------------------------------------


def html(study: Any, other: Any = None, files: bool = False) -> str:
    """The report as one HTML page that needs neither network nor scripts, in the reader's light or dark theme.

    `other`: a second study, laid over the first. `files`: link each figure's CSV and JSON, which lie beside the page.
    """
    about = [(name, _setting_text(value)) for name, value in portable(study.meta).items() if value is not None]
    return fill_template(
        "study_report.html", title=f"Paper studies: {run_name(study.meta)}", second=SECOND, answers=ANSWERS,
        summary=study_summary(study.meta), over=None if other is None else run_name(other.meta), about=about,
        files=files,
        figures=[_section(study, figure, other) for figure in study.tables], left_out=left_out(study.meta),
        marks=MARKS, mark_words=MARK_WORDS, light=page_colours("light"), dark=page_colours("dark"),
    )  # fmt: skip


def _section(study: Any, figure: str, other: Any) -> dict[str, Any]:
    """What a figure's section says: its charts, verdicts, caption and scope, and the first rows of its table."""
    table = study.tables[figure]
    shown = table.head(PAGE_ROWS)
    shown = shown[[c for c in shown.columns if shown[c].notna().any() and c != "figure"]]
    return {
        "id": figure, "caption": caption_of(figure), "charts": None if table.empty else _panels(study, figure, other),
        "verdicts": study.verdicts.get(figure, ()), "scope": scope(study.meta, figure, table),
        "more": f" (the first {PAGE_ROWS:,} of {len(table):,} rows; the CSV has all)" if len(table) > PAGE_ROWS else "",
        "columns": list(shown.columns), "rows": [map(_page_cell, row) for row in shown.itertuples(index=False)],
    }  # fmt: skip


def _panels(study: Any, figure: str, other: Any) -> list[tuple[str, Markup]]:
    """(title, SVG) of every panel."""
    second = study_run(other, figure) if other is not None and figure in other.tables else None
    drawn = panels(study_run(study, figure), figure, second, WIDTH)
    if len(drawn) == 1 and not drawn[0].fixed:
        drawn = panels(study_run(study, figure), figure, second, WIDE)
    return [(p.title, Markup(chart_svg(p.chart, f"{figure}: {p.title}"))) for p in drawn]


def _page_cell(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(as_word(str(v)) for v in value[:10])
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return MISSING
    if isinstance(value, float):
        return number(value)
    return visible(value) if isinstance(value, str) else str(value)


# ---- what it is of ---------------------------------------------------------------------------------------------------


def study_summary(meta: dict[str, Any]) -> str:
    """One sentence: model, precision, prompt set, how many of its prompts ran, and how many were answered correctly."""
    right = f", {meta.get('correct', 0):,} of them answered correctly" if meta.get("correct") else ""
    skipped = f"; {meta['skipped']:,} not answered correctly and not counted" if meta.get("skipped") else ""
    out = f"; {len(meta['left_out']):,} rows left out" if meta.get("left_out") else ""
    k = (meta.get("settings") or {}).get("k", 50)
    return (f"{visible(display_name(str(meta.get('model'))))} ({meta.get('dtype')}) on {visible(set_name(meta))}: "
            f"{meta.get('prompts', 0):,} prompts{right}{skipped}{out}; k = {k}")  # fmt: skip


def study_label(meta: dict[str, Any]) -> str:
    """What tells two studies of one model and one set apart: prompts, k, and the set's hash."""
    own = meta.get("prompt_set")
    mark = f", set {own.get('hash', '')[:6]}" if isinstance(own, dict) and own.get("hash") else ""
    k = (meta.get("settings") or {}).get("k")
    return f"{meta.get('prompts') or '?'} prompts{f', k = {k}' if k else ''}{mark}"


def scope(meta: dict[str, Any], figure: str, table: pd.DataFrame) -> str:
    """How many prompts are behind a figure, and what was thinned in it."""
    if not is_study_table(table):
        layers = table["layer"].unique().tolist() if "layer" in table else []
        return f"Over {meta.get('prompts', 0):,} prompts{f', layer {layers[0]}' if len(layers) == 1 else ''}."
    table = table[table["group"] == "all"]
    most, least = int(table["prompts"].max()), int(table["prompts"].min())
    prompts = f"{most:,} prompts" if most == least else f"{least:,} to {most:,} prompts"
    k = (meta.get("settings") or {}).get("k", 50)
    measured = f", k = {k}" if "intersection" in set(table["measure"]) else ""
    thinned = [t for t in meta.get("thinned", ()) if not t.startswith("Figures 16") or figure in ("16", "18")]
    pairs = [str(meta["pairs"]) + "."] if figure in ("19", "20") and meta.get("pairs") else []
    return " ".join([f"Over {prompts}{measured}.", *thinned, *pairs])


def left_out(meta: dict[str, Any]) -> list[tuple[str, str]]:
    """(figures and series, why they are missing), those of one reason together: `Figures 7, 21 and 23`."""
    by_reason: dict[str, list[str]] = {}
    for name, why in (meta.get("figures_left_out") or {}).items():
        by_reason.setdefault(str(why), []).append(_readable(str(name)))
    return [(", ".join(names), why) for why, names in by_reason.items()]


def _readable(name: str) -> str:
    """`Fig. 19 (gain)` for `19/gain`, `Tables 1 to 6` for `tables`."""
    figure, _, series = name.partition("/")
    return ("Tables 1 to 6" if figure == "tables" else caption_of(figure).name) + (f" ({series})" if series else "")


def _setting_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}: {_setting_text(v)}" for k, v in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "; ".join(_setting_text(v) for v in value) if value else "none"
    if isinstance(value, str):
        return visible(value)
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value, default=str)
