"""A class on one server: many sessions at once, each with its own prompts, without browsers.

    python benchmarks/class.py --sessions 30 --think 6 [--model smollm2] [--shared]

Every round a session changes its prompt, the looked-at position, a pruning control and the page, and thinks in between.
Printed: core seconds of every change, of one session alone (with what is measured beside the page; idle or not, the
processor counts the work alone); seconds until the page is whole, by what was changed; errors; sessions that got
another's prompt; the server's memory after each round, its peak, and what it is when all have left. `--shared`: all ask
the same prompts, as a class does.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import random
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

import psutil
from sessions import ROOT, Session, server, told

COUNTRIES = ("Japan", "France", "Italy", "Spain", "Egypt", "Peru", "Kenya", "Norway", "Greece", "Turkey", "India",
             "Cuba", "Chile", "Poland", "Iran")  # fmt: skip


def prompts(count: int) -> list[str]:
    """Different prompts: the embedded set's facts, and where they end, with a word before them."""
    with (ROOT / "visit/data/visit-mini/prompts/facts.csv").open(encoding="utf-8") as file:
        facts = [row["prompt"] for row in csv.DictReader(file)]
    return [facts[n % len(facts)] if n < len(facts) else f"Say: {facts[n % len(facts)]}" for n in range(count)]


def changes(n: int, address: dict[str, str]) -> list[tuple[str, str, dict[str, str] | None]]:
    """A round of student n: (what is changed, page, its address). A click in the sidebar brings no address along."""
    return [
        ("prompt", "flow", address),
        ("position", "flow", {**address, "pos": "2"}),
        ("pruning", "flow", {**address, "pos": "2", "heads": "4"}),
        ("page", "compare", None),
        ("compare", "compare", {**address, "prompt_b": f"The capital of {COUNTRIES[n % 15]} is the city of"}),
        ("page", "flow", None),
    ]


async def student(n: int, port: int, options: argparse.Namespace, asked: list[str], note: dict) -> None:
    dice = random.Random(n)

    model = {"model": options.model} if options.model != "visit-mini" else {}
    await asyncio.sleep(dice.random() * options.think)
    async with Session(port) as session:
        try:
            note["first page"].append(await session.open("flow", **model))
            for turn in range(options.rounds):
                prompt = asked[turn if options.shared else n * options.rounds + turn]
                for what, page, address in changes(n, {**model, "prompt": prompt}):
                    await session.think(options.think * (0.5 + dice.random()))
                    if address is None:
                        note[what].append(await session.open(page))
                        continue
                    note[what].append(await session.open(page, **address))
                    if session.prompt != prompt:
                        note["mixed"].append(f"{session.prompt!r} for {prompt!r}")
                note[f"round {turn}"].append(time.monotonic())
        except Exception as problem:  # a session that breaks is counted, and the others go on
            note["failed"].append(repr(problem)[:200])
        note["errors"] += session.exceptions


async def alone(session: Session, process: psutil.Process, options: argparse.Namespace) -> None:
    """Print what every change of one session costs, in core seconds, on average over three prompts of its own."""
    model = {"model": options.model} if options.model != "visit-mini" else {}
    spent: dict[str, list[float]] = defaultdict(list)
    for turn, name in enumerate(("Hungary", "Austria", "Ireland", "Denmark")):  # the first warms up
        for what, page, address in changes(turn, {**model, "prompt": f"Say: the capital of {name} is the city of"}):
            before = core_seconds(process)
            await (session.open(page) if address is None else session.open(page, **address))
            await session.think(2)
            if turn:
                spent[what].append(core_seconds(process) - before)
    each = {what: sum(found) / 3 for what, found in spent.items()}
    told_each = ", ".join(f"{what} {seconds:.2f}" for what, seconds in each.items())
    print(f"core seconds of one session: {told_each}; a round {sum(each.values()):.2f}")


def core_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def watch(process: psutil.Process, note: dict, over: threading.Event) -> None:
    while not over.wait(0.5):
        note["memory"].append((time.monotonic(), process.memory_info().rss))


async def main(options: argparse.Namespace) -> None:
    asked = prompts(options.sessions * options.rounds)
    with tempfile.TemporaryDirectory() as fresh:
        environment = {"VISIT_HOSTED": "1", "OMP_WAIT_POLICY": "passive"}
        if options.model == "visit-mini":
            environment["VISIT_CACHE"] = str(Path(fresh))
        with server(environment) as (port, process):
            note: dict = defaultdict(list)
            over = threading.Event()
            threading.Thread(target=watch, args=(process, note, over), daemon=True).start()
            async with Session(port) as warm:  # the server's first visitor loads the model: not measured here
                first = {"prompt": "Say: the capital of Iceland is the city of"}  # that no shipped recording answers
                first |= {"model": options.model} if options.model != "visit-mini" else {}
                await warm.open("flow", **first)
                while not warm.prompt:
                    await asyncio.sleep(1)
                    await warm.open("flow", **first)
                print(f"with its model loaded: {process.memory_info().rss / 1e6:,.0f} MB")
                await alone(warm, process, options)
            began, work, own = time.monotonic(), core_seconds(process), time.process_time()
            students = [student(n, port, options, asked, note) for n in range(options.sessions)]
            await asyncio.gather(*students)
            took = time.monotonic() - began
            spent = core_seconds(process) - work
            each = spent / (options.sessions * options.rounds)
            print(f"{options.sessions} sessions, {options.model}, {took:.0f} s, {spent / took:.2f} cores busy, "
                  f"{each:.2f} core seconds for each session's round; the sessions themselves "
                  f"{(time.process_time() - own) / took:.2f} cores")  # fmt: skip
            for what in ("first page", "prompt", "position", "pruning", "page", "compare"):
                print(f"  {what:12} {told(note[what])}")
            print(f"  errors {len(note['errors'])} {note['errors'][:2]}  failed {len(note['failed'])} "
                  f"{note['failed'][:2]}  mixed {len(note['mixed'])} {note['mixed'][:2]}")  # fmt: skip
            for turn in range(options.rounds):
                if ends := note[f"round {turn}"]:
                    at = max(ends)
                    held = [rss for when, rss in note["memory"] if when <= at + 1]
                    print(f"  after round {turn + 1}: {held[-1] / 1e6:,.0f} MB, peak until then {max(held) / 1e6:,.0f}")
            await asyncio.sleep(20)  # what was being measured when the last one left has ended
            print(f"  20 s after the last left: {process.memory_info().rss / 1e6:,.0f} MB")
            over.set()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--think", type=float, default=6.0, help="seconds between two changes, on average")
    parser.add_argument("--model", default="visit-mini")
    parser.add_argument("--shared", action="store_true", help="all ask the same prompts")
    asyncio.run(main(parser.parse_args()))
