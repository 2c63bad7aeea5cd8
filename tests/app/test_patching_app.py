"""Patch B into A: its map is measured when it is opened, told in a sentence, and a cell's click is that patch."""

from __future__ import annotations

import json

import pytest
from escapes import as_read
from streamlit.testing.v1 import AppTest

import visit
from visit.app import patching
from visit.app.state import DEFAULT_PROMPT, DEFAULT_PROMPT_B
from visit.causal.patching import PatchingJob
from visit.runs.worker import WORKER
from visit.text.numbers import ratio

NAMES = {
    "prompt": "When Mary and John went to the store, John gave a drink to", "target": " Mary", "distractor": " John",
    "prompt_b": "When Mary and John went to the store, Mary gave a drink to", "target_b": " John",
    "distractor_b": " Mary",
}  # fmt: skip


def start(page: str = "compare", **params: str) -> AppTest:
    app = AppTest.from_file("../../streamlit_app.py", default_timeout=60)
    for name, value in {"prompt_b": DEFAULT_PROMPT_B, "opened": "patch", **params}.items():
        app.query_params[name] = value
    return app.run().switch_page(f"pages/{page}.py").run()


def parts(app: AppTest, word: str) -> list[str]:
    return [c.proto.json for c in app.get("bidi_component") if word in (c.proto.json or "")]


def map_of(app: AppTest) -> str:
    (found,) = parts(app, "moves the answer from A")
    return found


def told(app: AppTest) -> str:
    return as_read(" ".join(e.value for kind in (app.caption, app.info, app.markdown) for e in kind))


def never(*_given, **_named):
    raise AssertionError("computed though nobody looks at it")


def test_nothing_is_measured_before_it_is_opened(monkeypatch):
    monkeypatch.setattr("visit.app.patching.st_patch_seconds", never)
    app = start(opened="", prompt="The capital of Peru is the city of")
    assert not app.exception and not app.error and not parts(app, "moves the answer from A")


def test_a_small_model_is_measured_whole_and_its_course_is_told():
    app = start()
    assert not app.exception and not app.error
    assert parts(app, "nearly the whole answer up to block") and '"mark": ""' in map_of(app)
    assert "In A “·Tokyo” leads “·Paris” by" in told(app) and "Positions 0 to 2 hold the same" in told(app)
    table = visit.patch(visit.load_model("visit-mini"), DEFAULT_PROMPT, DEFAULT_PROMPT_B)
    measured = table[(table["layer"] == 4) & (table["pos"] == 3)].iloc[0]
    assert f'"{measured["effect"]:.2f}"' in map_of(app)


@pytest.mark.parametrize(("patch", "said"), [
    ("attn_out", "Of all 112 attention outputs"), ("mlp_out", "Of all 112 MLP outputs"), ("heads", "Of all 64 heads"),
    ("heads_all", "Of all 64 heads"),
])  # fmt: skip
def test_every_site_is_a_map_with_a_sentence(patch, said):
    app = start(patch=patch, **NAMES)
    assert not app.exception and not app.error and parts(app, said) and map_of(app)


def test_of_a_long_prompt_the_positions_that_move_most_are_shown_and_the_rest_is_bounded():
    longer = DEFAULT_PROMPT.replace("city", "city and the " * 12 + "city")
    app = start(prompt=longer, prompt_b=longer.replace("Japan", "France"), edits="L1.resid_pre~from@0")
    assert not app.exception
    columns = json.loads(map_of(app))["columns"]
    assert len(columns) == patching.COLUMNS and columns[0] == "The", "the patch that is looked at stands there, too"
    assert "·Japan\n← ·France" in columns and columns[-1] == "·of"
    table = visit.patch(visit.load_model("visit-mini"), longer, longer.replace("Japan", "France"))
    most = table["effect"].abs().groupby(table["pos"]).max().drop([0, table["pos"].max()]).nlargest(100)
    assert f"20 of {len(most) + 2} positions are shown" in told(app)
    assert f"at the others it moves by {ratio(float(most.iloc[18]))} of the way at most" in told(app)


def test_the_quick_map_marks_what_it_measured_and_tells_nothing_else():
    app = start(patching="quick")
    assert not app.exception and not app.error
    assert "measured; all others are estimates" in map_of(app) and map_of(app).count('"m": 1') == 10
    assert parts(app, "Of the 10 measured") and not parts(app, "carries nearly the whole answer")


