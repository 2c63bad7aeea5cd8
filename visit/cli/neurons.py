"""`python -m visit neurons`: neurons of one prompt, over a prompt set, by a word, or one neuron's card."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from visit.cli.options import TABLES, captured, chat_options, check_out, ledger_line, model_options, out_options, wrote
from visit.errors import VisitError, check_range
from visit.text.numbers import percent


def add(commands: Any) -> None:
    """The command's options."""
    neurons = commands.add_parser("neurons", help="what neurons read, write, and how often", description=run.__doc__)
    neurons.set_defaults(run=run)
    model_options(neurons)
    what = neurons.add_mutually_exclusive_group()
    what.add_argument("--prompt", help="the most active neurons of one text")
    what.add_argument("--prompts", type=Path, metavar="FILE", help="statistics over a .txt, .csv or .jsonl "
                      "prompt file, or a shipped set by its name, such as facts")  # fmt: skip
    what.add_argument("--search", metavar="WORD", help="all rows of the weights whose top words hold this token")
    chat_options(neurons)
    neurons.add_argument("--layer", type=int, help="this layer only (default: all)")
    neurons.add_argument("--neuron", type=int, metavar="N",
                         help="this neuron's card, with --prompts at every token, too; needs --layer")  # fmt: skip
    neurons.add_argument("--pos", type=int, default=-1, help="position, from 0, negative from the end (default -1)")
    neurons.add_argument("--target", help="with --prompt: a word that is one token (default: the prediction)")
    neurons.add_argument("--distractor", help="contributions as target minus this word")
    neurons.add_argument("--top", type=int, default=10, help="neurons per layer of one prompt (default 10)")
    neurons.add_argument(
        "--by", choices=("norm", "contribution", "influence", "coefficient"), default="norm", help="which are top"
    )
    neurons.add_argument("--measure", choices=("activation", "weighted"), default="activation",
                         help="most active by |a| (the paper) or |a| times the norm of W_out (its code)")  # fmt: skip
    neurons.add_argument("--share", type=float, default=0.0244, help="of a layer that is its top (default 0.0244)")
    neurons.add_argument("--threshold", type=float, default=0.85, help="a regularization neuron's share of prompts")
    out_options(neurons, TABLES)


def run(options: argparse.Namespace) -> int:
    """Read neurons as words: the most active of a prompt, statistics over a set, all with a word, or one card."""
    from visit.models.load import load_model

    check_out(options.out, TABLES)
    if options.neuron is not None and options.layer is None:
        raise VisitError("--neuron needs --layer: neurons are numbered within their layer.")
    if options.prompt is None and options.prompts is None and options.search is None and options.neuron is None:
        raise VisitError("Say what to look at: --prompt, --prompts, --search, or --layer with --neuron.")
    if options.prompt is None and (options.chat or options.system is not None):
        raise VisitError("--chat belongs to --prompt: only one prompt is wrapped in the chat template.")
    model = load_model(options.model, options.revision, options.dtype)
    if options.layer is not None:
        check_range(f"Layers of {model.name}", options.layer, model.n_layers)
    if options.search is not None:
        return _search(options, model)
    if options.prompt is not None:
        return _active_of_prompt(options, model)
    return _statistics_of_set(options, model) if options.prompts is not None else _neuron_card(options, model)


def _neuron_meta(model: Any) -> dict[str, Any]:
    from visit.models.provenance import provenance

    return provenance(model, "family", "d_vocab", "d_mlp")


def _static_index(model: Any) -> Any:
    """The static index; on a terminal the first, long reading says how far it is."""
    from visit.lenses.weights import static_index

    def progress(done: int, total: int) -> None:
        print(f"\rreading the weights as words, once per model: {percent(done / total):>6}", end="", file=sys.stderr)
        if done == total:
            print(file=sys.stderr)

    return static_index(model, progress if sys.stderr.isatty() else None)


def _search(options: argparse.Namespace, model: Any) -> int:
    from visit.files.tables import to_text
    from visit.lenses.weights import search_weights

    token = model.token_id(options.search, "word")
    table = search_weights(_static_index(model), token)
    for name in ("layer", "neuron"):
        if getattr(options, name) is not None:
            table = table[table[name] == getattr(options, name)].reset_index(drop=True)
    meta = {**_neuron_meta(model), "search": {"id": token, "token": model.vocabulary[token]}}
    if wrote(options, meta, {"search": table}):
        return 0
    print(f"{len(table):,} rows of the weights hold {model.vocabulary[token]!r} among their 20 top words.\n")
    print(to_text(table.head(40)))
    return 0


