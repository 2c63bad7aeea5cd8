"""The faithfulness curve is what single edits give, one by one; its ends, its areas and its words."""

from __future__ import annotations

import math

import models
import numpy as np
import pytest
import torch

from visit import Edit, VisitError, capture, faithfulness, influence
from visit.causal.faithfulness import SHARES, FaithfulnessJob, in_words
from visit.exact.decompose import rows_and_bias
from visit.exact.question import ask
from visit.runs.job import finish

PROMPT = [5, 17, 3, 99, 41, 17, 8, 200, 31]
OTHER = [7, 17, 3, 45, 41, 12, 8, 20, 31]
LAST = len(PROMPT) - 1


def units_of(model) -> list[tuple[str, int, int]]:
    heads = [("head", layer, n) for layer in range(model.n_layers) for n in range(model.n_heads)]
    return heads + [("neuron", layer, n) for layer in range(model.n_layers) for n in range(model.d_mlp)]


def logit(model, target, distractor=None, kept=None, instead=None, first=LAST):
    """The target's centred logit before a soft-cap, from the model's own code, with what is not kept replaced."""
    hooks = []
    for layer in range(model.n_layers) if kept is not None else ():
        for kind, path, width in (("head", model.family.w_o, model.d_head), ("neuron", model.family.w_out, 1)):
            mask = torch.ones(model.n_heads * model.d_head if kind == "head" else model.d_mlp, dtype=torch.bool)
            for _, _, n in (u for u in kept if u[:2] == (kind, layer)):
                mask[n * width : (n + 1) * width] = False
            others = instead[kind][layer]

            def replace(_module, args, mask=mask, others=others):
                x = args[0].clone()
                rows = x.view(-1, x.shape[-1])
                rows[first:, mask] = others[first:, mask]
                return (x,)

            hooks.append(model.module(path, layer).register_forward_pre_hook(replace))
    with torch.no_grad():
        logits = model.hf(torch.tensor([PROMPT]), use_cache=False).logits[0, -1]
    for hook in hooks:
        hook.remove()
    if model.logit_cap:
        logits = model.logit_cap * torch.atanh(logits / model.logit_cap)
    return float(logits[target] - (logits.mean() if distractor is None else logits[distractor]))


def means(acts, first):
    found = {}
    for kind, values in (("head", acts.z.flatten(2)), ("neuron", acts.neurons)):
        mean = values[:, 1:].mean(1, keepdim=True).repeat(1, len(PROMPT), 1)
        mean[:, 0] = values[:, 0]
        found[kind] = mean
    return found


@pytest.mark.parametrize("name", models.KINDS)
@pytest.mark.parametrize(("at", "replaced"), [("last", "mean"), ("last", "run"), ("all", "mean"), ("all", "run")])
def test_it_is_what_the_models_own_code_gives_with_these_units_replaced(name, at, replaced):
    model = models.small(name)
    acts, other = capture(model, PROMPT), capture(model, OTHER)
    source = other if replaced == "run" else None
    table = faithfulness(model, acts, ("norm", "influence"), target=31, distractor=44, source=source, at=at)
    first = LAST if at == "last" else 0
    instead = means(acts, first) if source is None else {"head": other.z.flatten(2), "neuron": other.neurons}
    job = FaithfulnessJob.of(ask(model, acts, -1, 31, 44), ("norm", "influence"), source, at, 0)
    full, corrupt = (logit(model, 31, 44, kept, instead, first) for kept in (None, []))
    assert table.attrs["full"] - table.attrs["corrupt"] == pytest.approx(full - corrupt, rel=1e-5)
    every = units_of(model)
    for by in ("norm", "influence"):
        order = job.orders[by, 0].tolist()
        for row in table[table["by"] == by].itertuples():
            kept = [every[i] for i in order[: row.units]]
            found = logit(model, 31, 44, kept, instead, first)
            assert row.recovered == pytest.approx((found - corrupt) / (full - corrupt), rel=1e-4, abs=1e-5), row


