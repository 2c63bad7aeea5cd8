"""`python -m visit graph`: the flow graph of one prompt."""

from __future__ import annotations

import argparse
from typing import Any

from visit.cli.options import (
    GRAPH_FILES,
    captured,
    check_out,
    draw_options,
    drew,
    keep_of,
    keep_options,
    ledger_line,
    lens_of,
    lens_option,
    model_options,
    out_options,
    prompt_options,
    wrote,
)
from visit.errors import VisitError


def add(commands: Any) -> None:
    """The command's options."""
    graph = commands.add_parser("graph", help="the flow graph of one prompt", description=run.__doc__)
    graph.set_defaults(run=run)
    model_options(graph)
    prompt_options(graph)
    graph.add_argument("--layers", help="as 3, 3-5 or 0,3,7-9 (default: all)")
    lens_option(graph)
    graph.add_argument("--components", choices=("plain", "fitted"), default="plain", help="how heads and memory values "
                       "are read: fitted takes them through the linear part of the --lens, too")  # fmt: skip
    keep_options(graph)
    draw_options(graph)
    out_options(graph, GRAPH_FILES)


def run(options: argparse.Namespace) -> int:
    """Capture one prompt and print, or write, the flow graph of one position."""
    from visit.files.flow_page import flow_file
    from visit.graph.build import build_flow_graph, parse_layers
    from visit.graph.flowgraph import influence_share
    from visit.models.load import load_model
    from visit.narrate.flow import story

    check_out(options.out, GRAPH_FILES)
    layers = None if options.layers is None else parse_layers(options.layers)
    model = load_model(options.model, options.revision, options.dtype)
    acts = captured(options, model, options.prompt)
    lens = lens_of(options, model)
    if options.components == "fitted" and lens is None:
        raise VisitError("--components fitted reads through a fitted lens: give --lens fitted, or a file of one.")
    graph = build_flow_graph(
        model, acts, options.pos, layers, options.target, options.distractor, keep_of(options), lens,
        carry_parts=options.components == "fitted",
    )  # fmt: skip
    tables = {"nodes": graph.nodes, "edges": graph.edges}
    if drew(options, lambda kind: flow_file(graph, kind, options.detail, options.theme)):
        return 0
    if wrote(options, graph.meta, tables, flat=True):
        return 0
    meta = graph.meta
    other = None if meta["distractor"] is None else meta["distractor"]["id"]
    for sentence in story(model, acts, meta["position"], meta["target"]["id"], other, lens):
        print("".join(text for text, _ in sentence))
    from visit.files.tables import to_text

    columns = ["id", "label", "tokens", "rank", "prob", "entropy", "norm", "coefficient", "contribution"]
    columns += ["influence"] if "influence" in graph.nodes else []
    print(f"\n{to_text(graph.nodes, columns)}\n")
    if "influence" in meta:
        print(influence_share(meta))
    print(f"{len(graph.nodes)} nodes, {len(graph.edges)} edges. {ledger_line(meta['ledger'])}")
    return 0
