"""*Figures*: every figure that a page shows can be had as a file, and none is made before."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import visit
from visit.app import figure_list
from visit.app.sessions import Session
from visit.causal.head_sets import HeadRun, asked_lines, head_key
from visit.runs.answers import fitting
from visit.runs.prompts import shipped_set
from visit.runs.worker import WORKER

ROOT = Path(visit.__file__).parents[1]


def opened(page: str, dialog: str, **address: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=120)
    app.switch_page(f"pages/{page}.py")
    app.session_state["visit"] = Session(dialog=dialog)
    for name, value in address.items():
        app.query_params[name] = value
    return app.run()


@pytest.fixture
def listed(monkeypatch):
    """The figures that the dialog was given."""
    found: list = []
    monkeypatch.setattr(figure_list, "_figures", found.extend)
    return found


@pytest.mark.parametrize(
    ("page", "address", "expected"),
    [
        ("flow", {}, ["What the stream reads after every block; fill: probability of ·Tokyo",
                      "The flow graph towards ·Tokyo, its opened blocks"]),
        ("memory", {"opened": "life"}, ["contribution of every head of every layer"]),
        ("layernorm", {}, ["Top words before and after the norm", "The target before and after, all layers"]),
        ("compare", {"prompt_b": "The capital of France is the city of", "opened": "flows"},
         ["The flow graph of A, its opened blocks", "What differs between the two runs, B − A"]),
    ],
)  # fmt: skip
def test_a_page_lists_its_figures_and_each_can_be_made(page, address, expected, listed):
    app = opened(page, figure_list.FIGURES_DIALOG, **address)
    assert not app.exception
    names = [figure.shows for figure in listed]
    assert set(expected) <= set(names)
    meta = {"model": "visit-mini", "prompt": "p", "versions": {}}
    for figure in listed:
        made = figure_list._figure_files(figure, ("svg", "csv", "json"), None, 2, meta)
        assert made[f"{figure.name}.svg"].startswith(b"<svg")
        assert figure.table is None or len(made[f"{figure.name}.csv"].splitlines()) > 1


def test_nothing_is_listed_while_nobody_asks(listed):
    app = opened("flow", "")
    assert not app.exception
    assert not listed
    assert app.session_state["visit"].figures == []


def the_files(figure, page: dict) -> tuple[dict, list[dict], str]:
    """(meta of its JSON, rows of its CSV, its drawing) of a figure."""
    made = figure_list._figure_files(figure, ("svg", "csv", "json"), None, 2, page)
    rows = list(csv.DictReader(io.StringIO(made[f"{figure.name}.csv"].decode())))
    return json.loads(made[f"{figure.name}.json"])["meta"], rows, made[f"{figure.name}.svg"].decode()


def page_meta(monkeypatch) -> list[dict]:
    """What the page says of its figures, as the dialog would ask it."""
    found: list[dict] = []
    monkeypatch.setattr(figure_list, "_figures", lambda listed: found.extend([listed, figure_list._page_meta()]))
    return found


@pytest.fixture
def measured_set(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIT_CACHE", str(tmp_path))
    model = visit.load_model("visit-mini")
    asked = asked_lines(model, fitting(model, shipped_set("ioi").spread(16)), "zero")
    WORKER.submit(head_key(model, asked, "heads", "zero", -1, False), lambda: HeadRun(model, asked, "heads", "zero"))
    WORKER.find(head_key(model, asked, "heads", "zero", -1, False)).wait(120)
    yield
    WORKER.reset()


def test_a_map_of_a_set_names_the_set_and_no_prompt_and_its_numbers_are_numbers(measured_set, monkeypatch):
    given = page_meta(monkeypatch)
    app = opened("heads", figure_list.FIGURES_DIALOG, lines="16", prompt="A prompt of another page")
    assert not app.exception
    figures, page = given
    assert figures and "prompt" not in page
    for figure in figures:
        meta, rows, drawn = the_files(figure, page)
        assert meta["prompt_set"]["name"] == "ioi (16 of 48)" and meta["prompt_set"]["hash"] and meta["prompts"] == 16
        assert "prompt" not in meta and meta["revision"]
        assert "another page" not in drawn
        assert "Set “ioi (16 of 48)”, 16 prompts" in figure_list._figure_caption(figure, meta)
        for name in ("effect", "effect_low", "effect_high", "contribution"):
            assert all(float(row[name]) == float(row[name]) for row in rows if row[name]), name
        assert any(row["effect"] for row in rows)


def test_figures_of_two_prompts_name_both(monkeypatch):
    given = page_meta(monkeypatch)
    texts = {"prompt": "The capital of Japan is the city of", "prompt_b": "The capital of France is the city of"}
    app = opened("compare", figure_list.FIGURES_DIALOG, **texts, target_b=" Paris")
    assert not app.exception
    figures, page = given
    assert figures
    meta, rows, _ = the_files(figures[0], page)
    assert {name: meta[name] for name in texts} == texts
    assert meta["model_b"] == "visit-mini" and meta["target_b"] == " Paris" and meta["revision"]
    caption = figure_list._figure_caption(figures[0], meta)
    assert all(f"“{text}”" in caption for text in texts.values())
    assert rows and all(float(row["pos_a"]) >= 0 for row in rows)
