"""A study as files: one HTML page that opens offline, and a CSV and a JSON for every figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from visit.drawing.style import page_colours
from visit.errors import VisitError
from visit.figures.study import Run, is_study_table, panels
from visit.figures.svg import chart_svg
from visit.files import tables
from visit.models.catalog import display_name, portable, title
from visit.studies.captions import ANSWERS, SECOND, caption_of
from visit.studies.settings import ALIGNED
from visit.text.numbers import MISSING, number
from visit.text.visible import as_word, visible

WIDTH, WIDE = 400, 640  # of a chart, of one that stands alone, px
ROWS = 100  # of a figure's table in the page; its CSV has all
MARKS = {True: "✓", False: "✗", None: "○"}
MARK_WORDS = {True: "yes", False: "no", None: "undecided"}
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # nothing is fetched, nothing runs


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
    title = f"Paper studies: {run_name(study.meta)}"
    sections = "".join(_figure(study, figure, other, files) for figure in study.tables)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)}</title><style>{_style()}</style></head>
<body><main><h1>{escape(title)}</h1>
<p>The quantitative studies of “VISIT: Visualizing and Interpreting the Semantic Information Flow of Transformers” (Katz
&amp; Belinkov, 2023) on this model and these prompts, next to what the paper found for GPT-2 medium on 100 CounterFact
prompts that it answers correctly. Verdicts are computed from this run's numbers.</p>
<p>{escape(SECOND)}</p>
<p><b>{escape(summary(study.meta))}.</b></p>{_over(other)}{_contents(study)}{sections}{_about(study.meta)}
</main></body></html>
"""


def _style() -> str:
    light, dark = page_colours("light"), page_colours("dark")

    def names(page: dict[str, str]) -> str:
        return f":root{{--page:{page['page']};--ink:{page['ink']};--quiet:{page['quiet']};--panel:{page['panel']};" \
               f"--line:{page['m']}}}"  # fmt: skip

    return (
        f":root{{color-scheme:light dark}}{names(light)}@media(prefers-color-scheme:dark){{{names(dark)}}}"
        "body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif}"
        "main{max-width:1000px;margin:auto;padding:2rem 1.2rem}h1{font-size:1.7rem}h2{font-size:1.25rem;margin:0}"
        "section{border-top:1px solid var(--line);margin-top:2.2rem;padding-top:1.4rem}"
        ".panels{display:flex;flex-wrap:wrap;gap:1rem 1.6rem;margin:1rem 0}figure{margin:0;max-width:100%}"
        "figcaption{font-weight:600;font-size:.9rem}svg{max-width:100%;height:auto}"
        ".quiet,dt{color:var(--quiet)}p{margin:.5rem 0}a{color:inherit}"
        ".verdict{background:var(--panel);border-left:4px solid var(--line);padding:.4rem .8rem;margin:.4rem 0}"
        ".verdict.yes{border-color:#077f6b}.verdict.no{border-color:#d8490b}"
        "table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}"
        "th,td{text-align:left;padding:.2rem .7rem .2rem 0;border-bottom:1px solid var(--line);vertical-align:top}"
        ".name{white-space:nowrap}.scroll{overflow:auto;max-height:22rem}summary{cursor:pointer}"
        "dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1.2rem}dd{margin:0;overflow-wrap:anywhere}"
        "@media print{details,.scroll{max-height:none}}"
    )


def _over(other: Any) -> str:
    if other is None:
        return ""
    return f"<p>Laid over, dashed: <b>{escape(run_name(other.meta))}</b>. Verdicts are of the first run.</p>"


def _contents(study: Any) -> str:
    """The table of contents: every figure with its verdicts at a glance."""
    rows, others = [], []
    for figure in study.tables:
        caption, found = caption_of(figure), study.verdicts.get(figure, ())
        link = f'<a href="#{escape(caption.anchor)}">{escape(caption.name)}</a>'
        if found:
            said = "".join(f"<div>{MARKS[v.holds]} {escape(visible(v.sentence))}</div>" for v in found)
            rows.append(f'<tr><td class="name">{link}</td><td>{escape(caption.title)}</td><td>{said}</td></tr>')
        else:
            others.append(link)
    more = f"<p>Without a verdict: {', '.join(others)}.</p>" if others else ""
    more += "".join(f"<p>Not shown: {escape(name)} ({escape(why)}).</p>" for name, why in left_out(study.meta))
    return (
        f'<section id="contents"><h2>At a glance</h2><p class="quiet">{escape(ANSWERS)}</p>'
        f"<table><tbody>{''.join(rows)}</tbody></table>{more}</section>"
    )


