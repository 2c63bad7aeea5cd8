"""Recordings in the app: opened without the model and without torch, saved from a page, checked with the model."""

from __future__ import annotations

import gc
import io
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from weakref import ref

import pytest
from recordings import blocking
from streamlit.testing.v1 import AppTest

import visit
from visit.app import opened as opened_module
from visit.app import recorded as recorded_module
from visit.app import save_run
from visit.app.recorded import open_recording, recording_named
from visit.app.shared import model_shelf
from visit.errors import VisitError

ROOT = Path(__file__).parents[2]
TEXT, OTHER = "The capital of Japan is the city of", "The capital of France is the city of"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """One prompt with what was measured, and two of which few heads are recorded whole."""
    folder, model = tmp_path_factory.mktemp("recordings"), visit.load_model("visit-mini")
    found = {name: folder / f"{name}.visit" for name in ("one", "two")}
    visit.save_recording(found["one"], model, TEXT, effects=True)
    visit.save_recording(found["two"], model, TEXT, compare=OTHER, memory=3)
    return found


def start(page: str, **params: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=90).switch_page(f"pages/{page}.py")
    for name, value in params.items():
        app.query_params[name] = value
    return app.run()


def components(app: AppTest) -> dict[str, dict]:
    return {c.proto.component_name: json.loads(c.proto.json or "{}") for c in app.get("bidi_component")}


def said(app: AppTest) -> str:
    return " ".join(e.value for e in [*app.markdown, *app.caption, *app.info])


WITHOUT_TORCH = (
    blocking("torch", "transformers", "tokenizers", "huggingface_hub")
    + """
import json
from streamlit.testing.v1 import AppTest
from visit.app.recorded import open_recording
found = []
for name in ("one", "two"):
    recording = open_recording(open(f"{sys.argv[2]}/{name}.visit", "rb").read())
    for page, opened in json.loads(sys.argv[3]).items():
        app = AppTest.from_file(sys.argv[1], default_timeout=90).switch_page(f"pages/{page}.py")
        app.query_params["recording"], app.query_params["opened"] = recording, opened
        app.run()
        drawn = [c.proto.component_name for c in app.get("bidi_component")]
        found.append([name, page, [e.value for e in [*app.exception, *app.error]], drawn,
                      [i.value for i in app.info], len(app.main.children)])
assert "torch" not in sys.modules
print(json.dumps(found))
"""
)
PAGES = {
    "flow": "map-table", "memory": "heads-list,pattern,life,paper-figures,head-picture", "layernorm": "norm-figure7",
    "neurons": "", "whatif": "roles", "compare": "flows,answers,apart-map-table", "study": "", "home": "", "learn": "",
    "glossary": "", "trace": "", "heads": "",
}  # fmt: skip
DRAWN = {"flow": "visit_flow", "memory": "visit_grid", "layernorm": "visit_story", "neurons": "visit_story"}


@pytest.mark.slow
def test_every_page_works_from_a_recording_where_there_is_no_torch(files):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(ROOT / "streamlit_app.py"), str(files["one"].parent),
         json.dumps(PAGES)], capture_output=True, text=True, cwd=ROOT, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    for name, page, wrong, drawn, told, height in json.loads(done.stdout.splitlines()[-1]):
        assert not wrong, (name, page, wrong)
        assert height, (name, page, "a blank page")
        assert page not in DRAWN or DRAWN[page] in drawn, (name, page, drawn)
        if (name, page) == ("one", "compare"):
            assert any("holds one prompt" in text for text in told)
        if (name, page) in (("one", "study"), ("two", "study"), ("two", "whatif")):
            assert any("Not recorded" in text for text in told), (name, page)
        if (name, page) == ("two", "compare"):
            assert any("Not recorded" in text for text in told), "Patch B into A"
            assert drawn.count("visit_flow") == 2 and "visit_story" in drawn


