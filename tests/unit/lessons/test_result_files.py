"""A result file: written and read back; broken, hostile and other versions are refused with a sentence."""

from __future__ import annotations

import json

import pytest

from visit.errors import VisitError
from visit.lessons.results import Given, Result, RunPrint, read_result, write_result

GOOD = Result(
    "3-recall", "A head recalls", "abc123", "2026-11-27T10:00:00Z", 612.5, "Ada",
    (Given("before.1", "1", True), Given("step1.1", " Tokyo", True, 2, 1, 33.0, "run1"), Given("step2.1", "", None)),
    (RunPrint("run1", "visit-mini", "r1", (1, 2, 3), "The capital"),),
)  # fmt: skip


def test_what_is_written_is_read_back():
    assert read_result(write_result(GOOD)) == GOOD == read_result(write_result(GOOD).encode())
    assert GOOD.right == (1, 1) and GOOD.score("before") == (1, 1) and GOOD.score("after") == (0, 0)


def changed(**values) -> str:
    return json.dumps({**json.loads(write_result(GOOD)), **values})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"), ("{", "not JSON"), (b"\xff\xfe\x00", "not JSON"), ("[" * 100_000, "not JSON"),
        ("[]", "no result of a lesson"), ("{}", "no result of a lesson"),
        (changed(format="x"), "no result of a lesson"),
        (changed(version=2), "version 2"), (changed(version="<b>"), "version <b>"),
        (changed(seconds=-1), "“seconds”"), (changed(seconds="1e999"), "“seconds”"),
        (changed(seconds=True), "“seconds”"),
        (changed(title="x" * 300), "“title”"), (changed(nickname=["a"]), "“nickname”"),
        (changed(answers=[{}] * 500), "“answers”"), (changed(answers={"a": 1}), "“answers”"),
        (changed(answers=[{"question": "<script>"}]), "“question”"),
        (changed(answers=[{"question": "step1.1", "right": "yes"}]), "“right”"),
        (changed(answers=[{"question": "step1.1", "hints": 99}]), "“hints”"),
        (changed(runs=[{"token_ids": ["a"]}]), "“token_ids”"), (changed(runs=[{"token_ids": [-1]}]), "“token_ids”"),
        (changed(begun="yesterday"), "“begun”"), ("x" * 1_000_001, "at most 1,000,000"),
        (write_result(GOOD).replace("612.5", "NaN"), "not JSON"),
    ],
)  # fmt: skip
def test_what_is_no_result_is_said(text, says):
    with pytest.raises(VisitError, match=says):
        read_result(text)


def test_what_is_not_named_is_not_taken():
    assert read_result(changed(__class__="os.system", extra={"a": 1})) == GOOD
