"""`python -m visit effects`: what becomes of the prediction without each head, neuron or other part."""

from __future__ import annotations

import argparse
from typing import Any

from visit.cli.options import (
    TABLES,
    captured,
    check_out,
    model_options,
    out_options,
    prompt_options,
    wrote,
)
from visit.errors import VisitError

PRINTED = 20  # rows of the printed table


def add(commands: Any) -> None:
    """The command's options."""
    effects = commands.add_parser(
        "effects", help="the prediction without each head or neuron, beside what it adds", description=run.__doc__
    )
    effects.set_defaults(run=run)
    model_options(effects)
    prompt_options(effects)
    effects.add_argument(
        "--nodes", default="heads", metavar="heads|neurons|ID,ID",
        help="all heads, the 100 neurons with the largest influence, or ids such as L9.head6.value4 (default heads)",
    )  # fmt: skip
    effects.add_argument(
        "--how", choices=("zero", "mean", "from", "resample"), default="zero",
        help="what stands in its place: nothing, its mean, its values in another prompt (resample = from)",
    )  # fmt: skip
    effects.add_argument(
        "--at", choices=("last", "all"), default="last", help="at --pos alone, or at every position (default last)"
    )
    effects.add_argument("--with", dest="other", metavar="PROMPT", help="with --how from: the other prompt")
    effects.add_argument("--set", metavar="FILE", help="with --how mean: prompts (a file or a shipped set)")
    effects.add_argument("--cost", action="store_true", help="say what it will take, and do nothing")
    out_options(effects, TABLES)


def run(options: argparse.Namespace) -> int:
    """Take every part out one by one, at one position, and list what then becomes of the prediction."""
    from visit.causal.cost import effects_cost
    from visit.causal.effects import effects
    from visit.causal.named_heads import named_heads
    from visit.models.load import load_model
    from visit.narrate.causes import cause_story

    check_out(options.out, TABLES)
    _check_source(options)
    model = load_model(options.model, options.revision, options.dtype)
    acts = captured(options, model, options.prompt)
    nodes = options.nodes if options.nodes in ("heads", "neurons") else options.nodes.split(",")
    if options.cost:
        print(effects_cost(model, acts, nodes, options.at, options.pos).text)
        return 0
    how: Any = "from" if options.how == "resample" else options.how
    asked = options.pos, options.target, options.distractor
    table = effects(model, acts, nodes, *asked, how, options.at, _effect_source(options, model))
    tables = {"effects": table}
    if options.nodes == "heads" and how == "zero":
        tables["named"] = named_heads(model, acts, table)
    if wrote(options, table.attrs, tables):
        return 0
    from visit.files.tables import to_text

    for note in table.attrs["notes"]:
        print(note)
    for sentence in cause_story(tables["named"]) if "named" in tables else []:
        print("".join(text for text, _ in sentence))
    columns = ["node", "contribution", "influence", "prob", "rank", "difference", "d_logit", "d_difference", "kl_bits"]
    if table.attrs["distractor"] is None:
        columns = [name for name in columns if "difference" not in name]
    order = table.sort_values(columns[-2], key=abs, ascending=False, kind="stable").head(PRINTED)
    print(f"\n{to_text(order, columns)}\n")
    before = table.attrs["before"]
    print(f"{len(table):,} parts, one at a time; the {len(order)} with the largest effect are shown. {_clean(before)}")
    return 0


def _clean(before: dict[str, Any]) -> str:
    from visit.text.numbers import percent, short

    difference = before["difference"]
    more = "" if difference != difference else f", {short(difference)} logits above the distractor"
    return f"With all of them the target has {percent(before['prob'])}, rank {before['rank']:,}{more}."


def _check_source(options: argparse.Namespace) -> None:
    if (options.how in ("from", "resample")) != (options.other is not None):
        raise VisitError("--how from (or resample) and --with PROMPT belong together: whose values, and that they are.")
    if options.set is not None and options.how != "mean":
        raise VisitError("--set belongs to --how mean: the prompts that the mean is taken over.")


def _effect_source(options: argparse.Namespace, model: Any) -> Any:
    """What an edit takes its values from: the other prompt, or the prompts of a set."""
    if options.set is None:
        return options.other
    from visit.runs.prompts import named_prompts

    return [row.prompt for row in named_prompts(options.set, model.name).rows]
