"""`python -m visit memory`: what heads recall, for all heads or for one, row by row."""

from __future__ import annotations

import argparse
from typing import Any

from visit.cli.options import (
    GRAPH_FILES,
    captured,
    check_out,
    drew,
    ledger_line,
    model_options,
    out_options,
    prompt_options,
    wrote,
)
from visit.errors import VisitError, check_range


def add(commands: Any) -> None:
    """The command's options."""
    memory = commands.add_parser("memory", help="what a head recalls, from pattern to meaning", description=run.__doc__)
    memory.set_defaults(run=run)
    model_options(memory)
    prompt_options(memory)
    memory.add_argument("--layer", type=int, help="the heads of this layer only; with --head: that head, row by row")
    memory.add_argument("--head", type=int, help="needs --layer (default: the head that pushes hardest)")
    memory.add_argument("--theme", choices=("light", "dark"), default="light", help="of .svg and .png (default light)")
    out_options(memory, GRAPH_FILES)


def run(options: argparse.Namespace) -> int:
    """List all heads of one pass, and what one of them recalls from every past position."""
    from visit.analyses.attention_memory import head_memory, head_meta, head_summary, value_life
    from visit.analyses.heads import head_map
    from visit.analyses.overlap import alignment_scores
    from visit.exact.question import ask
    from visit.files.flow_page import flow_file
    from visit.models.load import load_model
    from visit.narrate.memory import head_graph, memory_story, strongest_head

    check_out(options.out, GRAPH_FILES)
    if options.head is not None and options.layer is None:
        raise VisitError("--head needs --layer: heads are numbered within their layer.")
    model = load_model(options.model, options.revision, options.dtype)
    acts = captured(options, model, options.prompt)
    asked = options.pos, options.target, options.distractor
    heads = head_map(model, acts, *asked)
    if options.layer is not None:
        check_range(f"Layers of {model.name}", options.layer, model.n_layers)
        heads = heads[heads["layer"] == options.layer].reset_index(drop=True)
    layer, head = options.layer, options.head
    if head is None:
        best = heads.set_index("node").loc[strongest_head(heads)]
        layer, head = int(best["layer"]), int(best["head"])
    summary = head_summary(model, acts, layer, head, *asked)
    rows = head_memory(model, acts, layer, head, *asked)
    if drew(options, lambda kind: flow_file(head_graph(model, acts, layer, head, *asked), kind, "everything",
                                            options.theme, parts="attention")):  # fmt: skip
        return 0
    source = int(rows.loc[rows["moved"].iloc[:-1].idxmax(), "source_pos"])
    tables = {
        "heads": heads, "memory": rows, "life": value_life(model, acts, source, options.target, pos=options.pos),
        "figures": alignment_scores(model, acts, options.pos),
    }  # fmt: skip
    meta = ask(model, acts, *asked).meta | head_meta(model, summary)
    if wrote(options, meta, tables):
        return 0
    from visit.files.tables import to_text

    role = heads.set_index("node").loc[summary["node"], "role"] if summary["node"] in set(heads["node"]) else None
    for sentence in memory_story(summary, rows, role if isinstance(role, str) else None, model.d_vocab):
        print("".join(text for text, _ in sentence))
    order = heads.sort_values("contribution", ascending=False, key=abs, kind="stable").head(20)
    columns = ["node", "norm", "share", "contribution", "rank", "tokens", "source_token", "source_pattern", "role"]
    print(f"\n{to_text(order, columns)}\n")
    columns = ["source_pos", "source_token", "pattern", "value_norm", "moved", "share", "contribution", "rank",
               "source_rank", "tokens", "key_tokens"]  # fmt: skip
    print(f"{to_text(rows, columns)}\n")
    print(f"The last row is what the others miss. {ledger_line(meta['ledger'])}")
    return 0
