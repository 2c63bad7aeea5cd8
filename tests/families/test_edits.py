"""An edit of one run is exactly what it says, on every site of every family: the ledger of edits."""

from __future__ import annotations

import threading

import models
import pytest
import torch

from visit import Edit, VisitError, build_flow_graph, capture, compare, ledger
from visit.activations.forward import plain_logits
from visit.activations.record import PARTS
from visit.models.attention import first_visible

PROMPT = [5, 17, 3, 99, 41, 17, 8, 200, 31]
OTHER = [7, 70, 12, 4, 150, 9, 88, 21, 60]
# every kind of site, in the middle block; source position 6 is seen by the last ones through any window
SITES = [
    "L1.head1", "L1.attn_neuron7", "L1.mlp_value25", "L1.attn_out", "L1.mlp_out", "L1.block", "L1.resid_pre",
    "L1.resid_post", "L1.head1.query", "L1.head1.key6", "L1.head1.value6", "L1.head1.link6",
    "L1.head1.link6.renormalised", "L1.kv_head0.key6", "L1.kv_head0.value6", "embed", "embed.pos6",
]  # fmt: skip
everywhere = pytest.mark.parametrize("name", models.NAMES)
at_length = pytest.mark.parametrize("name", models.at_length(models.NAMES))


def edit(site, how, source=None, pos="all", factor=None):
    return Edit(site, how, source, "all" if site == "embed.pos6" else pos, factor)


def no_hooks(model):
    return not any(m._forward_hooks or m._forward_pre_hooks for m in model.hf.modules())


def near(a, b, bound=1e-12):
    return bool((a - b).abs().max() <= bound * b.abs().max().clamp_min(1e-30))


def bound_of(model):
    """What identity 9 forgives in float64: most families compute the softmax in float32."""
    return 1e-6 if model.family.float32_inside else 1e-12


# ---- what changes nothing --------------------------------------------------------------------------------------------
@at_length
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_parts_own_values_change_nothing_bit_for_bit(name, dtype):
    model = models.small(name, dtype)
    before = capture(model, PROMPT)
    for site in SITES:
        for pos in ("all", (6, -1)):
            ways = [edit(site, "scale", pos=pos, factor=1.0)]
            ways += [edit(site, "from", before, pos)] if "link" not in site else []  # a link's weight is made again
            for own in ways:
                after = capture(model, PROMPT, edits=[own])
                for part in PARTS:
                    same = getattr(before, part) is None or torch.equal(getattr(after, part), getattr(before, part))
                    assert same, (site, own.how, pos, part)
    if dtype is not torch.bfloat16:
        for link in ("L1.head1.link6", "L1.head1.link6.renormalised"):
            after = capture(model, PROMPT, edits=[Edit(link, "from", before)])
            assert near(after.logits, before.logits, 1e-5), link
    assert no_hooks(model) and torch.equal(capture(model, PROMPT).logits, before.logits)


@everywhere
def test_no_edit_is_the_plain_pass(name):
    model = models.small(name)
    acts = capture(model, PROMPT, edits=[])
    assert torch.equal(acts.logits, plain_logits(model, PROMPT)) and acts.edits == ()


@everywhere
def test_the_whole_stream_at_one_block_from_another_run_gives_its_logits(name):
    model = models.small(name)
    other = capture(model, OTHER)
    for site in [f"L{layer}.resid_pre" for layer in range(model.n_layers)] + [f"L{model.n_layers - 1}.resid_post"]:
        assert torch.equal(capture(model, PROMPT, edits=[Edit(site, "from", other)]).logits, other.logits), site
    if model.family.pos_embed is None:
        assert torch.equal(capture(model, PROMPT, edits=[Edit("embed", "from", other)]).logits, other.logits)
    else:
        assert near(capture(model, PROMPT, edits=[Edit("embed", "from", other)]).logits, other.logits)
    every = [Edit(f"embed.pos{i}", "from", other) for i in range(9)]
    assert near(capture(model, PROMPT, edits=every).logits, other.logits)


@everywhere
def test_nothing_changes_before_the_edited_block_or_position(name):
    model = models.small(name)
    before = capture(model, PROMPT)
    for site in SITES:
        layer = 0 if site.startswith("embed") else 1
        for pos in ("all", 7):
            after = capture(model, PROMPT, edits=[edit(site, "scale", pos=pos, factor=-2.0)])
            first = 6 if "6" in site and pos == "all" else 6 if site == "embed.pos6" else 0 if pos == "all" else 7
            assert torch.equal(after.logits[:first], before.logits[:first]), (site, pos)
            assert not torch.equal(after.logits, before.logits), (site, pos)
            for earlier in range(layer):
                assert torch.equal(after.mlp_out[earlier], before.mlp_out[earlier]), (site, pos)


