"""`python -m visit heads`: one's own question over a set, asked of every head, layer or neuron."""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from visit.cli.options import model_options
from visit.cli.telling import Teller, stoppable, told
from visit.errors import VisitError, check_positive

ROWS_PRINTED = 20


def add(commands: Any) -> None:
    """The command's options."""
    heads = commands.add_parser(
        "heads",
        help="over a set of prompts: what every head adds, and what the answer does without it",
        description=run.__doc__,
    )
    heads.set_defaults(run=run)
    model_options(heads)
    heads.add_argument(
        "--prompts", metavar="FILE", required=True,
        help=".csv, .jsonl: `prompt` and, where there are, `target`, `distractor`, `pos`, `abc` (a partner); .txt, a "
        "prompt a line; or a shipped set by its name, such as ioi",
    )  # fmt: skip
    heads.add_argument("--limit", type=int, metavar="N", help="only N prompts, evenly spread over the file")
    heads.add_argument(
        "--nodes", choices=("heads", "layers", "neurons"), default="heads",
        help="every head; attention and MLP of every layer; the 100 neurons with the largest influence (default heads)",
    )  # fmt: skip
    heads.add_argument(
        "--how", choices=("zero", "mean", "from", "resample"), default="zero",
        help="in its place: nothing, its mean over the set, its values in the line's partner (resample = from)",
    )  # fmt: skip
    heads.add_argument("--pos", type=int, default=-1, help="position of lines that name none (default -1)")
    heads.add_argument(
        "--first-token", action="store_true", help="of a target or distractor of several tokens take the first one"
    )
    heads.add_argument("--cost", action="store_true", help="say what it will take, and do nothing")
    heads.add_argument(
        "--out", type=Path, metavar="DIR", help="make this folder: the table as .csv and .json, maps as .svg and .png, "
        "and a page (.html) that opens offline",
    )  # fmt: skip
    heads.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(options: argparse.Namespace) -> int:
    """Ask a question over a set: for every head, the mean of what it adds to target − distractor, and what the
    answer does without it, with 95 % bands.

    A run that is stopped (Ctrl-C, kill) keeps what is done; the same command goes on from there.
    """
    from visit.causal.head_sets import set_table
    from visit.causal.set_lines import asked_lines
    from visit.models.load import load_model
    from visit.runs.prompts import named_prompts

    check_positive("--limit", options.limit)
    if options.out is not None and options.out.exists() and not options.out.is_dir():
        raise VisitError(f"--out makes a folder; {str(options.out)!r} is a file. Choose another name.")
    how: Any = "from" if options.how == "resample" else options.how
    chosen = named_prompts(options.prompts, options.model).spread(options.limit)
    with told() as teller, stoppable() as signals:
        try:
            model = load_model(options.model, options.revision, options.dtype)
            asked = asked_lines(model, chosen, how, options.pos, options.first_token)
            if options.cost:
                return _say_cost(options, model, asked, how)
            sums = _run_lines(options, model, asked, how, teller)
        except KeyboardInterrupt:
            teller.end(f"stopped at: {teller.text}. The same command goes on from the last prompt that was done.")
            return 128 + (signals[0] if signals else signal.SIGINT)
    table = set_table(model, asked, sums, how)
    if options.json:
        from visit.files.tables import to_json

        print(to_json(table.attrs, {options.nodes: table}))
    if options.out is not None:
        _write_set(table, options.out)
    elif not options.json:
        _print_set(table)
    return 0


def _say_cost(options: argparse.Namespace, model: Any, asked: Any, how: Any) -> int:
    from visit.causal.set_cost import question_seconds
    from visit.text.numbers import duration

    seconds = question_seconds(model, asked, options.nodes, how)
    print(f"{len(asked.lines):,} prompts: about {duration(seconds)} on this machine, if it has nothing else to do.")
    return 0


def _run_lines(options: argparse.Namespace, model: Any, asked: Any, how: Any, teller: Teller) -> Any:
    """The sums of all lines; the file that the app writes, too, holds what an earlier run has done."""
    from visit.cache import cache_folder
    from visit.causal.head_sets import HeadRun, head_key
    from visit.runs.job import RunFile, drive

    key = head_key(model, asked, options.nodes, how, options.pos, options.first_token)
    with closing(
        drive(partial(HeadRun, model, asked, options.nodes, how), RunFile(cache_folder() / "runs", key))
    ) as go:
        job, now = next(go)
        if now.done:
            teller.step(now)
        for _, now in go:
            teller.step(now)
    return job.snapshot()


def _write_set(table: Any, folder: Path) -> None:
    from visit.figures.head_sets import set_chart, set_title
    from visit.files.chart_file import chart_file
    from visit.files.tables import to_csv, to_json, write_bytes
    from visit.models.catalog import title

    kind, lines = table.attrs["nodes"], set_title(table, title(table.attrs["model"]))
    chart = set_chart(table, lines)
    content = {"csv": to_csv(table).encode(), "json": to_json(table.attrs, {kind: table}).encode()}
    content |= {ending: chart_file(chart, ending, lines[0], lines[0], table.attrs) for ending in ("svg", "png", "html")}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VisitError(
            f"{str(folder)!r} cannot be made ({error.strerror or error}). Choose another --out."
        ) from error
    for ending, data in content.items():
        write_bytes(folder / f"{kind}.{ending}", data)
    print(f"wrote {len(content)} files to {folder}, to be looked at: {folder / f'{kind}.html'}", file=sys.stderr)


def _print_set(table: Any) -> None:
    """The story, the parts with the largest effects, and what was left out."""
    from visit.files.tables import to_text
    from visit.narrate.head_sets import set_story

    for sentence in set_story(table):
        print("".join(text for text, _ in sentence))
    order = table.reindex(table["effect"].abs().sort_values(ascending=False, kind="stable").index).head(ROWS_PRINTED)
    ends = [name for measure in ("contribution", "effect") for name in (measure, f"{measure}_low", f"{measure}_high")]
    columns = ["node", *ends, "influence", *(["role"] if "role" in table else [])]
    print(f"\n{to_text(order, columns)}\n")
    print(f"{len(table):,} parts; the {len(order)} with the largest effect are shown.")
    for note in [*table.attrs["notes"], *(f"left out: {note}" for note in table.attrs["left_out"])]:
        print(note)
