"""The captured pass is the model's own, whoever else is running it, one by one or in batches."""

from __future__ import annotations

import threading

import models
import oracle
import pytest
import torch

from visit import Edit, VisitError, capture, capture_many, ledger
from visit.activations.forward import plain_logits
from visit.activations.record import PARTS, Activations
from visit.lenses.logit import read

PROMPT = [5, 17, 3, 99, 41, 17, 8, 200, 31]


@pytest.mark.parametrize("name", models.NAMES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_identity_holds_in_every_precision(name, dtype):
    model = models.small(name, dtype)
    table = ledger(model, capture(model, PROMPT))
    assert table["holds"].all(), table[~table["holds"]]
    assert set(table["identity"]) == {1, 2, 3, 4, 5, 6, 7, 9, 10}
    layers = set(range(model.n_layers))
    assert all(set(table.loc[table["identity"] == i, "layer"]) == layers for i in (2, 3, 4, 6, 9, 10))


def test_the_ledger_sees_a_wrong_number_and_a_nan():
    model = models.small("gpt2")
    acts = capture(model, PROMPT)
    for name, identity in (
        ("v", 2), ("neurons", 3), ("resid_mid", 4), ("q", 6), ("pattern", 9), ("logits", 1), ("ln2_out", 10),
    ):  # fmt: skip
        for wrong in (1e-6, float("nan")):
            changed = {**vars(acts), name: getattr(acts, name).clone()}
            changed[name].view(-1)[-3] += wrong
            table = ledger(model, Activations(**changed))
            assert identity in set(table.loc[~table["holds"], "identity"]), (name, wrong)


@pytest.mark.parametrize("name", ["gemma2", "olmo2"])
@pytest.mark.parametrize(("part", "identity"), [("neurons", 3), ("attn_raw", 2), ("mlp_raw", 3)])
def test_a_wrong_length_before_a_post_norm_is_seen(name, part, identity):
    """The norm divides any factor away: the sums are checked before it, too."""
    model = models.small(name)
    acts = capture(model, PROMPT)
    longer = Activations(**{**vars(acts), part: getattr(acts, part) * 1.001})
    assert identity in set(ledger(model, longer).query("not holds")["identity"])


def test_the_ledger_forgives_an_unsteady_machine_but_no_hook_that_changes_the_pass(monkeypatch):
    model = models.small("gpt2", torch.float32)
    acts = capture(model, PROMPT)
    noisy = Activations(**{**vars(acts), "logits": acts.logits.nextafter(acts.logits + 1)})
    found = ledger(model, noisy).query("identity == 1").iloc[0]
    assert not found["holds"] and 0 < found["max_rel_error"] < 1e-6, "a record that differs says by how much"
    passes = iter([acts.logits, noisy.logits])
    with monkeypatch.context() as unsteady:
        unsteady.setattr("visit.exact.ledger.plain_logits", lambda *_: next(passes))
        assert ledger(model, noisy).query("identity == 1")["holds"].all()
    scale = model.hf.lm_head.register_forward_hook(lambda _m, _a, out: out * (1 + 1e-6) if capturing else out)
    capturing = True
    changed = capture(model, PROMPT)
    monkeypatch.setattr("visit.exact.ledger.plain_logits", lambda *_: acts.logits)
    assert not ledger(model, changed).query("identity == 1")["holds"].any()
    scale.remove()


@pytest.mark.parametrize("name", models.NAMES)
def test_no_error_is_left_where_everything_is_float64(name):
    """The ledger's tolerances forgive what Hugging Face computes in float32; with that replaced nothing is left."""
    model = models.exact(name)
    table = ledger(model, capture(model, PROMPT))
    assert table["max_rel_error"].max() < 1e-12, table.groupby("identity")["max_rel_error"].max()


@pytest.mark.parametrize("name", models.ORACLES)
def test_first_oracle_plain_formulas_in_float64(name):
    model = models.small(name)
    acts = capture(model, PROMPT)
    make = oracle.gpt2 if model.family.name == "GPT-2" else oracle.llama
    seen, logits = make(dict(model.hf.state_dict()), torch.tensor(PROMPT), model.hf.config)
    bound = 1e-12 if model.family.name == "GPT-2" else 1e-6  # Hugging Face's RMSNorm computes in float32
    for part, true in seen.items():
        found = getattr(acts, part)
        found = found.flatten(2) if part == "z" else found
        for layer, expected in enumerate(true):
            assert (found[layer] - expected).abs().max() < bound * expected.abs().max(), (part, layer)
    assert (acts.logits - logits).abs().max() < bound * logits.abs().max()


def test_shapes_are_those_of_the_record():
    model = models.small("llama")
    acts = capture(model, PROMPT)
    t, d = len(PROMPT), model.d_model
    assert acts.resid_pre.shape == acts.resid_post.shape == acts.mlp_out.shape == (3, t, d)
    assert acts.q.shape == acts.z.shape == (3, t, 4, 10) and acts.k.shape == acts.v.shape == (3, t, 2, 10)
    assert acts.pattern.shape == (3, 4, t, t) and acts.neurons.shape == (3, t, 37)
    assert acts.logits.shape == (t, model.d_vocab) and acts.rotary.shape == (1, 2, t, 10)
    assert len(acts.tokens) == t and acts.positions == tuple(range(t))


def test_only_the_parts_asked_for_are_kept():
    model = models.small("gpt2")
    acts = capture(model, PROMPT, parts=("q", "neurons"))
    assert {name for name in PARTS if getattr(acts, name) is not None} == {"q", "neurons"}
    with pytest.raises(VisitError, match="hidden"):
        capture(model, PROMPT, parts=("hidden",))


@pytest.mark.parametrize("name", models.NAMES)
@pytest.mark.parametrize("batch", [None, 2])
def test_batched_equals_one_by_one(name, batch):
    model = models.small(name, torch.float32)
    prompts = [[3, 4, 5], [9], list(range(20, 41)), [7, 7, 7, 7, 8], [50, 2]]
    for prompt, many in zip(prompts, capture_many(model, prompts, batch=batch), strict=True):
        single = capture(model, prompt)
        assert many.token_ids == tuple(prompt)
        for part in PARTS:
            one, other = getattr(single, part), getattr(many, part)
            assert (one is None) == (other is None)
            if one is not None:
                assert one.shape == other.shape and (one - other).abs().max() <= 1e-5 * one.abs().max(), part


def test_one_kept_position_is_that_position():
    model = models.small("llama", torch.float32)
    prompts = [[3, 4, 5], [9, 1], list(range(20, 31))]
    for prompt, many in zip(prompts, capture_many(model, prompts, pos=-2), strict=True):
        single = capture(model, prompt)
        at = len(prompt) - 2
        assert many.positions == (at,)
        assert torch.allclose(many.neurons[:, 0], single.neurons[:, at], atol=1e-5)
        assert torch.allclose(many.pattern[:, :, 0], single.pattern[:, :, at], atol=1e-5)
        assert torch.allclose(many.logits[0], single.logits[at], atol=1e-4)
        assert torch.allclose(many.resid_post[:, 0], single.resid_post[:, at], atol=1e-4)
    with pytest.raises(VisitError, match="-3"):
        list(capture_many(model, prompts, pos=-3))


def test_sixteen_threads_over_one_model_do_not_mix():
    model = models.small("gpt2", torch.float32)
    prompts = [[i + 1, *range(i + 2, 3 * i + 4)] for i in range(16)]
    alone = [capture(model, p) for p in prompts]
    wrong: list[tuple[int, str]] = []
    parts = [p for p in PARTS if getattr(alone[0], p) is not None]
    assert len(parts) >= 14

    def work(i: int) -> None:
        for _ in range(8):
            acts = capture(model, prompts[i], edits=(Edit("L1.head0"),) if i % 5 == 4 else ())
            if i % 5 == 4:
                continue  # an intervention next door must not leak
            wrong.extend((i, p) for p in parts if not torch.equal(getattr(acts, p), getattr(alone[i], p)))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.hf.modules())


