"""Prompt files are read as they stand, bad rows are named, and statistics do not depend on how a set was split."""

from __future__ import annotations

import csv
import json
import re
import time
from dataclasses import replace
from pathlib import Path

import models
import numpy as np
import pytest

import visit
from visit import VisitError, capture, load_model
from visit.cache import read_arrays, write_arrays
from visit.runs.answers import answered, answering, fitting, right, run_key
from visit.runs.prompts import (
    MAX_CHARACTERS,
    MAX_PROMPTS,
    MAX_RESTARTS,
    MAX_SET_BYTES,
    NOTES_SHOWN,
    WORLD,
    all_shipped,
    named_prompts,
    read_prompts,
    shipped,
    shipped_set,
)


# ---- files ---------------------------------------------------------------------------------------------------------
def read(content, name="set.txt"):
    found = read_prompts(content, name)
    return [(r.prompt, r.target, r.distractor) for r in found.rows], [str(n) for n in found.notes]


def test_a_line_is_a_prompt_and_is_not_trimmed():
    found = read_prompts(b"\xef\xbb\xbf Paris is \r\n\r\nthe\x0bcat\rlast\xe2\x80\xa8line", "set.txt")
    assert found.prompts == (" Paris is ", "the\x0bcat", "last\u2028line") and not found.notes
    assert [row.line for row in found.rows] == [1, 3, 4]


def test_a_csv_has_its_columns_in_any_order_and_quotes_as_spreadsheets_write_them():
    text = '﻿Target;note;PROMPT \r\n Mary;x;"Then ""John"", who\r\nleft; gave a drink to"\r\n\r\n;;b\r\n'
    found = read_prompts(text.encode(), "a.csv")
    assert [(r.prompt, r.target, r.line) for r in found.rows] == [
        ('Then "John", who\r\nleft; gave a drink to', " Mary", 2),
        ("b", None, 5),
    ]
    assert read_prompts("prompt,target\na, x\n".encode("utf-16"), "a.csv").rows[0].target == " x"


def test_bad_rows_of_a_csv_are_listed_with_their_lines_and_the_good_ones_run():
    rows = [
        "prompt,target",
        "good, a",
        "When Mary, John and I, b",
        ", c",
        '"never closed, d',
        "fine, e",
        '"x"y, f',
        "z",
    ]
    kept, notes = read("\n".join(rows).encode() + b"\n\xff\xfe bad, g\nz\x00ero\n", "a.csv")
    assert kept == [("good", " a", None), ("fine", " e", None), ("z", None, None)]
    assert [n.split(":")[0] for n in notes] == [f"line {i}" for i in (3, 4, 5, 7, 9, 10)]
    assert "needs quotes" in notes[0] and "empty" in notes[1] and "UTF-8" in notes[4] and "zero byte" in notes[5]


def test_a_row_with_no_text_in_a_column_of_its_own_is_left_out():
    lines = b'{"prompt": "Paris is", "kind": "\\ud800"}\n{"prompt": "Rome is"}\n'
    for content, name in ((b"prompt,kind\nParis is,\xff\nRome is,b\n", "a.csv"), (lines, "a.jsonl")):
        kept, notes = read(content, name)
        assert kept == [("Rome is", None, None)] and "UTF-8" in notes[0]


def test_jsonl_with_broken_lines():
    lines = [
        '{"prompt": "a ", "target": " b", "distractor": null, "more": [1]}',
        '{"prompt": "a"',
        '["prompt"]',
        '{"prompt": "two", "target": 4}',
        '{"prompt": null}',
        '{"prompt": "\\ud800"}',
        "[" * 100_000,
        '{"prompt": ' + "9" * 5000 + "}",
        "",
        '{"prompt": "é"}',
    ]
    rows, notes = read("\n".join(lines), "a.JSONL")
    assert rows == [("a ", " b", None), ("é", None, None)]
    assert [int(n.split(":")[0][5:]) for n in notes] == [2, 3, 4, 5, 6, 7, 8]


