"""`python -m visit faithfulness`: how much of the answer the most important heads and neurons bring back alone."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from visit.cli.options import TABLES, captured, check_out, model_options, out_options, prompt_options, wrote
from visit.errors import VisitError


def add(commands: Any) -> None:
    """The command's options."""
    command = commands.add_parser(
        "faithfulness", help="how much of the answer the most important parts bring back", description=run.__doc__
    )
    command.set_defaults(run=run)
    model_options(command)
    prompt_options(command)
    command.add_argument(
        "--by", default="norm,contribution,influence,random", metavar="ORDERS",
        help="orders in which parts are kept, apart by commas (default: all four)",
    )  # fmt: skip
    command.add_argument(
        "--with", dest="source", metavar="PROMPT", help="replace by this prompt's values in place of a mean"
    )
    command.add_argument(
        "--set", metavar="FILE", help="replace by the mean over these prompts (default: over positions)"
    )
    command.add_argument("--at", choices=("last", "all"), default="last", help="replace at --pos alone, or up to it")
    command.add_argument("--seed", type=int, default=0, help="of the random orders (default 0)")
    out_options(command, TABLES)


def run(options: argparse.Namespace) -> int:
    """Replace all heads and MLP neurons of a pass but the k most important, and see how much of the answer is left."""
    from visit.causal.faithfulness import faithfulness, in_words
    from visit.files.tables import to_text
    from visit.models.load import load_model
    from visit.runs.answers import fitting
    from visit.runs.prompts import named_prompts

    check_out(options.out, TABLES)
    if options.seed < 0:
        raise VisitError(f"--seed must be a whole number from 0; got {options.seed}.")
    model = load_model(options.model, options.revision, options.dtype)
    acts = captured(options, model, options.prompt)
    if options.source is not None and options.set is not None:
        raise VisitError("--with and --set both say what replaces the parts; give one of them.")
    source: Any = None if options.source is None else captured(options, model, options.source)
    if options.set is not None:
        source = fitting(model, named_prompts(options.set, model.name)).prompts
    orders: Any = tuple(name.strip() for name in options.by.split(","))

    def progress(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done} of {total} runs", end="\n" if done == total else "", file=sys.stderr)

    table = faithfulness(
        model, acts, orders, options.pos, options.target, options.distractor, source, options.at, options.seed, progress
    )
    if wrote(options, table.attrs, {"faithfulness": table}, flat=True):
        return 0
    print(f"{in_words(table)}\n")
    curves = table.pivot(index=["share", "units"], columns="by", values="recovered")[list(dict.fromkeys(table["by"]))]
    print(to_text(curves.reset_index(), ["share", "units", *curves.columns]))
    for name, what in (("cpr", "area under the curve, CPR"), ("cmd", "distance from 1, CMD")):
        print(f"{what}: " + ", ".join(f"{by} {area:.2f}" for by, area in table.attrs[name].items()))
    return 0
