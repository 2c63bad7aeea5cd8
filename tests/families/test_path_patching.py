"""Path patching is what plain full passes with frozen heads give, written here with hooks, in every family.

The oracle: a pass in which every W_O gets the clean run's `z`, but for the sender at its position; from it the
receiver's query, key or value; then a pass of the model's own code with that one vector put in.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import replace

import models
import pytest
import torch

from visit import Edit, capture, paths

IDS, ABC = (
    [5, 17, 3, 99, 41, 17, 8, 200, 31, 12, 77],
    [9, 2, 3, 50, 41, 20, 8, 200, 61, 12, 77],
)  # windows see 4 of them
TARGET, DISTRACTOR = 7, 9
WORDS = {"q": "query", "k": "key", "v": "value"}
NAMES = [name for name in ("gpt2", "neox", "llama", "gemma3") if name in models.NAMES] + [
    name for name in models.NAMES if name not in ("gpt2", "neox", "llama", "gemma3")
]


@contextmanager
def inputs_are(model, path, wanted):
    """Every block's module at `path` gets `wanted[layer]` `[pos width]` as its input."""
    with ExitStack() as stack:
        for layer in range(model.n_layers):

            def given(_module, args, own=wanted[layer]):
                return own.reshape(args[0].shape).to(args[0].dtype), *args[1:]

            handle = model.module(path, layer).register_forward_pre_hook(given)
            stack.callback(handle.remove)
        yield


def frozen_pass(model, clean, z_new, sender, pos):
    """The pass of step 2: all heads but one frozen at all positions, everything else computed."""
    layer, head = sender
    z = clean.z.clone()
    z[layer, pos, head] = z_new[layer, pos, head]
    with inputs_are(model, model.family.w_o, z.flatten(2)):
        return capture(model, IDS)


def difference(model, acts):
    logits = acts.logits[-1]
    if model.logit_cap is not None:
        logits = model.logit_cap * torch.atanh(logits / model.logit_cap)
    return float(logits[TARGET] - logits[DISTRACTOR])


def oracle(model, clean, z_new, sender, receivers, kind, pos):
    middle = frozen_pass(model, clean, z_new, sender, pos)
    if receivers == "logits":
        return difference(model, middle) - difference(model, clean)
    moved, edits = getattr(clean, kind).clone(), []
    for layer, head in receivers:
        own = head if kind == "q" else head // (model.n_heads // model.n_kv_heads)
        moved[layer, pos, own] = getattr(middle, kind)[layer, pos, own]
        node = f"L{layer}.head{head}.{WORDS[kind]}{'' if kind == 'q' else pos}"
        edits.append((node, pos if kind == "q" else "all"))
    source = replace(clean, **{kind: moved})
    edited = capture(model, IDS, edits=[Edit(node, "from", source, where) for node, where in edits])
    return difference(model, edited) - difference(model, clean)


def rows(prompt=IDS):
    return [{"prompt": prompt, "target": TARGET, "distractor": DISTRACTOR}]


@pytest.mark.parametrize("name", NAMES)
def test_paths_to_the_logits_are_those_of_full_passes_with_every_other_head_frozen(name):
    model = models.exact(name)
    clean, new = capture(model, IDS), capture(model, ABC)
    table = paths(model, rows(), [ABC]).set_index("sender")
    assert len(table) == model.n_layers * model.n_heads
    for sender in ((0, 1), (1, 0), (model.n_layers - 1, model.n_heads - 1)):
        expected = oracle(model, clean, new.z, sender, "logits", None, len(IDS) - 1)
        assert abs(expected) > 1e-7
        assert table.loc[f"L{sender[0]}.head{sender[1]}", "effect"] == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["q", "k", "v"])
