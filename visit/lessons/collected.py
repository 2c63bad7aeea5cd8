"""Result files of a class without a room: read one by one, laid beside each other, and told apart where they differ.

1. Every file is read by itself. One that is broken, hostile or of another version gets its sentence; the rest stays.
2. Of each question the answers were given on runs. A run's fingerprint is made of the model, its revision and the token
   ids; the one that most files have is the class's, and where another stands the row says what differs.
3. So it is with the lesson and its edition: who took another one is told.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from visit.errors import VisitError
from visit.lessons.results import Given, Result, RunPrint, read_result
from visit.lessons.shipped import shipped_lesson, shipped_lessons
from visit.lessons.tally import answer_text, questions_at

MOST_FILES = 200


@dataclass(frozen=True)
class Collected:
    """What a heap of files holds. `results`: (file, result); `refused`: (file, why)."""

    results: tuple[tuple[str, Result], ...]
    refused: tuple[tuple[str, str], ...]


def collect(files: Iterable[tuple[str, bytes]]) -> Collected:
    """Read (name, content) of every file. A file that is there twice counts once."""
    results: list[tuple[str, Result]] = []
    refused: list[tuple[str, str]] = []
    seen: dict[Result, str] = {}
    for name, data in files:
        name = name[:100]
        if len(results) + len(refused) >= MOST_FILES:
            refused.append(("the others", f"{MOST_FILES} files are read at once, and there are more. Make two heaps."))
            break
        try:
            result = read_result(data)
        except VisitError as problem:
            refused.append((name, str(problem)))
            continue
        if result in seen:
            refused.append((name, f"The same result as in {seen[result]}; it is counted once."))
            continue
        seen[result] = name
        results.append((name, result))
    return Collected(tuple(results), tuple(refused))


def run_print(run: RunPrint) -> str:
    """Eight figures of what was run: model, revision, token ids."""
    ids = ",".join(map(str, run.token_ids))
    return hashlib.sha256(f"{run.model}\n{run.revision}\n{ids}".encode("utf-8", "replace")).hexdigest()[:8]


def collected_rows(found: Collected) -> list[dict[str, Any]]:
    """One row per answer: who, what, how, on which run, and in `differs` what is not as in most files."""
    lesson = _commonest((result.lesson, result.edition) for _, result in found.results)
    usual = {key: _commonest(prints) for key, prints in _prints(found).items()}
    rows = []
    for file, result in found.results:
        runs = {run.key: run for run in result.runs}
        elsewhere = _lesson_differs(result, lesson)
        for one in result.answers:
            run = runs.get(one.run)
            rows.append({
                "file": file, "nickname": result.nickname, "lesson": result.lesson, "edition": result.edition,
                "question": one.question, "answer": one.given,
                "answer_in_words": _in_words(result, one), "verdict": _judged(one), "tries": one.tries,
                "hints": one.hints, "seconds": round(one.seconds, 1), "time": _time(result, one),
                "model": run.model if run else "", "revision": run.revision if run else "",
                "run": run_print(run) if run else "",
                "differs": elsewhere or _run_differs(run, usual.get((result.lesson, one.question))),
            })  # fmt: skip
    return rows


def summary_rows(found: Collected) -> list[dict[str, Any]]:
    """One row per file: right of checked, before and after, hints, minutes, and what differs from most files."""
    differs: dict[str, list[str]] = {}
    for row in collected_rows(found):
        if row["differs"] and row["differs"] not in differs.setdefault(row["file"], []):
            differs[row["file"]].append(row["differs"])
    lesson = _commonest((result.lesson, result.edition) for _, result in found.results)
    rows = []
    for file, result in found.results:
        (right, checked), (b, asked_b), (a, asked_a) = result.right, result.score("before"), result.score("after")
        rows.append({
            "file": file, "nickname": result.nickname, "lesson": result.title or result.lesson,
            "right": f"{right} of {checked}", "before": f"{b} of {asked_b}", "after": f"{a} of {asked_a}",
            "hints": sum(one.hints for one in result.answers), "minutes": round(result.seconds / 60, 1),
            "differs": "; ".join(differs.get(file, [])) or _lesson_differs(result, lesson),
        })  # fmt: skip
    return rows


def _prints(found: Collected) -> dict[tuple[str, str], list[RunPrint]]:
    """Of every question of a lesson, the runs it was answered on."""
    prints: dict[tuple[str, str], list[RunPrint]] = {}
    for _, result in found.results:
        runs = {run.key: run for run in result.runs}
        for one in result.answers:
            if one.run in runs:
                prints.setdefault((result.lesson, one.question), []).append(runs[one.run])
    return prints


def _commonest(values: Iterable[Any]) -> Any:
    """The value that is there most often, of equals the first; runs count by their fingerprints."""
    listed = list(values)
    named: list[Hashable] = [run_print(v) if isinstance(v, RunPrint) else v for v in listed]
    if not listed:
        return None
    return listed[named.index(Counter(named).most_common(1)[0][0])]


def _lesson_differs(result: Result, usual: tuple[str, str]) -> str:
    if (result.lesson, result.edition) == usual:
        return ""
    return "another lesson" if result.lesson != usual[0] else "another edition of the lesson"


def _run_differs(run: RunPrint | None, usual: RunPrint | None) -> str:
    if run is None or usual is None or run_print(run) == run_print(usual):
        return ""
    if run.model != usual.model:
        return f"another model ({run.model[:60]})"
    return "another revision of the model" if run.revision != usual.revision else "another prompt"


def _in_words(result: Result, one: Given) -> str:
    """An answer as it is read; a choice as the text of its option, where the lesson is one that VISIT brings."""
    if result.lesson in shipped_lessons() and shipped_lesson(result.lesson).edition == result.edition:
        lesson = shipped_lesson(result.lesson)
        asked = {key: q for step in range(len(lesson.steps) + 2) for key, q in questions_at(lesson, step)}
        if one.question in asked and one.given:
            return answer_text(asked[one.question], one.given)
    return one.given


def _judged(one: Given) -> str:
    return {True: "right", False: "wrong", None: "unchecked"}[one.right]


def _time(result: Result, one: Given) -> str:
    """When an answer was given (UTC); the time is the learner's computer's."""
    try:
        begun = datetime.fromisoformat(result.begun.replace("Z", "+00:00"))
        return (begun + timedelta(seconds=one.seconds)).isoformat(timespec="seconds")
    except (ValueError, OverflowError):
        return ""