def test_pasted_text_says_by_its_first_line_what_it_is():
    assert read_prompts("Paris is, as ever, in\nb").prompts == ("Paris is, as ever, in", "b")
    assert read_prompts("prompt\tdistractor\na\t b").rows[0].distractor == " b"
    assert read_prompts('\n{"prompt": "a"}').prompts == ("a",)
    assert read_prompts("/etc/passwd").prompts == ("/etc/passwd",), "text is never taken for a path"


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        (b"", "a.txt", "no prompt that can be used"),
        (b" \n\t\n", "a.txt", "no prompt that can be used"),
        (b"", "a.csv", "column named prompt"),
        (b"text,target\na,b", "a.csv", "first row is 'text,target'"),
        (b"prompt\n,", "a.csv", "line 2"),
        (b"{}", "a.jsonl", 'an object with "prompt"'),
        (b"\xff\xfe\x41", "a.txt", "cut off"),
        (b"PK\x03\x04", "a.xlsx", ".txt, .csv or .jsonl"),
        (b"a" * (MAX_SET_BYTES + 1), "a.txt", "larger than 8 MB"),
    ],
)
def test_what_cannot_be_used_is_a_sentence(content, name, says):
    with pytest.raises(VisitError, match=says):
        read_prompts(content, name)


def test_files_that_are_none(tmp_path):
    with pytest.raises(VisitError, match="no file"):
        read_prompts(tmp_path)
    with pytest.raises(VisitError, match="no file"):
        read_prompts(tmp_path / "absent.txt")
    (tmp_path / "a.csv").write_text("prompt\nb")
    assert read_prompts(tmp_path / "a.csv").name == "a.csv"


def test_hostile_and_huge_content_is_bounded():
    started = time.monotonic()
    found = read_prompts("a\n" * 3_000_000, "a.txt")
    assert len(found.rows) == MAX_PROMPTS and found.notes[0].line == MAX_PROMPTS + 1
    found = read_prompts('prompt\nfirst\n"' + '"a\nx' * 1_500_000, "a.csv")
    assert found.prompts[0] == "first" and 0 < len(found.notes) <= MAX_RESTARTS + 1
    found = read_prompts("x" * (MAX_CHARACTERS + 1) + "\nb\n" + "\x00\n" * 1000, "a.txt")
    assert found.prompts == ("b",) and len(found.notes) == NOTES_SHOWN + 1 and "901 more" in str(found.notes[-1])
    with pytest.raises(VisitError):
        read_prompts("x" * 5_000_000)  # one line, longer than a csv cell may be
    assert time.monotonic() - started < 60


def test_the_hash_is_of_the_content():
    a = read_prompts("x\ny", "a.txt")
    assert a.hash == read_prompts("\n\nx\n\ny", "b.txt").hash
    others = ["x\nz", "y\nx", "x\ny\ny", "prompt,target\nx,y"]
    assert len({a.hash, *(read_prompts(o).hash for o in others)}) == 5


def test_the_shipped_sets():
    assert shipped() == ("facts", "ioi", "names", "plain", "repeats")
    assert all(shipped_set(name).rows and not shipped_set(name).notes for name in shipped())
    assert shipped_set("names").rows[0].distractor == " John"
    with pytest.raises(VisitError, match="facts, ioi, names"):
        shipped_set("../names")
    with pytest.raises(VisitError, match="facts, names, ioi, world"):
        shipped_set("plain", "any/model")


