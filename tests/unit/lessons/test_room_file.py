"""A saved room opens again as it was; a file that is broken, hostile or of another version opens nothing."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visit.errors import VisitError
from visit.lessons.room import ANSWER_BYTES, MAX_MEMBERS, MAX_ROOMS, MEMBER_ANSWERS, MEMBER_BYTES, Rooms
from visit.lessons.room_file import FILE_BYTES, answers_csv, answers_table, open_saved, save_room
from visit.lessons.shipped import shipped_lesson, shipped_text
from visit.lessons.tally import answer_text, room_steps

STEPS = ("Before", "Step")


def filled(rooms: Rooms):
    room, key = rooms.open("A head recalls", STEPS, "recall")
    ann, bob = room.join("Ann"), room.join("=cmd()")
    room.answer(ann, 1, "q1", "L4.head1", "wrong", 1)
    room.answer(ann, 1, "q1", "L4.head2", "right", 2)
    room.answer(bob, 1, "q1", "-1+1", "unchecked")
    room.go(bob, 1)
    room.open_step(key, 1)
    room.reveal(key, 0)
    return room, key, ann


def test_a_room_opens_again_after_a_restart_and_students_are_themselves():
    room, key, ann = filled(Rooms())
    data = save_room(room, key)
    assert ann.encode() not in data and key.encode() not in data
    again, new_key = open_saved(Rooms(), data)
    assert again.code == room.code and again.lesson == "recall" and again.steps == STEPS
    before, after = room.look(key), again.look(new_key)
    assert (after.members, after.answers, after.opened, after.revealed) == (
        before.members, before.answers, before.opened, before.revealed,
    )  # fmt: skip
    assert again.member(ann).name == "Ann" and not again.rules(key)
    again.answer(ann, 1, "q1", "more", "wrong")
    assert again.member(again.join()).number == 3


def test_beside_the_room_itself_it_gets_another_code():
    rooms = Rooms()
    room, key, _ = filled(rooms)
    assert open_saved(rooms, save_room(room, key))[0].code != room.code


def test_the_fullest_room_opens_again():
    room, key = Rooms().open("t", STEPS, "\n" * 400_000)
    for _ in range(MAX_MEMBERS):
        token = room.join("\\" * 22)
        for _ in range(MEMBER_BYTES // ANSWER_BYTES):
            room.answer(token, 0, "q" * 40, '"' * ANSWER_BYTES, "unchecked", 99)
        for _ in range(MEMBER_ANSWERS - MEMBER_BYTES // ANSWER_BYTES):
            room.answer(token, 0, "q" * 40, "", "unchecked", 99)
    data = save_room(room, key)
    assert len(data) < FILE_BYTES
    again, new = open_saved(Rooms(), data)
    assert len(again.look(new).answers) == MAX_MEMBERS * MEMBER_ANSWERS


def test_control_characters_of_an_answer_do_not_reach_a_file():
    room, key = Rooms().open("t", STEPS, "x")
    room.answer(room.join(), 0, "q", "a\x00\ud800\u202eb\nc", "unchecked")
    assert room.look(key).answers[0].value == "a���b\nc"


# ---- the table -------------------------------------------------------------------------------------------------------
def test_the_table_has_a_row_per_answer_and_no_cell_is_a_formula():
    room, key, _ = filled(Rooms())
    rows = answers_table(room.look(key), room.steps)
    assert [(r["nickname"], r["attempt"], r["answer"]) for r in rows] == [
        ("Ann", 1, "L4.head1"), ("Ann", 2, "L4.head2"), ("=cmd()", 1, "-1+1"),
    ]  # fmt: skip
    read = list(csv.DictReader(io.StringIO(answers_csv(rows))))
    assert read[2]["nickname"] == "'=cmd()" and read[2]["answer"] == "'-1+1" and read[0]["answer"] == "L4.head1"
    assert read[0]["hints"] == "1" and answers_csv([]) == ""


def test_the_table_says_a_choice_in_words_beside_its_number():
    lesson = shipped_lesson("3-recall")
    room, key = Rooms().open(lesson.title, room_steps(lesson), shipped_text("3-recall"))
    me = room.join("Ann")
    asked = lesson.twice[0]
    room.answer(me, 0, asked.key, "1", "wrong")
    room.answer(me, 1, "step1.1", " Tokyo", "right")
    rows = answers_table(room.look(key), room.steps, lesson)
    assert (rows[0]["answer"], rows[0]["answer_in_words"]) == ("1", asked.options[1].text)
    assert (rows[1]["answer"], rows[1]["answer_in_words"]) == (" Tokyo", "·Tokyo")
    assert answer_text(replace(asked, kind="order"), "9" * 8000 + ",0") == asked.options[0].text  # a hostile file


@given(st.text(max_size=20))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_no_text_becomes_a_formula(text):
    (row,) = list(csv.reader(io.StringIO(answers_csv([{"x": text}]), newline="")))[1:]
    assert row[0] == text or row[0] == f"'{text}"
    assert not row[0].strip().startswith(("=", "+", "-", "@"))


# ---- what anybody may have written -----------------------------------------------------------------------------------
def whole() -> dict:
    room, key, _ = filled(Rooms())
    return json.loads(save_room(room, key))


def changed(change) -> bytes:
    found = whole()
    change(found)
    return json.dumps(found).encode()


HOSTILE = {
    "steps a text": lambda f: f.update(steps="abc"),
    "no steps": lambda f: f.update(steps=[]),
    "too many steps": lambda f: f.update(steps=["x"] * 61),
    "opened beyond": lambda f: f.update(opened=2),
    "opened a text": lambda f: f.update(opened="1"),
    "revealed beyond": lambda f: f.update(revealed=[9]),
    "revealed a list in a list": lambda f: f.update(revealed=[[0]]),
    "members a record": lambda f: f.update(members={}),
    "a member a number": lambda f: f.update(members=[1]),
    "101 members": lambda f: f.update(
        members=[{**f["members"][0], "number": n + 1, "digest": f"{n:064x}"} for n in range(101)]
    ),
    "twice the same member": lambda f: f["members"].append(dict(f["members"][0])),
    "no digest": lambda f: f["members"][0].pop("digest"),
    "a digest that is none": lambda f: f["members"][0].update(digest="x" * 64),
    "a long name": lambda f: f["members"][0].update(name="x" * 10_000),
    "a number that is true": lambda f: f["members"][0].update(number=True),
    "a step below": lambda f: f["members"][0].update(step=-1),
    "an answer of nobody": lambda f: f["answers"][0].update(member=77),
    "a long answer": lambda f: f["answers"][0].update(value="x" * 8001),
    "an answer of bytes": lambda f: f["answers"][0].update(value="é" * 4001),
    "a question that is markup": lambda f: f["answers"][0].update(question="<script>"),
    "another verdict": lambda f: f["answers"][0].update(verdict="best"),
    "hints without end": lambda f: f["answers"][0].update(hints=10**300),
    "time that is none": lambda f: f["answers"][0].update(time=float("nan")),
    "time without end": lambda f: f["answers"][0].update(time=1e300),
    "more answers than one gives": lambda f: f.update(answers=[f["answers"][0]] * 201),
    "a lesson that is none": lambda f: f.update(lesson=None),
    "a lesson too long": lambda f: f.update(lesson="x" * 400_001),
    "a title too long": lambda f: f.update(title="x" * 201),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_opens_nothing_and_says_why(name):
    rooms = Rooms()
    with pytest.raises(VisitError) as found:
        open_saved(rooms, changed(HOSTILE[name]))
    assert len(str(found.value)) < 300 and rooms.count() == 0


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"format": "visit-result", "version": 1}', b"9" * 6000,
     b'{"format": "visit-room"}' + b" " * FILE_BYTES],
)  # fmt: skip
def test_what_is_no_room_is_refused(data):
    rooms = Rooms()
    with pytest.raises(VisitError, match=r"no saved room|at most 16 MB"):
        open_saved(rooms, data)
    assert rooms.count() == 0


def test_another_version_and_a_full_server_say_so():
    with pytest.raises(VisitError, match="saved in version 2"):
        open_saved(Rooms(), changed(lambda f: f.update(version=2)))
    rooms = Rooms()
    for _ in range(MAX_ROOMS):
        rooms.open("t", STEPS, "x")
    with pytest.raises(VisitError, match="holds 20 rooms"):
        open_saved(rooms, changed(lambda f: None))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda kids: st.lists(kids, max_size=3) | st.dictionaries(st.text(max_size=5), kids, max_size=3)),
       st.sampled_from(["code", "title", "steps", "lesson", "opened", "revealed", "members", "answers"]))  # fmt: skip
@settings(max_examples=300, deadline=None, derandomize=True)
def test_whatever_stands_in_a_field_the_file_opens_or_is_refused(value, name):
    rooms = Rooms()
    try:
        room, key = open_saved(rooms, json.dumps({**WHOLE, name: value}).encode())
    except VisitError:
        assert rooms.count() == 0
    else:
        open_saved(Rooms(), save_room(room, key))


WHOLE = whole()
