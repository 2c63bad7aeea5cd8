"""What a visitor with bad intentions sends is bounded, and is a text where it stands: files, answers, titles."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import streamlit as st
from streamlit.proto.WidgetStates_pb2 import WidgetStates
from streamlit.runtime.state import SafeSessionState, SessionState, session_state_proxy

from visit.app import follow, lesson_question, page_files, room_teacher
from visit.app.recipes import Recipe
from visit.app.sessions import forget_fields, forget_forged
from visit.errors import VisitError
from visit.figures import aside
from visit.figures.svg import chart_svg
from visit.files import png as png_module
from visit.files.figure_file import figure_bytes
from visit.files.png import MOST_PIXELS, fitting_scale, png
from visit.lessons.check import Judged
from visit.runs import prompts

PICTURE = "<img src=http://elsewhere.invalid/i.png> ![t](http://elsewhere.invalid/t.png)"
SIZES = [("width='12000' height='4000'", 4.0), ('viewBox="0 0 12000 4000"', 4.0), ('width="90000px" height="10"', 9.0)]


@pytest.mark.parametrize(("size", "scale"), SIZES)
def test_a_picture_of_a_giant_graph_has_a_bounded_number_of_pixels(size, scale, monkeypatch):
    """At 4 pixels a unit an opened graph of 12,000 × 4,000 took 5.9 GB."""
    drawn: list[float] = []
    monkeypatch.setattr(png_module, "_has_fonts", lambda: True)
    monkeypatch.setattr(png_module, "_rasterise", lambda svg, zoom: drawn.append(zoom) or b"")
    png(f"<svg xmlns='x' {size}><rect width='9' height='9'/></svg>", scale)
    wide, high = (float(number) for number in re.findall(r"\d+", size)[-2:])
    assert drawn[0] <= scale and wide * high * drawn[0] ** 2 <= MOST_PIXELS * 1.001
    assert wide * high * scale**2 <= MOST_PIXELS or drawn[0] ** 2 * wide * high > 0.99 * MOST_PIXELS


def test_a_picture_of_usual_size_has_the_pixels_that_are_asked_for():
    assert fitting_scale('<svg width="1400.00" height="900.00" viewBox="0 0 1 1">', 4) == 4
    assert fitting_scale("<p>", 2) == 2


def test_a_prompt_with_a_fence_in_it_stays_inside_the_notebook_s_code():
    command = f"python -m visit graph --prompt 'x\n```\n{PICTURE}\n````\n'"
    made = page_files._notebook_bytes(Recipe("q", command, ()), "t", "", [], {"versions": {"visit": "1"}})
    head = json.loads(made)["cells"][0]["source"]
    fence, inside = re.search(r"(?ms)^(`{3,})sh\n(.*?)\n\1$", head).groups()
    assert inside == command and fence not in command


def test_the_title_of_a_room_is_a_text_on_the_wall(monkeypatch):
    """It comes from a lesson's file, or from a saved room that somebody gave to a teacher."""
    shown = MagicMock()
    monkeypatch.setattr(room_teacher, "st", shown)
    monkeypatch.setattr(room_teacher, "join_link", lambda room: "http://class.invalid/learn?room=BCDF")
    room_teacher._door(SimpleNamespace(code="BCDF", title=f"A & B: {PICTURE}"))
    html = shown.html.call_args_list[0].args[0]
    assert "<img" not in html and "A &amp; B: &lt;img" in html and "\\" not in html


def test_an_answer_that_no_field_would_take_is_cut_before_it_is_kept(monkeypatch):
    given: list[str] = []
    monkeypatch.setattr(lesson_question.st, "session_state", {"answer": "x" * 5_000_000})
    monkeypatch.setattr(lesson_question, "progress", lambda _: SimpleNamespace(told={}))
    monkeypatch.setattr("visit.lessons.check.judge", lambda *asked: given.append(asked[2]) or Judged(None, "", ""))
    lesson_question.take_answer(None, None, "1.1", None, "answer", True)
    assert [len(text) for text in given] == [lesson_question.TYPED_ANSWER]


