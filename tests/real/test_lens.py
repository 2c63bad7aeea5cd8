"""The fitted lens of a trained model reads what plain readings hide, and only what is there: the bars, the controls.

One default fit for all of them, about a minute; it lies in the cache folder until the code that fits it changes.
"""

from __future__ import annotations

import csv
import hashlib
import inspect
from dataclasses import replace
from importlib.resources import files

import pytest
import torch

import visit
from visit import VisitError
from visit.cache import cache_folder
from visit.lenses import fit_linear, linear, trust
from visit.runs.answers import answered
from visit.runs.prompts import shipped_set

JAPAN = "The capital of Japan is the city of"
BLIND, MADE = 22, 23  # the last block at which the answer is not yet there, and the one that brings it
NAMING = {
    "capital of a country",
    "city of a landmark",
    "continent of a country",
    "country of a city",
    "country of birth",
    "country of a landmark",
    "language of a country",
    "author of a work",
}  # facts of places and people: word forms and symbols of elements are made later than block 24


@pytest.fixture(scope="module")
def lens(smollm2):
    code = "".join(inspect.getsource(module) for module in (fit_linear, linear))
    path = cache_folder() / "lenses" / f"tests-{hashlib.sha256(code.encode()).hexdigest()[:12]}.safetensors"
    try:
        return visit.load_lens(path).check(smollm2)
    except VisitError:
        made = visit.fit_lens(smollm2)
        made.save(path)
        return made


@pytest.fixture(scope="module")
def known(smollm2):
    """The facts of places and people that the model answers, as prompts."""
    text = (files("visit") / "data" / "prompts" / "world.csv").read_text(encoding="utf-8")
    naming = {row["prompt"] for row in csv.DictReader(text.splitlines()) if row["relation"] in NAMING}
    facts = shipped_set("facts", smollm2.name)
    asked = replace(facts, rows=tuple(row for row in facts.rows if row.prompt in naming))
    kept = [row.prompt for row in answered(smollm2, asked).kept.rows]
    assert len(kept) >= 150
    return kept


@pytest.fixture(scope="module")
def wrong(smollm2, lens, known):
    return trust.wrong_answers(smollm2, lens, known)


# ---- the bars --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("block", "bits"), [(8, 4.8), (20, 3.0), (24, 1.5), (27, 0.75)])
def test_it_comes_near_to_the_prediction_on_text_that_was_not_used(lens, block, bits):
    assert lens.report["kl"][block] <= bits < lens.report["kl_plain"][block] / 2


def test_it_is_nearer_than_the_plain_lens_at_every_block_but_the_last(lens):
    assert (lens.report["kl"] < lens.report["kl_plain"])[:-1].all()
    assert (lens.report["top1"] > lens.report["top1_plain"])[:-1].all()
    assert lens.report.iloc[-1][["kl_plain", "kl"]].abs().max() == 0


@pytest.mark.parametrize(("block", "share"), [(MADE, 0.48), (24, 0.75)])
def test_it_names_the_answers_to_the_facts(smollm2, lens, known, block, share):
    records = list(visit.capture_many(smollm2, known, ("resid_post", "logits"), pos=-1))
    states = torch.cat([acts.resid_post[block] for acts in records])
    answers = [smollm2.vocabulary[int(acts.logits[-1].argmax())] for acts in records]
    fitted, plain = (
        visit.read_vectors(smollm2, states, k=1, lens=one, layer=block)["tokens"].str[0] == answers
        for one in (lens, None)
    )
    assert fitted.mean() >= share > plain.mean()


@pytest.mark.parametrize("block", [MADE, 24])
def test_the_right_answer_stands_first_and_a_wrong_one_far_below(wrong, block):
    row = wrong.iloc[block]
    assert row["right_rank"] == 1 and row["wrong_rank"] >= 500
    assert row["right_rank_plain"] > 10, "which the plain lens does not see yet"


# ---- the controls ----------------------------------------------------------------------------------------------------
def test_before_the_answer_is_made_the_right_one_is_not_known(wrong):
    assert wrong["right_rank"][10] > 10


def test_late_it_reads_this_prompt_and_early_what_any_text_leads_to_expect(smollm2, lens, known):
    table = trust.specific(smollm2, lens, known)
    assert table["own_share"][MADE] > 0.75 and table["other_share"][MADE] < 0.2
    assert table["other_share"][14] > 0.3


def test_it_sees_the_answer_where_it_causally_arrives(smollm2, lens, known):
    table = trust.arrivals(smollm2, lens, known[::3], [BLIND, MADE]).set_index("layer")
    assert table["arrives"][BLIND] < 0.35 < 0.8 < table["arrives"][MADE]
    assert table["names"][BLIND] < 0.25 and table["names_plain"][MADE] == 0
    assert (table["names"] <= table["arrives"]).all()


def test_maps_of_other_blocks_read_worse(smollm2, lens):
    turned = trust.report(smollm2, trust.shuffled_layers(lens), 32)
    straight = trust.report(smollm2, lens, 32)
    assert (turned["kl"][4:-1] > straight["kl"][4:-1]).all()


# ---- what a student sees ---------------------------------------------------------------------------------------------
def test_the_map_shows_european_capitals_and_one_block_later_tokyo(smollm2, lens):
    table = visit.lens_map(smollm2, visit.capture(smollm2, JAPAN), " Tokyo", k=10, lens=lens)
    last = table[table["pos"] == table["pos"].max()].set_index("layer")
    assert len({" Berlin", " Rome", " Prague", " Venice", " Vienna"} & set(last["tokens"][BLIND])) >= 2
    assert last["prob"][BLIND] < 0.1 < 0.5 < last["prob"][MADE]
    assert (last.loc[MADE:, "top"] == " Tokyo").all()
