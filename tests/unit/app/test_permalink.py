"""A URL is from anybody: what can be read is, everything else becomes a default and a note."""

from __future__ import annotations

import base64
import tracemalloc
import zlib
from urllib.parse import urlencode

import pytest

from visit import VisitError
from visit.app.address import NOTES_TOLD, PACKED, address_params, parse, to_params
from visit.app.graph_panel import level_text, levels
from visit.app.link_values import amount
from visit.app.state import CONTROLS, State, value_of, with_values
from visit.text.packed import packed


def of(**values):
    return with_values(State(), values)


def test_a_state_survives_its_own_address():
    states = [
        State(),
        of(prompt="a & b = <c>\n", pos=3, target=" Tokyo", distractor=" Paris", layers="0,3,7-9", heads="80 %"),
        of(model="openai-community/gpt2", values="6,6", neurons="all", rows="0", by="contribution", node="L4-6.rest"),
        of(detail="3w,5e", node="L9.head6.value4", pin="L1.head2,-L1.head3", color="entropy", sort="index"),
        of(chat=True, whole=True, layer=0, source=0, k=20, ranks=4, seed=7, nshare="10", set="own"),
        of(opened="pattern,life-of-it,part_3"),
        of(zoom=144, find='" Tokyo"', traced="L4.head1", map_color="rank", unfolded="0,3", first="map-4,pattern-0"),
        of(function_words="+well -thing", always=60, over="0123456789ab"),
    ]
    for state in states:
        assert parse(to_params(state)) == (state, [])
    assert to_params(State()) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pos", "x"), ("pos", "1e9"), ("pos", "١"),
        ("layers", "../../etc"), ("layers", "5;6"), ("heads", "-1"),
        ("heads", "NaN"), ("values", "1,2,3"), ("by", "size"), ("color", "<b>"),
        ("node", "<script>alert(1)</script>"),
        ("node", "L9.head6' onload='x"), ("detail", "9z"), ("pin", "a,b"), ("prompt", "x" * 9000),
        ("target", "y" * 300),
        ("opened", "a,,b"), ("opened", "<b>"), ("opened", ",".join("a" * 21)), ("opened", "a" * 31),
        ("zoom", "10"), ("zoom", "9" * 40), ("find", "y" * 300), ("traced", "<b>"),
        ("unfolded", "1,,2"), ("first", "a"),
        ("function_words", "+" + "a" * 50), ("always", "101"), ("over", "../etc"),
        ("model", "a\x00b"), ("model", ""), ("neurons", "1" * 50), ("neurons", "0 %"),
    ],
)  # fmt: skip
def test_a_hostile_value_becomes_its_default_and_a_note(name, value):
    state, notes = parse({name: value, "target": " Tokyo"} if name != "target" else {name: value})
    assert value_of(state, name) == CONTROLS[name].default
    assert len(notes) == 1 and name in notes[0] and len(notes[0]) < 400
    assert name == "target" or state.target == " Tokyo"


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("seed", "abc", "no seed"),
        ("layer", "x", "no layer"),
        ("source", "x", "no position"),
        ("pos", "x", "no position"),
    ],
)
def test_a_refusal_calls_a_number_what_it_is(name, value, what):
    (note,) = parse({name: value})[1]
    assert what in note and (what == "no position" or "position" not in note)


def test_an_emptied_number_is_its_default():
    assert parse({"k": "", "seed": "", "layer": "", "ranks": ""}) == (State(), [])


def test_what_a_new_value_makes_meaningless_are_fields():
    for name, control in CONTROLS.items():
        assert set(control.forgets) <= set(CONTROLS) - {name}


def test_a_long_view_is_packed_and_a_usual_one_can_be_read():
    usual = of(prompt="a & b = <c>\n" * 20, node="L4.head1", detail="4w", edits="L4.head1~zero@-1;" * 20)
    assert address_params(usual) == to_params(usual)
    long = of(prompt="東京は日本の首都です。" * 300, prompt_b="The capital of Japan " * 300, pin="L1.head2," * 90)
    packed = address_params(long)
    assert list(packed) == [PACKED] and len(packed[PACKED]) < 1_900 < len(urlencode(to_params(long)))
    assert parse(packed) == (long, [])
    assert parse(packed | {"pos": "3"}) == (with_values(long, {"pos": 3}), [])


