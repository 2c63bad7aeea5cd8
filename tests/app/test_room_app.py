"""The teacher's page and joining, without a browser: opening, ruling, members, and everything that can be wrong."""

from __future__ import annotations

import io
import json
import tomllib
from pathlib import Path

import pytest
import streamlit as st
from escapes import as_read, links, markdown_of, with_addresses
from streamlit.testing.v1 import AppTest

from visit.app.room import AnswerBar, bars_html
from visit.lessons.lesson_file import parse_lesson
from visit.lessons.results import Given, Result, write_result
from visit.lessons.room import LETTERS, MAX_ROOMS, WRONG_CODES, Rooms
from visit.lessons.room_file import save_room
from visit.lessons.shipped import shipped_lesson, shipped_text
from visit.lessons.tally import room_steps


@pytest.fixture(autouse=True)
def rooms(monkeypatch) -> Rooms:
    """Rooms of this test alone."""
    made = Rooms()
    for module in ("visit.app.room", "visit.app.room_teacher"):
        monkeypatch.setattr(f"{module}.ROOMS", made)
    return made


def start(page: str, **params: str) -> AppTest:
    app = AppTest.from_file("../../streamlit_app.py", default_timeout=120)
    for key, value in params.items():
        app.query_params[key] = value
    app.run().switch_page(f"pages/{page}.py").run()
    assert not app.exception
    return app


def opened(rooms: Rooms):
    lesson = shipped_lesson("3-recall")
    return rooms.open(lesson.title, room_steps(lesson), shipped_text("3-recall"))


def press(app: AppTest, label: str) -> AppTest:
    next(b for b in app.button if b.label.startswith(label)).click()
    app.run()
    assert not app.exception
    return app


def chooses(monkeypatch, widget: str, key: str, value: object) -> None:
    """Let a widget have this value: AppTest loses what is chosen on a page that it was switched to."""
    made = getattr(st, widget)
    monkeypatch.setattr(st, widget, lambda *a, **k: value if k.get("key") == key else made(*a, **k))


def text(app: AppTest) -> str:
    kinds = app.markdown, app.caption, app.info, app.warning, app.error, app.header, app.subheader
    return " ".join(e.value for kind in kinds for e in kind) + " ".join(e.proto.body for e in app.get("html"))


# ---- the teacher -----------------------------------------------------------------------------------------------------
def test_a_room_is_opened_and_its_key_stands_in_the_address(rooms):
    app = press(start("room"), "Open the room")
    assert rooms.count() == 1
    seat = app.session_state["visit"].seat
    assert seat.key and not seat.me and seat.room in text(app) and "/learn" in text(app)
    assert dict(app.query_params)["room"] in (seat.room, [seat.room])


def test_answers_come_in_as_bars_and_what_is_right_is_told_when_it_is_revealed(rooms):
    room, key = opened(rooms)
    token = room.join("<script>alert(1)</script>"[:24])
    room.answer(token, 0, "before.1", "1", "right")
    room.go(token, 0)
    app = start("room", room=room.code, key=key)
    assert "1 of 1 have answered" in text(app) and "✓" not in text(app)
    app = press(app, "Reveal the answers")
    assert "✓" in text(app) and "right in the end: 1" in text(app) and "<script>" not in text(app)
    press(app, "Open step 1 for all")
    assert room.signal.opened == 1 and room.signal.revealed == {0}
    assert shipped_lesson("3-recall").steps[0].title in [h.value for h in app.header]
    press(app, "Close and delete")
    assert rooms.count() == 0 and app.session_state["visit"].seat.key == ""


def test_two_browsers_with_the_key_both_rule_and_one_without_does_not(rooms):
    room, key = opened(rooms)
    one, two = start("room", room=room.code, key=key), start("room", room=room.code, key=key)
    press(one, "Open step 1 for all")
    press(two.run(), "Open step 2 for all")
    assert room.signal.opened == 2
    other = start("room", room=room.code, key="x" * 24)
    assert "no key of an open room" in text(other) and not [b for b in other.button if "for all" in b.label]


def test_a_removed_member_is_gone_and_is_told_so(rooms, monkeypatch):
    room, key = opened(rooms)
    token = room.join("Rude")
    app = start("room", room=room.code, key=key)
    chooses(monkeypatch, "selectbox", "room_remove_who", 1)
    press(app.run(), "Remove")
    assert room.look(key).members == ()
    assert not room.knows(token) and "no longer in this room" in text(start("learn", room=room.code, me=token))


def test_no_address_in_the_lesson_of_a_room_is_a_link(rooms):
    """On the page of its teacher, and for a member who waits, before and after the answers are revealed."""
    own = with_addresses(shipped_text("3-recall"))
    lesson = parse_lesson(own)
    room, key = rooms.open(lesson.title, room_steps(lesson), own)
    token = room.join("www.elsewhere.invalid")
    room.answer(token, 0, "before.1", "2", "wrong")
    room.open_step(key, 1)
    room.reveal(key, 0, True)
    seen = markdown_of(start("room", room=room.code, key=key)) + markdown_of(start("learn", room=room.code, me=token))
    room.open_step(key, 0)
    seen += markdown_of(start("room", room=room.code, key=key))
    member = start("learn", room=room.code, me=token)
    member.button(key="begin_class").click().run()
    seen += markdown_of(member)
    assert sum("elsewhere.invalid" in as_read(text) for text in seen) > 6
    assert not [text for text in seen if links(text)]


