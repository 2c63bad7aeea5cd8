"""`python -m visit compare`: two prompts, or two models, side by side."""

from __future__ import annotations

import argparse
from typing import Any

from visit.cli.options import (
    GRAPH_FILES,
    captured,
    chat_options,
    check_out,
    draw_options,
    drew,
    keep_of,
    keep_options,
    ledger_line,
    lens_of,
    lens_option,
    out_options,
    wrote,
)
from visit.errors import VisitError
from visit.models.catalog import MINI


def add(commands: Any) -> None:
    """The command's options."""
    compare = commands.add_parser("compare", help="two prompts, or two models", description=run.__doc__)
    compare.set_defaults(run=run)
    twice = "once for both sides, or twice: for A, then for B"
    compare.add_argument("--prompt", action="append", required=True, help=f"the text to run; {twice}")
    chat_options(compare)
    compare.add_argument("--model", action="append", help=f"as elsewhere (default {MINI}); {twice}")
    compare.add_argument("--revision", help="of hub models")
    compare.add_argument("--dtype", help="float64, float32, bfloat16 or float16")
    compare.add_argument("--pos", type=int, action="append", help=f"position, from 0, negative from the end; {twice}")
    compare.add_argument(
        "--target", action="append", help=f"a word that is one token (default: the prediction); {twice}"
    )
    compare.add_argument("--distractor", action="append", help=f"contributions as target minus this word; {twice}")
    compare.add_argument("--layers", help="as 3, 3-5 or 0,3,7-9 (default: all)")
    compare.add_argument(
        "--align",
        default="",
        metavar="A:B,…",
        help="corrections of the alignment: positions that belong together, as 3:5,4:",
    )
    lens_option(compare)
    keep_options(compare)
    draw_options(compare)
    out_options(compare, GRAPH_FILES)


def run(options: argparse.Namespace) -> int:
    """Run two prompts (or one prompt on two models) and print, or write, what differs between them, B − A."""
    from visit.analyses.divergence import part
    from visit.analyses.graph_difference import compare
    from visit.analyses.token_alignment import pair, parse_fixes
    from visit.files.flow_page import difference_file
    from visit.narrate.comparison import contrast

    check_out(options.out, GRAPH_FILES)
    fixes = parse_fixes(options.align)
    (graph_a, model_a, a), (graph_b, model_b, b) = _sides(options)
    pairing = pair(model_a, a, model_b, b, fixes)
    found = compare(graph_a, graph_b, pairing)
    parting = part(model_a, a, model_b, b, pairing, lenses=(lens_of(options, model_a), lens_of(options, model_b)))
    tables = {**found.tables, "parting": parting}
    detail = None if options.detail is None else dict.fromkeys(found.meta["layers"], options.detail)
    if drew(options, lambda kind: difference_file(found, kind, detail, options.theme)):
        return 0
    if wrote(options, found.meta, tables):
        return 0
    from visit.files.tables import to_text

    for sentence in contrast(found, parting):
        print("".join(text for text, _ in sentence))
    print(f"\n{to_text(tables['answers'])}\n\n{to_text(tables['alignment'])}\n")
    print(f"{to_text(tables['changes'].head(20).drop(columns=['kind', 'layer']))}\n")
    counts = ", ".join(f"{count} {status}" for status, count in found.meta["counts"].items())
    print(f"{len(found.nodes)} nodes: {counts}. A: {ledger_line(found.a.meta['ledger'])} "
          f"B: {ledger_line(found.b.meta['ledger'])}")  # fmt: skip
    return 0


def _sides(options: argparse.Namespace) -> list[tuple[Any, Any, Any]]:
    """(graph, model, record) of A and of B."""
    from visit.graph.build import build_flow_graph, parse_layers
    from visit.models.load import load_model

    prompts, names = _two("prompt", options.prompt), _two("model", options.model or [MINI])
    words = {name: _two(name, getattr(options, name) or [None]) for name in ("target", "distractor")}
    places = _two("pos", options.pos or [-1])
    layers = None if options.layers is None else parse_layers(options.layers)
    models = {name: load_model(name, options.revision, options.dtype) for name in dict.fromkeys(names)}
    sides = []
    for side in (0, 1):
        model = models[names[side]]
        acts = captured(options, model, prompts[side])
        target, distractor = words["target"][side], words["distractor"][side]
        lens = lens_of(options, model)
        graph = build_flow_graph(model, acts, places[side], layers, target, distractor, keep_of(options), lens)
        sides.append((graph, model, acts))
    if prompts[0] == prompts[1] and names[0] == names[1] and places[0] == places[1]:
        raise VisitError("A comparison needs two sides: give --prompt twice, or --model twice, or --pos twice.")
    return sides


def _two(name: str, values: list[Any]) -> list[Any]:
    if len(values) > 2:
        raise VisitError(f"--{name} is given once for both sides or twice (A, then B); got {len(values)}.")
    return values * 2 if len(values) == 1 else values