def _active_of_prompt(options: argparse.Namespace, model: Any) -> int:
    import pandas as pd

    from visit.analyses.neurons import NeuronKind, active_neurons
    from visit.exact.ledger import ledger
    from visit.exact.question import ask
    from visit.files.tables import to_text

    acts = captured(options, model, options.prompt)
    layers = range(model.n_layers) if options.layer is None else [options.layer]
    asked = options.pos, options.target, options.distractor
    tables = {}
    kinds: tuple[tuple[str, NeuronKind], ...] = (("neurons", "mlp"), ("attention", "attention"))
    for name, kind in kinds:
        top = None if options.neuron is not None else options.top
        found = [active_neurons(model, acts, n, asked[0], kind, top, options.by, *asked[1:]) for n in layers]
        tables[name] = pd.concat(found, ignore_index=True)
    if options.neuron is not None:
        tables = _of_neuron(options, model, tables)
    checks = ledger(model, acts)
    checks = checks[checks["identity"].isin([2, 3])]
    meta = ask(model, acts, *asked).meta | {"ledger": {
        "max_rel_error": float(checks["max_rel_error"].max()), "tolerance": float(checks["tolerance"].max()),
        "holds": bool(checks["holds"].all()),
    }}  # fmt: skip
    if wrote(options, meta, tables):
        return 0
    columns = ["node", "coefficient", "row_norm", "norm", "share", "contribution", "rank", "tokens", "bottom_tokens"]
    for name, table in tables.items():
        shown = [c for c in (*columns, "influence", "key_tokens", "gate_tokens") if c in table.columns]
        print(f"{name}\n{to_text(table, shown if 'node' in table else None)}\n")
    print(ledger_line(meta["ledger"]))
    return 0


def _of_neuron(options: argparse.Namespace, model: Any, tables: dict[str, Any]) -> dict[str, Any]:
    """The rows of one neuron, and its card."""
    from visit.analyses.neurons import neuron_card

    card = neuron_card(model, _static_index(model), options.layer, options.neuron)
    mlp = tables["neurons"]
    return {"neurons": mlp[mlp["neuron"] == options.neuron].reset_index(drop=True), **card["tables"]}


def _statistics_of_set(options: argparse.Namespace, model: Any) -> int:
    from visit.analyses.neuron_sets import neuron_sums, statistics_table
    from visit.analyses.neuron_tokens import neuron_tokens
    from visit.analyses.neurons import neuron_card, regularization_findings, regularization_table
    from visit.files.tables import to_text
    from visit.runs.answers import fitting
    from visit.runs.prompts import named_prompts

    chosen = fitting(model, named_prompts(options.prompts, model.name))
    for note in chosen.notes:
        print(f"visit: left out, {note}", file=sys.stderr)
    sums = neuron_sums(model, chosen.prompts, options.share, options.pos)
    index = _static_index(model)
    stats = statistics_table(model, sums, index, options.measure, options.threshold)
    summary = regularization_table(stats)
    meta = {
        **_neuron_meta(model), "prompts": sums.prompts, "file": str(options.prompts), "position": options.pos,
        "measure": options.measure, "share": options.share, "threshold": options.threshold,
        "findings": regularization_findings(summary, stats, sums.prompts), "left_out": len(chosen.notes),
    }  # fmt: skip
    tables = {"layers": summary, "neurons": stats}
    if options.layer is not None:
        tables = {name: table[table["layer"] == options.layer] for name, table in tables.items()}
    if options.neuron is not None:
        card = neuron_card(model, index, options.layer, options.neuron, stats, sums, chosen.prompts, options.pos)
        tables = {"neurons": stats[(stats["layer"] == options.layer) & (stats["neuron"] == options.neuron)]}
        tables |= card["tables"] | neuron_tokens(model, chosen.prompts, options.layer, options.neuron)
    if wrote(options, meta, tables):
        return 0
    print("\n".join(meta["findings"]) + "\n")
    for name, table in tables.items():
        few = table.nlargest(20, "freq") if name == "neurons" else table
        print(f"{name}\n{to_text(few, [c for c in few.columns if c not in _UNPRINTED])}\n")
    return 0


_UNPRINTED = (
    "example_prompts",
    "example_values",
    "outlier_dims",
    "norm_percentile",
    "entropy_percentile",
    "min",
    "std",
)


def _neuron_card(options: argparse.Namespace, model: Any) -> int:
    from visit.analyses.neurons import neuron_card
    from visit.files.tables import to_text

    card = neuron_card(model, _static_index(model), options.layer, options.neuron)
    tables = card.pop("tables")
    if wrote(options, {**_neuron_meta(model), **card}, tables):
        return 0
    for name, table in tables.items():
        print(f"{name}\n{to_text(table)}\n")
    print(f"Outlier dimensions of what it writes: {', '.join(map(str, card['outlier_dims'])) or 'none'}.")
    return 0
