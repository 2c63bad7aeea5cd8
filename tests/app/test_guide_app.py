"""The guide on every page: five steps over the pass on screen, each marks parts that the page has, and leads on."""

from __future__ import annotations

import json

import pytest
from streamlit.testing.v1 import AppTest

from visit.app.marks import Mark, _style

PAGES = ["flow", "compare", "whatif", "memory", "layernorm", "neurons", "study", "trace", "heads"]


def start(page: str, **params: str) -> AppTest:
    app = AppTest.from_file("../../streamlit_app.py", default_timeout=60)
    for name, value in params.items():
        app.query_params[name] = value
    return app.run().switch_page(f"pages/{page}.py").run()


def said(app: AppTest) -> str:
    """The sentences of the strip."""
    found = [json.loads(c.proto.json) for c in app.get("bidi_component") if c.proto.id.endswith("guide_said")]
    return " ".join("".join(piece for piece, _ in one) for one in found[0]["sentences"])


def marks(app: AppTest) -> list[str]:
    found = [json.loads(c.proto.json) for c in app.get("bidi_component") if '"parts"' in c.proto.json]
    return [part for one in found for part in one["parts"]]


def own_key(block) -> set[str]:
    """The name of a container; empty of what has none."""
    has = getattr(block, "proto", None) is not None and hasattr(block.proto, "id")
    return {block.proto.id.split("-")[-1]} if has else set()


def keys(block) -> set[str]:
    """The names of all containers of the page."""
    return own_key(block).union(*(keys(child) for child in getattr(block, "children", {}).values()))


def parts_of(block) -> list:
    """The blocks of all parts that can be dimmed."""
    inside = [one for child in getattr(block, "children", {}).values() for one in parts_of(child)]
    return [block, *inside] if any(key.startswith("part_") for key in own_key(block)) else inside


@pytest.mark.parametrize("page", PAGES)
def test_five_steps_are_walked_and_each_marks_parts_that_the_page_has(page):
    app = start(page)
    assert not app.exception and not marks(app)
    app.button(key="guide_me").click().run()
    told = []
    for step in range(1, 6):
        assert not app.exception and not app.error and app.query_params["guide"] == str(step)
        told.append(said(app))
        assert marks(app) and {f"part_{part}" for part in marks(app)} <= keys(app.main), marks(app)
        assert not any("guide_strip" in keys(one) for one in parts_of(app.main)), "it would be dimmed with a part"
        app.button(key="guide_next").click().run()
    assert len(set(told)) == 5 and all(told)
    assert "guide" not in app.query_params and not marks(app) and app.button(key="guide_me")


@pytest.mark.parametrize("page", PAGES)
def test_it_can_be_left_at_any_step_and_walked_back(page):
    app = start(page, guide="3")
    app.button(key="guide_back").click().run()
    assert app.query_params["guide"] == "2"
    app.button(key="guide_leave").click().run()
    assert "guide" not in app.query_params and not marks(app)


def test_the_step_stands_in_the_address_and_a_wrong_one_is_said():
    app = start("flow", guide="7")
    assert app.button(key="guide_me") and any("guide" in note.value for note in app.info)


def test_a_label_cannot_leave_its_style():
    style = _style((Mark("map", label='"} </style><script>x(1)'),))
    assert "<" not in style.split("::before")[1] and '"}' not in style.split("content:")[1].split(";")[0]
    assert _style((Mark("map"), Mark("a b}"))).count("st-key-part_") == _style((Mark("map"),)).count("st-key-part_")


def test_two_prompts_that_differ_are_told_step_by_step():
    app = start("compare", guide="1", prompt_b="The capital of France is the city of")
    for words in ("“·Japan”", "“·Tokyo”", "diverge", "pushes hardest", "changes most"):
        assert words in said(app) and not app.exception
        app.button(key="guide_next").click().run()
