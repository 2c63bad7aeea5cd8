"""The start page: what it claims is what visit-mini does, every link opens what it says, nothing is loaded for it."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import visit
from visit.app.address import parse
from visit.app.home import DOORS, ELEMENTS, EXAMPLE, HEAD, LINKS, QUESTIONS, Link, carries_state, example_svg, home_html
from visit.app.state import CONTROLS, DEFAULT_PROMPT, DEFAULT_PROMPT_B
from visit.text.numbers import percent

ROOT = Path(__file__).parents[2]
APP = "../../streamlit_app.py"


def opened(link: Link | None = None, **params: str) -> AppTest:
    app = AppTest.from_file(APP, default_timeout=60)
    for name, value in {**(link.query if link else {}), **params}.items():
        app.query_params[name] = value
    return (app.switch_page(f"pages/{link.page}.py") if link else app).run()


def said(app: AppTest) -> str:
    """All text that a visitor reads, that of our components included."""
    ours = [json.loads(c.proto.json or "{}") for c in app.get("bidi_component")]
    stories = [piece for data in ours for sentence in data.get("sentences", []) for piece, _ in sentence]
    return " ".join([*stories, *(e.value for e in [*app.markdown, *app.caption, *app.metric, *app.title])])


# ---- what it claims --------------------------------------------------------------------------------------------------
def test_what_the_picture_says_is_what_the_model_does():
    e, model = EXAMPLE, visit.load_model("visit-mini")
    acts = visit.capture(model, DEFAULT_PROMPT)
    assert [t.strip() for t in acts.tokens] == list(e.words)
    target = int(acts.logits[-1].argmax())
    assert model.vocabulary[target] == f" {e.answer}"
    assert percent(float(acts.logits[-1].softmax(-1)[target])) == e.prob
    table = visit.lens_map(model, acts, target, positions=[-1]).query("depth > 0")
    assert table["prob"].tolist() == pytest.approx(e.by_block, abs=5e-4)
    leads = table.loc[table["rank"] == 1, "layer"].tolist()
    assert leads == list(range(e.first, model.n_layers)), "it leads from that block on, and not before"

    effects = visit.effects(model, acts)
    assert len(effects) == e.heads
    most = effects.loc[effects["contribution"].idxmax()]
    assert most["node"] == HEAD and f"{most['contribution']:+.1f}" == e.adds
    pattern = acts.pattern[e.layer][e.head][-1]
    assert int(pattern.argmax()) == e.source and percent(float(pattern.max())) == e.pattern
    without = visit.ablate(model, acts, [visit.Edit(HEAD, "zero", None, -1)]).table.set_index("quantity")
    assert percent(without.loc["prob", "after"]) == e.without
    swapped = DEFAULT_PROMPT.replace(e.words[e.source], e.swapped[0])
    assert swapped == DEFAULT_PROMPT_B
    assert model.vocabulary[int(visit.capture(model, swapped).logits[-1].argmax())] == f" {e.swapped[1]}"


ANSWERS = {
    "Which word made it say Tokyo?": ("Flow graph", "takes it from ·Japan"),
    "Who gets the drink?": ("Flow graph", "·Mary"),
    "What changes if Japan becomes France?": ("Compare", "·Paris"),
    "Is that really the cause?": ("What if", f"{EXAMPLE.prob} → {EXAMPLE.without}"),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_opens_a_page_on_which_its_answer_stands(question):
    app = opened(QUESTIONS[question])
    title, answer = ANSWERS[question]
    assert not app.exception and not app.error and not app.info
    assert app.title[0].value == title
    assert answer in said(app).replace("“", "").replace("”", "")


@pytest.mark.parametrize("name", [*DOORS, *ELEMENTS])
def test_a_door_and_an_element_of_the_picture_open_their_page(name):
    link = LINKS[name]
    app = opened(link)
    assert not app.exception and not app.error and not app.info
    assert app.title[0].value == {"flow": "Flow graph", "compare": "Compare", "learn": "Learn"}[link.page]


# ---- how it stands in the app ----------------------------------------------------------------------------------------
def test_the_bare_address_is_the_start_page_and_loads_no_torch():
    code = """
import sys
from streamlit.testing.v1 import AppTest
app = AppTest.from_file("streamlit_app.py", default_timeout=60).run()
assert not app.exception and not app.error, (app.exception, app.error)
assert [c.proto.component_name for c in app.get("bidi_component")] == ["visit_home", "visit_live", "visit_drop"]
print({"torch", "transformers", "huggingface_hub", "segno"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr


def test_an_address_that_says_what_to_show_opens_the_flow_page():
    app = opened(prompt="Buenos Aires is the capital of")
    assert app.title[0].value == "Flow graph" and not app.exception
    assert app.text_area(key="w_prompt").value == "Buenos Aires is the capital of"
    assert carries_state({"values": "1"}) and not carries_state({"utm_source": "mail"}) and not carries_state({})


def test_the_start_page_shows_no_state_and_loses_none():
    app = opened(LINKS["explore"], prompt="Buenos Aires is the capital of")
    app.query_params.clear()  # as a click in the navigation does
    app.switch_page("pages/home.py").run()
    assert not app.exception and dict(app.query_params) == {}
    assert [c.proto.component_name for c in app.get("bidi_component")] == ["visit_home", "visit_live", "visit_drop"]
    app.switch_page("pages/flow.py").run()
    assert app.text_area(key="w_prompt").value == "Buenos Aires is the capital of"


def test_every_link_is_on_the_page_and_asks_only_for_what_can_be_read():
    html = home_html()
    for name, link in LINKS.items():
        assert f"data-go='{name}'" in html
        assert (ROOT / "pages" / f"{link.page}.py").exists()
        assert parse(link.query)[1] == []
        assert set(link.query) <= {*CONTROLS, "guide"}


@pytest.mark.parametrize("narrow", [True, False])
def test_the_picture_is_one_well_formed_drawing_with_three_links(narrow):
    root = ET.fromstring(example_svg(narrow))
    links = [a.get("data-go") for a in root.iter("a")]
    assert sorted(links) == sorted(ELEMENTS) and all(a.get("aria-label") for a in root.iter("a"))
    shown = [t.text for t in root.iter("text") if t.text]
    assert [w for w in shown if w in EXAMPLE.words] == list(EXAMPLE.words)
