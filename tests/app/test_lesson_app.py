"""Lessons on the pages: whole walks without a browser, what is held back, and what is said to every answer."""

from __future__ import annotations

import json

import pytest
from escapes import as_read, links, markdown_of, with_addresses
from streamlit.testing.v1 import AppTest

from visit.app.address import parse
from visit.app.lesson_question import markdown
from visit.lessons.lesson import address_of
from visit.lessons.results import Result, read_result, write_result
from visit.lessons.shipped import shipped_lesson, shipped_lessons, shipped_text


def start(page: str = "learn", **params: str) -> AppTest:
    app = AppTest.from_file("../../streamlit_app.py", default_timeout=90)
    for name, value in params.items():
        app.query_params[name] = value
    return app.run().switch_page(f"pages/{page}.py").run()


def said(app: AppTest) -> str:
    every = [*app.markdown, *app.caption, *app.success, *app.warning, *app.info, *app.error]
    return "\n".join(one.value for one in every).replace("\\", "")


def answer(app: AppTest, key: str, text: str) -> AppTest:
    """Type an answer in the panel and check it."""
    field = next(f for f in [*app.text_input, *app.text_area] if f.key.endswith(f"_{key}"))
    field.set_value(text)
    return app.button(key=f"check_{key}").click().run()


def drawn(app: AppTest) -> set[str]:
    return {c.proto.component_name for c in app.get("bidi_component")}


def onward(app: AppTest, key: str = "lesson_next") -> AppTest:
    """Press a button that leads to another page: AppTest itself does not go along."""
    app.button(key=key).click().run()
    return app.switch_page(f"pages/{app.session_state['visit'].page}.py").run()


def test_the_page_learn_lists_every_lesson_with_what_it_takes():
    app = start()
    assert not app.exception and not app.error
    text = said(app)
    for name in shipped_lessons():
        lesson = shipped_lesson(name)
        assert lesson.about.replace("*", "") in text.replace("*", "") and f"{lesson.minutes} minutes" in text
        assert lesson.goals[0].replace("*", "") not in text.replace("*", "")  # before the questions it is an answer
        assert app.button(key=f"begin_{name}")


def test_a_prediction_is_asked_before_the_answer_is_drawn():
    app = start("flow", lesson="3-recall", step="1", prompt="The capital of Japan is the city of")
    assert not app.exception and not app.error
    assert not {"visit_flow", "visit_story", "visit_lens_map"} & drawn(app)
    assert "99.5" not in said(app) and not tokens(app)["following"]
    assert said(app).count("would give the answer away") == 1
    answer(app, "step1.1", "Kyoto")
    assert not app.exception and "it is a good guess" in said(app)
    assert "visit_lens_map" in drawn(app) and not {"visit_flow", "visit_story"} & drawn(app)
    assert "give away what the next steps ask" in said(app) and tokens(app)["following"][0][0] == "·Tokyo"
    answer(app, "step1.1", "Tokyo")
    assert app.success and "99.5" in said(app)


def tokens(app: AppTest) -> dict:
    return next(d for c in app.get("bidi_component") if "tokens" in (d := json.loads(c.proto.json or "{}")))


def test_a_page_that_is_loaded_anew_in_the_middle_of_a_lesson_has_its_answers():
    app = start("flow", lesson="3-recall", step="1")
    app.button(key="hint_step1.1").click().run()
    answer(app, "step1.1", "tokyo")
    way = app.session_state["visit"].way
    assert app.query_params["way"] in (way, [way]) and len(way) == 16
    anew = start("flow", lesson="3-recall", step="1", way=way)
    (mine,) = anew.session_state["visit"].progress.values()
    assert mine.answers["step1.1"].given == " Tokyo" and mine.hints["step1.1"] == 1
    assert anew.success and "99.5" in said(anew)
    stranger = start("flow", lesson="3-recall", step="1", way="x" * 16)
    assert not stranger.success and not stranger.exception


def test_three_hints_the_last_shows_the_answer_and_is_counted():
    app = start("flow", lesson="3-recall", step="1")
    for _ in range(3):
        app.button(key="hint_step1.1").click().run()
    assert not app.exception and any("Tokyo" in one.value for one in app.success)
    now = app.session_state["visit"].progress
    (mine,) = now.values()
    assert mine.answers["step1.1"].hints == 3 and mine.answers["step1.1"].given == " Tokyo"


