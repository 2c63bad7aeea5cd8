"""What is measured beside a page, and what is not because nobody looks at it any more."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from visit.app import measuring
from visit.app.measuring import Measuring


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look counts however long the machine stands still."""
    monkeypatch.setattr(measuring, "LEFT", 600.0)


def _ended(one: Measuring, made: list[int], how: str) -> None:
    """Begin it while another is measured, and let its turn come."""
    with measuring.ONE_AT_A_TIME:
        (one.ask if how == "asked" else one.begin)(lambda: made.append(1))
        if how == "left":
            one.looked = time.monotonic() - measuring.LEFT - 1
        mine = [thread for thread in threading.enumerate() if thread.name == "measuring"]
    for thread in mine:
        thread.join(20)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("how, count", [("looked at", 1), ("left", 0), ("asked", 1)])
def test_what_nobody_looks_at_when_its_turn_comes_is_not_measured(how: str, count: int) -> None:
    """A class goes on to the next prompt faster than it is measured; a button's wish is measured in any case."""
    one, made = Measuring(), []
    one.look()
    _ended(one, made, how)
    assert len(made) == count and one.ended.is_set() == bool(count)


@pytest.mark.usefixtures("patient")
def test_what_was_left_is_measured_when_somebody_comes_back() -> None:
    one, made = Measuring(), []
    one.look()
    _ended(one, made, "left")
    one.look()
    _ended(one, made, "looked at")
    assert made == [1] and one.ended.is_set()


def _hosted_visitor(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("VISIT_HOSTED", "1")
    monkeypatch.setattr(measuring, "session", lambda: SimpleNamespace(visitor=name))


def test_one_visitor_of_a_hosted_app_who_asks_ten_times_has_one_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each keeps all others from theirs, for minutes: the last wish of a visitor counts, if its turn comes soon."""
    made: list[str] = []
    monkeypatch.setattr(measuring, "LEFT", 0.0)
    with measuring.ONE_AT_A_TIME:
        for n in range(10):
            _hosted_visitor(monkeypatch, "greedy")
            Measuring().ask(lambda n=n: made.append(f"greedy {n}"))
        _hosted_visitor(monkeypatch, "other")
        Measuring().ask(lambda: made.append("other"))
        late = Measuring()
        _hosted_visitor(monkeypatch, "gone")
        late.ask(lambda: made.append("late"))
        assert late.looked < time.monotonic() + measuring.HOSTED_WISH + 1
        late.looked = time.monotonic() - 1  # it has waited for longer than that
        mine = [thread for thread in threading.enumerate() if thread.name == "measuring"]
    for thread in mine:
        thread.join(20)
    assert sorted(made) == ["greedy 9", "other"] and not late.begun.locked()


def test_a_measurement_that_nobody_looks_at_waits_with_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "LEFT", 0.05)
    left, other = Measuring(), Measuring()
    with measuring.ONE_AT_A_TIME:
        left.begin(lambda: None)
        other.ask(lambda: None)
        end = time.monotonic() + 20
        while left.begun.locked():
            assert time.monotonic() < end
            time.sleep(0.01)
        assert other.begun.locked()
    assert other.ended.wait(20)


def test_what_takes_minutes_is_not_measured_on_a_hosted_app(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(measuring.st, "caption", said.append)
    assert not measuring.too_long_here(1e9)
    monkeypatch.setenv("VISIT_HOSTED", "1")
    assert measuring.too_long_here(400.0) and "at most 3 min " in said[0]
    assert not measuring.too_long_here(100.0)