def test_a_recorded_page_shows_what_the_live_page_shows(files):
    """The same reading, the same map, the same drawing."""
    recording = open_recording(files["one"].read_bytes())
    live, recorded = start("flow", detail="4w"), start("flow", detail="4w", recording=recording)
    for app in (live, recorded):
        for _ in range(60):
            if not any("hourglass" in caption.value for caption in app.caption):
                break
            time.sleep(0.3)
            app.run()
    a, b = components(live), components(recorded)
    cells = [[[(c["w"], c["c"], c["v"]) for c in row["cells"]] for row in data["visit_lens_map"]["rows"]]
             for data in (a, b)]  # fmt: skip
    assert cells[0] == cells[1]
    assert a["visit_tokens"]["following"] == b["visit_tokens"]["following"]
    stories = [[c.proto.json for c in app.get("bidi_component") if c.proto.component_name == "visit_story"]
               for app in (live, recorded)]  # fmt: skip
    assert stories[0] == stories[1] and len(stories[0]) == 3
    nodes = [{n["id"]: (n["w"], n["f"][:2]) for n in data["visit_flow"]["nodes"]} for data in (a, b)]
    assert nodes[0].keys() == nodes[1].keys()
    assert all(nodes[0][node][0] == nodes[1][node][0] for node in nodes[0])
    assert "recorded" in str(recorded.main) and "recorded" not in said(live)


@pytest.mark.parametrize("page", ["flow", "compare", "memory", "whatif", "layernorm", "neurons"])
def test_no_control_of_a_recorded_page_breaks_it(page, files):
    import random

    from links import turn

    recording, dice = open_recording(files["two"].read_bytes()), random.Random(page)
    app, done = start(page, recording=recording, opened=PAGES[page]), []
    for _ in range(12):
        done.append(turn(app, dice))
        app.run()
        assert not app.exception and not app.error, done


def test_a_head_that_was_not_recorded_whole_is_told_and_the_rest_stands(files):
    recording = open_recording(files["two"].read_bytes())
    run = recording_named(recording).runs[0]
    whole = {key for key in run.results if key.startswith("memory ")}
    head = next(f"L{n}.head{j}" for n in range(8) for j in range(8) if f"memory L{n}.head{j}" not in whole)
    app = start("memory", recording=recording, head=head, opened="pattern")
    assert not app.exception and not app.error
    assert "Of this head only what stands in the map of all heads is recorded" in said(app)
    assert len([c for c in app.get("bidi_component") if c.proto.component_name == "visit_grid"]) == 2


def test_what_is_open_is_told_and_can_be_closed(files):
    recording = open_recording(files["one"].read_bytes())
    app = start("flow", recording=recording)
    assert r"visit\-mini" in said(app) and [b.label for b in app.button if b.key == "recording_close"] == ["Close"]
    assert app.main.text_input[0].disabled and not [b for b in app.button if b.key == "guide_me"]
    app.button(key="recording_live").click().run()
    assert not app.exception and "recording" not in app.query_params and app.text_area(key="w_prompt").value == TEXT
    app = start("flow", recording=recording)
    app.button(key="recording_close").click().run()
    assert "recording" not in app.query_params and app.text_area(key="w_prompt")


def test_a_link_to_a_recording_that_is_not_here_says_so_and_shows_the_model():
    app = start("flow", recording="0123456789abcdef0123456789abcdef")
    assert not app.exception and not app.error and "not open on this server" in said(app)
    assert "visit_flow" in components(app)


def test_a_file_that_is_no_recording_is_refused(files):
    whole = files["one"].read_bytes()
    for content in (b"", b"PK\x03\x04", whole[:-40], whole[:200] + b"x" + whole[201:]):
        with pytest.raises(VisitError, match="recording"):
            open_recording(content)


