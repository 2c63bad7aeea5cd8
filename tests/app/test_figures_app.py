"""*Figures*: every figure that a page shows can be had as a file, and none is made before."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import visit
from visit.app import figure_list
from visit.app.state import Session

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