def _figure(study: Any, figure: str, other: Any, files: bool) -> str:
    caption, table = caption_of(figure), study.tables[figure]
    parts = [f'<section id="{escape(caption.anchor)}"><h2>{escape(caption.name)}. {escape(caption.title)}</h2>']
    parts.append(_charts(study, figure, other))
    parts += [f'<p class="verdict {MARK_WORDS[v.holds]}">{MARKS[v.holds]} <b>{escape(visible(v.sentence))}</b>'
              f'{f"<br><small>{escape(visible(v.numbers))}</small>" if v.numbers else ""}</p>'
              for v in study.verdicts.get(figure, ())]  # fmt: skip
    parts += [f"<p>{escape(text)}</p>" for text in (caption.measured, caption.reading) if text]
    parts.append(f'<p class="quiet">{escape(visible(scope(study.meta, figure, table)))}</p>')
    if caption.paper:
        parts.append(f"<p><b>The paper:</b> {escape(caption.paper)}</p>")
    if caption.different:
        parts.append(f"<p><b>Different here:</b> {escape(caption.different)}</p>")
    parts.append(_numbers(table, figure, files))
    return "".join(parts) + "</section>"


def _charts(study: Any, figure: str, other: Any) -> str:
    if study.tables[figure].empty:
        return ""
    second = study_run(other, figure) if other is not None and figure in other.tables else None
    first = panels(study_run(study, figure), figure, second, WIDTH)
    if len(first) == 1 and not first[0].fixed:
        first = panels(study_run(study, figure), figure, second, WIDE)
    drawn = [
        f"<figure><figcaption>{escape(p.title)}</figcaption>{chart_svg(p.chart, f'{figure}: {p.title}')}</figure>"
        for p in first
    ]
    return f'<div class="panels">{"".join(drawn)}</div>'


def _numbers(table: pd.DataFrame, figure: str, files: bool) -> str:
    """The figure's table, folded; the first rows of a long one."""
    shown = table.head(ROWS)
    shown = shown[[c for c in shown.columns if shown[c].notna().any() and c != "figure"]]
    head = "".join(f"<th>{escape(str(c))}</th>" for c in shown.columns)
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(_cell(v))}</td>' for v in row)}</tr>" for row in shown.itertuples(index=False)
    )
    more = f" (the first {ROWS:,} of {len(table):,} rows; the CSV has all)" if len(table) > ROWS else ""
    links = "".join(f' <a href="figure-{escape(figure)}.{kind}">{kind.upper()}</a>' for kind in ("csv", "json"))
    return (
        f"<details{' open' if figure.startswith('tables') else ''}><summary>The numbers{more}</summary>"
        f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>"
        f"{f'<p>{links}</p>' if files else ''}"
    )


def _cell(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(as_word(str(v)) for v in value[:10])
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return MISSING
    if isinstance(value, float):
        return number(value)
    return visible(value) if isinstance(value, str) else str(value)


# ---- what it is of ---------------------------------------------------------------------------------------------------


def summary(meta: dict[str, Any]) -> str:
    """One sentence: model, precision, prompt set, how many of its prompts ran, and how many were answered correctly."""
    right = f", {meta.get('correct', 0):,} of them answered correctly" if meta.get("correct") else ""
    skipped = f"; {meta['skipped']:,} not answered correctly and not counted" if meta.get("skipped") else ""
    out = f"; {len(meta['left_out']):,} rows left out" if meta.get("left_out") else ""
    k = (meta.get("settings") or {}).get("k", 50)
    return (f"{visible(display_name(str(meta.get('model'))))} ({meta.get('dtype')}) on {visible(set_name(meta))}: "
            f"{meta.get('prompts', 0):,} prompts{right}{skipped}{out}; k = {k}")  # fmt: skip


def short(meta: dict[str, Any]) -> str:
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
    return ("Tables 1 to 6" if figure == "tables" else f"Fig. {figure}") + (f" ({series})" if series else "")


def _about(meta: dict[str, Any]) -> str:
    """Everything that is known about the run, so that it can be repeated."""
    rows = "".join(
        f"<dt>{escape(str(k))}</dt><dd>{escape(_plain(v))}</dd>" for k, v in portable(meta).items() if v is not None
    )
    return f'<section id="about"><h2>What this is of</h2><dl>{rows}</dl></section>'


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}: {_plain(v)}" for k, v in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "; ".join(_plain(v) for v in value) if value else "none"
    if isinstance(value, str):
        return visible(value)
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value, default=str)
