"""The layer norm and neuron pages, on one prompt and on a set that runs in the worker."""

from __future__ import annotations

import threading
import time

import pytest
from streamlit.testing.v1 import AppTest

from visit.analyses.neuron_sets import neuron_job
from visit.app import every_neuron
from visit.app.cache import st_model
from visit.lenses import weights as static
from visit.lenses.weights import StaticRun, rows_in_all
from visit.runs.prompts import shipped_set
from visit.runs.worker import SLOW, WORKER


def start(name: str, **params: str) -> AppTest:
    app = AppTest.from_file("../../streamlit_app.py", default_timeout=90)
    for key, value in params.items():
        app.query_params[key] = value
    return app.run().switch_page(f"pages/{name}.py").run()


def text(app: AppTest) -> str:
    return " ".join(e.value for e in [*app.markdown, *app.caption, *app.info])


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIT_CACHE", str(tmp_path))


@pytest.mark.parametrize("norm", ["ln1", "ln2", "final"])
def test_one_prompt_before_and_after_a_norm(norm):
    app = start("layernorm", norm=norm, layer="2", lens="without")
    assert not app.exception and not app.error
    table = app.dataframe[0].value
    steps = table[["centring", "scaling", "gain", "bias"]].fillna(0).sum(axis=1)
    assert (steps - table["delta"]).abs().max() < 1e-9, "the steps add up"
    assert (table["after"] - table["before"] - table["delta"]).abs().max() < 1e-9
    assert [b.label for b in app.button].count("Run") == 1, "the set waits to be run"


def test_the_most_active_neurons_and_a_card():
    app = start("neurons", layer="3", neuron="L3.mlp_value17", word="Paris")
    assert not app.exception and not app.error and not app.warning
    assert app.dataframe[0].value["name"].tolist()[-2:] == ["all others", "the bias"]
    assert any(s.value == "Neuron L3 N17" for s in app.header)
    assert "rows of all layers have ·Paris" in text(app)


def every_neuron_of_the_mini() -> None:
    """A page that needs all neurons and nothing else."""
    import streamlit as st

    from visit.app import end_page
    from visit.app.cache import st_model
    from visit.app.every_neuron import every_neuron

    index = every_neuron(st_model("visit-mini"), "They are shown")
    st.caption("nothing yet" if index is None else f"{len(index.norm)} rows")
    end_page()


@pytest.fixture
def held(monkeypatch):
    """Reads the mini as slowly as the test likes: a batch for each `release`; nobody has read it before."""
    gate, update = threading.Semaphore(0), StaticRun.update

    def slowly(self, rows):
        assert gate.acquire(timeout=60)
        update(self, rows)

    assert SLOW.reset(120)  # forgets what another test has read
    static._BUILT.clear()
    monkeypatch.setattr(StaticRun, "update", slowly)
    monkeypatch.setattr(every_neuron, "UNASKED", 0.0)
    monkeypatch.setattr(static, "ROWS_PER_ITEM", 16)
    yield gate
    gate.release(10**6)
    assert SLOW.reset(120)


def moved(run, beyond: int) -> None:
    end = time.monotonic() + 60
    while run.progress.done <= beyond:
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("neuron", ["", "L3.mlp_value17"])
def test_the_first_table_and_a_card_do_not_read_every_neuron(held, neuron):
    app = start("neurons", layer="3", neuron=neuron, word="Paris")
    assert not app.exception and not app.error
    assert len(app.dataframe[0].value) > 30 and app.dataframe[0].value["writes"].iloc[0]
    assert [run for run in SLOW.runs() if run.key[0] == "static index"] == []
    assert static.found_index(st_model("visit-mini")) is None
    assert "once every neuron is read as words" in text(app) and "once for this model" in text(app)
    if neuron:
        assert any(s.value == "Neuron L3 N17" for s in app.header)
        words = next(d.value for d in app.dataframe if "entropy_percentile" in d.value)
        assert words["tokens"].notna().all() and words["entropy_percentile"].isna().all()
        assert words["norm_percentile"].between(0, 100).all()


def test_reading_every_neuron_is_told_started_left_alone_stopped_and_gone_on_with(held):
    first = AppTest.from_function(every_neuron_of_the_mini, default_timeout=60).run()
    assert "once every neuron is read as words: " in text(first) and "once for this model" in text(first)
    first.button(key="every neuron").click().run()
    (run,) = SLOW.runs()
    held.release()
    moved(run, 0)
    del first  # the tab is closed
    held.release()
    moved(run, run.progress.done)
    other = AppTest.from_function(every_neuron_of_the_mini, default_timeout=60).run()
    assert SLOW.runs() == [run], "the same run, for all visitors"
    (bar,) = other.get("progress")
    assert bar.proto.text.startswith("Reading every neuron of visit\\-mini as words: ") and "s left" in bar.proto.text
    sums = WORKER.submit("meanwhile", lambda: neuron_job(st_model("visit-mini"), shipped_set("plain").rows[:9])).wait(
        60
    )
    assert sums.prompts == 9 and run.alive, "a set runs meanwhile"
    other.button(key="stop every neuron").click().run()
    held.release()
    run.wait(60)
    kept = run.progress.done
    other.run()
    assert (
        run.state == "cancelled" and f"Stopped after {kept * 16:,} of" in text(other) and "nothing yet" in text(other)
    )
    other.button(key="every neuron").click().run()
    (again,) = SLOW.runs()
    held.release(10**6)
    again.wait(60)
    assert again is not run and again.progress.done > kept
    assert f"{rows_in_all(st_model('visit-mini'))} rows" in text(other.run()) and not other.exception


@pytest.mark.parametrize("word", ["no such word here", "<b>", "🙂"])
def test_a_word_that_is_no_token_is_said(word):
    app = start("neurons", word=word)
    assert not app.exception and any("one token" in w.value for w in app.warning)


@pytest.mark.parametrize("page", ["layernorm", "neurons"])
@pytest.mark.parametrize("prompt", ["x", "🙂 <b>**x**</b> $y$", "a " * 100])
def test_any_prompt_simply_works(page, prompt):
    app = start(page, prompt=prompt)
    assert not app.exception and not app.error
