"""`python -m visit record`: record a run as a file that opens without the model, show one, check one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from visit.cli.options import (
    GRAPH_FILES,
    Once,
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
    model_options,
    wrote,
)
from visit.errors import VisitError
from visit.text.numbers import number, size_text
from visit.text.visible import visible

RECORDING_FILES = (".visit",)


def add(commands: Any) -> None:
    """The command's options."""
    record = commands.add_parser("record", help="record a run, show or check a recording", description=run.__doc__)
    record.set_defaults(run=run)
    what = record.add_mutually_exclusive_group(required=True)
    what.add_argument("--prompt", action=Once, help="the text to run and record")
    what.add_argument("--show", type=Path, metavar="FILE", help="what a recording holds; with --out its graph")
    what.add_argument("--check", type=Path, metavar="FILE", help="compute parts of it again with --model")
    model_options(record)
    record.set_defaults(model=None)
    chat_options(record)
    for side, which in (("", ""), ("-b", " of the second prompt")):
        record.add_argument(f"--pos{side}", type=int, default=-1, help=f"position{which} (default -1)")
        record.add_argument(f"--target{side}", help=f"a word that is one token{which} (default: the prediction)")
        record.add_argument(f"--distractor{side}", help=f"contributions as target minus this word{which}")
    record.add_argument("--compare", action=Once, metavar="PROMPT", help="a second prompt, recorded beside the first")
    record.add_argument("--layers", help="as 3, 3-5 or 0,3,7-9 (default: all)")
    lens_option(record)
    keep_options(record)
    record.add_argument(
        "--effects",
        action="store_true",
        help="also take every head out once, and record what the answer does without it",
    )
    record.add_argument("--memory", type=int, default=64, metavar="N", help="heads whose memory is kept (default 64)")
    record.add_argument("--note", default="", help="a sentence for whoever opens it, as a licence")
    record.add_argument(
        "--nodes",
        type=int,
        default=20,
        metavar="K",
        help="with --check: nodes, and edges (default 20); of two prompts half as many more of what compares them",
    )
    record.add_argument("--seed", type=int, default=0, help="with --check: which ones (default 0)")
    draw_options(record)
    record.add_argument(
        "--out", type=Path, metavar="FILE", help=f"{RECORDING_FILES[0]}; with --show {' '.join(GRAPH_FILES)}"
    )
    record.add_argument("--json", action="store_true", help="with --show: print all tables as JSON")


def run(options: argparse.Namespace) -> int:
    """Record one pass, or two to compare, as a file that opens without the model; or show or check such a file."""
    if options.show is not None:
        return _show_recording(options)
    if options.check is not None:
        return _replay(options)
    return _record_run(options)


def _record_run(options: argparse.Namespace) -> int:
    from visit.files.record_run import save_recording
    from visit.graph.build import parse_layers
    from visit.models.catalog import MINI
    from visit.models.chat import chat_prompt
    from visit.models.load import load_model

    if options.out is None:
        raise VisitError("A recording is a file: say which with --out run.visit.")
    check_out(options.out, RECORDING_FILES)
    model = load_model(options.model or MINI, options.revision, options.dtype)
    captured(options, model, options.prompt, ("logits",))  # says what is odd about the prompt
    sides = [chat_prompt(model, text, options.system) if options.chat and text is not None else text
             for text in (options.prompt, options.compare)]  # fmt: skip

    def told(share: float, what: str) -> None:
        print(f"\r{100 * share:3.0f} %  {what:<40}", end="" if share < 1 else "\n", file=sys.stderr, flush=True)

    save_recording(
        options.out, model, sides[0], sides[1], options.pos, options.target, options.distractor,
        None if options.layers is None else parse_layers(options.layers), keep_of(options), lens_of(options, model),
        influence=options.by == "influence", effects=options.effects, memory=options.memory, pos_b=options.pos_b,
        target_b=options.target_b, distractor_b=options.distractor_b, note=options.note,
        told=told if sys.stderr.isatty() else lambda share, what: None,
    )  # fmt: skip
    print(f"wrote {options.out} ({size_text(options.out.stat().st_size)})", file=sys.stderr)
    return 0


def _show_recording(options: argparse.Namespace) -> int:
    """What a recording holds; its graph as a file with --out. Needs no model."""
    from visit.files.flow_page import flow_file
    from visit.files.recording import load_recording
    from visit.files.tables import to_text

    check_out(options.out, GRAPH_FILES)
    recording = load_recording(options.show)
    graph, meta = recording.graph, recording.meta
    if drew(options, lambda kind: flow_file(graph, kind, options.detail, options.theme)):
        return 0
    if wrote(options, meta, recording.tables):
        return 0
    said = {
        "model": f"{meta['model']} ({meta['revision'] or 'no revision'}, {meta['dtype']})",
        "made": f"{meta['made']} on {meta['machine']}, VISIT {meta['versions']['visit']}",
        "lens": "plain" if meta["lens"] is None else meta["lens"]["name"], "note": meta["note"] or "none",
    }  # fmt: skip
    for name, text in said.items():
        print(f"{name:8}{visible(str(text))}")
    for one in recording.runs:
        print(f"prompt  {visible(one.prompt)}  (position {one.pos}, target {visible(one.words[one.target])})")
        for sentence in one.result("story"):
            print("        " + "".join(text for text, _ in sentence))
    print(f"\n{to_text(_table_list(recording))}\n")
    print(f"{len(graph.by_id)} nodes, {len(graph.links)} edges. {ledger_line(graph.meta['ledger'])}")
    return 0


def _table_list(recording: Any) -> Any:
    """Every table of a recording with its rows and columns."""
    import pandas as pd

    tables = recording.tables
    return pd.DataFrame({
        "table": list(tables), "rows": [len(t) for t in tables.values()],
        "columns": [len(t.columns) for t in tables.values()],
    })  # fmt: skip


def _replay(options: argparse.Namespace) -> int:
    """Compute some nodes again; exit status 1 where they differ by more than the ledger allows."""
    from visit.files.recording import load_recording
    from visit.files.tables import to_text
    from visit.models.load import load_model

    recording = load_recording(options.check)
    name = options.model or recording.model.loads
    if name is None:
        raise VisitError(
            f"The model of this recording, {recording.model.name}, was a file of another machine: say where it is here "
            "with --model."
        )
    model = load_model(name, options.revision, options.dtype)
    found = recording.check(model, options.nodes, options.seed)
    print(f"{to_text(found)}\n")
    told = found.attrs
    other = "" if told["same_model"] else " (another revision or type than was recorded)"
    print(
        f"{told['checked']} computed again with {told['model']}{other}: they differ by {number(told['largest'])} "
        f"at most, of the largest number of their kind. {'All hold.' if told['holds'] else 'Some do NOT hold.'}"
    )
    return 0 if told["holds"] else 1