def test_a_single_kept_unit_is_all_others_edited():
    model = models.small("llama")
    acts, other = capture(model, PROMPT), capture(model, OTHER)
    job = FaithfulnessJob.of(ask(model, acts, -1, 31), ("influence",), other, "all", 0)
    finish(job)
    kept = set(job.orders["influence", 0][:1].tolist())
    names = [f"L{layer}.{'head' if kind == 'head' else 'mlp_value'}{n}" for kind, layer, n in units_of(model)]
    edits = [Edit(name, "from", other) for i, name in enumerate(names) if i not in kept]
    edited = capture(model, PROMPT, edits=edits)
    assert round(0.01 * len(names)) == 1
    run = job.items.index(next(i for i in job.items if i.by == "influence" and i.units == 1))
    moved = edited.logits[-1, 31] - edited.logits[-1].mean() - (acts.logits[-1, 31] - acts.logits[-1].mean())
    assert job.logits[run] - job.logits[1] == pytest.approx(float(moved), rel=1e-5)


def test_orders_are_those_of_their_measures():
    model = models.small("gemma3")
    acts, other = capture(model, PROMPT), capture(model, OTHER)
    question = ask(model, acts, -1, 31)
    every = units_of(model)
    job = FaithfulnessJob.of(question, ("norm", "contribution", "influence", "random"), None, "last", 3)
    n_heads = model.n_layers * model.n_heads
    rows, _ = rows_and_bias(model, acts, 1, "mlp", LAST)
    added = acts.neurons[1, LAST][:, None] * rows
    for by, size in (("norm", added.norm(dim=-1)), ("contribution", question.attribution.of(added).abs())):
        order = [every[i][2] for i in job.orders[by, 0].tolist() if every[i][:2] == ("neuron", 1)]
        assert order == size.argsort(descending=True, stable=True).tolist()
    table = influence(model, acts, -1, 31)
    heads = table[table["head"].notna() & table["source_pos"].isna()]["influence"].to_numpy()
    nothing = [(torch.zeros_like(z), torch.zeros_like(a)) for z, a in job.instead]
    from visit.causal.faithfulness import _influence

    assert np.allclose(_influence(question, LAST, nothing)[:n_heads].numpy(), heads, rtol=1e-9)
    everywhere = [(z.expand(9, -1), a.expand(9, -1)) for z, a in job.instead]
    one, all_of_them = _influence(question, LAST, job.instead), _influence(question, 0, everywhere)
    assert one.shape == all_of_them.shape and not torch.allclose(one, all_of_them)
    draws = [job.orders["random", n] for n in range(10)]
    assert all(sorted(d.tolist()) == list(range(len(every))) for d in draws)
    assert not torch.equal(draws[0], draws[1])
    again = FaithfulnessJob.of(question, "random", other, "last", 3).orders["random", 4]
    assert torch.equal(again, draws[4])
    assert not torch.equal(FaithfulnessJob.of(question, "random", other, "last", 4).orders["random", 4], draws[4])


def test_the_ends_and_the_areas():
    model = models.small("gpt2")
    acts = capture(model, PROMPT)
    table = faithfulness(model, acts, target=31)
    assert table["share"].tolist() == list(SHARES) * 4 and table["by"].unique().tolist() == [
        "norm", "contribution", "influence", "random",
    ]  # fmt: skip
    assert (table.loc[table["share"] == 1, "recovered"] == 1).all()
    for by, group in table.groupby("by"):
        x, y = np.array([0, *group["share"]]), np.array([0, *group["recovered"]])
        assert table.attrs["cpr"][by] == pytest.approx(float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum()))
        d = np.abs(1 - y)
        assert table.attrs["cmd"][by] == pytest.approx(float((np.diff(x) * (d[1:] + d[:-1]) / 2).sum()))
    assert faithfulness(model, acts, "random", target=31, seed=1)["recovered"].tolist() != table.loc[
        table["by"] == "random", "recovered"
    ].tolist()  # fmt: skip
    words = in_words(table)
    assert words.startswith("10 % of the heads and neurons (13 of 132) bring back")
    assert "at random" in words and "by influence" in words


