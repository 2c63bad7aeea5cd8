"""The Glossary page, and the notes that sentences give: each is the glossary's own definition."""

from __future__ import annotations

import json
import subprocess
import sys
from html import escape, unescape
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from visit.app.glossary import FORMULAS, glossary_html
from visit.app.state import DEFAULT_PROMPT_B
from visit.text.glossary import FORMS, GLOSSARY, GROUPS, anchor_of, name_of

ROOT = Path(__file__).parents[2]
APP = "../../streamlit_app.py"


def test_the_page_opens_without_a_model_or_torch():
    code = """
import sys
from streamlit.testing.v1 import AppTest
app = AppTest.from_file("streamlit_app.py", default_timeout=60).switch_page("pages/glossary.py").run()
assert not app.exception and not app.error, (app.exception, app.error)
assert app.title[0].value == "Glossary"
assert [c.proto.component_name for c in app.get("bidi_component")] == ["visit_glossary", "visit_live", "visit_drop"]
print({"torch", "transformers"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr


def test_it_is_the_last_page_of_the_navigation():
    entry = (ROOT / "streamlit_app.py").read_text()
    pages = [line for line in entry.splitlines() if "st.Page(" in line and "pages/" in line]
    assert "pages/glossary.py" in pages[-1]


def test_every_term_has_its_definition_under_its_anchor():
    html = glossary_html()
    cards = {part.split("'")[0]: part for part in html.split("<article id='")[1:]}
    assert set(cards) == {anchor_of(term) for term in GLOSSARY}
    for term, definition in GLOSSARY.items():
        card = unescape(cards[anchor_of(term)])
        assert f"<p>{definition}</p>" in card and f"{name_of(term)}</a></h3>" in card
        assert html.count(f"<p>{escape(definition)}</p>") == 1
    for group in GROUPS:
        assert f">{group}</h2>" in html


def test_a_formula_belongs_to_a_term():
    assert set(FORMULAS) <= set(GLOSSARY)


@pytest.mark.parametrize("page", ["flow", "memory", "compare"])
def test_the_notes_of_a_reading_are_the_glossarys_and_its_text_is_untouched(page):
    app = AppTest.from_file(APP, default_timeout=90)
    app.query_params["prompt_b"] = DEFAULT_PROMPT_B  # Compare opens on a copy, of which there is nothing to read
    app.run().switch_page(f"pages/{page}.py").run()
    found = [json.loads(c.proto.json) for c in app.get("bidi_component") if c.proto.component_name == "visit_story"]
    assert found and not app.exception
    for data in found:
        assert data["terms"]
        for sentence, piece, start, end, term in data["terms"]:
            said = data["sentences"][sentence][piece][0][start:end]
            assert FORMS.get(said, FORMS.get(said.lower())) == term
            assert data["notes"][term] == {
                "name": name_of(term), "note": GLOSSARY[term], "anchor": anchor_of(term),
            }  # fmt: skip