# ---- what an edit changes --------------------------------------------------------------------------------------------
@everywhere
def test_a_zeroed_head_takes_exactly_what_it_wrote_from_the_output_of_w_o(name):
    model = models.small(name)
    before, j = capture(model, PROMPT), 1
    after = capture(model, PROMPT, edits=[Edit("L1.head1", pos=-2)])
    w_o = model.weight(model.family.w_o, 1).unflatten(0, (-1, model.d_head))
    raw = [a.attn_out[1] if a.attn_raw is None else a.attn_raw[1] for a in (before, after)]
    change = torch.zeros_like(raw[0])
    change[-2] = -before.z[1, -2, j] @ w_o[j]
    assert near(raw[1] - raw[0], change, 1e-11)


@everywhere
def test_the_record_of_a_whole_block_taken_out_and_of_the_embedding(name):
    model = models.small(name)
    before = capture(model, PROMPT)
    assert near(capture(model, PROMPT, edits=[Edit("L1.block")]).resid_post[1], before.resid_pre[1])
    one = capture(model, PROMPT, edits=[Edit("L1.block", pos=3)])
    assert near(one.resid_post[1, 3], before.resid_pre[1, 3])
    assert torch.equal(one.resid_post[1, 4], before.resid_post[1, 4])
    left = capture(model, PROMPT, edits=[Edit("embed.pos2")]).resid_pre[0, 2]
    if model.family.pos_embed is None:
        assert (left == 0).all()
    else:
        row = model.module(model.family.pos_embed).weight[2 + model.family.pos_offset]
        assert near(left, row)
    scaled = capture(model, PROMPT, edits=[Edit("L1.resid_pre", "scale", pos=4, factor=2.5)])
    assert torch.equal(scaled.resid_pre[1, 4], before.resid_pre[1, 4] * 2.5)


@everywhere
def test_queries_keys_and_values_of_another_run_make_its_z(name):
    """The oracle of what has no seam: all of a layer's attention from run B, edit by edit, is B's attention."""
    model = models.small(name)
    before, other = capture(model, PROMPT), capture(model, OTHER)
    every = range(model.n_heads)
    queries = [Edit(f"L1.head{j}.query", "from", other) for j in every]
    alone = [Edit(f"L1.head{j}.{what}{i}", "from", other) for j in every for what in ("key", "value") for i in range(9)]
    shared = [
        Edit(f"L1.kv_head{g}.{what}{i}", "from", other)
        for g in range(model.n_kv_heads) for what in ("key", "value") for i in range(9)
    ]  # fmt: skip
    for edits in (queries + alone, queries + shared):
        after = capture(model, PROMPT, edits=edits)
        assert near(after.z[1], other.z[1], bound_of(model)) and near(
            after.pattern[1], other.pattern[1], bound_of(model)
        )
        assert not near(after.z[1], before.z[1], 1e-3)


@everywhere
def test_an_edit_of_one_heads_key_or_value_is_its_own_and_that_of_the_group_is_the_shared_one(name):
    model = models.small(name)
    before, group = capture(model, PROMPT), model.n_heads // model.n_kv_heads
    for what in ("key", "value"):
        shared = capture(model, PROMPT, edits=[Edit(f"L1.kv_head0.{what}6", "scale", factor=-1.5)])
        asked = [Edit(f"L1.kv_head0.{what}6", "scale", factor=-1.5, pos=(6, 7, 8))]
        asked_by_all = capture(model, PROMPT, edits=asked)
        each = [Edit(f"L1.head{j}.{what}6", "scale", factor=-1.5) for j in range(group)]
        one_by_one = capture(model, PROMPT, edits=each)
        for record in (asked_by_all, one_by_one):
            assert near(record.z[1], shared.z[1], bound_of(model))
            assert near(record.logits, shared.logits, 100 * bound_of(model))
        own = capture(model, PROMPT, edits=each[:1])
        assert torch.equal(own.z[1, :, 1:], before.z[1, :, 1:]) and not torch.equal(own.z[1, :, 0], before.z[1, :, 0])
        assert near(own.z[1, :, 0], shared.z[1, :, 0], bound_of(model))


