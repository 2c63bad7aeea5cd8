"""The compare page: its script without a browser, and what only a browser can see."""

from __future__ import annotations

import models
import pytest
from escapes import as_read
from streamlit.testing.v1 import AppTest
from transformers import AutoModelForCausalLM

from visit.app.state import DEFAULT_PROMPT, DEFAULT_PROMPT_B

NOT = "The capital of Japan is not the city of"


def start(**params: str) -> AppTest:
    """The page with two capitals, both drawings and the answers' numbers opened; of `params` what is asked."""
    app = AppTest.from_file("../../streamlit_app.py", default_timeout=60)
    for name, value in {"prompt_b": DEFAULT_PROMPT_B, "opened": "answers,flows", **params}.items():
        app.query_params[name] = value
    return app.run().switch_page("pages/compare.py").run()


def drawings(app: AppTest) -> list[str]:
    return [c.proto.json for c in app.get("bidi_component") if '"svg"' in c.proto.json]


def url(app: AppTest) -> dict[str, str]:
    return {k: v[0] if isinstance(v, list) else v for k, v in app.query_params.items()}


def captions(app: AppTest) -> str:
    return " ".join(c.value for c in app.caption)


def test_the_page_opens_on_a_copy_and_says_what_to_change(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("visit.analyses.graph_difference.compare", never)
        patch.setattr("visit.analyses.divergence.part", never)
        app = start(prompt_b="", opened="", prompt="The capital of Peru is the city of")
        assert not app.exception and not app.error and not app.warning
    assert app.text_area(key="w_prompt_b").value == app.text_area(key="w_prompt").value
    (said,) = [m.value for m in app.markdown if "nothing differs yet" in m.value]
    assert "for one “·Peru”" in said and "L4 H1" in said and "“·Lima”" in said
    assert not app.dataframe and not drawings(app), "no table of zeros"
    app.text_area(key="w_prompt").set_value(DEFAULT_PROMPT).run()
    assert app.text_area(key="w_prompt_b").value == DEFAULT_PROMPT, "a copy follows"
    app.text_area(key="w_prompt_b").set_value(DEFAULT_PROMPT_B).run()
    assert not app.exception and url(app) == {"prompt_b": DEFAULT_PROMPT_B}
    assert any("The prompts differ in" in c.proto.json for c in app.get("bidi_component"))


def never(*_given, **_named):
    raise AssertionError("computed though nobody looks at it")


def test_a_copy_is_looked_at_where_the_first_is():
    app = start(prompt_b="", opened="", pos="3")
    assert not app.exception and any("nothing differs yet" in m.value for m in app.markdown)


def test_drawings_are_made_when_they_are_opened(monkeypatch):
    other = "The capital of Kenya is the city of"
    with monkeypatch.context() as patch:
        patch.setattr("visit.drawing.pair.both_data", never)
        assert not start(opened="", prompt_b=other).exception
        assert start(opened="flows", prompt_b=other).exception


def test_two_capitals_are_compared():
    app = start()
    assert not app.exception and not app.error and not app.warning
    assert len(drawings(app)) == 2
    answers = app.dataframe[0].value
    assert answers["word"].tolist() == ["·Tokyo", "·Paris"] and answers["rank_a"].tolist()[0] == 1
    assert app.dataframe[1].value["difference"].abs().is_monotonic_decreasing


@pytest.mark.parametrize("label", ["Two capitals", "Names swapped", "A fact and its negation", "A paraphrase"])
def test_every_preset_opens_and_says_what_to_look_for(label):
    app = start(prompt_b="")
    app.button(key=f"begin {label}").click().run()
    assert not app.exception and not app.error and not app.warning
    (look,) = [c.value for c in app.caption if "lightbulb" in c.value]
    assert len(drawings(app)) == 2 and len(as_read(look)) > 60


def test_a_link_opens_what_it_names():
    app = start(
        prompt_b=NOT, target_b=" Tokyo", align="5:5", view="difference", node="L4.head1.value5b", apart="cosine"
    )
    assert not app.exception and not app.error and not app.warning
    assert len(drawings(app)) == 1 and "L4.head1.value" in drawings(app)[0]
    assert url(app)["align"] == "5:5" and url(app)["view"] == "difference"


def test_swap_and_copy():
    app = start(prompt_b=NOT, target_b=" Tokyo")
    next(b for b in app.button if b.label == "Swap A and B").click().run()
    assert app.text_area(key="w_prompt").value == NOT and app.text_area(key="w_prompt_b").value == DEFAULT_PROMPT
    words = [t.value for t in app.text_input if t.key.startswith("w_target")]
    assert words == [" Tokyo", ""], "of A, then of B"
    next(b for b in app.button if b.label == "Copy A to B").click().run()
    assert app.text_area(key="w_prompt_b").value == NOT and not app.exception and not app.error


def test_identical_prompts_are_said_and_differ_in_nothing():
    app = start(prompt_b=DEFAULT_PROMPT)
    assert not app.exception and not app.error and not app.dataframe
    assert any("nothing differs yet" in m.value for m in app.markdown)


def test_a_prompt_that_is_too_long_leaves_the_other_on_screen():
    app = start()
    app.text_area(key="w_prompt_b").set_value("word " * 700).run()
    assert not app.exception and len(app.error) == 1 and "Shown meanwhile" in as_read(app.error[0].value)
    assert len(drawings(app)) == 2 and app.text_area(key="w_prompt").value == DEFAULT_PROMPT


@pytest.mark.parametrize(
    ("a", "b"),
    [("x", "The capital of Japan is the city of"), ("x", "y"), ("🙂", "שלום"), ("a " * 90, "The cat"),
     ("<script>alert(1)</script> **x** :red[y]", "'\"><img src=x>")],
)  # fmt: skip
def test_any_two_prompts_simply_work(a, b):
    app = start(prompt=a, prompt_b=b)
    assert not app.exception and not app.error and len(drawings(app)) == 2


def test_a_correction_that_cannot_be_is_said():
    app = start(align="99:1")
    assert not app.exception and not app.error and any("uncorrected" in as_read(i.value) for i in app.info)


def test_two_models_of_one_shape_have_a_difference(tmp_path):
    folder = saved(tmp_path / "other", n_layer=8, n_head=8, n_embd=128, n_inner=512)
    app = start(model_b=folder, prompt_b=DEFAULT_PROMPT)
    assert not app.exception and not app.error and len(drawings(app)) == 2 and len(app.dataframe) == 2


def test_models_of_other_shapes_stand_side_by_side_and_the_page_says_why(tmp_path):
    folder = saved(tmp_path / "other", n_layer=3, n_head=4, n_embd=24, n_inner=40)
    app = start(model_b=folder)
    assert not app.exception and not app.error and len(drawings(app)) == 2
    assert any("components that correspond: as many layers" in as_read(i.value) for i in app.info)
    assert "different numbers of layers" in captions(app)


def saved(folder, **shape) -> str:
    from transformers import GPT2Config

    words = models.tokenizer()
    hf = AutoModelForCausalLM.from_config(GPT2Config(n_positions=256, vocab_size=len(words), **shape, **models.IDS))
    hf.save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


def test_a_click_on_compare_with_opens_the_page():
    app = AppTest.from_file("../../streamlit_app.py", default_timeout=60).switch_page("pages/flow.py").run()
    other = next(t for t in app.text_area if t.label.startswith("Compare with"))
    other.set_value("The capital of Italy is the city of").run()
    assert not app.exception and app.title[0].value == "Compare"
    assert app.text_area(key="w_prompt_b").value == "The capital of Italy is the city of"


def test_a_hidden_node_that_is_chosen_is_shown_again(monkeypatch):
    from visit.app import graph_panel as graphs
    from visit.app.state import State, with_values

    kept: dict[str, str] = {}
    monkeypatch.setattr(graphs, "state", lambda: with_values(State(), {"pin": "-L4.head1,L2.head3"}))
    monkeypatch.setattr(graphs, "change", lambda **values: kept.update(values))
    graphs.select("L4.head1.value3")
    assert kept["pin"] == "L2.head3" and kept["node"] == "L4.head1.value3"


def test_a_prompt_past_the_limit_is_said():
    app = start()
    app.text_area(key="w_prompt").set_value("word " * 2000).run()
    assert not app.exception and any("8,000 characters; got 10,000" in as_read(e.value) for e in app.error)
    assert "Prompt A: " in as_read(app.error[0].value) and "prompt" not in url(app)


def test_one_sided_distractors_are_said():
    app = start(distractor=" Kyoto")
    assert not app.exception
    assert [c for c in app.get("bidi_component") if "Only A has a distractor" in c.proto.json]


@pytest.mark.parametrize(
    ("key", "words"), [("scale_same", (" Tokyo", " Kyoto")), ("scale_swapped", (" Kyoto", " Tokyo"))]
)
@pytest.mark.parametrize("side", ["", "_b"])
def test_the_other_side_can_be_asked_about_the_same_two_words(key, words, side):
    app = start(opened="", **{f"target{side}": " Tokyo", f"distractor{side}": " Kyoto"})
    app.button(key=key).click().run()
    assert not app.exception and not app.warning
    other, now = "" if side else "_b", url(app)
    assert (now[f"target{other}"], now[f"distractor{other}"]) == words
    assert not [c for c in app.get("bidi_component") if "has a distractor" in c.proto.json]
    assert key not in [button.key for button in app.button]
