"""The card "What visit-mini knows" and the dialog for another model: what they claim, and the ways there."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import visit
from visit.app.known import WORLD
from visit.app.sessions import Session
from visit.app.shipped import data_rows
from visit.text.citation import METHODS, bibtex

ROOT = Path(__file__).parents[2]
KINDS = data_rows("kinds.csv", True)


def opened(page: str, dialog: str = "", **params: str) -> AppTest:
    app = AppTest.from_file("../../streamlit_app.py", default_timeout=60).switch_page(f"pages/{page}.py")
    for name, value in params.items():
        app.query_params[name] = value
    if dialog:
        app.session_state["visit"] = Session(dialog=dialog)
    return app.run()


def labels(app: AppTest) -> list[str]:
    return [b.label for b in app.button]


def test_each_kind_is_one_that_the_model_answers():
    model = visit.load_model("visit-mini")
    for kind, row in KINDS.items():
        best = int(visit.capture(model, row["prompt"]).logits[-1].argmax())
        assert model.vocabulary[best] == row["answer"], kind


@pytest.mark.parametrize("what", ["countries", "companies", "people"])
def test_the_world_is_as_large_as_it_says(what):
    rows = (ROOT / "training" / "mini" / f"{what}.csv").read_text(encoding="utf-8").splitlines()
    assert f"{len(rows) - 1} {what}" in WORLD


@pytest.mark.parametrize(
    ("prompt", "lost"),
    [
        ("The capital of Japan is the city of", False),
        ("The capital of the United Kingdom is", True),  # a weak guess, words that are spelled
        ("Zyxwv", True),
    ],
)
def test_the_card_stands_where_the_model_is_lost_and_only_there(prompt, lost):
    app = opened("flow", prompt=prompt)
    assert not app.exception and ("A currency" in labels(app)) is lost


def test_an_example_of_the_card_is_run_and_the_card_goes():
    app = opened("flow", prompt="The capital of the United Kingdom is", target=" Paris")
    next(b for b in app.button if b.label == "A currency").click().run()
    assert not app.exception and app.text_area(key="w_prompt").value == KINDS["A currency"]["prompt"]
    assert "A currency" not in labels(app) and "target" not in app.query_params


def test_the_start_page_and_the_chooser_lead_to_the_card_which_leads_to_the_flow_page():
    for page, key in (("home", "home_known"), ("glossary", "known")):
        app = opened(page)
        app.button(key=key).click().run()
        assert app.button(key="known A sport") and not app.exception
    app = opened("home", dialog="known").run()
    app.button(key="known A sport").click().run()
    assert not app.exception and app.title[0].value == "Flow graph"
    assert app.text_area(key="w_prompt").value == KINDS["A sport"]["prompt"]


def test_the_dialog_for_a_model_stays_while_the_page_follows_and_takes_what_is_typed(tmp_path):
    app = opened("glossary")
    app.button(key="own model").click().run()
    assert any("save_pretrained" in m.value for m in app.run().markdown), "a page that runs again keeps it"
    app.session_state["own_model"] = f" {tmp_path} "
    app.button(key="own_load").click().run()
    assert not app.exception and app.selectbox(key="w_model").value == str(tmp_path)
    assert not any("save_pretrained" in m.value for m in app.markdown)


def test_a_hosted_server_says_that_it_loads_no_other(monkeypatch):
    monkeypatch.setenv("VISIT_HOSTED", "1")
    app = opened("glossary", dialog="own model")
    assert not app.exception and any("loads only the models listed" in m.value for m in app.markdown)
    assert "own_model" not in [t.key for t in app.text_input]


def test_cite_shows_both_entries_on_any_page():
    app = opened("glossary").run()
    app.button(key="cite").click().run()
    assert not app.exception
    assert [block.value for block in app.code] == [bibtex().strip(), *METHODS.values()]
