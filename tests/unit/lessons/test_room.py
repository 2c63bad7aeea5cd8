"""A room holds a class: who may do what, what is kept of whom, and every bound, with many threads at once."""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visit.errors import VisitError
from visit.lessons import room as rooms_module
from visit.lessons.nicknames import NICKNAME_LENGTH, nickname
from visit.lessons.room import LETTERS, MAX_MEMBERS, MAX_ROOMS, Room, Rooms, Tally, Tries, digest, is_code

STEPS = ("Before", "Who wrote Tokyo?", "Where from?", "After")


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rooms(clock) -> Rooms:
    return Rooms(clock)


@pytest.fixture
def opened(rooms) -> tuple[Room, str]:
    return rooms.open("A head recalls", STEPS, "recall")


def refusal(call, *args) -> str:
    with pytest.raises(VisitError) as found:
        call(*args)
    return str(found.value)


# ---- codes and keys --------------------------------------------------------------------------------------------------
def test_a_code_is_four_letters_that_cannot_be_confused_or_read_as_a_word(rooms):
    codes = {rooms.open("t", STEPS, "x")[0].code for _ in range(MAX_ROOMS)}
    assert len(codes) == MAX_ROOMS and all(is_code(code) for code in codes)
    assert not set("AEIOUYLQ01") & set(LETTERS)


def test_a_code_is_found_however_it_is_written_and_one_that_is_none_says_so(rooms, opened):
    room, _ = opened
    assert rooms.find(f" {room.code.lower()} ", Tries()) is room
    other = "".join(reversed(LETTERS[:4])) if room.code != LETTERS[3::-1] else LETTERS[:4]
    assert f"There is no room '{other}'" in refusal(rooms.find, other, Tries())
    for code in ("", "AAAA", "<b>", "x" * 10_000, "BCDF\x00", "ＢＣＤＦ"):
        assert refusal(rooms.find, code, Tries()).startswith("A code is 4 letters")


def test_tries_of_a_session_are_bounded_and_come_back(rooms, opened, clock):
    tries = Tries(clock)
    for _ in range(rooms_module.WRONG_CODES):
        refusal(rooms.find, "AAAA", tries)
    assert "again in 10 minutes" in refusal(rooms.find, opened[0].code, tries), "a right code is refused, too"
    assert rooms.find(opened[0].code, Tries(clock)) is opened[0], "another session is not"
    clock.now += rooms_module.WRONG_SECONDS + 1
    assert rooms.find(opened[0].code, tries) is opened[0]


def test_codes_tried_in_vain_by_many_sessions_make_all_wait_and_refuse_nobody(clock):
    waits: list[float] = []
    rooms = Rooms(clock, waits.append)
    room, key = rooms.open("A head recalls", STEPS, "recall")
    wrong = next(c * 4 for c in LETTERS if c * 4 != room.code)
    me = room.join("Ann")
    for _ in range(rooms_module.WRONG_OF_ALL):
        refusal(rooms.find, wrong, Tries(clock))  # each from a session of its own
    assert not waits, "a class that mistypes waits for nothing"
    for _ in range(40):
        refusal(rooms.find, wrong, Tries(clock))
    gaps = {round(b - a, 6) for a, b in pairwise(waits[:20])}
    assert waits[0] <= rooms_module.PACE and gaps == {rooms_module.PACE}, "one after the other"
    assert max(waits) == rooms_module.LONGEST_WAIT
    assert rooms.find(room.code, Tries(clock)) is room and waits[-1] > 10, "a right code takes its turn as a wrong one"
    assert rooms.find(room.code, Tries(clock), key) is room and rooms.of_member(room.code, me) is room
    assert rooms.of_member(wrong, me) is rooms.of_member(room.code, "x") is None
    assert len(waits) == 41, "who is in it, and who rules it, never waits"
    clock.now += rooms_module.WRONG_SECONDS + 1
    assert rooms.find(room.code, Tries(clock)) is room and len(waits) == 41


def test_only_the_key_rules_and_it_does_so_in_every_browser(opened, rooms):
    room, key = opened
    token = room.join("Ann")
    calls = [(room.look,), (room.open_step, 1), (room.reveal, 1), (room.lock, True), (room.remove, 1), (room.close,)]
    for wrong in ("", token, key[:-1], key + "x", room.code, digest(key), "é" * 5):
        assert not room.rules(wrong)
        for call, *args in calls:
            assert "Only who has the key" in refusal(call, wrong, *args)
    for browser in (key, str(key)):
        room.open_step(browser, 2)
        room.reveal(browser, 0)
    assert room.look(key).opened == 2 and rooms.open("t", STEPS, "x")[1] != key
    assert key not in repr(vars(room)), "the room keeps its digest"


