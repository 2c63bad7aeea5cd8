"""The lens of the pages: one switch for map, graph, reading and comparison; the fit, offered, kept, refused."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import pytest
from streamlit.testing.v1 import AppTest

import visit
from visit.app import lens_map
from visit.app.cache import st_model
from visit.app.cached_flow import st_whole_graph
from visit.app.lens_choice import st_fit_seconds
from visit.graph.prune import Keep
from visit.lenses import linear
from visit.lenses.linear import find_lens, lens_path
from visit.runs.worker import SLOW


@cache
def mini_lens():
    return visit.fit_lens(st_model("visit-mini"), tokens=400)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cache folder of its own, without any lens."""
    SLOW.reset()
    monkeypatch.setenv("VISIT_CACHE", str(tmp_path))
    monkeypatch.setattr(linear, "_HELD", {})
    yield tmp_path
    SLOW.reset()


@pytest.fixture
def fitted(folder):
    mini_lens().save(lens_path(st_model("visit-mini")))
    return folder


def start(page: str = "flow", **params: str) -> AppTest:
    app = AppTest.from_file("../../streamlit_app.py", default_timeout=60).switch_page("pages/flow.py")
    for name, value in params.items():
        app.query_params[name] = value
    app.run()
    return app if page == "flow" else app.switch_page(f"pages/{page}.py").run()


def captions(app: AppTest) -> str:
    return " ".join(c.value for c in app.caption)


def data(app: AppTest, name: str) -> dict:
    found = next(c for c in app.get("bidi_component") if c.proto.component_name == name)
    return json.loads(found.proto.json)


def said(app: AppTest) -> str:
    return "".join(piece for sentence in data(app, "visit_story")["sentences"] for piece, _ in sentence)


def url(app: AppTest) -> dict[str, str]:
    return {k: v[0] if isinstance(v, list) else v for k, v in app.query_params.items()}


# ---- one switch ------------------------------------------------------------------------------------------------------
def test_a_model_that_the_plain_lens_reads_well_opens_plainly_and_says_so(fitted):
    app = start()
    assert not app.exception and not app.error
    assert "so it is what opens" in captions(app) and "As the plain lens reads it" in said(app)
    assert app.header[0].value == "The stream, read after every block" and url(app) == {}


def test_the_switch_turns_map_graph_and_reading_and_is_in_the_address(fitted):
    app = start()
    plain = data(app, "visit_lens_map")["rows"]
    app.button_group(key="w_reads").set_value("fitted").run()
    assert not app.exception and url(app) == {"reads": "fitted"}
    assert "fitted on 400 tokens that the model wrote" in app.header[0].value
    assert data(app, "visit_lens_map")["rows"] != plain and "As the fitted lens reads it" in said(app)
    assert "states of the stream through the lens fitted on 400 tokens" in captions(app)
    assert app.selectbox(key="w_reads_graph").value == "fitted"
    app.selectbox(key="w_reads_graph").select("plain").run()
    assert url(app) == {"reads": "plain"} and data(app, "visit_lens_map")["rows"] == plain


def test_the_switch_of_compare_is_the_same_and_turns_its_map(fitted):
    app = start("compare", reads="fitted", prompt_b="The capital of France is the city of")
    assert not app.exception and "As the fitted lens reads them" in said(app)
    assert "Read through the lens visit\\-mini’s fitted on 400 tokens" in captions(app)
    app.button_group(key="w_reads").set_value("plain").run()
    assert "As the plain lens reads them" in said(app) and "Read by the plain lens" in captions(app)


def test_what_is_drawn_is_what_the_library_reads_and_its_file_names_the_lens(fitted):
    key = find_lens(st_model("visit-mini")).key
    about = "visit-mini", "The capital of Japan is the city of", 7, st_model("visit-mini").token_id(" Tokyo"), None
    graph = st_whole_graph(*about, None, Keep(), (key, False))
    model = st_model("visit-mini")
    own = visit.build_flow_graph(model, visit.capture(model, about[1]), lens=mini_lens())
    assert graph.nodes.equals(own.nodes) and graph.meta["lens"]["name"] == mini_lens().name
    assert not st_whole_graph(*about, None, Keep()).nodes.equals(own.nodes)


def test_a_model_whose_plain_lens_reads_little_opens_with_its_fitted_lens(fitted, monkeypatch):
    monkeypatch.setattr("visit.lenses.linear.LITTLE", 0.65)  # of the plain lens's top words: until block 5 fewer agree
    app = start()
    assert "The plain lens reads little in this model before block" in captions(app)
    assert "fitted on 400 tokens" in app.header[0].value and url(app) == {}
    app.button_group(key="w_reads").set_value("plain").run()
    assert app.header[0].value == "The stream, read after every block" and url(app) == {"reads": "plain"}


# ---- the fit ---------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_the_embedded_model_fits_its_lens_by_itself_and_is_read_plainly_meanwhile(folder):
    app = start()
    assert not app.exception and "As the plain lens reads it" in said(app)
    run = SLOW.runs()
    assert len(run) == 1 and run[0].background
    run[0].wait(60)
    assert find_lens(st_model("visit-mini")).lens is not None
    app.run()
    assert "so it is what opens" in captions(app)


