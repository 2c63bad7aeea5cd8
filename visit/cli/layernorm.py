"""`python -m visit layernorm`: what the norms do to the words, for one prompt or over a set."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from visit.cli.options import TABLES, captured, chat_options, check_out, model_options, out_options, wrote
from visit.errors import VisitError


def add(commands: Any) -> None:
    """The command's options."""
    norms = commands.add_parser("layernorm", help="what a norm does to the words", description=run.__doc__)
    norms.set_defaults(run=run)
    model_options(norms)
    source = norms.add_mutually_exclusive_group(required=True)
    source.add_argument("--prompt", help="the text to run")
    source.add_argument("--prompts", type=Path, metavar="FILE", help=".txt, a prompt a line; .csv, .jsonl: "
                        "`prompt`; or a shipped set by its name, such as facts")  # fmt: skip
    chat_options(norms)
    norms.add_argument("--pos", type=int, default=-1, help="position, from 0, negative from the end (default -1)")
    norms.add_argument("--layer", type=int, help="default: where the words change most (a set: of the tables' layers)")
    norms.add_argument("--norm", default="ln1", help="ln1, ln2, final; post_attn, post_mlp where a norm "
                       "stands between a sub-layer and the stream (default ln1)")  # fmt: skip
    norms.add_argument("--target", help="with --prompt: a word that is one token (default: the prediction)")
    norms.add_argument("--no-final-norm", action="store_true", help="read without the model's final norm (Fig. 23)")
    norms.add_argument("--mean", choices=("probabilities", "vector"), help="of a set's tables: mean of the "
                       "probabilities, or probabilities of the mean vector (default: probabilities)")  # fmt: skip
    norms.add_argument("--words", type=Path, metavar="FILE", help="function words of your own, separated by spaces")
    norms.add_argument("--seed", type=int, default=0, help="of control group and interval (default 0)")
    out_options(norms, TABLES)


def run(options: argparse.Namespace) -> int:
    """Read what norms do to words: of one prompt word by word and step by step, of a set as the paper's tables."""
    from visit.models.load import load_model

    check_out(options.out, TABLES)
    _check_set(options)
    model = load_model(options.model, options.revision, options.dtype)
    return _shifts_of_prompt(options, model) if options.prompts is None else _tables_of_set(options, model)


def _check_set(options: argparse.Namespace) -> None:
    if options.prompts is not None and options.target is not None:
        raise VisitError("--target belongs to --prompt; over a set of prompts all words are looked at.")
    if options.prompts is not None and options.chat:
        raise VisitError("--chat belongs to --prompt; the prompts of a set are run as they stand in the file.")
    if options.prompt is not None:
        for name, given in (("--mean", options.mean), ("--words", options.words)):
            if given is not None:
                raise VisitError(f"{name} belongs to --prompts; one prompt has no mean and no interval.")


def _shifts_of_prompt(options: argparse.Namespace, model: Any) -> int:
    from visit.analyses.norms import target_shifts, token_shift
    from visit.exact.question import ask
    from visit.files.tables import to_text

    acts = captured(options, model, options.prompt)
    final = False if options.no_final_norm else None
    targets = target_shifts(model, acts, options.pos, options.target, final)
    layer = options.layer
    if layer is None and options.norm != "final":
        own = targets[targets["norm"] == options.norm]
        layer = 0 if own.empty else int(own.loc[own["delta"].abs().idxmax(), "layer"])
    words = token_shift(model, acts, layer, options.norm, options.pos, options.target, final_norm=final)
    meta = ask(model, acts, options.pos, options.target).meta
    meta |= {"layer": None if options.norm == "final" else layer, "norm": options.norm, "final_norm": final}
    if wrote(options, meta, {"words": words, "targets": targets}):
        return 0
    print(
        f"{_site_of(options.norm, layer)}: the words before and after, and what each of its steps adds to the change\n"
    )
    print(f"{to_text(words.drop(columns=['id']))}\n")
    print(f"The target {meta['target']['token']!r} at every norm\n\n{to_text(targets)}")
    return 0


def _site_of(norm: str, layer: int | None) -> str:
    return "The final norm" if norm == "final" else f"{norm} of layer {layer}"


def _tables_of_set(options: argparse.Namespace, model: Any) -> int:
    from visit.analyses.function_words import function_words
    from visit.analyses.norm_tables import set_meta, set_tables
    from visit.files.tables import to_text

    prompts = _readable_prompts(model, options.prompts)
    listed = None if options.words is None else function_words(_file_text(options.words))
    final = False if options.no_final_norm else None
    tables, sentence = set_tables(
        model, prompts, options.norm, options.layer, options.pos, options.mean or "probabilities", final, listed,
        options.seed,
    )  # fmt: skip
    if wrote(options, set_meta(model, prompts, options, sentence), tables):
        return 0
    for name in ("top", "falling", "test"):
        print(f"{_TABLE_TITLES[name]}\n\n{to_text(tables[name])}\n")
    print(sentence)
    return 0


_TABLE_TITLES = {
    "top": "The most probable words before and after",
    "falling": "The words that lose most",
    "test": "Function words against content words",
}


def _file_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise VisitError(f"{str(path)!r} cannot be read ({reason}). Give a text file.") from error


def _readable_prompts(model: Any, path: Path) -> list[str]:
    """The prompts of a file that this model can read; the others are listed on standard error, with their lines."""
    from visit.runs.answers import fitting
    from visit.runs.prompts import named_prompts

    chosen = fitting(model, named_prompts(path, model.name))
    for note in chosen.notes:
        print(f"visit: left out: {note}", file=sys.stderr)
    if not chosen.rows:
        raise VisitError(f"{str(path)!r} holds no prompt that {model.name} can read.")
    return list(chosen.prompts)