# ---- members ---------------------------------------------------------------------------------------------------------
def test_a_token_is_the_member_again_after_a_reload(opened):
    room, key = opened
    token = room.join("Ann")
    assert room.member(token).name == "Ann" and room.knows(token) and not room.knows("") and not room.knows("x")
    room.answer(token, 1, "q1", "L4.head1", "right", 2)
    room.go(token, 1)
    assert [a.value for a in room.answers_of(token)] == ["L4.head1"] and room.look(key).members[0].step == 1
    assert token not in repr(vars(room)) and "no longer" in refusal(room.member, "forged")


def test_who_leaves_keeps_her_answers_who_is_removed_keeps_nothing(opened):
    room, key = opened
    left, silent, removed = room.join("Left"), room.join("Silent"), room.join("Rude")
    room.answer(left, 1, "q", "a", "right")
    room.answer(removed, 1, "q", "b", "wrong")
    room.leave(left)
    room.leave(silent)
    room.remove(key, 3)
    view = room.look(key)
    assert [(m.name, m.left) for m in view.members] == [("Left", True)] and view.present == ()
    assert [a.value for a in view.answers] == ["a"]
    for token in (left, silent, removed):
        assert "no longer" in refusal(room.answer, token, 1, "q", "c", "right")
    assert "Nobody" in refusal(room.remove, key, 3)
    assert room.member(room.join("Rude")).number == 4, "a number is not given twice"


def test_a_full_room_and_a_closed_door_say_so(opened):
    room, key = opened
    tokens = [room.join() for _ in range(MAX_MEMBERS)]
    assert "full: it has 100 members" in refusal(room.join, "One more")
    room.leave(tokens[0])
    room.join("She comes in her place")
    room.remove(key, 2)
    room.lock(key, True)
    assert "closed this room to newcomers" in refusal(room.join, "x")
    room.lock(key, False)
    room.join("x")


def test_a_full_server_says_so_and_a_closed_room_makes_place(rooms):
    made = [rooms.open("t", STEPS, "x") for _ in range(MAX_ROOMS)]
    assert "holds 20 rooms" in refusal(rooms.open, "t", STEPS, "x")
    made[0][0].close(made[0][1])
    rooms.open("t", STEPS, "x")
    assert rooms.count() == MAX_ROOMS


def test_one_visitor_who_opens_every_room_keeps_no_teacher_out(rooms, clock):
    """Twenty presses of a button kept everybody out for six hours."""
    class_room, key = rooms.open("t", STEPS, "x")
    student = class_room.join("Ann")
    waits, its_key = rooms.open("t", STEPS, "x")  # a teacher whose class has not come yet
    joined = [rooms.open("t", STEPS, "x")[0] for _ in range(3)]
    for room in joined:
        room.join()
    while rooms.count() < MAX_ROOMS:
        rooms.open("t", STEPS, "x")
    assert "all are in use" in refusal(rooms.open, "t", STEPS, "x")
    clock.now += rooms_module.UNJOINED_SECONDS + 1
    waits.look(its_key)
    assert class_room.knows(student)
    for _ in range(MAX_ROOMS - 5):
        clock.now += 0.01
        rooms.open("t", STEPS, "x")
        assert rooms.count() == MAX_ROOMS
    assert not any(room.closed for room in (class_room, waits, *joined)), "those in which somebody is, or just was"
    assert "3 minutes" in refusal(rooms.open, "t", STEPS, "x"), "of the new ones none is left yet"
    clock.now += rooms_module.LEFT_SECONDS
    class_room.look(key), waits.look(its_key)
    made = [rooms.open("t", STEPS, "x")[0] for _ in range(MAX_ROOMS - 2)]
    assert all(room.closed for room in joined) and not any(room.closed for room in (class_room, waits, *made))
    assert rooms.find(class_room.code, Tries(clock)) is class_room


