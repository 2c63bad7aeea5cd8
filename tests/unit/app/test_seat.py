"""A place in a class: it comes from the address, goes back into it, and no link inside VISIT takes it away."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from visit.app.address import Seat, seat_of, to_params

ME, KEY = "a" * 16, "k" * 24


def test_an_address_gives_a_seat_and_one_without_a_room_leaves_it():
    seat, notes = seat_of({"room": "bcdf", "me": ME}, Seat())
    assert (seat, notes) == (Seat("BCDF", ME), [])
    assert seat_of({"prompt": "x"}, seat) == (seat, [])
    assert seat_of({"me": "b" * 16}, seat) == (seat, []), "a token without its room is nothing"


def test_the_link_of_the_same_room_keeps_who_sits_there_and_another_does_not():
    seat = Seat("BCDF", ME)
    assert seat_of({"room": "BCDF"}, seat)[0] == seat
    assert seat_of({"room": "GHJK"}, seat)[0] == Seat("GHJK")
    assert seat_of({"room": "BCDF", "key": KEY}, seat)[0] == Seat("BCDF", ME, KEY)


@pytest.mark.parametrize(
    "params",
    [{"room": "<b>"}, {"room": ""}, {"room": "x" * 10_000}, {"room": "BCDF", "me": "../x"},
     {"room": "BCDF", "key": "k"},
     {"room": "BCDF", "me": "ａ" * 16}, {"room": "BCDF\n"}],
)  # fmt: skip
def test_what_is_no_seat_is_said_and_not_used(params):
    seat, notes = seat_of(params, Seat())
    assert (seat.me, seat.key) == ("", "") and (notes or seat == Seat("BCDF"))


def test_the_state_that_is_shared_holds_no_seat_and_a_page_that_is_moved_to_keeps_it():
    app = AppTest.from_file("../../../streamlit_app.py", default_timeout=120)
    app.query_params["room"], app.query_params["me"] = "bcdf", ME
    app.run().switch_page("pages/glossary.py").run()
    assert not app.exception and app.query_params["room"] in ("BCDF", ["BCDF"])
    assert app.session_state["visit"].seat == Seat("BCDF", ME)
    assert not {"room", "me", "key"} & set(to_params(app.session_state["visit"].state))
