"""Result files of a class: a table of what can be read, marks where one differs, a sentence for what is broken."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visit.lessons.collected import MOST_FILES, collect, collected_rows, run_print, summary_rows
from visit.lessons.results import Given, Result, RunPrint, write_result

RUN = RunPrint("r1", "visit-mini", "abc", (1, 2, 3), "The capital of Japan is the city of")


def result(name: str, run: RunPrint = RUN, **more) -> Result:
    answers = (
        Given("before.1", "1", False, seconds=5), Given("step1.1", " Tokyo", True, 2, 1, 61.5, run.key),
        Given("step2.1", "=1+1", False, 1, 3, 90, run.key), Given("after.1", "0", True, seconds=600),
    )  # fmt: skip
    return replace(
        Result("3-recall", "A head recalls", "e1", "2026-11-27T10:00:00Z", 660.0, name, answers, (run,)), **more
    )


def heap(*results: Result) -> list[tuple[str, bytes]]:
    return [(f"{n}.json", write_result(one).encode()) for n, one in enumerate(results)]


def test_thirty_files_are_one_table_and_a_row_each():
    found = collect(heap(*(result(f"S{n}") for n in range(30))))
    rows, summary = collected_rows(found), summary_rows(found)
    assert len(rows) == 120 and len(summary) == 30 and not found.refused
    assert rows[1] == {
        "file": "0.json", "nickname": "S0", "lesson": "3-recall", "edition": "e1", "question": "step1.1",
        "answer": " Tokyo", "answer_in_words": " Tokyo", "verdict": "right", "tries": 2, "hints": 1, "seconds": 61.5,
        "time": "2026-11-27T10:01:01+00:00", "model": "visit-mini", "revision": "abc", "run": run_print(RUN),
        "differs": "",
    }  # fmt: skip
    assert summary[0] == {
        "file": "0.json", "nickname": "S0", "lesson": "A head recalls", "right": "1 of 2", "before": "0 of 1",
        "after": "1 of 1", "hints": 4, "minutes": 11.0, "differs": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("other", "said"),
    [(replace(RUN, revision="xyz"), "another revision of the model"),
     (replace(RUN, token_ids=(1, 2)), "another prompt"),
     (replace(RUN, model="smollm2"), "another model (smollm2)"), (replace(RUN, key="r9"), "")],
)  # fmt: skip
def test_a_run_that_is_not_the_class_s_is_marked_and_only_its_answers_are(other, said):
    found = collect(heap(result("a"), result("b"), result("c", other)))
    marked = [(row["file"], row["question"]) for row in collected_rows(found) if row["differs"]]
    assert marked == ([("2.json", "step1.1"), ("2.json", "step2.1")] if said else [])
    assert [row["differs"] for row in summary_rows(found)] == ["", "", said]


def test_another_lesson_and_another_edition_are_marked():
    found = collect(heap(result("a"), result("b"), result("c", edition="e2"), result("d", lesson="7-causes")))
    assert [row["differs"] for row in summary_rows(found)] == [
        "",
        "",
        "another edition of the lesson",
        "another lesson",
    ]


def test_broken_hostile_and_other_files_have_a_sentence_each_and_the_rest_stays():
    good = write_result(result("a"))
    other = json.dumps({**json.loads(good), "version": 2})
    hostile = json.dumps({**json.loads(good), "answers": [{"question": "<script>", "given": "x"}]})
    files = [("good.json", good.encode()), ("cut.json", good[:100].encode()), ("other.json", other.encode()),
             ("hostile.json", hostile.encode()), ("deep.json", b"[" * 10**5), ("big.json", b" " * 10**7),
             ("image.json", b"\x89PNG\xff"), ("twice.json", good.encode()), ("x" * 500, b"{}")]  # fmt: skip
    found = collect(files)
    assert [name for name, _ in found.results] == ["good.json"] and len(collected_rows(found)) == 4
    said = dict(found.refused)
    assert len(said) == 8 and max(len(name) for name in said) == 100
    assert "cut short" in said["cut.json"] and "version 2" in said["other.json"] and "broken" in said["hostile.json"]
    assert "at most 1,000,000 bytes" in said["big.json"] and "same result as in good.json" in said["twice.json"]


def test_half_a_sign_in_a_file_can_be_shown_and_downloaded():
    """JSON can name one ("\\ud800"): the table of the class and its CSV could not be sent."""
    text = json.dumps(json.loads(write_result(result("Ann \ud83d", title="T \udfff"))))
    assert "\\ud83d" in text
    found = collect([("a.json", text.encode())])
    rows = summary_rows(found) + collected_rows(found)
    assert rows[0]["nickname"] == "Ann ?" and rows[0]["lesson"] == "T ?"
    assert json.dumps(rows, ensure_ascii=False).encode()


def test_a_heap_is_bounded_and_an_empty_one_is_empty():
    found = collect((f"{n}", b"{}") for n in range(10**6))
    assert len(found.refused) == MOST_FILES + 1 and "Make two heaps" in found.refused[-1][1]
    assert collected_rows(collect([])) == summary_rows(collect([])) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda kids: st.lists(kids, max_size=3) | st.dictionaries(st.text(max_size=5), kids, max_size=3),
)


@given(JSON, st.sampled_from(["lesson", "title", "edition", "begun", "seconds", "nickname", "answers", "runs"]), JSON,
       st.sampled_from(["question", "given", "right", "tries", "hints", "seconds", "run"]))  # fmt: skip
@settings(max_examples=200, deadline=None, derandomize=True)
def test_whatever_stands_in_a_file_it_is_a_row_or_a_sentence(value, name, inner, field):
    record = json.loads(write_result(result("a")))
    record["answers"][0][field] = inner
    record[name] = value if name != "answers" else record["answers"]
    found = collect([*heap(result("b")), ("x", json.dumps(record).encode())])
    assert len(found.results) + len(found.refused) == 2 and len(summary_rows(found)) == len(found.results)
    collected_rows(found)