def test_nothing_is_kept_of_a_closed_room(rooms, opened):
    room, key = opened
    token = room.join("Ann")
    room.answer(token, 0, "q", "secret words", "unchecked")
    before = room.signal.number
    room.close(key)
    assert room.closed and room.signal.number > before and not room.knows(token)
    assert "secret words" not in repr(vars(room)) and "Ann" not in repr(vars(room))
    for call, *args in [
        (room.join, "x"),
        (room.member, token),
        (room.look, key),
        (room.answer, token, 0, "q", "x", "right"),
    ]:
        assert f"The room {room.code} is closed, and nothing of it is kept." == refusal(call, *args)
    assert "or no longer" in refusal(rooms.find, room.code, Tries())


def test_a_room_where_nothing_happens_closes_and_waiting_pages_do_not_keep_it_open(rooms, opened, clock):
    room, _ = opened
    token = room.join("Ann")
    clock.now += rooms_module.IDLE_SECONDS - 10
    room.answer(token, 0, "q", "x", "right")
    clock.now += rooms_module.IDLE_SECONDS - 10
    assert rooms.find(room.code, Tries()) is room and room.signal and room.member(token)
    clock.now += 20
    assert "no longer" in refusal(rooms.find, room.code, Tries()) and room.closed and rooms.count() == 0


# ---- answers ---------------------------------------------------------------------------------------------------------
def test_the_first_answers_are_the_predictions_and_the_last_where_all_arrived(opened):
    room, _ = opened
    a, b, c = (room.join() for _ in range(3))
    for token, values in ((a, ("x", "y")), (b, ("z", "x", "y")), (c, ("x",))):
        for value in values:
            room.answer(token, 1, "q", value, "right" if value == "y" else "wrong")
    assert room.distribution(1, "q") == (Tally("x", 2, 0), Tally("z", 1, 0))
    assert room.distribution(1, "q", last=True) == (Tally("y", 2, 2), Tally("x", 1, 0))
    assert room.distribution(1, "other") == () == room.distribution(2, "q")


def test_students_see_what_all_answered_when_it_is_revealed(opened):
    room, key = opened
    room.answer(room.join(), 1, "q", "x", "right")
    assert room.shown(1, "q") is None
    room.reveal(key, 1)
    assert room.shown(1, "q") == (Tally("x", 1, 1),) and room.shown(0, "q") is None
    room.reveal(key, 1, False)
    assert room.shown(1, "q") is None


def test_answers_are_bounded_and_a_chatterbox_takes_no_place_of_others(opened):
    room, _ = opened
    token, other = room.join(), room.join()
    assert "at most 8,000 bytes; got 8,001" in refusal(room.answer, token, 0, "q", "x" * 8001, "right")
    assert "got 16,000" in refusal(room.answer, token, 0, "q", "é" * 8000, "right")
    for _ in range(5):
        room.answer(token, 0, "q", "x" * 8000, "wrong")
    assert "not kept" in refusal(room.answer, token, 0, "q", "x", "right")
    for _ in range(rooms_module.MEMBER_ANSWERS):
        room.answer(other, 0, "q", "", "wrong")
    assert "not kept" in refusal(room.answer, other, 0, "q", "", "right")


@pytest.mark.parametrize(
    ("step", "question", "verdict", "hints"),
    [(-1, "q", "right", 0), (4, "q", "right", 0), (0, "", "right", 0), (0, "<b>", "right", 0),
     (0, "q" * 41, "right", 0), (0, "q", "maybe", 0), (0, "q", "right", -1), (0, "q", "right", 100)],
)  # fmt: skip
def test_an_answer_to_what_the_lesson_does_not_ask_is_refused(opened, step, question, verdict, hints):
    room, key = opened
    assert refusal(room.answer, room.join(), step, question, "x", verdict, hints)
    assert room.look(key).answers == ()


def test_waiting_pages_hear_of_what_they_must_follow_and_of_nothing_else(opened):
    room, key = opened
    token = room.join()
    signal, version = room.signal, room.version
    room.answer(token, 0, "q", "x", "right")
    room.go(token, 0)
    assert room.signal is signal and room.version == version + 1, "an answer; going nowhere is no news"
    room.open_step(key, 2)
    assert room.signal.number == signal.number + 1 and room.signal.reaches(2) and not room.signal.reaches(3)
    room.open_step(key, None)
    assert room.signal.reaches(3)
    room.reveal(key, 1)
    assert room.signal.revealed == {1} and room.version == version + 4