def test_a_click_in_the_graph_stands_in_the_field():
    app = start("flow", lesson="3-recall", step="3", node="L4.head7", detail="4w")
    field = next(f for f in app.text_input if f.key.endswith("_step3.1"))
    assert field.value == "L4.head7"
    app.button(key="check_step3.1").click().run()
    assert "comes second" in said(app)
    app.query_params["node"] = "L4.head1"
    app.run()
    field = next(f for f in app.text_input if f.key.endswith("_step3.1"))
    assert field.value == "L4.head1"
    app.button(key="check_step3.1").click().run()
    assert app.success and "+2.5 logits" in said(app)


def test_the_learners_own_text_is_checked_instead():
    app = start("flow", lesson="3-recall", step="1", prompt="The capital of France is the city of")
    assert "Checked on your own text" in said(app)
    answer(app, "step1.1", "Tokyo")
    assert not app.success
    answer(app, "step1.1", "Paris")
    assert any("Paris" in one.value for one in app.success)


def test_a_link_to_a_step_without_its_text_opens_the_lessons():
    app = start("whatif", lesson="4-names", step="4")
    whole = address_of(shipped_lesson("4-names"), shipped_lesson("4-names").steps[3])
    shown = app.session_state["visit"].state
    assert shown == parse({**whole, "lesson": "4-names", "step": "4"})[0]
    assert "Checked on your own text" not in said(app) and not app.exception
    app = start("whatif", lesson="4-names", step="4", edits="L4.head1~zero@-1")
    shown = app.session_state["visit"].state
    assert (shown.prompt, shown.whatif.edits) == (whole["prompt"], "L4.head1~zero@-1")
    app = start("whatif", lesson="4-names", step="4", prompt="The capital of France is the city of")
    assert "Checked on your own text" in said(app)


def test_a_free_answer_that_was_not_kept_is_kept_by_next():
    lesson = shipped_lesson("3-recall")
    number, key = next((n, q.key) for n, s in enumerate(lesson.steps, 1) for q in s.questions if q.kind == "free")
    app = start(lesson.steps[number - 1].page, lesson="3-recall", step=str(number))
    for question in lesson.steps[number - 1].questions:
        if question.kind == "free":
            break
        while not _done(app, question.key):
            app.button(key=f"hint_{question.key}").click().run()
    next(f for f in app.text_area if f.key.endswith(f"_{key}")).set_value("Heads look back.")  # and at once Next
    onward(app)
    (mine,) = app.session_state["visit"].progress.values()
    assert mine.answers[key].given == "Heads look back." and mine.answers[key].tries == 1
    onward(app, "lesson_back")
    field = next(f for f in app.text_area if f.key.endswith(f"_{key}"))
    assert field.value == "Heads look back."
    onward(app)
    assert mine.answers[key].tries == 1, "what was kept is not given twice"


# a newcomer walks one; the slow lane the others
WALKED = [n if n == "3-recall" else pytest.param(n, marks=pytest.mark.slow) for n in shipped_lessons()]


@pytest.mark.parametrize("name", WALKED)
def test_a_whole_lesson_is_walked_to_its_result_file(name):
    lesson = shipped_lesson(name)
    app = start("learn", lesson=name)
    assert not app.exception and "Guess freely" in said(app)
    for n, _ in enumerate(lesson.twice, 1):
        next(r for r in app.radio if r.key.endswith(f"before.{n}")).set_value(0).run()
    onward(app)
    for number, step in enumerate(lesson.steps, 1):
        state = app.session_state["visit"]
        assert (state.state.lesson, state.state.step, state.page) == (name, number, step.page), (number, state.page)
        assert not app.exception and not app.error, said(app)
        for question in step.questions:
            if question.kind == "free":
                answer(app, question.key, "I believe that others make up for it.")
                continue
            while not state.progress or not _done(app, question.key):
                app.button(key=f"hint_{question.key}").click().run()
                assert not app.exception
        assert not app.warning, [w.value for w in app.warning]
        onward(app)
    for n, question in enumerate(lesson.twice, 1):
        right = next(i for i, option in enumerate(question.options) if option.right)
        next(r for r in app.radio if r.key.endswith(f"after.{n}")).set_value(right).run()
    onward(app)
    assert not app.exception and "of 4 right, after it 4" in said(app).lower()
    (mine,) = app.session_state["visit"].progress.values()
    assert {q.key for q in lesson.questions} <= set(mine.answers)
    assert all(one.model == "visit-mini" and one.token_ids for one in mine.runs.values())