def test_a_saved_room_opens_again_and_a_full_server_says_so(rooms, monkeypatch):
    room, key = opened(Rooms())
    saved = save_room(room, key)
    chooses(monkeypatch, "file_uploader", "room_file", io.BytesIO(saved))
    app = press(start("room"), "Open it again")
    assert app.session_state["visit"].seat.room == room.code
    while rooms.count() < MAX_ROOMS:
        opened(rooms)
    assert f"holds {MAX_ROOMS} rooms" in text(press(start("room"), "Open the room"))


# ---- joining ---------------------------------------------------------------------------------------------------------
def join(app: AppTest, code: str, name: str = "") -> AppTest:
    app.text_input(key="join_code").set_value(code)
    app.text_input(key="join_name").set_value(name)
    return press(app, "Join")


def test_a_link_and_a_nickname_are_enough_and_a_reload_is_the_same_member(rooms):
    room, key = opened(rooms)
    app = join(start("learn", room=room.code.lower()), room.code, "<b>Ann</b>")
    assert [m.name for m in room.look(key).members] == ["<b>Ann</b>"]
    me = app.session_state["visit"].seat.me
    room.answer(me, 0, "before.1", "1", "right")
    again = start("learn", room=room.code, me=me, lesson="3-recall", step="0")
    assert again.radio[0].value == 1, "what was answered before the reload"
    assert len(room.look(key).members) == 1 and "\\<b\\>Ann" in text(again), "markup is text"
    room.close(key)
    assert "no longer in this room" in text(start("learn", room=room.code, me=me))


@pytest.mark.parametrize(
    ("code", "said"),
    [("AAAA", "A code is 4 letters"), ("", "A code is 4 letters"), ("<b>", "A code is 4 letters")],
)  # fmt: skip
def test_what_cannot_join_is_told_why(rooms, code, said):
    room, key = opened(rooms)
    assert said in text(join(start("learn"), code)) and room.look(key).members == ()


def test_a_field_that_is_sent_ten_thousand_characters_makes_no_long_name(rooms):
    room, key = opened(rooms)
    join(start("learn"), room.code, "x" * 10_000)
    assert all(len(member.name) <= 24 for member in room.look(key).members)


def test_a_code_that_does_not_exist_is_said_and_cannot_be_tried_for_ever(rooms):
    room, key = opened(rooms)
    wrong = next(c * 4 for c in LETTERS if c * 4 != room.code)
    assert "There is no room" in text(start("learn", room=wrong))
    app = start("learn")
    for _ in range(WRONG_CODES):
        app = join(app, wrong)
    assert "try again in 10 minutes" in text(join(app, room.code)) and room.look(key).members == ()


def test_a_full_room_says_so(rooms):
    room, _ = opened(rooms)
    for _ in range(100):
        room.join()
    assert "This room is full" in text(join(start("learn"), room.code))


def test_no_session_looks_for_files_to_watch():
    """It takes 250 ms of processor time a visitor once torch is imported; a class comes in at one moment."""
    config = tomllib.loads((Path(__file__).parents[2] / ".streamlit/config.toml").read_text(encoding="utf-8"))
    assert config["server"]["fileWatcherType"] == "none"


# ---- bars and files --------------------------------------------------------------------------------------------------
def test_no_answer_is_markup():
    html = bars_html([AnswerBar("<img src=x onerror=alert(1)>", 2, True), AnswerBar("b", 0, False)], right=True)
    assert "<img" not in html and "&lt;img" in html and html.count("✓") == 1
    assert "✓" not in bars_html([AnswerBar("a", 1, True)], right=False)


def test_files_of_a_class_are_a_table_and_each_bad_one_has_its_sentence():
    def page(data: list[tuple[str, bytes]]) -> None:
        from visit.app.room_results import show_collected
        from visit.lessons.collected import collect

        show_collected(collect(data))

    results = [Result("3-recall", "A head recalls", "e", "2026-11-27T10:00:00Z", 60.0, f"=S{n}",
                      (Given("step1.1", " Tokyo", True),)) for n in range(30)]  # fmt: skip
    files = [(f"{n}.json", write_result(one).encode()) for n, one in enumerate(results)]
    other = json.dumps({**json.loads(files[0][1]), "version": 9}).encode()
    hostile = [("<b>x</b>.json", b"{"), ("other.json", other), ("none.json", b"[]")]
    app = AppTest.from_function(page, args=([*files, *hostile],)).run(timeout=60)
    assert not app.exception and len(app.warning) == 3 and "version 9" in app.warning[1].value
    assert "\\<b\\>x" in app.warning[0].value and "**30** results" in app.markdown[0].value
    assert len(app.dataframe[0].value) == 30


def test_a_teacher_prints_the_handout_and_the_answers_from_her_page():
    from visit.app.room_teacher import _handout

    labels = [b.proto.label for b in start("room").get("download_button")]
    assert labels == ["Handout to print", "The same with answers and notes"]
    handout, answers = _handout("3-recall", False), _handout("3-recall", True)
    assert "Who writes it?" in handout and "L4 H1 adds" not in handout
    assert "L4 H1 adds +2.5 logits" in answers
