"""A room as a file that opens again after the server was started anew, and its answers as a table.

The file holds the lesson, names, answers, and how far the class was let; of tokens it holds digests, so students who
reload their page are themselves again, and whoever reads the file cannot be one of them. The key is not in it: who
opens the file gets a new one. The code is the old one where that is free.

A file comes from anybody: everything in it is checked against the bounds of `room` before a room is made of it.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from visit.errors import VisitError
from visit.lessons.nicknames import nickname
from visit.lessons.room import (
    ANSWER_BYTES,
    LESSON_BYTES,
    MAX_MEMBERS,
    MAX_STEPS,
    MEMBER_ANSWERS,
    MEMBER_BYTES,
    QUESTION,
    VERDICTS,
    Member,
    Reply,
    Room,
    Rooms,
    View,
)
from visit.lessons.tally import answer_text, questions_at

if TYPE_CHECKING:
    from visit.lessons.lesson import Lesson

ROOM_FORMAT, ROOM_VERSION = "visit-room", 1
FILE_BYTES = 16 << 20  # a room with all answers that it takes has less, whatever they say
_LATEST = 32_503_680_000.0  # the year 3000


def save_room(room: Room, key: str) -> bytes:
    """The room as it is now, as JSON."""
    view = room.look(key)
    whole = {
        "format": ROOM_FORMAT,
        "version": ROOM_VERSION,
        "saved": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": room.code,
        "title": room.title,
        "steps": room.steps,
        "lesson": room.lesson,
        "opened": view.opened,
        "revealed": sorted(view.revealed),
        "members": [asdict(m) for m in view.members],
        "answers": [asdict(a) for a in view.answers],
    }
    return json.dumps(whole, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")


def open_saved(rooms: Rooms, data: bytes) -> tuple[Room, str]:
    """A room from its file, and its new key. `VisitError` says what is wrong with a file, and no room is made then."""
    whole = _read_room(data)
    steps = _limited_texts(whole, "steps", MAX_STEPS, 200)
    title, lesson, code = (
        _limited_text(whole, "title", 200),
        _limited_text(whole, "lesson", LESSON_BYTES),
        _limited_text(whole, "code", 10),
    )
    members = _saved_members(whole, len(steps))
    answers = _saved_answers(whole, len(steps), {m.number for m in members})
    opened = None if whole.get("opened") is None else _whole_number(whole, "opened", len(steps) - 1)
    revealed = frozenset(_step_of(n, len(steps)) for n in _list(whole, "revealed", MAX_STEPS))
    room, key = rooms.open(title, steps, lesson, code)
    room.fill(members, answers, opened, revealed)
    return room, key


# ---- the table -------------------------------------------------------------------------------------------------------
def answers_table(view: View, steps: tuple[str, ...], lesson: Lesson | None = None) -> list[dict[str, Any]]:
    """One row per answer, oldest first: who, where, the how-manieth, what, whether right, hints, when (UTC).

    `answer_in_words`: the text of the option that a choice gives by its number, where its `lesson` is known.
    """
    asked = {} if lesson is None else {key: q for step in range(len(steps)) for key, q in questions_at(lesson, step)}
    names = {m.number: m.name for m in view.members}
    tries: Counter[tuple[int, int, str]] = Counter()
    rows = []
    for a in view.answers:
        tries[a.member, a.step, a.question] += 1
        rows.append({
            "member": a.member, "nickname": names.get(a.member, ""), "step": a.step, "step_name": steps[a.step],
            "question": a.question, "attempt": tries[a.member, a.step, a.question], "answer": a.value,
            "answer_in_words": answer_text(asked[a.question], a.value) if a.question in asked else a.value,
            "verdict": a.verdict, "hints": a.hints,
            "time": datetime.fromtimestamp(a.time, UTC).isoformat(timespec="seconds"),
        })  # fmt: skip
    return rows


def answers_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as CSV. A text that a spreadsheet would take for a formula begins with an apostrophe: it stays a text."""
    out = io.StringIO()
    if rows:
        writer = csv.DictWriter(out, list(rows[0]), quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _as_text(cell) for name, cell in row.items()} for row in rows)
    return out.getvalue()


def _as_text(cell: Any) -> Any:
    starts = isinstance(cell, str) and cell.lstrip(" \t\r\n\u00a0").startswith(
        ("=", "+", "-", "@", "＝", "＋", "－", "＠")
    )
    return f"'{cell}" if starts or (isinstance(cell, str) and cell[:1] in ("\t", "\r")) else cell