def test_a_mean_over_prompts_stands_by_its_position_from_the_end():
    model = models.small("gpt2")
    acts, prompts = capture(model, PROMPT), [PROMPT, OTHER, OTHER[::-1], PROMPT[::-1], [*OTHER[:4], *PROMPT[4:]]]
    job = FaithfulnessJob.of(ask(model, acts, -1, 31), ("norm",), prompts, "all", 0)
    runs = [capture(model, p) for p in prompts]
    for layer, (z, a) in enumerate(job.instead):
        assert torch.allclose(z, torch.stack([r.z[layer].flatten(1) for r in runs]).mean(0))
        assert torch.allclose(a, torch.stack([r.neurons[layer] for r in runs]).mean(0))
    table = faithfulness(model, acts, ("norm",), target=31, source=prompts)
    assert table.attrs["replaced"] == "the mean over 5 prompts"


def test_no_share_of_nothing():
    model = models.small("gpt2")
    acts = capture(model, PROMPT)
    table = faithfulness(model, acts, ("norm",), target=31, source=acts)  # replaced by what they are
    assert table["recovered"].isna().all() and math.isnan(table.attrs["cpr"]["norm"])
    assert "nothing to bring back" in in_words(table)


def test_a_job_stopped_and_resumed_is_the_same_and_shows_what_is_known():
    model = models.small("neox")
    acts = capture(model, PROMPT)
    question = ask(model, acts, -1, 31)
    whole = finish(FaithfulnessJob.of(question, ("influence", "random"), None, "last", 0))
    job = FaithfulnessJob.of(question, ("influence", "random"), None, "last", 0)
    job.update(job.items[:5])
    part = job.snapshot()
    assert part["recovered"].notna().sum() == 5  # three shares, and the whole of both orders
    resumed = FaithfulnessJob.of(question, ("influence", "random"), None, "last", 0)
    resumed.load(job.state())
    resumed.update(resumed.items[5:])
    assert np.allclose(resumed.snapshot()["recovered"], whole["recovered"], rtol=1e-9)
    seen = []
    faithfulness(model, acts, ("influence",), target=31, progress=lambda *p: seen.append(p))
    assert seen[-1] == (11, 11)


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ({"by": ("effect",)}, "by must be one of norm.*'effect'"), ({"by": ()}, "by must be"),
        ({"at": "first"}, "at must be"),
        ({"by": None}, "by must be"), ({"seed": 2**70}, "seed is a whole number"), ({"seed": "x"}, "seed is a whole"),
        ({"pos": None}, "position is a whole number.*None"), ({"pos": 1.5}, "position is a whole number.*1.5"),
        ({"target": 1.5}, "token id or a word.*1.5"), ({"source": 3}, "a set of prompts; got int"),
        ({"pos": 9}, "from 0 to 8"), ({"target": 5, "distractor": 5}, "must differ"),
    ],
)  # fmt: skip
def test_bad_questions_get_a_sentence(named, says):
    model = models.small("gpt2")
    with pytest.raises(VisitError, match=says):
        faithfulness(model, capture(model, PROMPT), **named)


def test_a_prompt_of_token_ids_is_a_source_and_an_order_named_twice_stands_once():
    model = models.small("gpt2")
    acts, other = capture(model, PROMPT), [7, 8, 9, 10, 11, 12, 13, 14, 15]
    table = faithfulness(model, acts, ("norm", "norm"), source=other)
    assert table.equals(faithfulness(model, acts, "norm", source=capture(model, other)))


def test_a_record_of_another_model_is_refused():
    model, other = models.small("gpt2"), models.small("llama")
    with pytest.raises(VisitError, match="record is of another model"):
        faithfulness(model, capture(other, PROMPT))
    with pytest.raises(VisitError, match="source is of another model"):
        faithfulness(model, capture(model, PROMPT), source=capture(other, PROMPT))


def test_what_cannot_be_aligned_or_was_edited_is_refused():
    model = models.small("gpt2")
    acts = capture(model, PROMPT)
    with pytest.raises(VisitError, match="source has 3 positions, this prompt 9"):
        faithfulness(model, acts, source=capture(model, [1, 2, 3]), at="all")
    assert len(faithfulness(model, acts, source=capture(model, [1, 2, 3]))) == 40  # at the last position alone: its own
    with pytest.raises(VisitError, match="run with edits"):
        faithfulness(model, capture(model, PROMPT, edits=(Edit("L1.head0"),)))
    with pytest.raises(VisitError, match="at least one prompt"):
        faithfulness(model, acts, source=())
    with pytest.raises(VisitError, match="at least two tokens"):
        faithfulness(model, capture(model, [5]))