def _done(app: AppTest, key: str) -> bool:
    return any(one.done(key) for one in app.session_state["visit"].progress.values())


def test_steps_can_be_walked_back_and_the_lesson_be_left():
    app = start("flow", lesson="3-recall", step="2")
    onward(app, "lesson_back")
    assert app.session_state["visit"].state.step == 1
    app.button(key="lesson_leave").click().run()
    assert app.session_state["visit"].state.lesson == "" and "visit_flow" in drawn(app) and not app.exception


def test_nothing_of_a_lesson_is_on_a_page_without_one():
    app = start("flow")
    assert not app.exception and not any("lesson" in (b.key or "") for b in app.button)


@pytest.mark.parametrize("params", [{"lesson": "none-such"}, {"lesson": "3-recall", "step": "99"}, {"lesson": "<b>"}])
def test_a_link_to_no_lesson_is_said_and_the_page_stands(params):
    app = start("flow", **params)
    assert not app.exception and {"visit_flow", "visit_story"} <= drawn(app)


def test_a_lesson_of_ones_own_says_its_mistakes_by_line_and_runs():
    app = start()
    text = shipped_text("3-recall")
    broken = text.replace("open: /flow\n", "open: /garden\n", 1)
    line = broken.split("\n").index("open: /garden") + 1
    app.text_area(key="lesson_pasted").set_value(broken)
    app.button(key="lesson_read").click().run()
    assert not app.exception and "1 mistake" in app.error[0].value and f"**Line {line}**" in said(app)
    app.text_area(key="lesson_pasted").set_value(text.replace("A head recalls", "My <b>own</b> lesson"))
    app.button(key="lesson_read").click().run()
    assert not app.error and "has no mistakes" in app.success[0].value
    onward(app, "begin_own")
    assert not app.exception and app.session_state["visit"].state.lesson.startswith("own-")
    assert "<b>" not in app.title[0].value.replace("\\<b", "")


def test_what_a_lesson_says_is_no_link_no_picture_and_no_html():
    told = markdown("![x](http://evil.example/x.png) <script> **bold** [a](b) $x$ :red[y]\n- item `code`")
    assert "\\!\\[x\\]" in told and "\\<script" in told and "**bold**" in told and "\n- item `code`" in told


def test_no_address_in_a_lesson_is_a_link():
    """In every text of it, on the page that opens it, in its questions, its hints and what is said to answers."""
    app = start()
    app.text_area(key="lesson_pasted").set_value(with_addresses(shipped_text("3-recall")))
    app.button(key="lesson_read").click().run()
    assert not app.error, said(app)
    onward(app, "begin_own")
    seen = markdown_of(app)
    onward(app)
    app.button(key="hint_step1.1").click().run()
    seen += markdown_of(answer(app, "step1.1", "Kyoto"))
    seen += markdown_of(answer(app, "step1.1", "Tokyo"))
    assert not app.exception and sum("elsewhere.invalid" in as_read(text) for text in seen) > 12
    assert not [text for text in seen if links(text)]


@pytest.mark.parametrize("name", shipped_lessons())
def test_every_link_of_a_lesson_can_be_opened(name):
    lesson = shipped_lesson(name)
    for step in lesson.steps:
        given = address_of(lesson, step)
        state, notes = parse(given)
        assert not notes and state.prompt == given["prompt"]
        from visit.app.state import CONTROLS

        assert set(given) <= set(CONTROLS), given


def test_a_result_is_what_was_done():
    app = start("flow", lesson="3-recall", step="1")
    answer(app, "step1.1", "Kyoto")
    answer(app, "step1.1", "Tokyo")
    (mine,) = app.session_state["visit"].progress.values()
    given = mine.answers["step1.1"]
    assert (given.given, given.right, given.tries) == (" Tokyo", True, 2) and given.run == "run1"
    result = Result("3-recall", "t", "e", "2026-11-27T10:00:00Z", 1.0, "", (given,), tuple(mine.runs.values()))
    assert read_result(write_result(result)) == result
