"""`python -m visit paths`: what every head sends to the logits or to other heads, past all heads between."""

from __future__ import annotations

import argparse
import signal
from contextlib import closing
from functools import partial
from typing import Any

from visit.cli.options import TABLES, check_out, drew, model_options, out_options, wrote
from visit.cli.telling import Teller, stoppable, told
from visit.errors import check_positive

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
    command.add_argument("--limit", type=int, metavar="N", help="only N prompts, evenly spread over the file")
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
    command.add_argument(
        "--first-token", action="store_true", help="of a target or distractor of several tokens take the first one"
    )
    command.add_argument("--cost", action="store_true", help="say what it will take, and do nothing")
    out_options(command, PATH_FILES)


def run(options: argparse.Namespace) -> int:
    """Give one head at a time its value from a partner prompt, hold all other heads, and see what it says to whom."""
    from visit.causal.path_lines import path_lines, receivers_of
    from visit.files.path_picture import path_picture
    from visit.files.tables import to_text
    from visit.models.load import load_model
    from visit.narrate.paths import path_story
    from visit.runs.prompts import named_prompts

    check_positive("--limit", options.limit)
    check_out(options.out, PATH_FILES)
    options.prompts = named_prompts(options.prompts, options.model).spread(options.limit)
    model = load_model(options.model, options.revision, options.dtype)
    receivers = [name.strip() for name in options.receivers.split(",")]
    sender, receiver = (
        _given_place(given) for given in (options.sender_pos, options.receiver_pos or options.sender_pos)
    )
    if options.cost:
        from visit.causal.cost import paths_seconds
        from visit.text.numbers import duration

        to = receivers_of(model, receivers, options.kind)
        lines, _ = path_lines(model, options.prompts, options.abc, to, sender, receiver, options.first_token)
        print(f"{len(lines):,} prompts: about {duration(paths_seconds(model, lines, to))}.")
        return 0

    with told() as teller, stoppable() as signals:
        try:
            table = _run_paths(options, model, receivers, (sender, receiver), teller)
        except KeyboardInterrupt:
            teller.end(f"stopped at: {teller.text}. The same command goes on from the last prompt that was done.")
            return 128 + (signals[0] if signals else signal.SIGINT)
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


def _run_paths(
    options: argparse.Namespace, model: Any, names: list[str], places: tuple[int | str, int | str], teller: Teller
) -> Any:
    """The table of `visit.paths`; the file that the app writes, too, holds what an earlier run has done."""
    from visit.cache import cache_folder
    from visit.causal.path_lines import path_lines, receivers_of
    from visit.causal.path_patching import path_job, path_key
    from visit.runs.job import RunFile, drive

    to = receivers_of(model, names, options.kind)
    lines, notes = path_lines(model, options.prompts, options.abc, to, *places, options.first_token)
    file = RunFile(cache_folder() / "runs", path_key(model, lines, to, options.kind))
    with closing(drive(partial(path_job, model, lines, to, options.kind), file)) as going:
        job, _ = next(going)
        for _, now in going:
            teller.say(f"{now.done:,} of {now.total:,} prompts")
    table = job.snapshot()
    sender, receiver = places
    table.attrs |= {"sender_pos": sender, "receiver_pos": receiver, "notes": [str(note) for note in notes]}
    return table


def _given_place(given: str) -> int | str:
    return int(given) if given.lstrip("-").isdecimal() else given
