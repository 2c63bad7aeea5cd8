"""`python -m visit paths`: what every head sends to the logits or to other heads, past all heads between."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Any

from visit.cli.options import TABLES, check_out, drew, model_options, out_options, wrote

PATH_FILES = (*TABLES, ".html", ".svg", ".png")
PATHS_PRINTED, PATHS_EACH = 12, 3  # senders listed of the first receiver, and of each of the others


def add(commands: Any) -> None:
    """The command's options."""
    command = commands.add_parser(
        "paths", help="what every head sends to the logits or to later heads, over a set", description=run.__doc__
    )
    command.set_defaults(run=run)
    model_options(command)
    command.add_argument(
        "--prompts", required=True, metavar="FILE",
        help="prompts with target and distractor: .csv, .jsonl, or a shipped set; a column pos names the position",
    )  # fmt: skip
    command.add_argument(
        "--abc",
        metavar="FILE|COLUMN",
        help="each prompt's partner, of as many tokens: a column of that file, or a second file (default: column abc)",
    )
    command.add_argument(
        "--receivers", default="logits", metavar="logits|ID,ID",
        help="where paths end: the logits, heads (L23.head0,L23.head1; several also together), or a shared key or "
        "value (L9.kv_head2)",
    )  # fmt: skip
    command.add_argument(
        "--kind", choices=("q", "k", "v"), default="q", help="which input of a head receives (default q, its query)"
    )
    place = "a position (-1 is the one looked at), or a column with a position or a word, such as distractor"
    command.add_argument("--sender-pos", default="-1", metavar="N|COLUMN", help=f"of the sender: {place} (default -1)")
    command.add_argument(
        "--receiver-pos", metavar="N|COLUMN", help="of what receives (default: the sender's, the only one reached)"
    )
    command.add_argument("--cost", action="store_true", help="say what it will take, and do nothing")
    out_options(command, PATH_FILES)


def run(options: argparse.Namespace) -> int:
    """Give one head at a time its value from a partner prompt, hold all other heads, and see what it says to whom."""
    from visit.causal.path_lines import path_lines, receivers_of
    from visit.causal.path_patching import paths
    from visit.files.path_picture import path_picture
    from visit.files.tables import to_text
    from visit.models.load import load_model
    from visit.narrate.paths import path_story

    check_out(options.out, PATH_FILES)
    model = load_model(options.model, options.revision, options.dtype)
    receivers = [name.strip() for name in options.receivers.split(",")]
    sender, receiver = (
        _given_place(given) for given in (options.sender_pos, options.receiver_pos or options.sender_pos)
    )
    if options.cost:
        from visit.causal.cost import paths_seconds
        from visit.text.numbers import duration

        to = receivers_of(model, receivers, options.kind)
        lines, _ = path_lines(model, options.prompts, options.abc, to, sender, receiver)
        print(f"{len(lines):,} prompts: about {duration(paths_seconds(model, lines, to))}.")
        return 0

    def progress(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done} of {total} prompts", end="\n" if done == total else "", file=sys.stderr)

    table = paths(model, options.prompts, options.abc, receivers, options.kind, sender, receiver, progress)
    if drew(options, partial(path_picture, table)) or wrote(options, table.attrs, {"paths": table}):
        return 0
    for note in table.attrs["notes"]:
        print(f"left out: {note}")
    for n, receiver in enumerate(table["receiver"].unique()):
        rows = table[table["receiver"] == receiver]
        order = rows.sort_values("effect", key=abs, ascending=False, kind="stable").head(
            PATHS_EACH if n else PATHS_PRINTED
        )
        columns = ["sender", "effect", "low", "high"] + ["direct"] * (receiver == "logits")
        print(f"\n{path_story(table, receiver)}\n\n{to_text(order, columns)}")
    return 0


def _given_place(given: str) -> int | str:
    return int(given) if given.lstrip("-").isdecimal() else given
