"""`python -m visit ablate`: parts of one pass taken out, replaced or scaled, and what becomes of the prediction."""

from __future__ import annotations

import argparse
from typing import Any

from visit.cli.options import (
    TABLES,
    Once,
    captured,
    check_out,
    ledger_line,
    model_options,
    out_options,
    prompt_options,
    wrote,
)
from visit.errors import VisitError

HOW_NAMES = ("zero", "mean", "resample", "from", "scale", "add")


def add(commands: Any) -> None:
    """The command's options."""
    ablate = commands.add_parser(
        "ablate", help="take parts of a pass out, and see what happens", description=run.__doc__
    )
    ablate.set_defaults(run=run)
    model_options(ablate)
    prompt_options(ablate)
    ablate.add_argument(
        "--node", action="append", required=True, metavar="ID",
        help="what is edited, as L4.head1, L4.head1.value3, L4.head1.link3, L7.mlp_value377, L3.attn_out, L3.block, "
        "L3.resid_post, embed.pos3; given again: several at once",
    )  # fmt: skip
    ablate.add_argument(
        "--how", choices=HOW_NAMES, default="zero",
        help="zero; mean of --set; resample (or from): the values of --with; scale by --factor; add --factor times "
        "what --with has more at its last position (default zero)",
    )  # fmt: skip
    ablate.add_argument("--factor", type=float, help="of scale and add")
    ablate.add_argument(
        "--at", choices=("last", "all"), default="all", help="at the position looked at only, or at all (default all)"
    )
    ablate.add_argument("--with", dest="other", metavar="PROMPT", action=Once, help="where other values come from")
    ablate.add_argument(
        "--set", metavar="FILE", help="prompts to take the mean of: a file, or the name of a shipped set"
    )
    ablate.add_argument(
        "--continue", dest="more", type=int, default=0, metavar="N", help="also write N words on, with the edits"
    )
    out_options(ablate, TABLES)


def run(options: argparse.Namespace) -> int:
    """Take parts of one pass out, or put others in, and compare the prediction before and after."""
    check_out(options.out, TABLES)
    _check_options(options)
    from visit.activations.record import Edit
    from visit.causal.ablate import ablate
    from visit.causal.continuation import continuation
    from visit.models.load import load_model

    model = load_model(options.model, options.revision, options.dtype)
    acts = captured(options, model, options.prompt)
    how: Any = "from" if options.how == "resample" else options.how
    source = _edit_source(options, model, acts)
    pos = "all" if options.at == "all" else acts.index(options.pos)
    edits = [Edit(node, how, source, pos, options.factor) for node in options.node]
    found = ablate(model, acts, edits, options.pos, options.target, options.distractor)
    tables = {"prediction": found.table, "words": found.words, "edits": found.edits, "ledger": found.ledger}
    if options.more:
        tables["continuation"] = continuation(model, acts.token_ids, options.more, found.edited.edits)
    meta = found.meta | {"ledger": found.ledger_summary | {"tolerance": float(found.ledger["tolerance"].max())}}
    if not wrote(options, meta, tables):
        _print_sides(found, tables, meta)
    return 0


def _check_options(options: argparse.Namespace) -> None:
    """What goes together, before a model is loaded."""
    if options.more < 0:
        raise VisitError(f"--continue takes a number of words, at least 1; got {options.more}.")
    if options.how == "mean" and options.set is None:
        raise VisitError(
            "--how mean needs --set: the prompts to take the mean of, a file or the name of a shipped set."
        )
    if options.set is not None and options.how != "mean":
        raise VisitError(f"--set belongs to --how mean; got --how {options.how}.")
    if options.how in ("resample", "from", "add") and options.other is None:
        raise VisitError(f"--how {options.how} needs --with: the prompt whose values are put in.")
    if options.other is not None and options.how not in ("resample", "from", "add"):
        raise VisitError(f"--with belongs to --how resample and --how add; got --how {options.how}.")


def _edit_source(options: argparse.Namespace, model: Any, acts: Any) -> Any:
    """The source of the edits: the other prompt's record, its difference to this one, or the prompts of a set."""
    if options.how == "mean":
        from visit.runs.answers import fitting
        from visit.runs.prompts import named_prompts

        return fitting(model, named_prompts(options.set, model.name)).prompts
    if options.other is None:
        return None
    other = captured(options, model, options.other)
    return (other, acts) if options.how == "add" else other


def _print_sides(found: Any, tables: dict[str, Any], meta: dict[str, Any]) -> None:
    from visit.files.tables import to_text
    from visit.text.numbers import bits, percent, signed
    from visit.text.visible import visible

    scores = found.table.set_index("quantity")
    before, after = scores["before"], scores["after"]
    word = visible(meta["target"]["token"])
    print(f"“{word}”: {percent(before['prob'])} → {percent(after['prob'])}, "
          f"rank {before['rank']:,.0f} → {after['rank']:,.0f}, logit {signed(scores['change']['logit'])}.")  # fmt: skip
    if meta["distractor"] is not None:
        other = visible(meta["distractor"]["token"])
        print(f"Its logit minus that of “{other}”: {before['difference']:.3f} → {after['difference']:.3f}.")
    print(f"The whole prediction moves by {bits(found.kl_bits)}. "
          f"The edit changed {meta['changed']:,} of {meta['numbers']:,} numbers.")  # fmt: skip
    for note in found.notes:
        print(note)
    print(f"\n{to_text(found.words, list(found.words.columns))}\n")
    if "continuation" in tables:
        more = tables["continuation"]
        print(f"It writes on: {visible(''.join(more['token']))}\n\n{to_text(more, list(more.columns))}\n")
    print(ledger_line(meta["ledger"]))
