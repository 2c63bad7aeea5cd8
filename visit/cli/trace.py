"""`python -m visit trace`: a subject made unreadable, one state put back at a time: what brings the answer back?"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from visit.cli.options import (
    GRAPH_FILES,
    captured,
    check_out,
    drew,
    model_options,
    out_options,
    prompt_options,
    wrote,
)
from visit.errors import VisitError
from visit.text.numbers import percent
from visit.text.visible import visible

PRINTED_COLUMNS = 8  # positions of the printed maps


def add(commands: Any) -> None:
    """The command's options."""
    command = commands.add_parser(
        "trace", help="which states bring an answer back after its subject was made unreadable", description=run.__doc__
    )
    command.set_defaults(run=run)
    model_options(command)
    prompt_options(command)
    command.add_argument(
        "--subject", metavar="TEXT|POSITIONS",
        help="what is made unreadable: a text in the prompt, or positions such as 3,4 (default: guessed, and said)",
    )  # fmt: skip
    command.add_argument("--samples", type=int, default=10, help="of the noise (default 10)")
    command.add_argument(
        "--noise", type=float, default=3.0, help="in standard deviations of the subject's embeddings (default 3)"
    )
    command.add_argument("--seed", type=int, default=0, help="of the noise (default 0)")
    command.add_argument(
        "--window", type=int, help="blocks whose attention or MLPs are put back together (default a fifth, at least 3)"
    )
    command.add_argument("--cost", action="store_true", help="say what it will take, and do nothing")
    out_options(command, GRAPH_FILES)


def run(options: argparse.Namespace) -> int:
    """Make the subject of a prompt unreadable, put one state back at a time, and map what brings the answer back."""
    from visit.causal.cost import trace_cost
    from visit.causal.trace_plan import subject_positions
    from visit.causal.tracing import TraceJob
    from visit.exact.question import ask
    from visit.files.trace_picture import trace_file
    from visit.models.load import load_model
    from visit.narrate.traces import ledger_in_words, trace_story
    from visit.runs.job import finish

    check_out(options.out, GRAPH_FILES)
    if options.distractor is not None:
        raise VisitError("A trace follows the probability of one answer: --distractor means nothing here.")
    model = load_model(options.model, options.revision, options.dtype)
    acts = captured(options, model, options.prompt)
    question = ask(model, acts, options.pos, options.target)
    subject = _subject(options, question)
    job = TraceJob.of(question, subject, options.samples, options.seed, options.noise, options.window)
    if options.cost:
        cost = trace_cost(question, subject_positions(acts, subject), options.samples, options.window)
        print(f"{cost.parts:,} cells × {options.samples:,} samples: {cost.takes}.")
        return 0

    def progress(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{job.doing(done)}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    table = finish(job, progress)
    if drew(options, lambda kind: trace_file(table, kind)) or wrote(options, table.attrs, {"trace": table}):
        return 0
    for sentence in [*trace_story(table), *table.attrs["notes"]]:
        print(sentence)
    _print_maps(table)
    print(f"\n{ledger_in_words(table.attrs['ledger'])}")
    return 0


def _subject(options: argparse.Namespace, question: Any) -> Any:
    """The subject asked for, or a guess, which is said."""
    from visit.causal.trace_plan import guessed_subject

    given = options.subject
    if given is None:
        guessed = guessed_subject(question)
        if not guessed:
            raise VisitError("A trace needs a subject before the position looked at; the prompt has one token only.")
        text = visible("".join(question.acts.tokens[p] for p in guessed))
        print(f"visit: note: the subject is guessed: “{text}”. --subject names another.", file=sys.stderr)
        return guessed
    parts = given.split(",")
    numbers = all(part.strip().isdecimal() for part in parts)
    return [int(part) for part in parts] if numbers and given.strip() not in question.acts.prompt else given


def _print_maps(table: Any) -> None:
    """The answer's probability in every cell, a map a site, of the last positions."""
    from visit.figures.tracing import site_title, trace_columns

    about = table.attrs
    first = max(about["subject"]["positions"][0], about["position"] + 1 - PRINTED_COLUMNS)
    shown = range(first, about["position"] + 1)
    for site in table["site"].unique():
        rows = table[table["site"] == site].set_index(["layer", "pos"])["prob"]
        print(f"\n{site_title(site, about['window'])}, put back at")
        print(f"{'':9} " + " ".join(f"{name[:11]:<11}" for name in trace_columns(table, shown)))
        for layer in sorted(table["layer"].unique(), reverse=True):
            cells = " ".join(f"{percent(rows[layer, p], narrow=True):<11}" for p in shown)
            print(f"block {layer:<3} {cells}".rstrip())
