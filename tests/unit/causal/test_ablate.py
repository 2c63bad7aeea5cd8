"""What a list of edits does to one prediction, that it holds, and how the edited model writes on."""

from __future__ import annotations

import math
import threading

import models
import pytest
import torch

from visit import Edit, VisitError, ablate, capture, continuation, edit_ledger, load_model
from visit.causal.continuation import writing_steps

PROMPT = [5, 17, 3, 99, 41, 17, 8, 200, 31]
OTHER = [7, 70, 12, 4, 150, 9, 88, 21, 60]
JAPAN = "The capital of Japan is the city of"
EDITS = [
    [Edit("L1.head1")],
    [Edit("L1.head0", pos=-1), Edit("L1.head2", pos=(3, 4)), Edit("L0.mlp_value3", "scale", factor=2.0)],
    [Edit("L1.attn_out", "mean")], [Edit("L1.head0.value4", "from", OTHER)],
    [Edit("L0.head1.key3", "scale", factor=-1.0)],
    [Edit("L1.head1.link4.renormalised"), Edit("L1.head1.link5")], [Edit("L0.resid_pre", "from", OTHER, pos=4)],
    [Edit("L1.block")], [Edit("embed.pos3"), Edit("L1.head1.query", "mean")], [Edit("L1.kv_head0.value7", pos=-1)],
    [Edit("embed")], [Edit("L1.resid_post", "scale", factor=0.5, pos=6)],
]  # fmt: skip


@pytest.mark.parametrize("name", models.NAMES)
def test_the_ledger_of_edits_holds_on_every_family(name):
    model = models.small(name)
    acts = capture(model, PROMPT)
    for edits in EDITS:
        table = edit_ledger(model, acts, edits)
        assert table["holds"].all(), (edits, table[~table["holds"]])
        assert {21, 24, 26, 27, 1, 5} <= set(table["identity"])
        assert list(table.columns) == [
            "identity",
            "name",
            "layer",
            "max_abs_error",
            "max_rel_error",
            "tolerance",
            "holds",
        ]
    head = edit_ledger(model, acts, EDITS[0])
    assert {22, 25} <= set(head["identity"]) and head.attrs["left_out"] == ["z of L1"]
    assert 23 in set(edit_ledger(model, acts, EDITS[3])["identity"])


def test_the_ledger_of_edits_sees_what_is_wrong(monkeypatch):
    """A hook that stays, a seam that writes elsewhere than it reads, and a clean record that is none."""
    from visit.activations import sites

    model = models.small("llama")
    acts = capture(model, PROMPT)

    def broken():
        table = edit_ledger(model, acts, [Edit("L1.head1", pos=4)])
        return set(table.loc[~table["holds"], "identity"])

    assert broken() == set()
    shifted = acts.__class__(**{**vars(acts), "z": acts.z.roll(1, 2)})
    table = edit_ledger(model, shifted, [Edit("L1.head1", pos=4)])
    assert {21, 25} <= set(table.loc[~table["holds"], "identity"])
    real = sites.in_record
    monkeypatch.setattr("visit.activations.edits.in_record", lambda *a: real(*a).roll(1, 0))
    assert 21 in broken() and 24 in broken()
    monkeypatch.undo()
    noise = capture(model, OTHER)
    other = acts.__class__(**{**vars(acts), "resid_pre": noise.resid_pre, "logits": noise.logits})
    table = edit_ledger(model, other, [Edit("L1.head1", pos=4)])
    assert {22, 23, 26} <= set(table.loc[~table["holds"], "identity"])