@pytest.mark.parametrize("pos", [-1, 8])
def test_paths_to_queries_keys_and_values_are_those_of_full_passes(name, kind, pos):
    """Receivers one by one, and all at once in two different blocks."""
    model = models.exact(name)
    clean, new, at = capture(model, IDS), capture(model, ABC), pos % len(IDS)
    heads = [(1, model.n_heads - 1), (1, 0), (2, 1)]
    if model.n_layers < 3:
        pytest.skip("two blocks")
    names = [f"L{layer}.head{head}" for layer, head in heads]
    table = paths(model, rows(), [ABC], names, kind, pos, pos).set_index(["receiver", "sender"])["effect"]
    assert set(table.index.get_level_values(0)) == {"together", *names}
    moved = 0
    for sender in ((0, 1), (1, 0)):
        for receiver, own in (("together", heads), (names[0], heads[:1]), (names[2], heads[2:])):
            key = receiver, f"L{sender[0]}.head{sender[1]}"
            if sender[0] >= max(layer for layer, _ in own):
                assert key not in table.index  # nothing goes from a head to one that stands before or beside it
                continue
            expected = oracle(model, clean, new.z, sender, own, kind, at)
            moved += abs(expected) > 1e-8
            assert table[key] == pytest.approx(expected, rel=1e-4, abs=1e-10), key
    assert moved >= 2  # a query of the last block changes its own position alone


@pytest.mark.parametrize("name", NAMES)
def test_with_heads_mlps_and_norms_frozen_the_change_is_that_of_the_heads_contribution(name):
    """Nothing but the sender moves, and it reaches the logits as what it adds: contribution of ABC minus its own."""
    model = models.exact(name)
    clean, new, t = capture(model, IDS), capture(model, ABC), len(IDS) - 1
    table = paths(model, rows(), [ABC]).set_index("sender")
    for sender in ((0, 1), (model.n_layers - 1, 0)):
        layer, head = sender
        z = clean.z.clone()
        z[layer, t, head] = new.z[layer, t, head]
        with ExitStack() as stack:
            stack.enter_context(inputs_are(model, model.family.w_o, z.flatten(2)))
            stack.enter_context(inputs_are(model, model.family.w_out, clean.neurons))
            post = model.post_norm("attn", layer)
            if post is not None:
                ratio = clean.attn_out[layer] / clean.attn_raw[layer]
                handle = post.register_forward_hook(lambda _m, args, _out, r=ratio: args[0] * r)
                stack.callback(handle.remove)
            if model.ln_final is not None:
                stack.callback(model.ln_final.register_forward_hook(as_in(model, clean.resid_post[-1, t])).remove)
            frozen = difference(model, capture(model, IDS, parts=("logits",)))
        change = frozen - difference(model, clean)
        assert abs(change) > 1e-7
        assert table.loc[f"L{layer}.head{head}", "direct"] == pytest.approx(change, rel=1e-5, abs=1e-9)


def as_in(model, x):
    """A hook of the final norm that takes its statistics from x."""
    layered = model.family.norm == "layer"
    scale = torch.rsqrt((x - x.mean() if layered else x).pow(2).mean() + model.final_eps)

    def hook(_module, args, _out):
        own = args[0] - args[0].mean(-1, keepdim=True) if layered else args[0]
        out = own * scale * model.final_gain
        return out if model.final_bias is None else out + model.final_bias

    return hook


@pytest.mark.parametrize("name", NAMES)
def test_a_sender_from_its_own_run_changes_nothing(name):
    model = models.exact(name)
    for receivers, kind in ((("logits",), "q"), (("L1.head0", "L1.head1"), "q"), (("L1.head1",), "v")):
        table = paths(model, rows(), [IDS], receivers, kind)
        assert table["effect"].abs().max() < 1e-14


def test_a_key_or_value_acts_on_its_head_alone_unless_the_shared_one_is_named():
    model = models.exact("llama")  # four heads share two keys and values
    for kind in "kv":
        asked = {"one": ["L2.head2"], "pair": ["L2.head2", "L2.head3"], "shared": ["L2.kv_head1"]}
        found = {key: paths(model, rows(), [ABC], own, kind, 5, 5) for key, own in asked.items()}
        pair = found["pair"][found["pair"]["receiver"] == "together"]
        shared = found["shared"]
        assert shared["receiver"].unique().tolist() == ["L2.kv_head1"]
        assert shared["effect"].tolist() == pytest.approx(pair["effect"].tolist(), rel=1e-9)
        assert (found["one"]["effect"] - shared["effect"]).abs().max() > 1e-7
        assert shared.attrs["receivers"]["L2.kv_head1"] == ["L2.head2", "L2.head3"]