# ---- reading what anybody may have written ---------------------------------------------------------------------------
def _read_room(data: bytes) -> dict[str, Any]:
    if len(data) > FILE_BYTES:
        raise VisitError(f"A saved room has at most {FILE_BYTES >> 20} MB; got {len(data) / 2**20:.0f} MB.")
    try:
        whole = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise VisitError("This is no saved room: it is not the file that “Download the room” writes.") from error
    if not isinstance(whole, dict) or whole.get("format") != ROOM_FORMAT:
        raise VisitError("This is no saved room: it is not the file that “Download the room” writes.")
    if whole.get("version") != ROOM_VERSION:
        raise VisitError(
            f"This room was saved in version {str(whole.get('version'))[:20]} of the format; this VISIT reads version "
            f"{ROOM_VERSION}. Open it with the VISIT that wrote it."
        )
    return whole


def _damaged_file(what: str) -> VisitError:
    return VisitError(f"This saved room is damaged: {what}. Nothing of it was opened.")


def _limited_text(record: dict[str, Any], name: str, longest: int) -> str:
    text = record.get(name)
    if not isinstance(text, str) or len(text) > longest:
        raise _damaged_file(f"“{name}” must be a text of at most {longest:,} characters")
    return text.encode("utf-8", "replace").decode()


def _limited_texts(record: dict[str, Any], name: str, most: int, longest: int) -> list[str]:
    return [_limited_text({name: one}, name, longest) for one in _list(record, name, most)]


def _list(record: dict[str, Any], name: str, most: int) -> list[Any]:
    found = record.get(name)
    if not isinstance(found, list) or len(found) > most:
        raise _damaged_file(f"“{name}” must be a list of at most {most:,}")
    return found


def _record_list(whole: dict[str, Any], name: str, most: int) -> list[dict[str, Any]]:
    found = _list(whole, name, most)
    if not all(isinstance(one, dict) for one in found):
        raise _damaged_file(f"“{name}” must be a list of records")
    return found


def _whole_number(record: dict[str, Any], name: str, largest: int, least: int = 0) -> int:
    number = record.get(name)
    if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= largest:
        raise _damaged_file(f"“{name}” must be a whole number from {least} to {largest:,}")
    return number


def _step_of(number: Any, steps: int) -> int:
    return _whole_number({"step": number}, "step", steps - 1)


def _saved_members(whole: dict[str, Any], steps: int) -> list[Member]:
    found: list[Member] = []
    for one in _record_list(whole, "members", MAX_MEMBERS):
        number, hashed = _whole_number(one, "number", 10**6, 1), _limited_text(one, "digest", 64)
        if not re.fullmatch(r"[0-9a-f]{64}", hashed):
            raise _damaged_file("“digest” must be 64 figures from 0 to f")
        if any(number == m.number or hashed == m.digest for m in found):
            raise _damaged_file("two members are the same")
        name = nickname(_limited_text(one, "name", 100), [m.name for m in found], number)
        found.append(Member(number, name, hashed, _whole_number(one, "step", steps - 1), one.get("left") is True))
    return found


def _saved_answers(whole: dict[str, Any], steps: int, members: set[int]) -> list[Reply]:
    found = []
    sizes: Counter[int] = Counter()
    counts: Counter[int] = Counter()
    for one in _record_list(whole, "answers", MAX_MEMBERS * MEMBER_ANSWERS):
        member, value = _whole_number(one, "member", 10**6, 1), _limited_text(one, "value", ANSWER_BYTES)
        question, verdict, time = _limited_text(one, "question", 40), _limited_text(one, "verdict", 20), one.get("time")
        counts[member] += 1
        sizes[member] += len(value.encode())
        if member not in members:
            raise _damaged_file("an answer is of nobody in the room")
        if counts[member] > MEMBER_ANSWERS or sizes[member] > MEMBER_BYTES or len(value.encode()) > ANSWER_BYTES:
            raise _damaged_file("a member has more answers than a room takes")
        if verdict not in VERDICTS or not QUESTION.fullmatch(question):
            raise _damaged_file("an answer's “question” or “verdict” is none")
        if not isinstance(time, (int, float)) or isinstance(time, bool) or not 0 <= time < _LATEST:
            raise _damaged_file("“time” must be seconds since 1970")
        step, hints = _whole_number(one, "step", steps - 1), _whole_number(one, "hints", 99)
        found.append(Reply(member, step, question, value, verdict, hints, float(time)))
    return found
