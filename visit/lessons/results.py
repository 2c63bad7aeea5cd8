"""A result file: what one learner answered in a lesson, when, with which hints, and on which runs.

JSON of one version. It comes from anybody: what is read is checked against bounds, and nothing but what is named here
is taken from it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from visit.errors import VisitError
from visit.text.strict_json import strict_json
from visit.text.visible import visible

FORMAT, VERSION = "visit lesson result", 1
MOST_BYTES = 1_000_000
MOST_ANSWERS, MOST_RUNS, MOST_TOKENS, MOST_TEXT = 400, 60, 20_000, 2_000


@dataclass(frozen=True)
class Given:
    """One answer. `question`: its key, `step2.1`, `before.1`, `after.1`; `given`: as `check` keeps it, empty: skipped.

    `right`: None where nothing is checked; `tries`: how often it was checked; `hints`: how many were opened (3: "show
    me"); `seconds` since the lesson began; `run`: the fingerprint of the pass it was judged on, empty without one.
    """

    question: str
    given: str
    right: bool | None
    tries: int = 1
    hints: int = 0
    seconds: float = 0.0
    run: str = ""


@dataclass(frozen=True)
class RunPrint:
    """Which pass was looked at: model, its revision, and token ids; `key`: a short name for it in this file."""

    key: str
    model: str
    revision: str
    token_ids: tuple[int, ...]
    prompt: str


@dataclass(frozen=True)
class Result:
    """A learner's whole result. `edition`: of the lesson's text; `begun`: ISO time, UTC."""

    lesson: str
    title: str
    edition: str
    begun: str
    seconds: float
    nickname: str = ""
    answers: tuple[Given, ...] = ()
    runs: tuple[RunPrint, ...] = ()

    @property
    def right(self) -> tuple[int, int]:
        """(right answers, checked answers) of the steps."""
        checked = [one for one in self.answers if one.question.startswith("step") and one.right is not None]
        return sum(bool(one.right) for one in checked), len(checked)

    def score(self, when: str) -> tuple[int, int]:
        """(right, asked) of the questions "before" or "after"."""
        asked = [one for one in self.answers if one.question.startswith(f"{when}.") and one.right is not None]
        return sum(bool(one.right) for one in asked), len(asked)


def write_result(result: Result) -> str:
    """The file's text."""
    return json.dumps({"format": FORMAT, "version": VERSION, **asdict(result)}, ensure_ascii=False, indent=1)


def read_result(data: bytes | str) -> Result:
    """Read a result file. Raises `VisitError` that says what is wrong with it and what to do."""
    if len(data) > MOST_BYTES:
        raise VisitError(f"A result file has at most {MOST_BYTES:,} bytes; this one has {len(data):,}.")
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
        found = strict_json(text)
    except (UnicodeDecodeError, ValueError, RecursionError) as problem:
        raise VisitError(
            "This is no result file: it is not JSON, or was cut short. Download it again at the end of the lesson."
        ) from problem
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise VisitError("This JSON file is no result of a lesson. Drop the files that the lessons' last page gives.")
    if found.get("version") != VERSION:
        version = visible(str(found.get("version"))[:20])
        raise VisitError(
            f"This result file is of version {version}; this VISIT reads version {VERSION}. Use one VISIT for both."
        )
    return Result(
        _bounded_text(found, "lesson", 60), _bounded_text(found, "title", 200), _bounded_text(found, "edition", 40),
        _text_of_form(found, "begun", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)", 40),
        _bounded_number(found, "seconds"), _bounded_text(found, "nickname", 80),
        tuple(_given(one) for one in _bounded_list(found, "answers", MOST_ANSWERS)),
        tuple(_run(one) for one in _bounded_list(found, "runs", MOST_RUNS)),
    )  # fmt: skip


def _given(found: dict[str, Any]) -> Given:
    right = found.get("right")
    if right is not None and not isinstance(right, bool):
        raise _broken("right", "true, false or null", right)
    return Given(
        _text_of_form(found, "question", r"(before|after|step\d{1,2})\.\d{1,2}", 20),
        _bounded_text(found, "given", MOST_TEXT), right,
        int(_bounded_number(found, "tries", 10_000)), int(_bounded_number(found, "hints", 3)),
        _bounded_number(found, "seconds"),
        _bounded_text(found, "run", 20),
    )  # fmt: skip


def _run(found: dict[str, Any]) -> RunPrint:
    ids = found.get("token_ids")
    whole = isinstance(ids, list) and all(isinstance(i, int) and not isinstance(i, bool) for i in ids)
    if not whole or len(ids or ()) > MOST_TOKENS or any(not 0 <= i < 1 << 31 for i in ids or ()):
        raise _broken("token_ids", f"a list of at most {MOST_TOKENS:,} token ids", ids)
    return RunPrint(
        _bounded_text(found, "key", 20), _bounded_text(found, "model", 300), _bounded_text(found, "revision", 100),
        tuple(ids or ()),
        _bounded_text(found, "prompt", 8_000),
    )  # fmt: skip


def _broken(name: str, must: str, came: Any) -> VisitError:
    return VisitError(f"This result file is broken: “{name}” must be {must}; got {visible(repr(came))[:60]}.")


def _bounded_text(found: dict[str, Any], name: str, most: int) -> str:
    value = found.get(name, "")
    if not isinstance(value, str) or len(value) > most:
        raise _broken(name, f"a text of at most {most:,} characters", value)
    return value


def _text_of_form(found: dict[str, Any], name: str, pattern: str, most: int) -> str:
    value = _bounded_text(found, name, most)
    if not re.fullmatch(pattern, value, re.ASCII):
        raise _broken(name, "of its usual form", value)
    return value


def _bounded_number(found: dict[str, Any], name: str, most: float = 1e8) -> float:
    value = found.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise _broken(name, f"a number from 0 to {most:g}", value)
    return float(value)


def _bounded_list(found: dict[str, Any], name: str, most: int) -> Sequence[dict[str, Any]]:
    value = found.get(name)
    if not isinstance(value, list) or len(value) > most or not all(isinstance(one, dict) for one in value):
        raise _broken(name, f"a list of at most {most}", value)
    return value