@pytest.mark.parametrize(
    "hostile",
    ["", "x", "!", "é" * 40, "A" * 60_000, packed({"prompt": "x" * 3_000})[:-9], packed({"pos": "x"}) + "AAAA",
     packed({"prompt": "the \ud800 city"}), packed({"\udfff": ""}),
     base64.urlsafe_b64encode(zlib.compress(bytes(50 << 20))).decode(),  # 50 MB of zeros
     base64.urlsafe_b64encode(zlib.compress(b"[" * 100_000)).decode(),
     base64.urlsafe_b64encode(zlib.compress(b'{"prompt": 1}')).decode()],
)  # fmt: skip
def test_a_packed_view_that_is_damaged_or_hostile_is_a_note(hostile):
    tracemalloc.start()
    state, notes = parse({PACKED: hostile, "target": " Tokyo"})
    largest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert state == of(target=" Tokyo") and len(notes) == 1 and len(notes[0]) < 200 and largest < 2 << 20


def test_what_is_packed_is_no_better_trusted_than_what_is_written():
    state, notes = parse({PACKED: packed({"node": "<script>", "pos": "x", "utm": "1", "target": " Tokyo"})})
    assert state == of(target=" Tokyo") and len(notes) == 2


def test_many_bad_values_are_a_few_notes():
    _, notes = parse(dict.fromkeys(CONTROLS, "<script>" * 50))
    assert len(notes) == NOTES_TOLD + 1 and "more values" in notes[-1]
    assert sum(len(note) for note in notes) < 2_000


def test_unknown_parameters_are_ignored():
    assert parse({"utm_source": "mail", "embed": "true"}) == (State(), [])


def test_a_hosted_app_refuses_other_models_in_a_link(monkeypatch):
    monkeypatch.setenv("VISIT_HOSTED", "1")
    state, notes = parse({"model": "/etc"})
    assert state.model == "visit-mini" and "hosted" in notes[0]


def test_amounts_are_read_as_people_write_them():
    read = {"12": 12, " 0 ": 0, "80 %": 0.8, "80%": 0.8, "0.8": 0.8, "6,6": (6, 6), "all": None, "": None, "ALL": None}
    for text, found in read.items():
        assert amount(text) == found
    for text in ("-1", "1.5", "101 %", "a", "1,a", "∞", "²"):
        with pytest.raises(VisitError):
            amount(text)


def test_levels_are_read_back_as_written():
    default = {0: "states", 1: "words", 2: "states"}
    assert levels("", [0, 1, 2], default) == default
    assert levels("everything", [0, 1], {}) == {0: "everything", 1: "everything"}
    for found in (default, dict.fromkeys(range(3), "words"), {0: "everything", 1: "states", 2: "words"}):
        assert levels(level_text(found), [0, 1, 2], {}) == found


def test_a_link_from_when_drawings_always_stood_on_compare_still_shows_them():
    from streamlit.testing.v1 import AppTest

    def page() -> None:
        import streamlit as st

        from visit.app.sessions import open_page, state

        open_page("flow" if "model" in st.query_params else "compare")
        st.text(state().opened)

    for params, opened in (
        ({"view": "difference"}, "flows"),
        ({"node": "L4.head1"}, "flows"),
        ({"node": "L4.head1", "opened": "answers"}, "answers"),
        ({"prompt_b": "Paris is"}, ""),
        ({"node": "L4.head1", "model": "visit-mini"}, ""),
    ):
        app = AppTest.from_function(page)
        for name, value in params.items():
            app.query_params[name] = value
        assert app.run().text[0].value == opened, params


def test_every_figure_of_a_study_can_stand_in_a_link():
    """Of those "early" could not: what a quick run had made was gone with a reload, and with the link of it."""
    from visit.studies.settings import FIGURES

    for figures in (*FIGURES, ",".join(FIGURES)):
        found, notes = parse({"figures": figures})
        assert found.studies.figures == figures and not notes
