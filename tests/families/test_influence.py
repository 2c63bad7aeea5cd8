"""Influence is the derivative that it says it is, on every family; its parts add up, and nothing is left behind."""

from __future__ import annotations

import copy
import threading

import models
import pandas as pd
import pytest
import torch

from visit import Edit, VisitError, capture, influence
from visit.activations.edit_hooks import edit_hooks
from visit.exact import gradients as module
from visit.exact.decompose import attribution, head_results, memory_values, needed, rows_and_bias
from visit.exact.gradients import gradients, gradients_of
from visit.exact.question import ask
from visit.models.model import wrap

PROMPT = [5, 17, 3, 99, 41, 17, 8, 200, 31]
T = len(PROMPT) - 2  # a position that is not the last: what stands behind it must not matter


def part(table: pd.DataFrame, node: str) -> float:
    return float(table.set_index("node")["influence"][node])


def logit(model, target, distractor=None, ids=PROMPT, pos=T):
    """The target's centred logit before a soft-cap, from the model's own logits."""
    with torch.no_grad():
        logits = model.hf(torch.tensor([ids]), use_cache=False).logits[0, pos]
    if model.logit_cap:
        logits = model.logit_cap * torch.atanh(logits / model.logit_cap)
    return float(logits[target] - (logits.mean() if distractor is None else logits[distractor]))


def slope(model, site, layer, vector, target, distractor=None, pos=T, step=1e-4):
    """The central difference of that logit when ± step · vector is added to what the stream gets."""
    family = model.family
    path = (family.post_attn or family.w_o) if site == "attn_out" else (family.post_mlp or family.w_out)
    found = []
    for sign in (1, -1):

        def add(_module, _args, output, sign=sign):
            output = output.clone()
            output.view(-1, model.d_model)[pos] += sign * step * vector
            return output

        hook = model.module(path, layer).register_forward_hook(add)
        found.append(logit(model, target, distractor))
        hook.remove()
    return (found[0] - found[1]) / (2 * step)


@pytest.mark.parametrize("name", models.NAMES)
def test_parts_of_one_output_sum_to_it(name):
    model = models.exact(name)
    table = influence(model, capture(model, PROMPT), pos=T)
    assert table["node"].is_unique and not table["influence"].isna().any()
    for layer, block in table.groupby("layer"):
        sums = block.set_index("node")["influence"]
        whole = block["head"].isna() & block["neuron"].isna()
        heads = block[block["head"].notna() & block["source_pos"].isna()].set_index("head")["influence"]
        values = block[block["source_pos"].notna()].groupby("head")["influence"].sum()
        neurons = block[block["neuron"].notna()]["influence"].sum()
        scale = block["influence"].abs().max()
        assert (heads - values).abs().max() < 1e-12 * scale
        assert abs(heads.sum() + sums.get(f"L{layer}.attn_bias", 0) - sums[f"L{layer}.attn_out"]) < 1e-12 * scale
        assert abs(neurons + sums.get(f"L{layer}.mlp_bias", 0) - sums[f"L{layer}.mlp_out"]) < 1e-12 * scale
        biases = (model.b_O(layer) is not None) + (model.b_out(layer) is not None)
        assert whole.sum() == 2 + biases and len(heads) == model.n_heads


@pytest.mark.parametrize("name", models.NAMES)
@pytest.mark.parametrize("distractor", [None, 44])
def test_it_is_the_slope_of_the_logit_along_the_part(name, distractor):
    """Behind a post-norm the part is P_t(c): its r_t is held, as everywhere in the method."""
    model = models.exact(name)
    acts = capture(model, PROMPT)
    target = 31
    table = influence(model, acts, T, target, distractor)
    for layer in range(model.n_layers):
        sources = torch.full((model.n_heads, 1), T - 1)
        pattern = needed(acts, "pattern")[layer, :, T, T - 1]
        value = memory_values(model, acts, layer, sources, T)[1, 0] * pattern[1]
        rows, _ = rows_and_bias(model, acts, layer, "mlp", T)
        neuron = int(acts.neurons[layer, T].abs().argmax())
        parts = {
            f"L{layer}.head2": ("attn_out", head_results(model, acts, layer, T)[2]),
            f"L{layer}.head1.value{T - 1}": ("attn_out", value),
            f"L{layer}.attn_out": ("attn_out", acts.attn_out[layer, T]),
            f"L{layer}.mlp_value{neuron}": ("mlp_out", acts.neurons[layer, T, neuron] * rows[neuron]),
            f"L{layer}.mlp_out": ("mlp_out", acts.mlp_out[layer, T]),
        }
        for node, (site, vector) in parts.items():
            true = slope(model, site, layer, vector, target, distractor)
            assert part(table, node) == pytest.approx(true, rel=1e-6, abs=1e-7), node


