"""The fitted lens of a trained model reads what plain readings hide, and only what is there: the bars, the controls.

One default fit for all of them, about a minute; it lies in the cache folder until the code that fits it changes.
"""

from __future__ import annotations

import csv
import hashlib
import inspect
from pathlib import Path

import pytest
import torch

import visit
from visit import VisitError
from visit.cache import cache_folder
from visit.lenses import fit_linear, least_squares, linear, logit, trust, written_rows
from visit.runs.answers import answered
from visit.runs.prompts import shipped_set

JAPAN = "The capital of Japan is the city of"
BLIND, MADE = 22, 23  # the last block at which the answer is not yet there, and the one that brings it
FACTS = [row["prompt"] for row in csv.DictReader(Path(__file__).with_name("facts71.csv").open(encoding="utf-8"))]


@pytest.fixture(scope="module")
def lens(smollm2):
    code = "".join(inspect.getsource(module) for module in (fit_linear, least_squares, linear, trust, written_rows))
    path = cache_folder() / "lenses" / f"tests-{hashlib.sha256(code.encode()).hexdigest()[:12]}.safetensors"
    try:
        return visit.load_lens(path).check(smollm2)
    except VisitError:
        made = visit.fit_lens(smollm2)
        made.save(path)
        return made


@pytest.fixture(scope="module")
def read(smollm2, lens):
    return ranks(smollm2, lens, FACTS, (10, MADE, 24))


@pytest.fixture(scope="module")
def read_world(smollm2, lens):
    """Of every fact of the shipped world that the model answers, whatever its relation."""
    kept = answered(smollm2, shipped_set("facts", smollm2.name)).kept
    return ranks(smollm2, lens, [row.prompt for row in kept.rows], (MADE, 24))


def ranks(model, lens, prompts, blocks):
    """After each of some blocks `[prompt, own or wrong]`, of the fitted and of the plain lens.

    Wrong is what the next prompt with another answer answers: a neighbour, as the bars were measured.
    """
    records = list(visit.capture_many(model, prompts, ("resid_post", "logits"), pos=-1))
    states = torch.cat([acts.resid_post for acts in records], dim=1)
    answers = [int(acts.logits[-1].argmax()) for acts in records]
    after = [next(a for a in answers[n:] + answers[:n] if a != answers[n]) for n in range(len(answers))]
    words = torch.tensor([answers, after]).T
    return tuple(
        {block: logit.read(model, linear.through(one, states[block], "resid_post", block), words, k=1).rank.double()
         for block in blocks}
        for one in (lens, None)
    )  # fmt: skip


# ---- the bars --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("block", "bits"), [(8, 4.8), (20, 3.0), (24, 1.5), (27, 0.75)])
def test_it_comes_near_to_the_prediction_on_text_that_was_not_used(lens, block, bits):
    assert lens.report["kl"][block] <= bits < lens.report["kl_plain"][block] / 2


def test_it_is_nearer_than_the_plain_lens_at_every_block_but_the_last(lens):
    assert (lens.report["kl"] < lens.report["kl_plain"])[:-1].all()
    assert (lens.report["top1"] > lens.report["top1_plain"])[:-1].all()
    assert lens.report.iloc[-1][["kl_plain", "kl"]].abs().max() == 0


@pytest.mark.parametrize(("block", "share"), [(MADE, 0.48), (24, 0.75)])
def test_it_names_the_answers_to_the_facts(read, block, share):
    """Over the 71 facts that the bars were set for: measured .577 and .817."""
    fitted, plain = ((ranks[block][:, 0] == 1).double().mean() for ranks in read)
    assert fitted >= share > plain


@pytest.mark.parametrize("block", [MADE, 24])
def test_the_right_answer_stands_first_and_a_wrong_one_far_below(read, block):
    """Medians; measured 1 and 1,238 at block 23, 1 and 707 at 24."""
    fitted, plain = (ranks[block].median(dim=0).values.tolist() for ranks in read)
    assert fitted[0] == 1 and fitted[1] >= 500
    assert plain[0] > 10, "which the plain lens does not see yet"


@pytest.mark.parametrize(("block", "share"), [(MADE, 0.50), (24, 0.63)])
def test_over_every_fact_of_the_world_a_weaker_bar_holds(read_world, block, share):
    """Measured over 353: .535 and .671. Weaker than the bars, which these facts miss: the share at block 24, and a
    neighbour's answer, at rank 124 and 78 (median), for it is often likely here, too."""
    fitted, plain = (ranks[block][:, 0] for ranks in read_world)
    assert len(fitted) > 200
    assert (fitted == 1).double().mean() >= share > (plain == 1).double().mean() and fitted.median() == 1


# ---- the controls ----------------------------------------------------------------------------------------------------
def test_before_the_answer_is_made_the_right_one_is_not_known(read):
    assert read[0][10][:, 0].median() > 10


def test_late_it_reads_this_prompt_and_early_what_any_text_leads_to_expect(smollm2, lens):
    table = trust.specific(smollm2, lens, FACTS)
    assert table["own_share"][MADE] > 0.75 and table["other_share"][MADE] < 0.2
    assert table["other_share"][14] > 0.3


def test_it_sees_the_answer_where_it_causally_arrives(smollm2, lens):
    table = trust.arrivals(smollm2, lens, FACTS, [BLIND, MADE]).set_index("layer")
    assert table["arrives"][BLIND] < 0.35 < 0.8 < table["arrives"][MADE]
    assert table["names"][BLIND] < 0.25 and table["names_plain"][MADE] == 0
    assert (table["names"] <= table["arrives"]).all()


def test_maps_of_other_blocks_read_worse(smollm2, lens):
    states, found = trust.held_states(smollm2, lens.held_out, 32), []
    for one in (trust.shuffled_layers(lens), lens):
        compared = trust.Agreement(smollm2, one, states)
        compared.compare(0, 32)
        found.append(compared.table())
    turned, straight = found
    assert (turned["kl"][4:-1] > straight["kl"][4:-1]).all()


# ---- what a student sees ---------------------------------------------------------------------------------------------
def test_the_map_shows_european_capitals_and_one_block_later_tokyo(smollm2, lens):
    table = visit.lens_map(smollm2, visit.capture(smollm2, JAPAN), " Tokyo", k=10, lens=lens)
    last = table[table["pos"] == table["pos"].max()].set_index("layer")
    assert len({" Berlin", " Rome", " Prague", " Venice", " Vienna"} & set(last["tokens"][BLIND])) >= 2
    assert last["prob"][BLIND] < 0.1 < 0.5 < last["prob"][MADE]
    assert (last.loc[MADE:, "top"] == " Tokyo").all()