def world() -> list[dict[str, str]]:
    with open(WORLD, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_world_is_large_and_every_row_says_what_it_asks_and_where_it_is_from():
    rows = world()
    assert list(rows[0]) == ["prompt", "target", "distractor", "relation", "source"]
    assert all(row[column].strip() for row in rows for column in row)
    assert len({row["prompt"] for row in rows}) == len(rows), "no prompt stands twice"
    facts, names = (shipped_set(name, "any/model").rows for name in ("facts", "names"))
    assert len(facts) >= 300 and len(names) >= 60 and len(facts) + len(names) == len(rows)
    assert len({row.relation for row in facts}) >= 12
    for row in rows:
        assert row["prompt"] == row["prompt"].strip() and row["target"] != row["distractor"]
        for word in (row["target"], row["distractor"]):  # one word in the middle of a text
            assert word[0] == " " and word[1:].isalpha(), row


def test_in_two_names_one_is_said_twice_and_the_other_is_the_answer():
    rows = shipped_set("names", "any/model").rows
    orders = []
    for row in rows:
        words = re.findall(r"\w+", row.prompt)
        target, repeated = row.target.strip(), row.distractor.strip()
        assert words.count(target) == 1 and words.count(repeated) == 2, row
        orders.append("ABBA" if words.index(target) < words.index(repeated) else "BABA")
        assert row.relation == f"two names, {orders[-1]}"
    assert orders.count("ABBA") == orders.count("BABA") >= 30
    assert len({re.sub(f"{r.target}|{r.distractor}", " X", " " + r.prompt) for r in rows}) >= 8, "several sentences"


@pytest.mark.parametrize("model", ["visit-mini", "any/model"])
def test_a_line_of_ioi_has_a_partner_with_three_names_of_its_own(model):
    rows = shipped_set("ioi", model).rows
    assert len(rows) == 48 == len({row.prompt for row in rows})
    orders = []
    for row in rows:
        assert row.abc is not None and row.pos is None
        words, others = row.prompt.split(), row.abc.split()
        changed = [(a, b) for a, b in zip(words, others, strict=True) if a != b]  # as many words, three of them others
        names = [a for a, _ in changed]
        target, repeated = row.target[1:], row.distractor[1:]
        assert sorted(names) == sorted([target, repeated, repeated]) and names[2] == repeated, row
        assert len({b for _, b in changed} | {target, repeated}) == 5 and words[0] not in names, row
        orders.append("ABBA" if names[0] == target else "BABA")
    assert 12 <= orders.count("ABBA") <= 36


def test_positions_and_partners_are_read_and_count_in_the_hash():
    text = "prompt,target,pos,abc\nA b,x,1,C d\nA b,x,,\nA b,x,-2,\nA b,x,one,\n"
    found = read_prompts(text)
    assert [(row.pos, row.abc) for row in found.rows] == [(1, "C d"), (None, None), (-2, None)]
    assert [note.line for note in found.notes] == [5] and "'one'" in found.notes[0].reason
    lines = '{"prompt": "A b", "target": "x", "pos": 1, "abc": "C d"}\n{"prompt": "A", "pos": 1.5}'
    again = read_prompts(lines, "a.jsonl")
    assert again.rows[0].pos == 1 and again.rows[0].abc == "C d" and "1.5" in again.notes[0].reason
    plain = read_prompts("prompt,target\nA b,x\n")
    assert len({plain.hash, *(read_prompts(f"prompt,target,{c}\nA b,x,{v}\n").hash for c, v in
                              [("pos", "1"), ("pos", "-1"), ("abc", "C d"), ("relation", "r")])}) == 4  # fmt: skip


def test_a_model_has_its_sets_and_a_name_is_as_good_as_a_file(tmp_path, monkeypatch):
    assert shipped("any/model") == ("facts", "names", "ioi", "world")
    assert len(all_shipped("any/model").rows) == len(world()) + len(shipped_set("ioi", "any/model").rows)
    assert len(world()) == len(shipped_set("world", "any/model").rows)
    assert {r.prompt for n in shipped() for r in shipped_set(n).rows} == {r.prompt for r in all_shipped().rows}
    assert named_prompts("facts").prompts == shipped_set("facts").prompts
    assert named_prompts("facts", "any/model").prompts == shipped_set("facts", "any/model").prompts
    for name, model in (("plain", "any/model"), ("world", "visit-mini")):
        with pytest.raises(VisitError, match="no file"):
            named_prompts(name, model)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "facts").write_text("mine")
    assert named_prompts("facts").prompts == ("mine",), "a file comes first"
    assert read_prompts('{"prompt": "a", "relation": "b"}').rows[0].relation == "b"


# ---- with a model --------------------------------------------------------------------------------------------------
def test_prompts_that_a_model_cannot_read_are_listed():
    model = models.small("gpt2")
    long = " the" * 100
    found = fitting(model, read_prompts(f"the cat\n{long}\nthe dog", "a.txt"))
    assert found.prompts == ("the cat", "the dog") and found.notes[0].line == 2 and "64 tokens" in str(found.notes[0])