def test_a_lesson_without_steps_or_of_any_size_is_refused(rooms):
    assert "1 to 60 steps; got 0" in refusal(rooms.open, "t", (), "x")
    assert "at most 400,000 bytes" in refusal(rooms.open, "t", STEPS, "x" * 400_001)
    assert rooms.count() == 0


# ---- nicknames -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("given", "shown"),
    [("Ann", "Ann"), ("  Ann \n Bee\t", "Ann Bee"), ("", "Guest 7"), ("\u202e\u200b", "Guest 7"), ("a\u202eb", "ab"),
     ("<b>x</b>", "<b>x</b>"), ("é", "é"), ("Zoë", "Zoë"), ("李雷", "李雷"), ("z" + "\u0301" * 50, "ź\u0301\u0301"),
     ("\ud800", "Guest 7"), ("\u0301a", "a")],
)  # fmt: skip
def test_a_nickname_is_printable(given, shown):
    assert nickname(given, [], 7) == shown


def test_a_nickname_of_ten_thousand_characters_is_refused_and_not_cut():
    assert "at most 24 characters; got 10,000" in refusal(nickname, "x" * 10_000, [], 1)
    assert "got 25" in refusal(nickname, "x" * 25, [], 1)


def test_nicknames_are_unique_by_a_number_and_stay_short():
    taken: list[str] = []
    for _ in range(12):
        taken.append(nickname("N" * 24, taken, 1))
    assert len(set(taken)) == 12 and max(map(len, taken)) == NICKNAME_LENGTH and taken[11].endswith("N 12")
    assert nickname("ann", ["Ann", "Ann 2"], 1) == "ann 3" and nickname("Ａnn", ["Ann"], 1) == "Ａnn 2"


@given(st.lists(st.text(max_size=40), max_size=8))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_whatever_is_typed_names_are_bounded_printable_and_apart(typed):
    taken: list[str] = []
    for number, text in enumerate(typed, 1):
        try:
            taken.append(nickname(text, taken, number))
        except VisitError:
            continue
    assert len({name.casefold() for name in taken}) == len(taken)
    assert all(0 < len(name) <= NICKNAME_LENGTH and name == name.strip() and "\n" not in name for name in taken)
    assert all(name.encode() for name in taken)


# ---- many at once ----------------------------------------------------------------------------------------------------
def together(count: int, work) -> list[BaseException]:
    problems: list[BaseException] = []
    start = threading.Barrier(count)

    def run(i: int) -> None:
        start.wait()
        try:
            work(i)
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return problems


def test_a_hundred_join_and_answer_at_once_and_nothing_is_lost(opened):
    room, key = opened
    names: list[str] = []

    def student(i: int) -> None:
        token = room.join("Ann")
        for n in range(10):
            room.answer(token, 1, "q", f"{n}", "right")
            room.go(token, n % 4)
            room.distribution(1, "q")
        names.append(room.member(token).name)

    assert together(MAX_MEMBERS, student) == []
    view = room.look(key)
    assert len(set(names)) == len(view.members) == MAX_MEMBERS and len(view.answers) == 1000
    assert all([a.value for a in view.answers if a.member == m.number] == list("0123456789") for m in view.members)
    assert sum(one.count for one in room.distribution(1, "q")) == 100


def test_more_than_fit_at_once_are_refused_and_the_bound_holds(rooms, opened):
    room, key = opened
    problems = together(MAX_MEMBERS + 30, lambda i: room.join("Ann"))
    assert len(problems) == 30 and all("full" in str(p) for p in problems) and len(room.look(key).members) == 100
    problems = together(MAX_ROOMS + 10, lambda i: rooms.open("t", STEPS, "x"))
    assert len(problems) == 11 and rooms.count() == MAX_ROOMS


def test_a_teacher_who_rules_while_all_answer_sees_whole_states(opened):
    room, key = opened
    tokens = [room.join() for _ in range(20)]
    seen = []

    def work(i: int) -> None:
        if i == 0:
            for n in range(100):
                room.open_step(key, n % 4)
                room.reveal(key, n % 4)
                seen.append(room.look(key))
        else:
            for _ in range(50):
                room.answer(tokens[i], 1, "q", "x", "wrong")

    assert together(20, work) == []
    assert [v.version for v in seen] == sorted(v.version for v in seen)
    assert all(len(a.answers) <= len(b.answers) for a, b in pairwise(seen))
    assert room.signal.number == 200 and len(room.look(key).answers) == 19 * 50