def test_before_and_after_are_the_two_runs():
    model = models.small("gemma2")  # a soft-cap: logits before it, probabilities after
    acts = capture(model, PROMPT)
    found = ablate(model, acts, Edit("L1.head1"), pos=-2, target=31, distractor=7)
    after = capture(model, PROMPT, edits=[Edit("L1.head1")])
    table = found.table.set_index("quantity")
    for side, record in (("before", acts), ("after", after)):
        own = record.logits[-2]
        uncapped = torch.atanh(own / model.logit_cap) * model.logit_cap
        assert table.loc["prob", side] == pytest.approx(float(own.softmax(-1)[31]), rel=1e-9)
        assert table.loc["rank", side] == 1 + int((own > own[31]).sum())
        assert table.loc["logit", side] == pytest.approx(float(uncapped[31] - uncapped.mean()), rel=1e-5)
        assert table.loc["difference", side] == pytest.approx(float(uncapped[31] - uncapped[7]), rel=1e-5)
    assert table.loc["prob", "change"] == table.loc["prob", "after"] - table.loc["prob", "before"]
    p, q = acts.logits[-2].softmax(-1), after.logits[-2].softmax(-1)
    assert found.kl_bits == pytest.approx(float((p * (p / q).log2()).sum()), rel=1e-9)
    change = (q - p).abs()
    assert len(found.words) == 10 and found.words["change"].abs().is_monotonic_decreasing
    assert found.words["change"].abs().min() == pytest.approx(float(change.topk(10).values[-1]))
    first = found.words.iloc[0]
    token = int(change.argmax())
    assert first["rank_after"] == 1 + int((q > q[token]).sum())
    assert math.isnan(ablate(model, acts, [Edit("L1.head1")]).table.set_index("quantity").loc["difference", "after"])


def test_an_ablation_says_what_it_changed_and_what_it_did_not():
    model = models.small("llama")
    acts = capture(model, PROMPT)
    found = ablate(model, acts, [Edit("L1.head1", pos=-1), Edit("L1.head2", "from", acts)])
    assert found.changed == (10, 100) and "L1.head2 changed nothing" in found.notes[0] and len(found.notes) == 1
    assert found.meta["changed"] == 10 and found.meta["edits"][0]["positions"] == [8] and found.ledger["holds"].all()
    assert found.edited.prompt == acts.prompt
    aligned = ablate(model, acts, Edit("L1.attn_out", "from", PROMPT[:4] + PROMPT[5:]))
    assert "position 4" in aligned.notes[0]
    shared = ablate(model, acts, Edit("L1.kv_head1.value4"))
    assert shared.notes == ["L1.kv_head1.value4 is shared: it is edited for H2, H3."]
    normed = models.small("gemma3")
    assert "scaled, too" in ablate(normed, capture(normed, PROMPT), Edit("L1.head1")).notes[0]
    with pytest.raises(VisitError, match="at least one edit"):
        ablate(model, acts, [])
    with pytest.raises(VisitError, match="without edits"):
        ablate(model, found.edited, [Edit("L1.head1")])


# ---- writing on ------------------------------------------------------------------------------------------------------
def by_hand(model, ids, count, edits=()):
    """Full recomputation: the oracle."""
    ids, rows = list(ids), []
    for _ in range(count):
        probs = capture(model, ids, edits=edits).logits[-1].softmax(-1)
        rows.append((len(ids), int(probs.argmax()), float(probs.max())))
        ids.append(rows[-1][1])
    return ids, rows


@pytest.mark.parametrize("name", models.KINDS)
def test_a_continuation_is_full_recomputation_with_the_edits_at_their_positions(name):
    model = models.small(name)
    edits = [
        Edit("L1.head1"),
        Edit("L0.mlp_out", pos=3),
        Edit("L1.head0.value4"),
        Edit("embed.pos2", "scale", factor=2.0),
    ]
    for chosen in (edits, []):
        _, rows = by_hand(model, PROMPT, 6, chosen)
        found = list(writing_steps(model, PROMPT, 6, chosen))
        made = [row for row, _ in zip(rows, found, strict=False)]
        assert [(s.pos, s.token) for s in found] == [row[:2] for row in made]
        assert [s.prob for s in found] == pytest.approx([row[2] for row in made], rel=1e-9)
    table = continuation(model, PROMPT, 6, edits)
    clean = capture(model, by_hand(model, PROMPT, 6, edits)[0]).logits.softmax(-1)
    tokens = [s.token for s in writing_steps(model, PROMPT, 6, edits)]
    assert table["prob_clean"].tolist() == pytest.approx(
        [float(clean[8 + i, t]) for i, t in enumerate(tokens)], rel=1e-9
    )
    without = continuation(model, PROMPT, 4)
    assert without["prob"].tolist() == pytest.approx(without["prob_clean"].tolist(), rel=1e-9)


