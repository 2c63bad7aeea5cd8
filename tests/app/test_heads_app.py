"""The page of one's own question over a set: asked, forecast, run, told, chosen from, laid beside another set."""

from __future__ import annotations

from dataclasses import replace
from threading import Event
from types import SimpleNamespace

import pytest
from streamlit.testing.v1 import AppTest

import visit
from visit.app.set_question import SetQuestion, shown_in, with_band_columns
from visit.app.two_sets import full_colours, shared_lines, side_names
from visit.causal.head_sets import HeadRun, head_key
from visit.causal.set_lines import asked_lines
from visit.runs.answers import fitting
from visit.runs.prompts import read_prompts, shipped_set
from visit.runs.worker import WORKER

FEW = {"lines": "16"}


def start(**params: str) -> AppTest:
    app = AppTest.from_file("../../streamlit_app.py", default_timeout=120)
    for key, value in params.items():
        app.query_params[key] = value
    return app.run().switch_page("pages/heads.py").run()


def measured(app: AppTest, name: str = "ioi", kind: str = "heads", how: str = "zero") -> AppTest:
    """The run as the page would start it: AppTest loses clicks on a page that it was switched to."""
    model = visit.load_model("visit-mini")
    asked = asked_lines(model, fitting(model, shipped_set(name).spread(16)), how)
    WORKER.submit(head_key(model, asked, kind, how, -1, False), lambda: HeadRun(model, asked, kind, how)).wait(120)
    return app.run()


@pytest.fixture
def own(monkeypatch):
    """The page with a pasted set."""

    def opened(content: str, **params: str) -> AppTest:
        monkeypatch.setattr("visit.app.prompt_sets._own_set", lambda: read_prompts(content))
        return start(heads_set="own", **params)

    return opened


def text(app: AppTest) -> str:
    return " ".join(e.value for e in [*app.markdown, *app.caption, *app.info, *app.warning])


def unescaped(text: str) -> str:
    return text.replace("\\", "")


def label(app: AppTest, said: str) -> list[str]:
    return [b.label for b in app.button if said in b.label]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIT_CACHE", str(tmp_path))
    yield
    WORKER.reset()


def test_before_a_run_the_page_says_what_it_will_take():
    app = start()
    assert not app.exception and not app.error and not app.warning
    assert (
        "**About " in text(app) and "48 prompts on this machine" in text(app) and label(app, "Measure") == ["Measure"]
    )


def test_a_run_is_told_in_sentences_and_is_the_librarys_table():
    app = measured(start(**FEW))
    assert not app.exception and not app.error
    found = visit.head_question(visit.load_model("visit-mini"), shipped_set("ioi").spread(16))
    table = next(d.value for d in app.dataframe if "contribution_band" in d.value)
    order = found.reindex(found["effect"].abs().sort_values(ascending=False, kind="stable").index)
    assert table["effect"].tolist() == pytest.approx(order["effect"].tolist())
    assert table["role"].dropna().tolist() == order["role"].dropna().tolist() != []
    assert "Choose a cell or a row" in text(app)


def test_a_chosen_head_is_told_with_the_ways_to_a_prompt_of_the_set():
    app = measured(start(**FEW, node="L4.head1"))
    assert "**L4 H1**" in text(app) and not app.exception
    assert label(app, "recall there") and label(app, "not there") and label(app, "in the flow graph")
    line = shipped_set("ioi").rows[0]
    assert shown_in(line, "L4.head1", "zero") == {"edits": "L4.head1~zero@-1"}
    assert shown_in(line, "L4.head1", "mean") == {"edits": "L4.head1~zero@-1"}  # What if knows no mean over a set
    assert shown_in(line, "L4.head1", "from") == {"edits": "L4.head1~from@-1", "prompt_b": line.abc}


@pytest.mark.parametrize("asks", ["layers", "neurons"])
def test_layers_and_neurons_are_asked_the_same(asks):
    app = measured(start(**FEW, asks=asks, instead="mean"), "ioi", asks, "mean")
    assert not app.exception and not app.error
    table = next(d.value for d in app.dataframe if "contribution_band" in d.value)
    assert len(table) == {"layers": 16, "neurons": 100}[asks] and "role" not in table
    assert ("Choose a row" if asks == "neurons" else "Choose a cell or a row") in text(app)


