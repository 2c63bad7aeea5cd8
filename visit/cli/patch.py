"""`python -m visit patch`: B's values put into A's run, place by place, and how far the answer goes towards B's."""

from __future__ import annotations

import argparse
from typing import Any

from visit.cli.options import GRAPH_FILES, captured, chat_options, check_out, drew, model_options, out_options, wrote
from visit.errors import VisitError

LISTED_PATCHES = 20  # rows of the printed table
SHOWN_COLUMNS = 16  # positions or heads side by side, that fit a terminal: of more the largest effects are listed


def add(commands: Any) -> None:
    """The command's options."""
    patch = commands.add_parser(
        "patch", help="another prompt's values put in, place by place", description=run.__doc__
    )  # fmt: skip
    patch.set_defaults(run=run)
    model_options(patch)
    patch.add_argument("--prompt", action="append", required=True, help="the text to run; twice: A, then B")
    chat_options(patch)
    patch.add_argument("--target", help="B's answer, a word that is one token (default: B's prediction)")
    patch.add_argument("--distractor", help="A's answer (default: A's prediction)")
    patch.add_argument(
        "--site", choices=("resid", "attn_out", "mlp_out", "heads"), default="resid",
        help="what is put in: the stream before a block, what its attention or MLP adds, a head (default resid)",
    )  # fmt: skip
    patch.add_argument(
        "--at", choices=("each", "last", "all"),
        help="each position by itself, the last alone, or all at once (default: each; of heads all)",
    )  # fmt: skip
    patch.add_argument(
        "--method", choices=("exact", "attribution"), default="exact",
        help="a run a patch, or all estimated from one backward pass (default exact)",
    )  # fmt: skip
    patch.add_argument(
        "--verify", type=int, default=0, metavar="K", help="with --method attribution: patch the K largest exactly"
    )
    out_options(patch, GRAPH_FILES)


def run(options: argparse.Namespace) -> int:
    """Put B's values into A's run, one place at a time, and say how far the answer goes: 0 as in A, 1 as in B."""
    from visit.causal.patching import patch
    from visit.files.patch_picture import patch_file
    from visit.models.load import load_model

    check_out(options.out, GRAPH_FILES)
    if len(options.prompt) != 2:
        raise VisitError(f"--prompt is given twice here: first A, then B; got {len(options.prompt)}.")
    model = load_model(options.model, options.revision, options.dtype)
    a, b = (captured(options, model, prompt) for prompt in options.prompt)
    asked = options.site, options.at, options.method, options.verify, options.target, options.distractor
    table = patch(model, a, b, *asked)
    if drew(options, lambda kind: patch_file(table, kind)) or wrote(options, table.attrs, {"patch": table}):
        return 0
    _print_map(table)
    return 0


def _print_map(table: Any) -> None:
    from visit.files.tables import to_text
    from visit.narrate.patching import patch_story, scale_story

    about = table.attrs
    print(scale_story(about))
    for sentence in patch_story(table):
        print("".join(text for text, _ in sentence))
    for note in about["notes"]:
        print(note)
    names = _map_columns(table)
    fits = len(set(names)) <= SHOWN_COLUMNS and (about["site"], about["at"]) != ("heads", "each")
    if fits:
        shown = table.assign(column=names, effect=table["effect"].astype(float).round(3) + 0.0)  # no -0.000
        shown = shown.pivot(index="layer", columns="column", values="effect")[list(dict.fromkeys(names))]
        print(f"\n{to_text(shown.reset_index())}")
        print(f"Effects: 0 as in A, 1 as in B{'; – has no partner in B' if table['effect'].isna().any() else ''}.")
    rows = table[table["exact"]] if about["patched"] else table
    if fits and len(rows) == table["effect"].notna().sum():  # all of them stand in the map
        return
    order = rows.sort_values("effect", key=abs, ascending=False, kind="stable").head(LISTED_PATCHES)
    told = ["id", "pos", "token", "token_b", "effect", "estimate", "m", "exact"]
    print(f"\n{to_text(order.dropna(axis='columns', how='all').filter(told))}")


def _map_columns(table: Any) -> list[str]:
    """Of every row the name of its column in a map of layers."""
    from visit.text.visible import visible

    if table.attrs["site"] == "heads":
        return [f"H{head}" for head in table["head"]]
    if table.attrs["at"] == "all":
        return ["all positions"] * len(table)
    return [f"{pos} {visible(token)}" for pos, token in zip(table["pos"], table["token"], strict=True)]