@pytest.mark.slow
def test_save_this_run_makes_the_file_that_the_library_makes(monkeypatch):
    kept: list[bytes] = []
    button = save_run.st.download_button

    def watched(label, data=None, *rest, **named):
        kept.extend([data] if named.get("key") == "save_file" else [])
        return button(label, data, *rest, **named)

    monkeypatch.setattr(save_run.st, "download_button", watched)
    app = AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=90).switch_page("pages/flow.py")
    app.session_state["save_run"] = True
    app.run()
    app.button(key="save_record").click().run()
    for _ in range(100):
        if kept or app.exception:
            break
        time.sleep(0.3)
        app.run()
    assert not app.exception and kept
    found, out = visit.load_recording(kept[-1]), io.BytesIO()
    visit.save_recording(out, visit.load_model("visit-mini"), TEXT)
    again = visit.load_recording(out.getvalue())
    assert list(found.runs[0].results) == list(again.runs[0].results)
    assert found.runs[0].result("heads").equals(again.runs[0].result("heads"))


def _save_dialog(page: str, prompt: str = TEXT) -> AppTest:
    app = AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=90).switch_page(f"pages/{page}.py")
    app.query_params["prompt"], app.query_params["prompt_b"] = prompt, OTHER
    app.session_state["save_run"] = True
    return app.run()


def test_save_run_says_what_is_kept_and_what_is_not():
    for page, kept in (("flow", "this position"), ("compare", "both texts")):
        text = said(_save_dialog(page))
        assert f"**Kept**, of {kept}" in text and "**Not kept**: patches, traces" in text, page
        assert ("a second text" in text) == (page == "flow")


def test_save_run_says_how_long_it_takes_and_can_be_stopped_between_heads():
    assert re.search(r"It takes about \d+ s on this machine", said(_save_dialog("flow", "The capital of Italy is")))
    one, told = save_run.Saving(), []
    watch = one.told

    def until_heads(share: float, what: str) -> None:
        told.append((share, what))
        if [name for _, name in told].count("the heads") == 3:
            one.halt()
        watch(share, what)

    one.told = until_heads  # type: ignore[method-assign]
    acts = visit.capture(visit.load_model("visit-mini"), TEXT)
    about = ("visit-mini", TEXT, len(acts.tokens) - 1, int(acts.logits[-1].argmax()), None)
    with pytest.raises(VisitError, match="Stopped"):
        save_run.recorded_bytes(one, about, None, "", False)
    assert told[-1][1] == "the heads" and [share for share, _ in told] == sorted(share for share, _ in told)
    one.again()
    assert not one.stop and not one.work.begun.locked()


def test_save_run_is_not_offered_where_nothing_is_kept():
    app = _save_dialog("trace")
    assert not app.exception and "**Kept**" not in said(app) and not [b for b in app.button if b.key == "save_record"]


def test_the_sidebar_names_the_model_of_the_recording_and_not_the_one_before():
    app = start("flow", recording="opening-smollm2")
    assert not [box for box in app.sidebar.selectbox if box.label == "Model"]
    assert "SmolLM2" in app.sidebar.text_input[0].value
    app.button(key="recording_close").click().run()
    assert not app.exception and app.sidebar.selectbox[0].value == "visit-mini"
    assert [box for box in app.sidebar.selectbox if box.label == "Model"]


@pytest.mark.parametrize(("name", "page"), [("one", "flow"), ("two", "compare")])
def test_a_recording_opens_where_it_shows_most(name, page, files, monkeypatch):
    went = SimpleNamespace(page="home", goto="")
    monkeypatch.setattr(opened_module, "session", lambda: went)
    for call in ("close_dialog", "take"):
        monkeypatch.setattr(opened_module, call, lambda **_: None)
    opened_module._opened_here(open_recording(files[name].read_bytes()))
    assert went.goto == f"pages/{page}.py"


def test_a_recording_is_checked_with_the_model_that_is_at_hand(files):
    recording = open_recording(files["one"].read_bytes())
    app = AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=90).switch_page("pages/flow.py")
    app.query_params["recording"], app.session_state["recording_check"] = recording, True
    app.run()
    app.button(key="recording_replay").click().run()
    for _ in range(100):
        if app.success or app.error:
            break
        time.sleep(0.3)
        app.run()
    assert not app.exception and not app.error
    assert re.search(
        r"\d+ nodes, \d+ edges, \d+ tables, \d patterns?.* readings? are the model’s", app.success[0].value
    )