def test_a_second_set_lies_beside_and_what_differs_is_told_and_listed():
    app = measured(start(**FEW, set_b="names"))
    assert not app.exception and label(app, "Measure") == ["Measure"]
    app = measured(app, "names")
    assert not app.exception and not app.error and "**What differs**: names minus ioi" in text(app)
    assert "**ioi, 16 of 48 prompts**" in text(app) and "**names, 16 of 141 prompts**" in text(app)
    of_set, apart = [d.value for d in app.dataframe if "contribution_band" in d.value]
    assert (apart["effect_b"] - apart["effect_a"] - apart["effect"]).abs().max() < 1e-9
    assert set(of_set.loc[of_set["name"] == "L4 H1", "effect"]) == set(apart.loc[apart["name"] == "L4 H1", "effect_a"])
    told = [c.proto.json for c in app.get("bidi_component") if c.proto.id.endswith("second_story")]
    assert len(told) == 1 and "differ" in told[0]


def test_sets_that_ask_for_two_quantities_are_not_subtracted():
    """The effects on a logit were subtracted from those on a difference of logits, with bands and all."""
    app = measured(measured(start(**FEW, set_b="plain")), "plain")
    assert not app.exception and not app.error and "**What differs**" not in text(app)
    assert "plain has no distractors" in text(app) and "two quantities" in text(app)
    assert len([d for d in app.dataframe if len(d.value) == 10 and "effect_band" in d.value]) == 2


def test_no_two_columns_have_one_heading():
    table = visit.head_question(visit.load_model("visit-mini"), shipped_set("ioi").spread(2))
    for effect in ("Effect", "Difference"):
        _, names, config = with_band_columns(table, effect)
        labels = [one if isinstance(one, str) else one["label"] for one in (config[name] for name in names)]
        assert len(set(labels)) == len(labels) == 7, labels


def test_a_side_is_called_by_its_set_and_where_models_differ_by_their_titles():
    """It said smollm2, where everything else says SmolLM2 135M."""

    def side(name: str, count: int) -> SetQuestion:
        sums = SimpleNamespace(moments={"parts": SimpleNamespace(count=count)})
        return SetQuestion(SimpleNamespace(name=name), shipped_set("ioi"), None, "heads", "zero", None, sums)

    assert side_names(side("smollm2", 48), side("smollm2", 16)) == ["ioi, 48 prompts", "ioi, 16 of 48 prompts"]
    assert side_names(side("smollm2", 48), side("visit-mini", 1))[0] == "SmolLM2 135M\\: ioi, 48 prompts"


def test_lines_that_both_sets_hold_are_counted():
    model = visit.load_model("visit-mini")
    asked = [asked_lines(model, replace(shipped_set("ioi"), rows=shipped_set("ioi").rows[cut]))
             for cut in (slice(0, 5), slice(3, 9))]  # fmt: skip
    one, other = (SetQuestion(model, shipped_set("ioi"), side, "heads", "zero", None) for side in asked)
    assert len(shared_lines(one, other)) == 2


@pytest.mark.parametrize("name", ["facts", "names", "ioi", "plain", "repeats"])
def test_a_shipped_set_is_explained_with_its_first_line(name):
    app, row = start(**FEW, heads_set=name), shipped_set(name).rows[0]
    told = [unescaped(c.value) for c in app.caption if unescaped(c.value).startswith(f"{name}: ")]
    assert len(told) == 1 and f"“{row.prompt}” → “·{row.target.strip()}”" in told[0] and not app.exception
    assert ("not “" in told[0]) == (row.distractor is not None)
    assert ("object identification" in told[0]) == (name == "ioi")


def test_maps_of_two_models_have_scales_of_their_own():
    """visit-mini's largest effect, four times SmolLM2's, left the map of the latter without a colour."""
    model = visit.load_model("visit-mini")
    one = visit.head_question(model, shipped_set("ioi").spread(2))
    other = one.assign(effect=one["effect"] / 4, contribution=one["contribution"] / 4, influence=one["influence"] / 4)
    apart, same = full_colours(False, (one, other)), full_colours(True, (one, other))
    assert apart[0] == pytest.approx(4 * apart[1]) and same == [apart[0]] * 2


def lines_of(app: AppTest):
    """The table of lines, before there are results."""
    return next(d.value for d in app.dataframe if "tokens" in d.value)


