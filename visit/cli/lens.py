"""`python -m visit lens`: fit a lens to a model, say why one may believe it, and read a prompt through it as a map."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from visit.cli.options import (
    GRAPH_FILES,
    TABLES,
    captured,
    check_out,
    drew,
    lens_of,
    lens_option,
    model_options,
    out_options,
    prompt_options,
    wrote,
)
from visit.errors import VisitError
from visit.text.numbers import percent

MOST = 100  # prompts that the controls run
EVERY = 10.0  # seconds between two lines of progress where there is no terminal


def add(commands: Any) -> None:
    """The command's options."""
    lens = commands.add_parser("lens", help="fit a lens, its report, and the lens map", description=__doc__)
    kinds = lens.add_subparsers(required=True, metavar="fit|report|map", parser_class=type(lens))
    fit = kinds.add_parser("fit", help="fit a lens to a model", description=run_fit.__doc__)
    fit.set_defaults(run=run_fit)
    model_options(fit)
    fit.add_argument("--tokens", type=int, metavar="N", help="how many to fit to (default 8000)")
    fit.add_argument("--text", type=Path, metavar="FILE", help="a text to fit to (default: what the model writes)")
    fit.add_argument("--seed", type=int, default=0, help="of what the model writes (default 0)")
    fit.add_argument("--out", type=Path, metavar="FILE", help="a .safetensors file (default: the cache folder)")
    report = kinds.add_parser("report", help="how near it comes, and its controls", description=run_report.__doc__)
    report.set_defaults(run=run_report)
    model_options(report)
    lens_option(report, "fitted")
    report.add_argument("--prompts", metavar="FILE", help="for the controls: prompts that the model answers, or a set")
    out_options(report, TABLES)
    words = kinds.add_parser("map", help="what every state of a prompt reads", description=run_map.__doc__)
    words.set_defaults(run=run_map)
    model_options(words)
    prompt_options(words)
    lens_option(words, "plain")
    out_options(words, GRAPH_FILES)


def run_fit(options: argparse.Namespace) -> int:
    """Fit a linear lens to a model and write it; without --out where `--lens fitted` and the app find it."""
    from visit.lenses.fit_linear import TOKENS, fit_lens
    from visit.lenses.linear import lens_path
    from visit.models.load import load_model

    if options.out is not None:
        check_out(options.out, (".safetensors",))
    text = None if options.text is None else _text(options.text)
    model = load_model(options.model, options.revision, options.dtype)
    told = [time.monotonic()]

    def progress(share: float, doing: str) -> None:
        if time.monotonic() - told[0] >= EVERY:
            told[0] = time.monotonic()
            print(f"visit: {percent(share)}, {doing}", file=sys.stderr, flush=True)

    tokens = TOKENS if options.tokens is None else options.tokens
    lens = fit_lens(model, tokens, text, options.seed, progress)
    print(f"A lens for {model.name}, {lens.name}.")
    _lens_table(lens.report)
    print(f"wrote {lens.save(options.out or lens_path(model))}", file=sys.stderr)
    return 0


def run_report(options: argparse.Namespace) -> int:
    """How near the plain and the fitted lens come to the model's prediction, per block; with --prompts the controls."""
    from visit.models.load import load_model
    from visit.runs.answers import fitting, right
    from visit.runs.prompts import named_prompts

    check_out(options.out, TABLES)
    model = load_model(options.model, options.revision, options.dtype)
    lens = lens_of(options, model)
    if lens is None:
        raise VisitError("The plain lens has no report of its own: it stands in a fitted lens's (--lens fitted).")
    tables = {"report": lens.report}
    if options.prompts is not None:
        rows = fitting(model, named_prompts(options.prompts, model.name), targets=True).rows
        known = [row.prompt for row, good in zip(rows, right(model, rows), strict=True) if good]
        tables["controls"] = lens.controls(model, known[:MOST])
    if wrote(options, lens.meta, tables):
        return 0
    print(
        f"A lens for {model.name}, {lens.name}. The plain lens names the final word in half of the positions from "
        f"block {lens.plain_from} on; this one more often than habit would from block {lens.readable_from} on.\n"
    )
    for table in tables.values():
        _lens_table(table)
    return 0


def run_map(options: argparse.Namespace) -> int:
    """What the stream reads after every block at every position: plainly, or through a fitted lens."""
    from visit.analyses.overview import lens_map
    from visit.exact.question import ask
    from visit.files.lens_picture import lens_map_file
    from visit.models.load import load_model
    from visit.models.provenance import provenance
    from visit.text.visible import as_word, visible

    check_out(options.out, GRAPH_FILES)
    model = load_model(options.model, options.revision, options.dtype)
    lens = lens_of(options, model)
    acts = captured(options, model, options.prompt)
    question = ask(model, acts, options.pos, options.target, options.distractor)
    table = lens_map(model, acts, question.target, lens=lens)
    meta = {**provenance(model), "prompt": acts.prompt, "tokens": list(acts.tokens),
            "target": {"id": question.target, "token": model.vocabulary[question.target]},
            "lens": "plain" if lens is None else lens.about}  # fmt: skip
    known = 0 if lens is None else lens.readable_from
    if drew(options, lambda kind: lens_map_file(table, meta, kind, known)) or wrote(options, meta, {"map": table}):
        return 0
    which = "plain lens" if lens is None else f"lens {lens.name}"
    print(
        f"The lens map of {model.name}, {which}: the top word after every block, and the probability of "
        f"{as_word(model.vocabulary[question.target])} at the position looked at.\n"
    )
    shown = list(range(len(acts.tokens)))[-8:]
    print("            " + " ".join(f"{visible(acts.tokens[p])[:11]:<11}" for p in shown))
    for depth in sorted(table["depth"].unique(), reverse=True):
        row = table[table["depth"] == depth].set_index("pos")
        words = " ".join(f"{as_word(row.loc[p, 'top'])[:11]:<11}" for p in shown)
        name = "embedding" if depth == 0 else f"block {depth - 1}"
        print(f"{name:<11} {words} {percent(row.loc[question.pos, 'prob'])}")
    return 0


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as problem:
        raise VisitError(f"--text {str(file)!r} cannot be read: {problem.strerror}.") from problem
    except UnicodeDecodeError as problem:
        raise VisitError(f"--text {str(file)!r} is no text in UTF-8.") from problem


def _lens_table(table: Any) -> None:
    from visit.files.tables import to_text

    print(to_text(table), end="\n\n")
