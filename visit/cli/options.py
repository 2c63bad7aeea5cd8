"""What the commands share: options, amounts, and writing what was found."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from visit.errors import VisitError
from visit.models.catalog import MINI, REAL, title


class Once(argparse.Action):
    """An option that may be given once: a second value would silently replace the first."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if getattr(namespace, self.dest, None) is not None:
            parser.error(f"{option_string} is given once here; got it twice")
        setattr(namespace, self.dest, values)


TABLES = (".json", ".csv")
GRAPH_FILES = (*TABLES, ".html", ".svg", ".png")


def model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", default=MINI, help=f"{MINI}, {REAL}, a folder or .gguf file, or a hub id (default {MINI})"
    )
    parser.add_argument("--revision", help="of a hub model")
    parser.add_argument("--dtype", help="float64, float32, bfloat16 or float16")


def prompt_options(parser: argparse.ArgumentParser) -> None:
    """One prompt, the position looked at, and the words it is asked about."""
    parser.add_argument("--prompt", required=True, action=Once, help="the text to run")
    chat_options(parser)
    parser.add_argument("--pos", type=int, default=-1, help="position, from 0, negative from the end (default -1)")
    parser.add_argument("--target", help="a word that is one token, with its leading space (default: the prediction)")
    parser.add_argument("--distractor", help="contributions as target minus this word")


def chat_options(parser: argparse.ArgumentParser) -> None:
    """Whether the prompt is wrapped as a chat model is used to it."""
    parser.add_argument("--chat", action="store_true", help="wrap the prompt in the chat template of the tokenizer")
    parser.add_argument("--system", action=Once, help="with --chat: the system message (default: the template's own)")


def captured(options: argparse.Namespace, model: Any, prompt: str, parts: Any = None) -> Any:
    """The pass of one prompt, as a chat message with --chat; what is odd about it is told on standard error."""
    from visit.activations.forward import capture
    from visit.models.chat import chat_prompt, chat_template
    from visit.models.tokens import doubled_start

    if options.system is not None and not options.chat:
        raise VisitError("--system belongs to --chat: a plain prompt has no system message.")
    acts = capture(model, chat_prompt(model, prompt, options.system) if options.chat else prompt, parts)
    if note := doubled_start(model.tokenizer, acts.token_ids):
        print(f"visit: note: {note}", file=sys.stderr)
    if not options.chat and chat_template(model.tokenizer) is not None:
        print(f"visit: note: {title(model.name)} {UNUSUAL} With --chat its template wraps the prompt.", file=sys.stderr)
    return acts


UNUSUAL = "was trained on chats: a plain text is out of its habit."


def draw_options(parser: argparse.ArgumentParser) -> None:
    """How a graph is drawn in .html, .svg and .png."""
    parser.add_argument(
        "--detail", choices=("states", "words", "everything"), help="of the drawing (default: folded but one)"
    )
    parser.add_argument("--theme", choices=("light", "dark"), default="light", help="of .svg and .png (default light)")


def lens_option(parser: argparse.ArgumentParser, default: str = "plain") -> None:
    """Which lens states are read through."""
    parser.add_argument(
        "--lens", default=default, metavar="plain|fitted|FILE",
        help=f"how states are read: plainly, through the lens fitted to this model, or a file's (default {default})",
    )  # fmt: skip


def lens_of(options: argparse.Namespace, model: Any) -> Any:
    """The lens asked for, None for the plain one. Raises `VisitError` where none is fitted, or a file is none."""
    from visit.lenses.linear import fitted_lens, load_lens

    if options.lens == "plain":
        return None
    if options.lens != "fitted":
        return load_lens(options.lens).check(model)
    found = fitted_lens(model)
    if found is None:
        raise VisitError(
            f"No lens is fitted to {model.name} on this machine yet: python -m visit lens fit --model {options.model}"
        )
    return found


def keep_options(parser: argparse.ArgumentParser) -> None:
    """How much of each sum a graph shows."""
    amount = "a number, a share such as 0.8, a pair such as 6,6 (positive, negative), or 'all'"
    parser.add_argument("--heads", type=count, default=None, metavar="N", help=f"heads shown: {amount} (default all)")
    parser.add_argument("--values", type=count, default=2, metavar="N", help="memory values per head (default 2)")
    parser.add_argument("--neurons", type=count, default=12, metavar="N", help="MLP neurons (default 12)")
    parser.add_argument("--attn-neurons", type=count, default=12, metavar="N", help="W_O neurons (default 12)")
    parser.add_argument("--by", choices=("norm", "contribution", "influence", "pattern"), default="norm",
                        help="what is kept first")  # fmt: skip
    parser.add_argument(
        "--pin", action="append", default=[], metavar="ID", help="a node shown in any case; -ID hides it"
    )


def keep_of(options: argparse.Namespace) -> Any:
    """The `Keep` that the options ask for; a mistake is told by the option's name."""
    from visit.graph.prune import Keep

    asked = options.heads, options.values, options.attn_neurons, options.neurons, options.by, tuple(options.pin)
    try:
        return Keep(*asked)
    except VisitError as problem:
        text = str(problem)
        for name, option in (("attn_neurons", "attn-neurons"), ("mlp_neurons", "neurons"), ("heads", "heads"),
                             ("values", "values"), ("by", "by"), ("pin", "pin")):  # fmt: skip
            text = text.replace(f"Keep.{name} ", f"--{option} ")
        raise VisitError(text) from problem


def out_options(parser: argparse.ArgumentParser, endings: tuple[str, ...]) -> None:
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"write by its ending: {' '.join(endings)}")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def count(text: str) -> Any:
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


def check_out(out: Path | None, endings: tuple[str, ...]) -> None:
    """Refuse a file that cannot be written before any work is done."""
    if out is None:
        return
    if out.suffix not in endings:
        raise VisitError(f"--out writes {', '.join(endings)}; {out.name!r} ends otherwise.")
    if not out.absolute().parent.is_dir():
        raise VisitError(f"--out cannot be written: the folder {str(out.absolute().parent)!r} does not exist.")


def drew(options: argparse.Namespace, make: Callable[[str], bytes]) -> bool:
    """Write the drawing that was asked for, by its ending; True where that is all that was asked for."""
    if options.out is None or options.out.suffix in TABLES:
        return False
    from visit.files.tables import write_bytes

    write_bytes(options.out, make(options.out.suffix.removeprefix(".")))
    print(f"wrote {options.out}", file=sys.stderr)
    options.out = None
    return not options.json


def wrote(options: argparse.Namespace, meta: dict[str, Any], tables: dict[str, Any], flat: bool = False) -> bool:
    """Print JSON or write the file that was asked for; False where a table is to be printed instead."""
    from visit.files.tables import meta_table, to_json, write_bytes, write_csv

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


def ledger_line(ledger: dict[str, Any]) -> str:
    word = "adds up" if ledger["holds"] else "does NOT add up"
    return (
        f"Every sum {word}: largest relative error {ledger['max_rel_error']:.1e} (allowed {ledger['tolerance']:.0e})."
    )