def test_only_prompts_answered_correctly_are_kept():
    model = load_model("visit-mini")
    names = shipped_set("names").rows[:12]
    lines = ["prompt,target", *(f'"{r.prompt}",{t}' for r in names for t in (r.target, r.distractor))]
    lines += ["Paris is,", "Paris is, antidisestablishment qq"]
    found = answered(model, read_prompts("\n".join(lines), "a.csv"))
    assert found.asked == found.looked_at == 24 and len(found.kept.notes) == 2 and found.kept.notes[0].line == 26
    best = {r.prompt: int(capture(model, r.prompt).logits[-1].argmax()) for r in names}
    pairs = [(r.prompt, t) for r in names for t in (r.target, r.distractor)]
    expected = [(p, t) for p, t in pairs if best[p] == model.token_id(t)]
    assert [(r.prompt, r.target) for r in found.kept.rows] == expected and 6 < len(expected) < 24
    assert f"{len(found.kept.rows)} of 24" in str(found)


def test_what_is_answered_of_a_part_is_what_its_own_run_finds():
    model = load_model("visit-mini")
    plain = shipped_set("plain").rows  # some of them stand twice
    whole = replace(all_shipped(), rows=tuple({row.prompt: row for row in (*all_shipped().rows[:60], *plain)}.values()))
    part = fitting(model, replace(shipped_set("plain"), rows=shipped_set("plain").rows[::3]), targets=True)
    assert answered(model, whole).among(part) == answered(model, part)
    job = answering(model, whole)
    job.update(job.items[:70])
    seen = job.snapshot().among(part)
    assert 0 < seen.looked_at < seen.asked == len(part.rows)


@pytest.mark.parametrize("name", models.KINDS)
def test_right_is_the_models_own_argmax(name):
    model = models.small(name)
    prompts = shipped_set("plain").rows[:6]
    best = [model.vocabulary[int(capture(model, row.prompt).logits[-1].argmax())] for row in prompts]
    rows = [
        replace(row, target=word if i % 2 else row.target)
        for i, (row, word) in enumerate(zip(prompts, best, strict=True))
    ]
    assert right(model, rows) == [r.target == word for r, word in zip(rows, best, strict=True)]


def test_a_run_is_known_by_weights_and_content():
    a, b = models.small("gpt2"), models.small("llama")
    sets = read_prompts("x"), read_prompts("y")
    keys = {run_key("n", m, s, k) for m in (a, b) for s in sets for k in (1, 2)}
    assert len(keys) == 8 and run_key("n", a, sets[0], 1) in keys
    assert run_key("n", replace(b, name=a.name), sets[0], 1) not in keys


# ---- files of arrays ------------------------------------------------------------------------------------------------
def test_arrays_are_written_as_a_whole_and_read_without_pickle(tmp_path):
    kept, path = {"sums": np.arange(6.0).reshape(2, 3), "count": np.array(7)}, tmp_path / "deep" / "a.npz"
    write_arrays(path, kept, {"done": 500})
    state, header = read_arrays(path)
    assert header == {"done": 500} and state.keys() == kept.keys()
    assert all(np.array_equal(array, state[name]) for name, array in kept.items())
    with pytest.raises(ValueError):
        write_arrays(path, {"x": np.array([object()])}, {})
    assert list(path.parent.iterdir()) == [path] and read_arrays(path) is not None, "the old file stays"


def test_a_damaged_or_foreign_file_is_none(tmp_path):
    path = tmp_path / "a.npz"
    assert read_arrays(path) is None and read_arrays(tmp_path) is None
    write_arrays(path, {"x": np.arange(1000)}, {"a": 1})
    good = path.read_bytes()
    for bad in (b"", good[:100], good[:-1], good[: len(good) // 2], good.replace(b"\x07\x00", b"\x08\x00"), b"{}"):
        path.write_bytes(bad)
        assert read_arrays(path) is None
    np.savez(path, x=np.array([{}], dtype=object))
    assert read_arrays(path) is None
    np.savez(path, **{"header.json": np.frombuffer(json.dumps([1]).encode(), np.uint8)})
    assert read_arrays(path) is None


# ---- what is shown first -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("folder", ["data/visit-mini", "data"])
def test_every_example_says_what_it_shows_and_every_pair_what_to_look_for(folder):
    home = Path(visit.__file__).parent / folder
    for name, said in (("examples", "shows"), ("presets", "look")):
        with open(home / f"{name}.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len({row["label"] for row in rows}) == len(rows) >= 4
        for row in rows:
            assert None not in row and row[said].rstrip()[-1] in ".?", row
            assert not row["prompt"].endswith(" ") and (row["target"] + row["distractor"]).startswith(" ")