@everywhere
def test_a_link_taken_out_is_its_memory_value_taken_out_unless_the_others_make_up_for_it(name):
    model = models.small(name)
    before = capture(model, PROMPT)
    value, link, renormalised = (
        capture(model, PROMPT, edits=[Edit(f"L1.head1.{what}", pos=-1)])
        for what in ("value6", "link6", "link6.renormalised")
    )
    assert near(value.logits, link.logits) and torch.equal(value.pattern[1], before.pattern[1])
    assert float(link.pattern[1, 1, -1, 6]) == 0
    row = before.pattern[1, 1, -1].clone()
    row[6] = 0
    assert near(link.pattern[1, 1, -1], row, bound_of(model))
    assert near(renormalised.pattern[1, 1, -1], row / row.sum(), bound_of(model))
    if model.n_kv_heads == model.n_heads:
        z = (row / row.sum()) @ before.v[1, :, 1]
        assert near(renormalised.z[1, -1, 1], z, bound_of(model))
    only = capture(model, PROMPT, edits=[Edit("L0.head0.link0.renormalised", pos=0)])
    assert torch.equal(only.pattern[0], before.pattern[0]), "position 0 sees nothing else"


@at_length
def test_the_ledger_holds_on_the_record_of_every_edited_run(name):
    model = models.small(name)
    for site in SITES:
        for pos in ("all", (7, 8)):
            table = ledger(model, capture(model, PROMPT, edits=[edit(site, "scale", pos=pos, factor=0.3)]))
            assert table["holds"].all(), (site, pos, table[~table["holds"]])
            assert {1, 3, 5} <= set(table["identity"]), site
    clean = ledger(model, capture(model, PROMPT))
    assert clean.attrs["left_out"] == []
    out = ledger(model, capture(model, PROMPT, edits=[Edit("L1.head1")]))
    assert out.attrs["left_out"] == ["z of L1"] and len(out) == len(clean) - 2


@everywhere
def test_a_window_is_not_looked_past(name):
    model = models.small(name)
    for layer in range(model.n_layers):
        if first_visible(model, layer, 8) == 0:
            continue
        before = capture(model, PROMPT)
        after = capture(model, PROMPT, edits=[Edit(f"L{layer}.head0.value1", "scale", factor=9.0)])
        last = next(q for q in range(9) if first_visible(model, layer, q) > 1)
        assert torch.equal(after.z[layer, last:], before.z[layer, last:])
        assert not torch.equal(after.z[layer, last - 1], before.z[layer, last - 1])
        with pytest.raises(VisitError, match="does not see position 1"):
            capture(model, PROMPT, edits=[Edit(f"L{layer}.head0.value1", pos=last)])


@at_length
def test_an_edit_says_how_many_numbers_it_changed(name):
    model = models.small(name)
    before = capture(model, PROMPT)
    width = {
        "L1.attn_neuron7": 1,
        "L1.mlp_value25": 1,
        "L1.resid_pre": 24,
        "embed": 24,
        "L1.block": 24,
        "L1.mlp_out": 24,
    }
    for site in SITES:
        for pos in ("all", (7, 8)):
            (made,) = capture(model, PROMPT, edits=[edit(site, "scale", pos=pos, factor=-2.0)]).edits
            changed, numbers = made.changed
            assert 0 < changed <= numbers, (site, pos)
            if site in width:
                assert numbers == width[site] * (9 if pos == "all" else 2)
            (made,) = capture(model, PROMPT, edits=[edit(site, "scale", pos=pos, factor=1.0)]).edits
            assert made.changed == (0, numbers), (site, pos)
    one = capture(model, PROMPT, edits=[Edit("L1.head1.value6", pos=-1)])
    assert one.edits[0].changed == (int((one.z[1] != before.z[1]).sum()), model.d_head)


