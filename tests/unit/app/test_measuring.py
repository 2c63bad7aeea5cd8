"""What is measured beside a page, and what is not because nobody looks at it any more."""

from __future__ import annotations

import threading
import time

import pytest

from visit.app import measuring
from visit.app.measuring import LEFT, Measuring


def _ended(one: Measuring, made: list[int], how: str) -> None:
    """Begin it while another is measured, and let its turn come."""
    with measuring.ONE_AT_A_TIME:
        (one.ask if how == "asked" else one.begin)(lambda: made.append(1))
        if how == "left":
            one.looked = time.monotonic() - LEFT - 1
        mine = [thread for thread in threading.enumerate() if thread.name == "measuring"]
    for thread in mine:
        thread.join(20)


@pytest.mark.parametrize("how, count", [("looked at", 1), ("left", 0), ("asked", 1)])
def test_what_nobody_looks_at_when_its_turn_comes_is_not_measured(how: str, count: int) -> None:
    """A class goes on to the next prompt faster than it is measured; a button's wish is measured in any case."""
    one, made = Measuring(), []
    one.look()
    _ended(one, made, how)
    assert len(made) == count and one.ended.is_set() == bool(count)


def test_what_was_left_is_measured_when_somebody_comes_back() -> None:
    one, made = Measuring(), []
    one.look()
    _ended(one, made, "left")
    one.look()
    _ended(one, made, "looked at")
    assert made == [1] and one.ended.is_set()
