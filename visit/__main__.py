"""The command line: `python -m visit …`. The same analyses as the app, without Streamlit."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

from visit.errors import VisitError
from visit.listed import MINI


class _Parser(argparse.ArgumentParser):
    """A wrong option is a user's mistake like any other: one sentence, exit status 2."""

    def error(self, message: str) -> NoReturn:
        raise VisitError(f"{message[:1].upper()}{message[1:]}. See: {self.prog} --help")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status (0 done, 1 an identity fails, 2 a user's mistake)."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal without Unicode must not break a table
    try:
        options = _parser().parse_args(_joined(sys.argv[1:] if arguments is None else arguments))
        return int(options.run(options))
    except VisitError as error:
        print(f"visit: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `visit … | head`
        sys.stderr.close()
        return 0


def _joined(arguments: list[str]) -> list[str]:
    """`--pin -L1.head3` as `--pin=-L1.head3`: the value of these options may begin with a dash."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in ("--pin", "--prompt", "--target", "--distractor") and argument.startswith("-"):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="visit", description="The semantic X-ray of a language model.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    graph = commands.add_parser("graph", help="the flow graph of one prompt", description=_graph.__doc__)
    graph.set_defaults(run=_graph)
    _model_options(graph)
    graph.add_argument("--prompt", required=True, help="the text to run")
    graph.add_argument("--pos", type=int, default=-1, help="position, from 0, negative from the end (default -1)")
    graph.add_argument("--target", help="a word that is one token, with its leading space (default: the prediction)")
    graph.add_argument("--distractor", help="contributions as target minus this word")
    graph.add_argument("--layers", help="as 3, 3-5 or 0,3,7-9 (default: all)")
    amount = "a number, a share such as 0.8, a pair such as 6,6 (positive, negative), or 'all'"
    graph.add_argument("--heads", type=_count, default=None, metavar="N", help=f"heads shown: {amount} (default all)")
    graph.add_argument("--values", type=_count, default=2, metavar="N", help="memory values per head (default 2)")
    graph.add_argument("--neurons", type=_count, default=12, metavar="N", help="MLP neurons (default 12)")
    graph.add_argument("--attn-neurons", type=_count, default=12, metavar="N", help="W_O neurons (default 12)")
    graph.add_argument("--by", choices=("norm", "contribution", "pattern"), default="norm", help="what is kept first")
    graph.add_argument(
        "--pin", action="append", default=[], metavar="ID", help="a node shown in any case; -ID hides it"
    )
    graph.add_argument(
        "--detail", choices=("states", "words", "everything"), help="of the drawing (default: folded but one)"
    )
    graph.add_argument("--theme", choices=("light", "dark"), default="light", help="of .svg and .png (default light)")
    _out_options(graph, _DRAWN)
    doctor = commands.add_parser("doctor", help="is this model read exactly?", description=_doctor.__doc__)
    doctor.set_defaults(run=_doctor)
    doctor.add_argument("model", metavar="MODEL", help="visit-mini, a folder, or a hub id")
    doctor.add_argument("--dtype", help="float64, float32, bfloat16 or float16")
    _out_options(doctor, _TABLES)
    return parser


_TABLES = (".json", ".csv")
_DRAWN = (*_TABLES, ".html", ".svg", ".png")


def _model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=MINI, help=f"{MINI}, a folder, or a hub id (default {MINI})")
    parser.add_argument("--revision", help="of a hub model")
    parser.add_argument("--dtype", help="float64, float32, bfloat16 or float16")


def _out_options(parser: argparse.ArgumentParser, endings: tuple[str, ...]) -> None:
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"write by its ending: {' '.join(endings)}")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def _count(text: str) -> Any:
    try:
        if text == "all":
            return None
        if "," in text:
            positive, negative = text.split(",")
            return int(positive), int(negative)
        return float(text) if "." in text else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no amount: give a number, a share such as 0.8, a pair such as 6,6, or 'all'"
        ) from None


def _graph(options: argparse.Namespace) -> int:
    """Capture one prompt and print, or write, the flow graph of one position."""
    from visit.forward import capture
    from visit.graph import build_flow_graph, parse_layers
    from visit.keep import Keep
    from visit.model import load_model
    from visit.story import story

    _check_out(options.out, _DRAWN)
    keep = Keep(options.heads, options.values, options.attn_neurons, options.neurons, options.by, tuple(options.pin))
    layers = None if options.layers is None else parse_layers(options.layers)
    model = load_model(options.model, options.revision, options.dtype)
    acts = capture(model, options.prompt)
    graph = build_flow_graph(model, acts, options.pos, layers, options.target, options.distractor, keep)
    tables = {"nodes": graph.nodes, "edges": graph.edges}
    if options.out is not None and options.out.suffix not in _TABLES:
        _write_drawing(options, graph)
        if not options.json:
            return 0
        options.out = None
    if _wrote(options, graph.meta, tables, flat=True):
        return 0
    meta = graph.meta
    other = None if meta["distractor"] is None else meta["distractor"]["id"]
    for sentence in story(model, acts, meta["position"], meta["target"]["id"], other):
        print("".join(text for text, _ in sentence))
    from visit.tables import to_text

    columns = ["id", "label", "tokens", "rank", "prob", "entropy", "norm", "coefficient", "contribution"]
    print(f"\n{to_text(graph.nodes, columns)}\n")
    print(f"{len(graph.nodes)} nodes, {len(graph.edges)} edges. {_ledger_line(meta['ledger'])}")
    return 0


def _write_drawing(options: argparse.Namespace, graph: Any) -> None:
    from visit.export import flow_html, flow_png, flow_svg
    from visit.tables import write_bytes

    if options.out.suffix == ".html":
        content = flow_html(graph, options.detail).encode()
    elif options.out.suffix == ".svg":
        content = flow_svg(graph, options.theme, options.detail).encode()
    else:
        content = flow_png(graph, options.theme, options.detail)
    write_bytes(options.out, content)
    print(f"wrote {options.out}", file=sys.stderr)


def _doctor(options: argparse.Namespace) -> int:
    """Check that VISIT reads a model exactly. Exit status: 0 all identities hold, 1 one fails, 2 not a model."""
    from visit.doctor import examine
    from visit.model import load_model
    from visit.tables import to_text

    _check_out(options.out, _TABLES)
    meta, tables = examine(load_model(options.model, dtype=options.dtype))
    holds = meta["ledger"]["holds"]
    if not _wrote(options, meta, tables):
        print(f"{meta['model']} {meta['revision']} ({meta['dtype']})\n\n{to_text(tables['model'])}\n")
        print(to_text(tables["ledger"], ["identity", "name", "max_rel_error", "tolerance", "holds"]))
        failed = ", ".join(str(i) for i in tables["ledger"].loc[~tables["ledger"]["holds"], "identity"])
        print(f"\n{'All identities hold.' if holds else f'Identities that fail: {failed}. Do not trust its numbers.'}")
    return 0 if holds else 1


def _check_out(out: Path | None, endings: tuple[str, ...]) -> None:
    """Refuse a file that cannot be written before any work is done."""
    if out is None:
        return
    if out.suffix not in endings:
        raise VisitError(f"--out writes {', '.join(endings)}; {out.name!r} ends otherwise.")
    if not out.absolute().parent.is_dir():
        raise VisitError(f"--out cannot be written: the folder {str(out.absolute().parent)!r} does not exist.")


def _wrote(options: argparse.Namespace, meta: dict[str, Any], tables: dict[str, Any], flat: bool = False) -> bool:
    """Print JSON or write the file that was asked for; False where a table is to be printed instead."""
    from visit.tables import meta_table, to_json, write_bytes, write_csv

    if options.out is None and not options.json:
        return False
    if options.json:
        print(to_json(meta, tables, flat))
    if options.out is not None:
        if options.out.suffix == ".json":
            write_bytes(options.out, to_json(meta, tables, flat).encode())
            files = [options.out]
        else:
            files = write_csv(options.out, {**tables, "meta": meta_table(meta)})
        print(f"wrote {', '.join(map(str, files))}", file=sys.stderr)
    return True


def _ledger_line(ledger: dict[str, Any]) -> str:
    word = "adds up" if ledger["holds"] else "does NOT add up"
    return (
        f"Every sum {word}: largest relative error {ledger['max_rel_error']:.1e} (allowed {ledger['tolerance']:.0e})."
    )


if __name__ == "__main__":
    sys.exit(main())