def test_positions_stay_where_they_were_and_sources_end_where_they_end():
    """−1 is the prompt's last token for ever; a record's values have none for a new token; a direction has."""
    model = models.small("llama")
    last = [s.prob for s in writing_steps(model, PROMPT, 5, [Edit("L1.attn_out", pos=-1)])]
    assert last == [s.prob for s in writing_steps(model, PROMPT, 5, [Edit("L1.attn_out", pos=8)])]
    other = capture(model, OTHER)
    moved = [s.token for s in writing_steps(model, PROMPT, 5, [Edit("L0.resid_pre", "from", other)])]
    assert moved == [s.token for s in writing_steps(model, OTHER, 5)], "new tokens are the run's own, behind B's states"
    one = [s.token for s in writing_steps(model, [5], 4, [Edit("L0.resid_pre", "from", [7])])]
    assert one == [s.token for s in writing_steps(model, [7], 4)], "a prompt of one token, too"
    vector = torch.ones(24, dtype=torch.float64)
    grown = list(writing_steps(model, PROMPT, 2, [Edit("L1.resid_post", "add", vector)]))
    assert grown[1].prob == pytest.approx(by_hand(model, PROMPT, 2, [Edit("L1.resid_post", "add", vector)])[1][1][2])
    each = torch.ones(9, 24, dtype=torch.float64)
    rows = list(writing_steps(model, PROMPT, 2, [Edit("L1.resid_post", "add", each)]))
    bounded = [Edit("L1.resid_post", "add", vector, pos=range(9))]
    assert rows[1].prob == pytest.approx(by_hand(model, PROMPT, 2, bounded)[1][1][2])
    prompts = [[3 + i, *range(20 + i, 26 + i)] for i in range(6)]
    assert len(list(writing_steps(model, PROMPT, 3, [Edit("L1.head2", "mean", prompts)]))) == 3


def test_a_word_can_be_forced_anywhere():
    mini = load_model("visit-mini")
    count = len(capture(mini, JAPAN, parts=("logits",)).token_ids)
    plain = continuation(mini, JAPAN, 4)
    forced = continuation(mini, JAPAN, 4, force={count: " Paris"})
    assert (
        plain["token"][0] == " Tokyo"
        and forced["token"][0] == " Paris"
        and forced["forced"].tolist()[:2] == [True, False]
    )
    assert forced["prob"][0] < 0.1 and plain["pos"].tolist() == list(range(count, count + len(plain)))
    text = capture(mini, JAPAN + " Paris").logits[-1].softmax(-1)
    assert forced["prob"][1] == pytest.approx(float(text.max()), rel=1e-5)
    for pos in (count - 1, count + 4):
        with pytest.raises(VisitError, match=f"new positions {count} to {count + 3}; got {pos}"):
            continuation(mini, JAPAN, 4, force={pos: " Paris"})
    with pytest.raises(VisitError, match="at most"):
        continuation(mini, JAPAN, 10_000)
    with pytest.raises(VisitError, match="tokens must be at least 1"):
        continuation(mini, JAPAN, 0)


def test_threads_that_ablate_and_write_do_not_mix():
    model = models.small("llama", torch.float32)
    acts = capture(model, PROMPT)
    edits = [[Edit(f"L{i % 3}.head{i // 3}")] for i in range(8)]
    alone = [(ablate(model, acts, e).kl_bits, [s.token for s in writing_steps(model, PROMPT, 3, e)]) for e in edits]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(3):
            found = ablate(model, acts, edits[i])
            written = [s.token for s in writing_steps(model, PROMPT, 3, edits[i])]
            if (found.kl_bits, written) != alone[i] or not found.ledger["holds"].all():
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len({bits for bits, _ in alone}) == 8


def test_edits_that_leave_the_range_of_numbers_are_a_sentence():
    model = load_model("visit-mini")  # float32
    with pytest.raises(VisitError, match="range of its numbers"):
        ablate(model, capture(model, JAPAN), Edit("L1.mlp_out", "scale", factor=1e39))
