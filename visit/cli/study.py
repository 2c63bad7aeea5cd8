"""`python -m visit study`: the paper's figures for a model and a prompt file, as verdicts, tables, or a report."""

from __future__ import annotations

import argparse
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from visit.cli.options import lens_of, lens_option, model_options
from visit.cli.telling import stoppable, told
from visit.errors import VisitError
from visit.studies.settings import CORRECT, FIGURES, SECOND_MEASURES, Settings


def add(commands: Any) -> None:
    """The command's options."""
    study = commands.add_parser("study", help="the paper's figures for a set of prompts", description=run.__doc__)
    study.set_defaults(run=run)
    model_options(study)
    study.add_argument("--prompts", type=Path, metavar="FILE", required=True,
                       help=".txt, a prompt a line; .csv, .jsonl: `prompt` and, if there is one, `target`; "
                       "or a shipped set by its name, such as facts")  # fmt: skip
    study.add_argument("--limit", type=int, metavar="N", help="only the first N prompts of the file")
    study.add_argument("--figures", default=",".join(FIGURES), help=f"such as 2b,3 (default all: {','.join(FIGURES)})")
    study.add_argument("--layers", help="only these: 3, 3-5 or 0,3,7-9 (default all)")
    study.add_argument("--pos", type=int, default=-1, help="position, from 0, negative from the end (default -1)")
    study.add_argument("--k", type=int, default=50, help="most probable words that are compared (default 50)")
    study.add_argument("--values", type=int, metavar="N",
                       help="Figures 16, 18: only each head's N most attended memory values (default all)")  # fmt: skip
    study.add_argument("--sources", type=int, default=3, metavar="N",
                       help="Figures 19, 20: each head's N most attended positions (default 3)")  # fmt: skip
    study.add_argument("--correct", choices=CORRECT, default="split",
                       help="only prompts answered correctly; all, and apart; all, targets ignored")  # fmt: skip
    study.add_argument("--second", choices=SECOND_MEASURES, default="rbo", help="measure beside I_k (default rbo)")
    study.add_argument("--draws", type=int, default=1000, help="of the bootstrap (default 1000)")
    study.add_argument("--seed", type=int, default=0, help="of bootstrap and random vectors (default 0)")
    lens_option(study, "plain")
    study.add_argument("--over", type=Path, metavar="FILE", help="with --out: lay this study.json over the figures")
    study.add_argument(
        "--out", type=Path, metavar="DIR", help="make this folder: report.html, a CSV and a JSON a figure"
    )
    study.add_argument("--json", action="store_true", help="print JSON instead of verdicts")


def run(options: argparse.Namespace) -> int:
    """Measure what the paper measured (section 3, appendices D and E) on a model and prompts of your own.

    A run that is stopped (Ctrl-C, kill) keeps what is done; the same command goes on from there.
    """
    from visit.models.load import load_model
    from visit.studies.study import study

    settings = _settings(options)
    _check(options)
    other = None if options.over is None else _other(options.over)
    with told() as teller, stoppable() as signals:
        try:
            model = load_model(options.model, options.revision, options.dtype)
            teller.say("counting what is to be done")
            lens = lens_of(options, model)
            found = study(model, _chosen_prompts(options), teller.step, resume=True, lens=lens, **settings)
        except KeyboardInterrupt:
            teller.end(f"stopped at: {teller.text}. The same command goes on from the last step that was done.")
            return 128 + (signals[0] if signals else signal.SIGINT)
    if options.json:
        print(_json(found))
    if options.out is not None:
        _write(found, options.out, other)
    elif not options.json:
        _print(found)
    return 0


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    from visit.graph.build import parse_layers

    own = {name: getattr(options, name) for name in Settings.__dataclass_fields__ if name != "lens"}
    own["figures"] = tuple(name.strip() for name in options.figures.split(",") if name.strip())
    own["layers"] = None if options.layers is None else tuple(parse_layers(options.layers))
    return own


def _check(options: argparse.Namespace) -> None:
    """Refuse what cannot be done before any work."""
    if options.limit is not None and options.limit < 1:
        raise VisitError(f"--limit takes at least one prompt; got {options.limit}.")
    if options.over is not None and options.out is None:
        raise VisitError("--over belongs to --out: another study is laid over the report's figures.")
    if options.out is not None and options.out.exists() and not options.out.is_dir():
        raise VisitError(f"--out makes a folder; {str(options.out)!r} is a file. Choose another name.")


def _chosen_prompts(options: argparse.Namespace) -> Any:
    from visit.runs.prompts import named_prompts

    chosen = named_prompts(options.prompts, options.model)
    if options.limit is None or options.limit >= len(chosen.rows):
        return chosen
    name = f"{chosen.name} (first {options.limit:,} of {len(chosen.rows):,})"
    return replace(chosen, rows=chosen.rows[: options.limit], name=name)


def _other(path: Path) -> Any:
    from visit.files.study_file import read_study

    try:
        return read_study(path.read_bytes())
    except OSError as error:
        raise VisitError(f"{str(path)!r} cannot be read ({error.strerror or error}). Give a study.json.") from error


def _json(found: Any) -> str:
    from dataclasses import asdict

    from visit.files.tables import to_json

    said = {figure: [asdict(v) for v in own] for figure, own in found.verdicts.items()}
    return to_json({**found.meta, "verdicts": said}, found.tables)


def _write(found: Any, folder: Path, other: Any) -> None:
    from visit.files import study_report as report

    files = report.write(found, folder, other)
    print(f"wrote {len(files)} files to {folder}, to be read: {folder / 'report.html'}", file=sys.stderr)


def _print(found: Any) -> None:
    """Verdicts, and a short table of every figure."""
    from visit.files.study_report import left_out
    from visit.files.tables import to_text
    from visit.studies.captions import caption_of

    meta = found.meta
    print(f"{meta['model']} ({meta['dtype']}) on {meta['prompts']:,} prompts of {meta['prompt_set']['name']}, "
          f"{meta['correct']:,} answered correctly, in {meta['seconds']:.0f} s\n")  # fmt: skip
    for figure, own in found.verdicts.items():
        for verdict in own:
            print(f"{caption_of(figure).name:8s} {verdict.whole}")
    for name, why in left_out(meta):
        print(f"{name}: left out, {why}")
    for note in [*meta["thinned"], *(f"left out: {note}" for note in meta["left_out"])]:
        print(note)
    if not (table := _short(found)).empty:
        print(f"\nMeans over prompts and heads, and over layers\n\n{to_text(table)}")


def _short(found: Any) -> Any:
    """A row per series, by its first measure: the mean over layers, and the first, middle and last layer."""
    import pandas as pd

    from visit.studies.settings import ALIGNED

    rows = []
    for figure in ALIGNED:
        if figure not in found.tables or figure == "17":
            continue
        table = found.tables[figure].dropna(subset=["layer"])
        table = table[table["measure"] == table["measure"].iloc[0]]
        for keys, own in table.groupby(["series", "group", "rank"], dropna=False, sort=False):
            mean = own.sort_values("layer")["mean"].tolist()
            middle = mean[len(mean) // 2]
            rows.append((figure, *keys, int(own["prompts"].max()), sum(mean) / len(mean), mean[0], middle, mean[-1]))
    names = ["figure", "series", "group", "rank", "prompts", "mean", "first", "middle", "last"]
    return pd.DataFrame(rows, columns=names).query("rank.isna() or rank <= 3")