@pytest.mark.parametrize("name", models.at_length(models.KINDS))
def test_the_graph_of_an_edited_run_adds_up_but_where_it_was_edited(name):
    model = models.small(name)
    clean = build_flow_graph(model, capture(model, PROMPT))
    replaced = {
        "L1.head1": ["L1.head1"], "L1.attn_neuron7": [f"L1.head{7 // model.d_head}"], "L1.head1.value6": ["L1.head1"],
        "L1.attn_out": ["L1.attn_out"], "L1.mlp_out": ["L1.mlp_out"], "L1.block": ["L1.resid_post"],
        "L1.resid_pre": ["L0.resid_post"], "L1.resid_post": ["L1.resid_post"],
    }  # fmt: skip
    for site in SITES:
        graph = build_flow_graph(model, capture(model, PROMPT, edits=[edit(site, "scale", factor=0.3)]))
        assert graph.meta["ledger"]["holds"] and graph.meta["edited"] == replaced.get(site, []), site
        assert compare(clean, graph).nodes["id"].size, site
        other = [edit(site, "scale", factor=0.3, pos=(7, 8))] if site != "embed.pos6" else []
        before = build_flow_graph(model, capture(model, PROMPT, edits=other), pos=6)
        assert before.meta["ledger"]["holds"] and not before.meta.get("edited"), site
    assert "edited" not in clean.meta


# ---- where and with what ---------------------------------------------------------------------------------------------
def test_positions_sources_and_directions():
    model = models.small("llama")
    before, other = capture(model, PROMPT), capture(model, OTHER)
    at = capture(model, PROMPT, edits=[Edit("L1.mlp_out", "from", OTHER, pos=(-1, 2))])
    assert torch.equal(at.mlp_out[1, [2, 8]], other.mlp_out[1, [2, 8]]), "a prompt is a source as its record is"
    assert torch.equal(at.mlp_out[1, :2], before.mlp_out[1, :2])
    mean = capture(model, PROMPT, edits=[Edit("L0.mlp_value3", "mean", pos=4)])
    assert torch.allclose(mean.neurons[0, 4, 3], before.neurons[0, :, 3].mean())
    assert torch.equal(mean.neurons[0, 5, 3], before.neurons[0, 5, 3])
    vector = torch.arange(24.0, dtype=torch.float64)
    added = capture(model, PROMPT, edits=[Edit("L1.resid_post", "add", vector, factor=-2.0)])
    assert torch.allclose(added.resid_post[1], before.resid_post[1] - 2 * vector)
    noise = torch.randn(9, 24, dtype=torch.float64)
    noisy = capture(model, PROMPT, edits=[Edit("embed", "add", noise, pos=(1, 3))])
    assert torch.allclose(noisy.resid_pre[0, 3], before.resid_pre[0, 3] + noise[3])
    assert torch.equal(noisy.resid_pre[0, 2], before.resid_pre[0, 2])
    moved = capture(model, PROMPT, edits=[Edit("L1.resid_post", "add", (OTHER, before), pos=-1)])
    assert torch.allclose(moved.resid_post[1, -1], other.resid_post[1, -1]), "B minus A, added to A, is B"


def test_edits_of_the_same_numbers_act_in_the_order_of_the_list():
    model = models.small("llama")
    before = capture(model, PROMPT)
    one = torch.ones(10, dtype=torch.float64)
    double, plus = Edit("L1.head2", "scale", factor=2.0), Edit("L1.head2", "add", one)
    first, second = capture(model, PROMPT, edits=[double, plus]), capture(model, PROMPT, edits=[plus, double])
    assert torch.allclose(first.z[1, :, 2], 2 * before.z[1, :, 2] + 1)
    assert torch.allclose(second.z[1, :, 2], 2 * (before.z[1, :, 2] + 1))
    after_zero = capture(model, PROMPT, edits=[Edit("L1.head2"), plus])
    assert torch.allclose(after_zero.z[1, :, 2], torch.ones(9, 10, dtype=torch.float64))
    both = [
        Edit("L1.head2.value3", "scale", factor=2.0, pos=(4, 5)),
        Edit("L1.head2.value3", "scale", factor=3.0, pos=5),
    ]
    six = capture(model, PROMPT, edits=[Edit("L1.head2.value3", "scale", factor=6.0, pos=5)])
    assert torch.allclose(capture(model, PROMPT, edits=both).z[1, 5], six.z[1, 5])
    value_then_head = capture(model, PROMPT, edits=[double, Edit("L1.head2.value3")])
    assert torch.allclose(value_then_head.z[1], capture(model, PROMPT, edits=[Edit("L1.head2.value3"), double]).z[1])