def test_threads_that_batch_check_and_read_do_not_mix():
    """Everything that runs the model or one of its modules, at once: records stay their own."""
    model = models.small("llama", torch.float32)
    prompts = [[i + 1, *range(i + 2, 2 * i + 9)] for i in range(8)]
    alone = [capture(model, p) for p in prompts]
    wrong: list[object] = []
    parts = [p for p in PARTS if getattr(alone[0], p) is not None]

    def work(i: int) -> None:
        for _ in range(6):
            if i % 4 == 0:
                found = list(capture_many(model, [prompts[i], prompts[i]]))[1]
            elif i % 4 == 1:
                wrong.extend(["ledger"] * (not ledger(model, alone[i])["holds"].all()))
                continue
            elif i % 4 == 2:
                read(model, alone[i].resid_post.flatten(0, 1))
                continue
            else:
                found = capture(model, prompts[i])
            wrong.extend(
                (i, p) for p in parts if not torch.allclose(getattr(found, p), getattr(alone[i], p), atol=1e-4)
            )

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_hooks_go_when_the_pass_fails(monkeypatch):
    model = models.small("gpt2")
    monkeypatch.setattr(model.hf.transformer.ln_f, "forward", lambda x: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        capture(model, PROMPT)
    monkeypatch.undo()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.hf.modules())


