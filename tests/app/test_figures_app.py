"""*Figures*: every figure that a page shows can be had as a file, and none is made before."""

from __future__ import annotations

import base64
import contextlib
import csv
import io
import json
import zipfile
from functools import partial
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import visit
from visit.app import page_files
from visit.app.recipe_lines import Looked, printed
from visit.app.recipes import recipe
from visit.app.sessions import FIGURES_DIALOG, NOTEBOOK_DIALOG, Session
from visit.causal.head_sets import HeadRun, head_key
from visit.causal.set_lines import asked_lines
from visit.files.notebook_file import table_output
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
    monkeypatch.setattr(page_files, "_figures", found.extend)
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
    app = opened(page, FIGURES_DIALOG, **address)
    assert not app.exception
    names = [figure.shows for figure in listed]
    assert set(expected) <= set(names)
    meta = {"model": "visit-mini", "prompt": "p", "versions": {}}
    for figure in listed:
        made = page_files._figure_files(figure, ("svg", "csv", "json"), None, None, 2, meta)
        assert figure.svg is None or made[f"{figure.name}.svg"].startswith(b"<svg")
        assert figure.table is None or len(made[f"{figure.name}.csv"].splitlines()) > 1


def test_nothing_is_listed_while_nobody_asks(listed):
    app = opened("flow", "")
    assert not app.exception
    assert not listed
    assert app.session_state["visit"].figures == []


def the_files(figure, page: dict) -> tuple[dict, list[dict], str]:
    """(meta of its JSON, rows of its CSV, its drawing) of a figure."""
    made = page_files._figure_files(figure, ("svg", "csv", "json"), None, None, 2, page)
    rows = list(csv.DictReader(io.StringIO(made[f"{figure.name}.csv"].decode())))
    return json.loads(made[f"{figure.name}.json"])["meta"], rows, made[f"{figure.name}.svg"].decode()


def page_meta(monkeypatch) -> list[dict]:
    """What the page says of its figures, as the dialog would ask it."""
    found: list[dict] = []
    monkeypatch.setattr(page_files, "_figures", lambda listed: found.extend([listed, page_files._page_meta()]))
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
    app = opened("heads", FIGURES_DIALOG, lines="16", prompt="A prompt of another page")
    assert not app.exception
    figures, page = given
    assert figures and "prompt" not in page
    for figure in figures:
        meta, rows, drawn = the_files(figure, page)
        assert meta["prompt_set"]["name"] == "ioi (16 of 48)" and meta["prompt_set"]["hash"] and meta["prompts"] == 16
        assert "prompt" not in meta and meta["revision"]
        assert "another page" not in drawn
        assert "Set “ioi (16 of 48)”, 16 prompts" in page_files._figure_caption(figure, meta)
        for name in ("effect", "effect_low", "effect_high", "contribution"):
            assert all(float(row[name]) == float(row[name]) for row in rows if row[name]), name
        assert any(row["effect"] for row in rows)


def test_figures_of_two_prompts_name_both(monkeypatch):
    given = page_meta(monkeypatch)
    texts = {"prompt": "The capital of Japan is the city of", "prompt_b": "The capital of France is the city of"}
    app = opened("compare", FIGURES_DIALOG, **texts, target_b=" Paris")
    assert not app.exception
    figures, page = given
    assert figures
    meta, rows, _ = the_files(figures[0], page)
    assert {name: meta[name] for name in texts} == texts
    assert meta["model_b"] == "visit-mini" and meta["target_b"] == " Paris" and meta["revision"]
    caption = page_files._figure_caption(figures[0], meta)
    assert all(f"“{text}”" in caption for text in texts.values())
    assert rows and all(float(row["pos_a"]) >= 0 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "address", "drawn"),
    [
        ("flow", {"layers": "3-4"}, {"lens_map": 1, "graph": 1}),
        ("compare", {"prompt_b": "The capital of France is the city of", "opened": "flows"}, {"found": 4}),
        ("whatif", {"edits": "L4.head1~zero@-1"}, {"changed.table": 0, "effects": 1}),
        ("memory", {"head": "L4.head1"}, {"memory": 0}),
        ("layernorm", {}, {"shift": 1}),
        ("neurons", {}, {"neurons": 0}),
    ],
)
def test_a_notebook_holds_what_its_code_gives_before_it_is_run(page, address, drawn, monkeypatch):
    """The outputs that a page puts into its notebook are the tables that the cells above them compute."""
    nbformat = pytest.importorskip("nbformat")
    given: list = []
    monkeypatch.setattr(page_files, "_notebook", given.extend)
    app = opened(page, NOTEBOOK_DIALOG, **address)
    assert not app.exception
    session = app.session_state["visit"]
    found = recipe(page, session.state, Looked(**session.looked))
    meta = {"model": "visit-mini", "prompt": session.state.prompt, "versions": {"visit": "1.0.0"}}
    made = json.loads(page_files._notebook_bytes(found, "title", "http://localhost/" + page, given, meta))
    nbformat.validate(nbformat.from_dict(made))
    names: dict = {}
    cells = [cell for cell in made["cells"] if cell["cell_type"] == "code"]
    for step, cell in zip(found.steps, cells, strict=False):
        with contextlib.redirect_stdout(io.StringIO()):
            exec("\n".join(step.lines), names)
        for name in step.shows:
            pictures = [out["data"]["image/png"] for out in cell["outputs"] if "image/png" in out["data"]]
            assert len(pictures) == drawn[name], name
            assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)
            table = eval(printed(name), names)
            shown = [figure.table() for figure in given if figure.code == name]
            assert all(table_output(one) in cell["outputs"] for one in shown)
            same = [one[list(table)] for one in shown if set(table) <= set(one)]  # a page may have more columns
            assert table_output(table) in map(table_output, same), name
    assert "@inproceedings{katz-belinkov-2023-visit" in made["cells"][-1]["source"]


def test_all_figures_in_one_file_say_what_they_are_of_and_how_to_cite_them(monkeypatch):
    given = page_meta(monkeypatch)
    opened("layernorm", FIGURES_DIALOG)
    figures, page = given
    files = partial(page_files._figure_files, mm=84, points=6.0, scale=1, meta=page)
    with zipfile.ZipFile(io.BytesIO(page_files._figures_zip(figures[:1], files, page))) as archive:
        names = archive.namelist()
        assert {name.rsplit(".", 1)[1] for name in names} == {"svg", "pdf", "png", "csv", "json", "bib"}
        assert "katz-belinkov-2023-visit" in archive.read("cite.bib").decode()
        assert "visit-mini" in archive.read("meta.csv").decode()
        pdf = next(archive.read(name) for name in names if name.endswith(".pdf"))
    assert pdf.startswith(b"%PDF")
