"""The command line: `python -m visit …`. The same analyses as the app, without Streamlit."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from visit.cli import (
    ablate,
    compare,
    doctor,
    effects,
    faithfulness,
    graph,
    heads,
    layernorm,
    lens,
    lesson,
    memory,
    models,
    neurons,
    patch,
    paths,
    record,
    study,
    trace,
)
from visit.errors import VisitError, told_panics


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
        with told_panics("What this command needs"):
            return int(options.run(options))
    except VisitError as error:
        print(f"visit: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `visit … | head`
        sys.stderr.close()
        return 0


# options whose value may begin with a dash
VALUED = (
    "--pin", "--prompt", "--with", "--system", "--target", "--distractor", "--sender-pos", "--receiver-pos",
    "--compare", "--target-b", "--distractor-b",
)  # fmt: skip


def _joined(arguments: list[str]) -> list[str]:
    """`--pin -L1.head3` as `--pin=-L1.head3`."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in VALUED and argument.startswith("-"):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="visit", description="The semantic X-ray of a language model.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    for command in (
        graph,
        compare,
        ablate,
        effects,
        heads,
        memory,
        layernorm,
        neurons,
        study,
        record,
        faithfulness,
        patch,
        paths,
        trace,
        lens,
        lesson,
        models,
        doctor,
    ):
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