def test_an_edit_is_what_it_says_and_ends_with_its_run():
    model = models.small("llama")
    before = capture(model, PROMPT)
    other = capture(model, PROMPT[::-1])
    zeroed = capture(model, PROMPT, edits=(Edit("L1.head2"),))
    assert (zeroed.z[1, :, 2] == 0).all() and torch.equal(zeroed.z[1, :, 0], before.z[1, :, 0])
    assert not torch.equal(zeroed.logits, before.logits)
    mean = capture(model, PROMPT, edits=(Edit("L0.mlp_value3", "mean"),))
    assert torch.allclose(mean.neurons[0, :, 3], before.neurons[0, :, 3].mean().expand(9))
    moved = capture(model, PROMPT, edits=(Edit("L2.attn_out", "from", other),))
    assert torch.equal(moved.attn_out[2], other.attn_out[2])
    assert torch.equal(capture(model, PROMPT).logits, before.logits)
    same = capture(model, PROMPT, edits=(Edit("L1.head2", "from", before), Edit("L2.mlp_out", "from", before)))
    assert torch.equal(same.logits, before.logits)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (Edit("L9.head0"), "layers 0 to 2"), (Edit("L1.head9"), "last number"), (Edit("nonsense"), "nonsense"),
        (Edit("L1.head0", "from"), "needs a source"), (Edit("L1.head0", "double"), "double"),
    ],
)  # fmt: skip
def test_a_wrong_edit_gets_a_sentence(edit, says):
    with pytest.raises(VisitError, match=says):
        capture(models.small("gpt2"), PROMPT, edits=(edit,))


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("", "empty"),
        ("  \n ", "blank"),
        ([], "at least one"),
        ([10**6], "got 1000000"),
        ([1] * 65, "at most 64 tokens.*65"),
    ],
)
def test_a_prompt_that_cannot_run_gets_a_sentence(prompt, says):
    with pytest.raises(VisitError, match=says):
        capture(models.small("gpt2"), prompt)


@pytest.mark.parametrize(
    "prompt", ["<b>&amp;</b>", "🙂👩‍👩‍👧", "שלום עולם", "a\x00b\x1b[31m", "one\ntwo\r\n\tthree", "\u202eabc", "é" * 5]
)
def test_any_text_is_read_and_nothing_is_altered(prompt):
    model = models.small("gpt2", torch.float32)
    acts = capture(model, prompt)
    assert acts.prompt == prompt
    assert model.tokenizer.decode(list(acts.token_ids)) == prompt
    assert torch.equal(acts.logits, plain_logits(model, acts.token_ids))