def test_two_recordings_stand_beside_each_other_and_a_sentence_says_why(files):
    one = open_recording(files["one"].read_bytes())
    app = start("compare", recording=one, recording_b="opening")
    assert not app.exception and not app.error and "Two recordings of visit" in said(app)
    assert len([c for c in app.get("bidi_component") if c.proto.component_name == "visit_flow"]) == 2
    app = start("compare", recording=one, recording_b="opening-smollm2")
    assert not app.exception and not app.error
    assert "recordings of two models" in said(app) and "nothing is subtracted" in said(app)
    assert len([c for c in app.get("bidi_component") if c.proto.component_name == "visit_flow"]) == 2
    app.button(key="recording_b_close").click().run()
    assert "holds one prompt" in said(app) and "recording_b" not in app.query_params


PICTURE = "![t](http://elsewhere.invalid/t.png) <img src=x>"


def test_texts_of_a_recording_are_neither_markdown_nor_a_traceback(files, caplog):
    """Somebody has written another text in the place of every word of its tables: names of identities, of figures."""
    from visit.files.recording_file import packed_recording, unpacked_recording
    from visit.text.node_id import NodeId

    content, arrays = unpacked_recording(files["two"].read_bytes())
    texts = content["texts"]
    kinds = {"add", "residual", "multiply", "norm", *(node.kind for node in map(NodeId.parse, texts) if node)}
    content["texts"] = [t if t in kinds or NodeId.parse(t) else f"{PICTURE} {n}" for n, t in enumerate(texts)]
    name = open_recording(packed_recording(content, arrays))
    app = start("memory", recording=name, opened="paper-figures")
    assert not app.exception and "do not fit together" in app.error[0].value
    assert not [text for text in said(app).split("\n") if re.search(r"(?<!\\)!\[|(?<!\\)<img", text)]
    assert [record.levelname for record in caplog.records if record.name == "visit"] == ["WARNING"]


def test_a_hosted_app_opens_what_its_memory_has_room_for(files, monkeypatch):
    monkeypatch.setenv("VISIT_HOSTED", "1")
    data = files["one"].read_bytes()
    for bound, why in (("HOSTED_UNPACKED", "unpacks to"), ("HOSTED_PATTERN", "attention patterns")):
        with monkeypatch.context() as small:
            small.setattr(recorded_module, bound, 1000)
            with pytest.raises(VisitError, match=why):
                open_recording(data)
    assert open_recording(data)


def test_a_recording_that_left_the_store_leaves_nothing_behind(files):
    """Its words and patterns, as a model and a pass, were kept for the last eight, beside the bound."""
    name = open_recording(files["two"].read_bytes())
    for side in "ab":
        made = recorded_module.recorded_name(name, side)
        recorded_module.recorded_model(made)
        assert recorded_module.recorded_pass(made) is recorded_module.recorded_pass(made)
    opened, held = ref(recording_named(name)), recorded_module._opened().bytes
    assert held > 6 * opened().size
    recorded_module._opened().clear()
    gc.collect()
    assert opened() is None


def test_a_recording_of_a_folder_is_checked_with_that_folder_if_it_is_open_and_the_same(tmp_path):
    own = tmp_path / "of-mine"
    shutil.copytree(ROOT / "visit" / "data" / "visit-mini", own)
    out, model = io.BytesIO(), visit.load_model(str(own))
    visit.save_recording(out, model, TEXT, layers=[4], memory=1)
    recording = open_recording(out.getvalue())
    assert recording_named(recording).model.loads is None
    labels = {}
    for asked, opened in (("not open", False), ("open", True)):
        if opened:
            model_shelf().get(str(own))
        app = start("flow", recording=recording, model=str(own))
        assert not app.exception
        labels[asked] = [button.label for button in app.button]
    assert "Run the model" in labels["open"] and "Run the model" not in labels["not open"]
    app = start("flow", recording=recording, model="visit-mini")
    assert "Run the model" not in [button.label for button in app.button], "another name"
