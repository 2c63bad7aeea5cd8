"""Paths on the page of heads over a set: asked, forecast, run, told, chosen from, and refused where partners lack."""

from __future__ import annotations

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

import visit
from visit.causal.path_lines import path_lines, receivers_of
from visit.causal.path_patching import inhibitors_of, inhibitors_otherwise, path_job, path_key
from visit.narrate.paths import effect_with_band, inhibitor_story, path_story
from visit.runs.answers import fitting
from visit.runs.prompts import shipped_set
from visit.runs.worker import WORKER


def start(**params: str) -> AppTest:
    app = AppTest.from_file("../../streamlit_app.py", default_timeout=120)
    for key, value in {"lines": "16", **params}.items():
        app.query_params[key] = value
    return app.run().switch_page("pages/heads.py").run()


def measured(app: AppTest, names: list[str], kind: str = "q", at: int | str = -1) -> AppTest:
    """The run as the page would start it: AppTest loses clicks on a page that it was switched to."""
    model = visit.load_model("visit-mini")
    to = receivers_of(model, names, kind)
    lines, _ = path_lines(model, fitting(model, shipped_set("ioi").spread(16)), None, to, at, at)
    WORKER.submit(path_key(model, lines, to, kind), lambda: path_job(model, lines, to, kind)).wait(120)
    return app.run()


def text(app: AppTest) -> str:
    return " ".join(e.value for e in [*app.markdown, *app.caption, *app.info, *app.warning]).replace("\\", "")


def sent(app: AppTest):
    return next(d.value for d in app.dataframe if list(d.value)[:2] == ["name", "effect"])


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIT_CACHE", str(tmp_path))
    yield
    WORKER.reset()


def test_before_a_run_the_part_says_what_it_will_take():
    app = start()
    assert not app.exception and not app.error
    assert "Paths: which head says it to whom?" in [h.value for h in app.header]
    assert "Patch the paths" in [b.label for b in app.button]
    assert "16 prompts on this machine" in text(app)


def test_the_map_and_the_table_are_the_librarys():
    app = measured(start(), ["logits"])
    assert not app.exception and not app.error
    expected = visit.paths(visit.load_model("visit-mini"), shipped_set("ioi").spread(16))
    order = expected.reindex(expected["effect"].abs().sort_values(ascending=False, kind="stable").index)
    assert sent(app)["effect"].tolist() == pytest.approx(order["effect"].tolist(), abs=1e-5)
    assert list(sent(app)) == ["name", "effect", "band", "direct"]


def test_heads_of_ones_own_receive_at_a_column_of_the_set():
    params = {"ends": "own", "receiving": "L3.head1, L4.head7", "into": "v", "path_at": "distractor"}
    app = measured(start(**params), ["L3.head1", "L4.head7"], "v", "distractor")
    assert not app.exception and not app.error
    shown = next(s for s in app.selectbox if s.label == "Shown")
    assert shown.options == ["all of them together", "L3 H1", "L4 H7"]
    assert len(sent(app)) == 4 * 8
    one = start(**params, path_to="L3.head1")
    assert len(sent(one)) == 3 * 8


def test_movers_are_asked_for_first_where_nothing_was_measured():
    assert "Measure every head above first" in text(start(ends="movers"))


def test_an_unknown_receiver_or_position_is_a_sentence():
    assert "no head sends to L0.head1" in text(start(ends="own", receiving="L0.head1"))
    assert "Heads of visit-mini" in text(start(ends="own", receiving="L3.head99"))
    assert "Name the heads that receive" in text(start(ends="own"))


def test_a_set_without_partners_says_what_is_missing():
    app = start(heads_set="names")
    assert not app.exception and "Paths need a partner text in every line" in text(app)


def test_a_chosen_sender_is_told_with_its_band_and_leads_to_what_if():
    app = measured(start(node="L0.head2"), ["logits"])
    row = visit.paths(visit.load_model("visit-mini"), shipped_set("ioi").spread(16)).set_index("sender").loc["L0.head2"]
    assert f"**L0 H2** past all other heads: {effect_with_band(row)} logits; of it " in text(app)
    assert "What if it had the partner’s value?" in [b.label for b in app.button]


def test_inhibitors_are_named_by_both_criteria_with_their_numbers():
    model, prompts = visit.load_model("visit-mini"), shipped_set("ioi").spread(16)
    heads = visit.head_question(model, prompts)
    movers = heads[(heads["role"] == "mover") & (heads["layer"] > 0)]["node"].tolist()
    table = visit.paths(model, prompts, None, movers)
    found = inhibitors_of(heads, table)
    others = inhibitors_otherwise(heads, table)
    sentence = "".join(piece for piece, _ in inhibitor_story(found, others))
    assert len(found) and found["effect"].max() < -0.3 and found["contribution"].abs().max() < 0.1
    assert sentence.startswith("Inhibitor") and "through the movers’ queries" in sentence
    assert path_story(table).count("queries of") == 1
    assert inhibitor_story(found.head(0), others)[0][0].startswith("No head is an inhibitor")
    by_effect = set(heads.loc[heads["role"] == "inhibitor", "node"]) & set(table["sender"])
    assert set(others["sender"]) == by_effect - set(found["sender"]), "the two lists are told apart"


def test_an_inhibitor_by_its_effect_alone_is_said_to_be_none_by_this_way():
    """On SmolLM2 L22 H5 stood in the roles above and was missing here, without a word."""
    rows = [("L20.head0", -0.01, -1.0), ("L22.head5", 0.02, -0.05)]
    found = pd.DataFrame(rows, columns=["sender", "contribution", "effect"])
    told = inhibitor_story(found.head(1), found.tail(1))
    assert "".join(text for text, _ in told) == (
        "Inhibitor by their path: L20 H0 (adds −0.01 itself, through the movers’ queries −1.0). "
        "By its effect above, but not by this way: L22 H5 (−0.05)."
    ).replace("their path", "its path")
    assert told[-2][1] is None and told[-3][1] == "L22.head5"