def test_a_patch_in_the_address_is_framed_run_and_drawn():
    """What the page says of the click is what a run with that edit gives."""
    app = start(edits="L2.resid_pre~from@3", opened="patch,edited_flows")
    assert not app.exception and not app.error and map_of(app).count('"f": 1') == 1
    model = visit.load_model("visit-mini")
    edit = visit.Edit("L2.resid_pre", "from", DEFAULT_PROMPT_B, pos=3)
    acts = visit.capture(model, DEFAULT_PROMPT, edits=[edit])
    paris = float(acts.logits[-1].softmax(-1)[model.token_id(" Paris")])
    assert paris > 0.9 and f"the first choice is “·Paris”, with {100 * paris:.1f} %" in told(app)
    assert "**Block 2, “·Japan” ← “·France” (position 3)**: with B’s value the answer moves" in told(app)
    assert len(parts(app, '"svg"')) == 1
    app.button(key="patch_out").click().run()
    assert not app.exception and "edits" not in app.query_params and not parts(app, '"svg"')


def test_the_patch_can_be_looked_at_on_what_if_and_the_map_is_one_click_back():
    app = start("whatif", edits="L2.resid_pre~from@3", opened="patch")
    assert not app.exception and "L2 stream in" in told(app)
    app.button(key="edits_patch").click().run()
    assert not app.exception and parts(app, "carries nearly the whole answer") and map_of(app).count('"f": 1') == 1


def test_two_answers_that_are_one_word_can_be_told_apart():
    app = start(prompt_b="The capital of Japan is not the city of")
    assert not app.exception and not app.error and "A and B answer the same word, “·Tokyo”" in told(app)
    other = next(b for b in app.button if str(b.key).startswith("patch_answer"))
    other.click().run()
    assert not app.exception and map_of(app) and app.query_params["target_b"]


@pytest.mark.parametrize(("params", "said"), [
    ({"prompt_b": "Mary went home"}, "no token in common"),
    ({"target": " Tokyo", "target_b": " Kyoto", "prompt_b": f"{DEFAULT_PROMPT} the"}, "same from the start"),
    ({"pos": "4"}, "the answer after the last token"),
])  # fmt: skip
def test_what_cannot_be_patched_is_said_where_the_map_would_stand(params, said):
    app = start(**params)
    assert not app.exception and said in told(app)
    assert not parts(app, "moves the answer from A")


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What runs the page asks for, none of which is known or takes only a moment."""
    monkeypatch.setenv("VISIT_CACHE", str(tmp_path))
    monkeypatch.setattr(patching, "WITH_THE_PAGE", 0.0)
    assert WORKER.reset(120)
    found, watched = [], patching.watched
    monkeypatch.setattr(patching, "watched", lambda *a: found.append(a) or watched(*a))
    return found


def test_a_map_that_takes_little_begins_by_itself_behind_all_other_runs(asked):
    app = start(prompt="The capital of Italy is the city of")
    assert not app.exception and map_of(app)
    run = WORKER.find(asked[-1][1])
    assert run.background
    run.wait(60)
    app.run()
    assert not app.exception and parts(app, "nearly the whole answer up to block") and '"mark": ""' in map_of(app)


def test_a_large_map_is_a_run_with_its_time_said_first_and_can_be_stopped_on_its_way(monkeypatch, asked):
    """Meanwhile and when it was stopped the map stands on estimates; a new run goes on to the same numbers."""
    app = start(patching="exact", prompt="The capital of Kenya is the city of")
    assert not app.exception and "measured; all others are estimates" in map_of(app), "the quick map stands meanwhile"
    assert asked[-1][3].startswith("Measure all (about ")
    assert [b.label for b in app.button if b.key == "run patching"] == [asked[-1][3]]
    key, make = asked[-1][1:3]
    halves = PatchingJob.update

    def stopped(job, items):
        halves(job, items)
        next(run for run in WORKER.runs() if run.key == key).cancel()

    with monkeypatch.context() as patch:
        patch.setattr(PatchingJob, "update", stopped)
        WORKER.submit(key, make).wait(60)
    app.run()
    assert (
        not app.exception
        and " patches; the figures are of these" in told(app)
        and "measured; all others are estimates" in map_of(app)
    )
    assert 0 < map_of(app).count('"m": 1') < len(make().items)
    run = WORKER.submit(key, make)
    run.wait(60)
    app.run()
    assert not app.exception and parts(app, "nearly the whole answer up to block") and '"mark": ""' in map_of(app)
    whole = visit.patch(visit.load_model("visit-mini"), "The capital of Kenya is the city of", DEFAULT_PROMPT_B)
    assert run.result["effect"].tolist() == pytest.approx(whole["effect"].tolist(), abs=1e-5)