def test_a_source_of_another_length_is_aligned_by_its_tokens():
    model = models.small("llama")
    longer = [5, 17, 3, 77, 78, 99, 41, 17, 8, 200, 31]
    other, before = capture(model, longer), capture(model, PROMPT)
    acts = capture(model, PROMPT, edits=[Edit("L1.attn_out", "from", other)])
    assert torch.equal(acts.attn_out[1, [0, 2, 3, 8]], other.attn_out[1, [0, 2, 5, 10]])
    shorter = [5, 17, 99, 41, 17, 8, 200, 31]
    acts = capture(model, PROMPT, edits=[Edit("L1.attn_out", "from", shorter)])
    (made,) = acts.edits
    assert made.positions == (0, 1, 3, 4, 5, 6, 7, 8) and "position 2" in made.note and "left as it is" in made.note
    assert torch.equal(acts.attn_out[1, 2], before.attn_out[1, 2])
    value = capture(model, PROMPT, edits=[Edit("L1.head0.value3", "from", shorter)])
    assert value.edits[0].positions is None and torch.equal(
        value.edits[0].values[3], capture(model, shorter).v[1, 2, 0]
    )
    for wrong in (Edit("L1.attn_out", "from", shorter, pos=2), Edit("L1.head0.value2", "from", shorter)):
        with pytest.raises(VisitError, match=r"position 2.*no partner"):
            capture(model, PROMPT, edits=[wrong])


def test_a_mean_over_prompts_is_by_position_from_the_end_and_leaves_position_0_alone():
    model = models.small("llama")
    prompts = [[3 + i, *range(20 + i, 20 + i + n)] for i, n in enumerate((3, 3, 4, 5, 6, 8))]
    records = [capture(model, p) for p in prompts]
    found = capture(model, PROMPT, edits=[Edit("L1.head2", "mean", prompts)]).z[1, :, 2]
    ends = [r.z[1, :, 2].flip(0) for r in records]
    assert torch.allclose(found[0], torch.stack([e[-1] for e in ends]).mean(0))
    assert torch.allclose(found[8], torch.stack([e[0] for e in ends]).mean(0))
    five = torch.stack([e[3] for e in ends if len(e) > 4])
    rest = torch.cat([e[:-1] for e in ends]).mean(0)
    assert len(five) == 4 and torch.allclose(found[5], rest), "a position that four prompts have"
    assert torch.allclose(found[6], torch.stack([e[2] for e in ends]).mean(0)) and torch.allclose(found[1], rest)
    for site in ("L1.resid_post", "L1.block", "embed", "L1.kv_head0.key4", "L1.head1.value4", "L0.mlp_out"):
        assert ledger(model, capture(model, PROMPT, edits=[Edit(site, "mean", prompts)]))["holds"].all()
    with pytest.raises(VisitError, match="at least two tokens"):
        capture(model, PROMPT, edits=[Edit("L1.head2", "mean", [[4], [5]])])


def test_an_applied_edit_can_be_made_again():
    model = models.small("gemma3")
    acts = capture(model, PROMPT, edits=[Edit("L1.head1.value4", "from", OTHER), Edit("L0.block", "mean", pos=-1)])
    assert torch.equal(capture(model, PROMPT, edits=acts.edits).logits, acts.logits)
    assert all(made.edit.source is None for made in acts.edits), "a record keeps no other record alive"
    assert [made.meta["source"] for made in acts.edits] == ["9 tokens", None]