def test_a_file_of_millions_of_rows_that_are_none_is_not_read_to_its_end(monkeypatch):
    """Four million bad lines took 40 s, and 0.3 GB of notes of which a hundred are shown."""
    monkeypatch.setattr(prompts, "MAX_LEFT_OUT", 1000)
    found = prompts.read_prompts(b"Paris is in\n" + b"\xff\n" * 50_000 + b"Rome is in\n", "a.txt")
    assert [row.prompt for row in found.rows] == ["Paris is in"]
    assert len(found.notes) == prompts.NOTES_SHOWN + 1 and str(found.notes[-1]).startswith("901 more rows")


@pytest.mark.parametrize("kind", ["png", "pdf", "chart"])
def test_a_large_drawing_is_made_in_a_process_of_its_own(kind, monkeypatch):
    """The libraries keep Python's lock: a PDF of 9,000 nodes stopped the whole server, for everybody, for 23 s."""
    begun: list[list[str]] = []

    def run(_command, input, **_options):
        begun.append(json.loads(input)[:2])
        return SimpleNamespace(returncode=0, stdout=b"<svg >", stderr=b"")

    monkeypatch.setattr(png_module, "_has_fonts", lambda: True)
    monkeypatch.setattr(aside.subprocess, "run", run)
    if kind == "chart":
        rows = [{"a": n, "b": n} for n in range(5000)]
        chart = {"data": {"values": rows}, "mark": "point", "encoding": {"x": {"field": "a"}}}
        chart_svg(chart, "points")
    else:
        figure_bytes("<svg viewBox='0 0 9 9'>" + "<text>word</text>" * 5000 + "</svg>", kind)
    assert begun == [{"png": ["resvg_py", "svg_to_bytes"], "pdf": ["vl_convert", "svg_to_pdf"],
                      "chart": ["vl_convert", "vegalite_to_svg"]}[kind]]  # fmt: skip


def test_what_is_drawn_aside_is_what_the_library_makes(monkeypatch):
    """This process's functions are patched, and those of another are not: so it is seen which of them drew."""
    monkeypatch.setattr("html.escape", lambda s: "drawn here")
    assert aside.drawn_aside("html", "escape", s="<") == b"drawn here"
    assert aside.drawn_aside("html", "escape", s="<" * aside.DRAWN_HERE) == b"&lt;" * aside.DRAWN_HERE
    with pytest.raises(VisitError, match=r"cannot be made \(.*no attribute 'nothing'"):
        aside.drawn_aside("html", "nothing", s="<" * aside.DRAWN_HERE)
    monkeypatch.setattr(aside, "DRAWING_SECONDS", 0.001)
    with pytest.raises(VisitError, match="takes longer"):
        aside.drawn_aside("html", "escape", s="<" * aside.DRAWN_HERE)


@pytest.mark.parametrize("kind", [VisitError, type("PanicException", (BaseException,), {})])
def test_what_fails_in_a_part_that_is_looked_at_again_is_a_sentence(kind, monkeypatch):
    """A panic there ended the thread of the session, and the page hung."""

    def draw():
        raise kind("index out of bounds")

    told: list[str] = []
    monkeypatch.setattr("visit.app.problems.show_problem", lambda problem: told.append(str(problem)))
    monkeypatch.setattr(follow, "session", lambda: SimpleNamespace(drawn=None))
    follow._look(draw, ())
    assert len(told) == 1 and "index out of bounds" in told[0]


def test_names_of_widgets_that_are_none_are_no_exception(monkeypatch):
    """A browser of its owner's making sends any: each was a traceback in the log, and others waited for it 24 s."""
    known = SafeSessionState(SessionState(), lambda: None)
    monkeypatch.setattr(session_state_proxy, "get_session_state", lambda: known)
    forged = WidgetStates()
    forged.widgets.add(id="$$WIDGET_ID-x-w_model", string_value="x")
    known.on_script_will_rerun(forged)
    st.session_state["w_prompt"], st.session_state["other"] = "kept from before", 1
    with pytest.raises(KeyError):
        list(st.session_state)
    forget_forged()
    assert {"w_prompt", "other"} <= set(st.session_state)
    forget_fields()
    assert "w_prompt" not in st.session_state and st.session_state["other"] == 1