def test_the_lines_are_seen_before_a_run_as_the_model_is_asked_them():
    app = start(**FEW)
    model, rows = visit.load_model("visit-mini"), shipped_set("ioi").spread(16).rows
    table = lines_of(app)
    assert not app.exception and label(app, "Measure") and len(table) == 5 and "wrong" not in table
    for row, shown in zip(rows, table.to_dict("records"), strict=False):
        ids = visit.capture(model, row.prompt).token_ids
        assert shown["length"] == len(ids) and shown["tokens"].split("  ")[-1] == "·to"
        assert shown["position"] == f"{len(ids) - 1} (·to)" and shown["line"] == row.line
        assert (shown["target"], shown["distractor"]) == (f"·{row.target.strip()}", f"·{row.distractor.strip()}")
    app = measured(app)
    assert not any("tokens" in d.value for d in app.dataframe), "folded behind the results"
    assert any(e.label.startswith("The lines: 16 prompts") for e in app.expander)


def test_a_line_that_is_wrong_stands_in_the_table_wherever_it_is_in_the_file(own):
    """A mixed set: other lengths, a position that is not there, no distractor, the same word twice."""
    good = "The capital of Japan is the city of, Tokyo, Paris,\n"
    wrong = ["Paris is in, France, Rome,9\n", "Rome is in, Italy,,\n", "Rome is in, Italy, Italy,\n"]
    app = own("prompt,target,distractor,pos\n" + good * 7 + "".join(wrong) + "Rome is in, Italy, France,1\n")
    table = lines_of(app)
    assert not app.exception and table["line"].tolist() == [2, 3, 4, 5, 6, 9, 10, 11]
    for reason, said in zip(table["wrong"][5:], ("no position 9", "no distractor", "same token"), strict=True):
        assert said in reason
    assert "3 to 8 tokens" in unescaped(text(app)) and "3 of 11 lines cannot be asked" in text(app)


SEVERAL = "prompt,target,distractor\nThe capital of Japan is, Tokyoooo, Paris\nThe capital of France is, Paris, Rome\n"


def test_lines_that_cannot_be_asked_are_listed_and_the_first_token_offered(own):
    app = own(SEVERAL)
    table = lines_of(app)
    assert not app.exception and "1 of 2 lines cannot be asked this" in text(app)
    assert table["line"].tolist() == [2, 3] and "exactly one token" in table["wrong"][0] and not table["wrong"][1]
    assert any("first token of longer words (1 line)" in t.label for t in app.toggle)
    app = own(SEVERAL, first_token="1")
    assert "Line 2: a word of several tokens stands for its first one." in unescaped(text(app))
    assert "2 prompts on this machine" in text(app)


def test_a_set_that_cannot_be_asked_says_why_in_one_sentence(own):
    app = start(heads_set="facts", instead="from")
    assert (
        not app.exception and len(app.error) == 1 and "line 2: it has no partner text" in unescaped(app.error[0].value)
    )
    app = own("prompt,target,distractor\nThe capital of Japan is, Tokyo, Tokyo\n")
    assert "same token" in app.error[0].value


def test_a_hosted_app_bounds_what_a_visitor_may_ask(monkeypatch):
    monkeypatch.setenv("VISIT_HOSTED", "1")
    monkeypatch.setattr("visit.app.set_runs.QUESTION_SECONDS", 0.0)
    app = start()
    assert not app.exception and "hosted for many" in text(app) and not label(app, "Measure")


def test_a_run_that_was_stopped_shows_what_is_done_and_offers_to_go_on(monkeypatch):
    real, third, go = HeadRun._measured, Event(), Event()

    def slow(self, line):
        if self.sums.moments["parts"].count >= 3:
            third.set()
            go.wait(60)
        return real(self, line)

    monkeypatch.setattr(HeadRun, "_measured", slow)
    model = visit.load_model("visit-mini")
    asked = asked_lines(model, fitting(model, shipped_set("ioi").spread(16)))
    run = WORKER.submit(head_key(model, asked, "heads", "zero", -1, False), lambda: HeadRun(model, asked))
    app = start(**FEW)
    assert third.wait(60) and not app.exception
    app.run()
    assert any(b.label.startswith("Stop") for b in app.button)
    run.cancel()
    go.set()
    run.wait(60)
    app.run()
    assert label(app, "Resume") == ["Resume"] and "Stopped after" in text(app) and not app.exception