# ---- bad input -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("edits", "says"),
    [
        ([Edit("L1.head0", pos=9)], "from 0 to 8"), ([Edit("L1.head0", pos=())], "at least one position"),
        ([Edit("L1.head0", pos="last")], "'all', a position"), ([Edit("L1.head0", pos=1.5)], "'all', a position"),
        ([Edit("L1.head0", pos=True)], "'all', a position"), ([Edit("embed.pos9")], "position 9"),
        ([Edit("embed.pos3", pos=2)], "says its position itself"), ([Edit("L1.head0.value9")], "position 9"),
        ([Edit("L1.head0.value4", pos=3)], "Position 3 does not see position 4"), ([Edit(3)], "got 3"),
        ([Edit("L1.kv_head2.key4")], "last number there is 1"), ([Edit("L1.head4.query")], "last number there is 3"),
        ([Edit("L1.ln1_out")], "An edit names a head.*got 'L1.ln1_out'"), ([Edit("L3.resid_pre")], "layers 0 to 2"),
        ([Edit("L1.head0", "scale")], "give a factor"), ([Edit("L1.head0", "zero", factor=2)], "belongs to 'scale'"),
        ([Edit("L1.head0", "scale", factor=float("nan"))], "finite number; got nan"),
        ([Edit("L1.head0", "scale", factor="2")], "finite number; got '2'"),
        ([Edit("L1.head0", "add")], "needs a source"), ([Edit("L1.head0", "add", [1.0, 2.0])], "vector of 10 numbers"),
        ([Edit("L1.head0", "add", [float("nan")] * 10)], "finite numbers; got NaN"),
        ([Edit("L1.head0", "add", "x")], "vector of 10"), ([Edit("L1.head0", "from", 3)], "or a prompt; got int"),
        ([Edit("L1.head0", "mean", [])], "set of prompts"), ([Edit("L1.head0", "mean", 4)], "set of prompts"),
        ([Edit("L1.head0.link4", "mean")], "Use zero or scale"), ([Edit("L1.head0", source=PROMPT)], "source belongs"),
        ([Edit("L1.head0")] * 10_000, "at most 1,000 edits.*got 10,000"), (["L1.head0"], "visit.Edit"),
        ([Edit("L1.head0"), Edit("L1.head0", "mean")], "'L1.head0' .zero. and 'L1.head0' .mean. replace the same"),
        ([Edit("L1.head0", pos=(1, 2)), Edit("L1.attn_neuron3", pos=2)], "replace the same"),
        ([Edit("L0.resid_post"), Edit("L1.resid_pre", pos=0)], "replace the same"),
        ([Edit("L0.block"), Edit("L1.resid_pre")], "replace the same"),
        ([Edit("embed.pos2"), Edit("L0.resid_pre")], "replace the same"),
        ([Edit("L1.head1.key4"), Edit("L1.kv_head0.key4")], "replace the same"),
        (Edit("L1.head0"), "edits is a list"), (None, "edits is a list"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_gets_a_sentence(edits, says):
    model = models.small("llama")
    with pytest.raises(VisitError, match=says):
        capture(model, PROMPT, edits=edits)
    assert no_hooks(model)


def test_what_does_not_meet_is_no_contradiction():
    model = models.small("llama")
    edits = [
        Edit("L1.head0", pos=1), Edit("L1.head0", "mean", pos=2), Edit("L1.head1"), Edit("L1.head2.key4"),
        Edit("L1.head2.key5"), Edit("L1.head3.key4"), Edit("L1.head2.value4"), Edit("L1.kv_head0.value4"),
    ]  # fmt: skip
    assert len(capture(model, PROMPT, edits=edits).edits) == 8


def test_a_source_must_be_of_this_model_and_whole():
    model, other = models.small("llama"), models.small("llama-biased-tied")
    with pytest.raises(VisitError, match="2 layers; llama has 3"):
        capture(model, PROMPT, edits=[Edit("L1.head3", "from", capture(other, OTHER))])
    with pytest.raises(VisitError, match="captured without 'z'"):
        capture(model, PROMPT, edits=[Edit("L1.head3", "from", capture(model, OTHER, parts=("q",)))])


@pytest.mark.parametrize("how", ["from", "mean"])
def test_a_source_of_as_many_layers_and_other_widths_is_refused_and_not_cut_to_fit(how):
    narrow, wide = models.small("gpt2"), models.small("llama")  # heads of 6 and of 10 numbers, both 3 layers
    for model, other in ((narrow, wide), (wide, narrow)):
        with pytest.raises(VisitError, match="source is of another model"):
            capture(model, PROMPT, edits=[Edit("L1.head0", how, capture(other, OTHER))])


# ---- other runs ------------------------------------------------------------------------------------------------------
@everywhere
def test_hooks_go_when_an_edited_pass_fails(name, monkeypatch):
    model = models.small(name)
    edits = [edit(site, "scale", factor=0.5) for site in SITES]
    last = model.blocks[-1]
    monkeypatch.setattr(last, "forward", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        capture(model, PROMPT, edits=edits)
    monkeypatch.undo()
    assert no_hooks(model)


def test_sixteen_threads_with_different_edits_get_their_own_numbers():
    model = models.small("llama", torch.float32)
    edits = [[edit(site, "scale", factor=0.5)] for site in SITES[:15]] + [[]]
    alone = [capture(model, PROMPT, edits=e).logits for e in edits]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(6):
            if not torch.equal(capture(model, PROMPT, edits=edits[i]).logits, alone[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and no_hooks(model)
    assert sum(torch.equal(a, alone[-1]) for a in alone) == 1