@pytest.mark.slow
def test_a_fit_is_offered_with_its_time_stopped_resumed_and_kept(folder, monkeypatch):
    monkeypatch.setattr("visit.app.lens_choice.MINI", "another")
    monkeypatch.setattr("visit.app.lens_choice.AGREES", 0.99)
    app = start()
    assert "The plain lens reads little in this model before block" in captions(app)
    label = app.button(key="fit lens").label
    assert label.startswith("Fit a lens for this model (about ") and label.endswith(", once)")
    app.button(key="fit lens").click().run()
    run = SLOW.runs()[0]
    app.button(key="stop fit").click().run()
    run.wait(60)
    if run.state == "cancelled":
        app.run()
        assert app.button(key="fit lens").label == "Resume"
        app.button(key="fit lens").click().run()
        run = SLOW.runs()[0]
        run.wait(60)
    assert run.state == "done" and len(list((folder / "lenses").glob("*.safetensors"))) == 1
    app.run()
    assert not app.exception and "fit lens" not in [b.key for b in app.button]


def test_a_damaged_or_foreign_file_is_a_sentence_read_plainly_and_fitted_anew(folder):
    path = lens_path(st_model("visit-mini"))
    path.parent.mkdir()
    path.write_bytes(b"no lens")
    app = start(reads="fitted")
    assert not app.exception and "cannot be used" in app.warning[0].value
    assert "As the plain lens reads it" in said(app) and app.button(key="fit lens").label.startswith("Fit a lens")
    small = visit.fit_lens(st_model("visit-mini"), tokens=400)
    foreign = replace(small, meta=small.meta | {"fingerprint": "0" * 32, "model": "another"})
    foreign.save(path)
    app = start(reads="fitted")
    assert "fitted to another" in app.warning[0].value


def test_a_cache_folder_that_cannot_be_written_keeps_the_lens_for_this_process(folder, monkeypatch):
    monkeypatch.setenv("VISIT_CACHE", "/proc/nowhere")
    linear.keep_lens(st_model("visit-mini"), mini_lens())
    app = start(reads="fitted")
    assert "fitted on 400 tokens" in app.header[0].value and "until the app ends" in captions(app)


def test_a_lens_that_memory_has_no_room_for_is_not_offered(folder, monkeypatch):
    monkeypatch.setattr("visit.app.lens_choice.MINI", "another")
    monkeypatch.setattr("visit.app.lens_choice.memory_at_hand", lambda: 1 << 20)
    app = start(reads="fitted")
    assert not app.exception and "fit lens" not in [b.key for b in app.button]
    assert "of memory to fit, and 1.0 MB can be had" in captions(app)


def test_a_fit_that_fails_says_why_and_can_be_tried_again(folder, monkeypatch):
    def fails(self, items):
        raise visit.VisitError("What it writes ends at once.")

    monkeypatch.setattr("visit.app.lens_choice.MINI", "another")
    monkeypatch.setattr("visit.lenses.fit_linear.LensFit.update", fails)
    app = start(reads="fitted")
    app.button(key="fit lens").click().run()
    for run in SLOW.runs():
        with pytest.raises(visit.VisitError):
            run.wait(60)
    app.run()
    assert not app.exception and "ends at once" in app.error[0].value
    assert app.button(key="fit lens").label == "Try again" and "As the plain lens reads it" in said(app)


def test_the_forecast_says_seconds():
    assert 0.1 < st_fit_seconds("visit-mini") < 300


# ---- with a fitted lens ----------------------------------------------------------------------------------------------
def lens_map_figures(monkeypatch) -> dict:
    """What the chart of how near the lens comes is of, as its files say it."""
    found: list = []
    monkeypatch.setattr(lens_map, "altair_figure", lambda _, about, **__: found.append(about))
    start(reads="fitted", opened="nearness")
    assert found and found[0]["model"] == "visit-mini" and found[0]["tokens"] == mini_lens().meta["tokens"]
    return found[0]


def test_the_map_tells_what_is_specific_and_draws_how_near_the_lens_comes(fitted, monkeypatch):
    app = start(reads="fitted")
    text = " ".join(m.value for m in app.markdown)
    assert "As the fitted lens reads it" in text and "specific to this prompt" in text
    assert any("block by block" in e.label for e in app.expander)
    rows = data(app, "visit_lens_map")
    assert any(sign == "grey" for sign, _ in rows["words"])
    assert any("over any text" in cell["t"] for row in rows["rows"] for cell in row["cells"])
    assert "prompt" not in lens_map_figures(monkeypatch), "it is of text that the model wrote"
    plain = data(start(), "visit_lens_map")
    assert not any("over any text" in cell["t"] for row in plain["rows"] for cell in row["cells"])


def test_the_controls_are_computed_when_they_are_asked_for_and_not_before(fitted):
    app = start(reads="fitted")
    assert not SLOW.runs() and "controls" not in [b.key for b in app.button]
    app = AppTest.from_file("../../streamlit_app.py", default_timeout=60).switch_page("pages/flow.py")
    app.query_params["reads"], app.query_params["opened"] = "fitted", "why-lens"
    app.run()
    app.button(key="controls").click().run()
    SLOW.runs()[0].wait(60)
    app.run()
    assert not app.exception and not app.error
    text = " ".join(m.value for m in app.markdown)
    assert "Wrong answers stay low" in text and "put into another prompt" in text
    assert len(app.dataframe[0].value) == 8


def test_components_go_through_the_lens_when_asked_and_only_with_a_fitted_one(fitted):
    app = start(carried="1")
    assert app.checkbox(key="w_carried").disabled and "linear part" not in captions(app)
    app = start(reads="fitted", carried="1")
    assert not app.checkbox(key="w_carried").disabled and "through its linear part" in captions(app)
    app.checkbox(key="w_carried").uncheck().run()
    assert "linear part" not in captions(app) and url(app) == {"reads": "fitted"}