@pytest.mark.parametrize("name", models.NAMES)
def test_in_the_last_block_it_is_the_contribution_less_what_the_final_norm_takes_back(name):
    """Without autograd: m = ⟨x − mean(x), d⟩/σ + constant, so that ∂m along c = contribution(c) − contribution(x) ·
    ⟨c, x − mean(x)⟩ / (n σ²), σ² with the ε. A model without a final norm takes nothing back."""
    model = models.exact(name)
    acts = capture(model, PROMPT)
    question = ask(model, acts, T, 31)
    frozen = attribution(model, acts, T, 31)
    x, layer = acts.resid_post[-1, T], model.n_layers - 1
    centred = x - x.mean() if model.family.norm == "layer" else x
    square = centred.pow(2).sum() + model.d_model * model.final_eps

    def expected(vector):
        return frozen.of(vector) - (frozen.of(x) * (vector @ centred) / square if model.ln_final is not None else 0)

    table = influence(model, acts, T, 31)
    assert part(table, f"L{layer}.mlp_out") == pytest.approx(float(expected(acts.mlp_out[-1, T])), rel=1e-10)
    rows, bias = rows_and_bias(model, acts, layer, "mlp", T)
    assert part(table, f"L{layer}.mlp_value3") == pytest.approx(
        float(expected(acts.neurons[-1, T, 3] * rows[3])), rel=1e-10
    )
    if bias is not None:
        assert part(table, f"L{layer}.mlp_bias") == pytest.approx(float(expected(bias)), rel=1e-10)
    if model.ln_final is not None:  # a longer stream reads the same, but for the ε
        whole = gradients_of(question).into("resid_post", layer) @ x
        assert abs(whole) == pytest.approx(abs(float(frozen.of(x))) * model.d_model * model.final_eps / float(square))


@pytest.mark.parametrize("name", ["gemma2", "gemma3", "olmo2"])
def test_a_post_norm_is_held_or_every_sum_would_be_zero(name):
    """What is *not* computed: with r_t let go, twice the output of W_O is after the norm what it was."""
    model = models.exact(name)
    acts = capture(model, PROMPT)
    table = influence(model, acts, T, 31)
    before = logit(model, 31)
    for layer in range(model.n_layers):
        hook = model.module(model.family.w_o, layer).register_forward_hook(lambda _m, _a, output: output * 1.001)
        changed = logit(model, 31)
        hook.remove()
        held = part(table, f"L{layer}.attn_out")
        assert abs(changed - before) / 1e-3 < 1e-3 * abs(held), layer


HEADS_REMADE = (
    Edit("L1.head0.value4", "scale", factor=0.5), Edit("L1.head0.key5", "scale", factor=2.0),
    Edit("L1.head2.link5.renormalised", "scale", factor=3.0), Edit("L1.head0.query", "scale", factor=0.7),
)  # fmt: skip


@pytest.mark.parametrize("name", ["gpt2", "llama", "neox", "olmo2"])
def test_an_edited_run_is_differentiated_with_its_edits(name):
    model = models.exact(name)
    edits = (Edit("L0.head1"), Edit("L1.mlp_out"))
    acts = capture(model, PROMPT, edits=edits)
    assert tuple(made.edit for made in acts.edits) == edits and capture(model, PROMPT).edits == ()
    table = influence(model, acts, T, 31)
    assert part(table, "L0.head1") == 0 and part(table, "L1.mlp_out") == 0
    vector = head_results(model, acts, 0, T)[2]
    with edit_hooks(model, acts.edits, len(PROMPT)):
        true = slope(model, "attn_out", 0, vector, 31)
    assert part(table, "L0.head2") == pytest.approx(true, rel=1e-6, abs=1e-8)
    assert part(table, "L0.head2") != pytest.approx(part(influence(model, capture(model, PROMPT), T, 31), "L0.head2"))


@pytest.mark.parametrize("name", models.KINDS)
def test_so_is_one_whose_heads_are_made_again(name):
    """A head's key, value or link has no seam: its z comes from the run's q, k and v, and the gradient goes there."""
    model = models.exact(name)
    acts = capture(model, PROMPT, edits=HEADS_REMADE)
    table = influence(model, acts, T, 31)
    vector = head_results(model, acts, 0, T)[2]
    with edit_hooks(model, acts.edits, len(PROMPT)):
        true = slope(model, "attn_out", 0, vector, 31)
    assert part(table, "L0.head2") == pytest.approx(true, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("name", models.NAMES)
def test_a_long_prompt_computes_its_blocks_again_and_gets_the_same(name, monkeypatch):
    model = models.small(name)
    acts = capture(model, PROMPT, edits=(Edit("L1.head1"), *HEADS_REMADE))
    word = ask(model, acts, T).word
    plain = gradients(model, acts, T, word)
    monkeypatch.setattr(module, "GRAPH_BYTES", 0)
    again = gradients(model, acts, T, word)
    assert torch.allclose(plain.attn_out, again.attn_out, rtol=1e-12, atol=1e-14)
    assert torch.allclose(plain.mlp_out, again.mlp_out, rtol=1e-12, atol=1e-14)
    assert not any("forward" in vars(block) for block in model.blocks)


@pytest.mark.parametrize("name", models.KINDS)
def test_gradients_of_every_position(name):
    """At the position itself they are the single ones, before it those of what is read there, behind it zero."""
    model = models.exact(name)
    acts = capture(model, PROMPT)
    word = ask(model, acts, T, 31).word
    one, every = (gradients(model, acts, T, word, every=every) for every in (False, True))
    assert one.positions == (T,) and every.positions == tuple(range(len(PROMPT)))
    for layer in range(model.n_layers):
        for site in ("attn_out", "mlp_out"):
            assert torch.allclose(one.into(site, layer), every.into(site, layer), rtol=1e-9, atol=1e-13)
    assert not every.attn_out[:, T + 1 :].any() and not every.mlp_out[:, T + 1 :].any()
    vector = acts.mlp_out[0, T - 1]
    true = slope(model, "mlp_out", 0, vector, 31, pos=T - 1)
    assert float(every.mlp_out[0, T - 1] @ vector) == pytest.approx(true, rel=1e-5, abs=1e-8)


def test_of_a_difference_it_is_the_difference():
    model = models.exact("gemma2")
    acts = capture(model, PROMPT)
    both, target, distractor = (influence(model, acts, T, *words)["influence"] for words in ((31, 44), (31,), (44,)))
    assert torch.allclose(*map(torch.tensor, (both.to_numpy(), (target - distractor).to_numpy())), rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_smaller_precisions_come_near(dtype):
    for name in models.KINDS:
        model = models.small(name, dtype)
        wide = wrap(copy.deepcopy(model.hf).double(), model.tokenizer, name)
        found = influence(model, capture(model, PROMPT), target=31)["influence"]
        true = influence(wide, capture(wide, PROMPT), target=31)["influence"]
        bound = 1e-4 if dtype == torch.float32 else 0.2
        assert (found - true).abs().max() < bound * true.abs().max(), name


def test_nothing_is_left_behind_also_after_an_error(monkeypatch):
    model = models.small("gpt2")
    acts = capture(model, PROMPT)
    influence(model, acts, pos=3)
    monkeypatch.setattr(module, "GRAPH_BYTES", 0)
    monkeypatch.setattr(model.hf.transformer.ln_f, "forward", lambda x: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        influence(model, acts)
    monkeypatch.undo()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.hf.modules())
    assert not any("forward" in vars(block) for block in model.blocks)
    assert all(p.grad is None and not p.requires_grad for p in model.hf.parameters())
    assert torch.equal(capture(model, PROMPT).logits, acts.logits)


def test_threads_that_differentiate_and_capture_do_not_mix():
    model = models.small("llama", torch.float32)
    prompts = [[i + 1, *range(i + 2, 2 * i + 5)] for i in range(8)]
    alone = [capture(model, p, edits=(Edit("L1.head0"),) if i % 2 else ()) for i, p in enumerate(prompts)]
    true = [influence(model, acts)["influence"] for acts in alone]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(4):
            found = capture(model, prompts[i], edits=alone[i].edits)
            if not torch.equal(found.logits, alone[i].logits):
                wrong.append(i)
            if (influence(model, found)["influence"] - true[i]).abs().max() > 1e-5:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_bad_questions_get_a_sentence():
    model = models.small("gpt2")
    acts = capture(model, PROMPT)
    for arguments, says in (((9,), "from 0 to 8"), ((0, 10**6), "target"), ((0, 5, 5), "must differ")):
        with pytest.raises(VisitError, match=says):
            influence(model, acts, *arguments)
    with pytest.raises(VisitError, match=r"'z'.*not captured"):
        influence(model, capture(model, PROMPT, parts=("logits", "pattern")))
