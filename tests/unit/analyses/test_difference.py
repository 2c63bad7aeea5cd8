"""Two passes compared: tokens are aligned as said, every number is a side's own, and differences add up."""

from __future__ import annotations

import models
import pandas as pd
import pytest
from transformers import AutoTokenizer

import visit
from visit import Keep, VisitError, build_flow_graph, capture, compare
from visit.analyses.divergence import part
from visit.analyses.graph_difference import common_id, own_id, single_parts, told_sides
from visit.analyses.token_alignment import Pair, Pairing, describe, pair, pair_tokens, parse_fixes, word_columns
from visit.exact.question import ask
from visit.models.catalog import MINI_FOLDER
from visit.narrate.comparison import contrast_parts

A = [5, 17, 3, 99, 41, 17, 8]
B = [5, 3, 77, 41, 60, 17, 8]  # 17 deleted, 99 replaced, 60 inserted
KEEP = Keep(heads=2, values=2, attn_neurons=2, mlp_neurons=3)


def kinds(pairing: Pairing) -> list[tuple]:
    return [(p.a, p.b, p.kind) for p in pairing.pairs]


def compared(name: str, a=A, b=B, keep=KEEP, **options):
    model = models.small(name)
    left, right = (build_flow_graph(model, capture(model, ids), keep=keep, **options) for ids in (a, b))
    return left, right, compare(left, right)


# ---- alignment -------------------------------------------------------------------------------------------------------


def test_tokens_are_equal_replaced_inserted_or_deleted():
    assert kinds(pair_tokens(A, B)) == [
        (0, 0, "equal"), (1, None, "deleted"), (2, 1, "equal"), (3, 2, "replaced"), (4, 3, "equal"),
        (None, 4, "inserted"), (5, 5, "equal"), (6, 6, "equal"),
    ]  # fmt: skip


def test_a_name_of_many_tokens_is_paired_at_its_last():
    assert kinds(pair_tokens(["of", "Bue", "nos", "Aires", "is"], ["of", "Paris", "is"])) == [
        (0, 0, "equal"), (1, None, "deleted"), (2, None, "deleted"), (3, 1, "replaced"), (4, 2, "equal"),
    ]  # fmt: skip


def test_words_are_aligned_before_their_pieces():
    """A letter of one name never stands for the same letter in the middle of another word."""
    a = [" of", " J", "a", "p", "a", "n", " is", " a", "m", "ap"]
    b = [" of", " the", " K", "ing", "d", "o", "m", " of", " S", "p", "a", "in", " is", " a", "m", "op"]
    pairing = pair_tokens(a, b, texts=(a, b))
    assert pairing.to_b[5] == 11, "the last piece of one name with the last of the other"
    assert {pairing.to_b[i] for i in range(2, 6)} <= {8, 9, 10, 11}, "no letter of Japan in Kingdom"
    assert [pairing.to_b[i] for i in (6, 7, 8, 9)] == [12, 13, 14, 15]


def test_a_word_stands_for_all_pieces_of_its_partner():
    a, b = [" Japan", " is"], [" K", "ing", "d", "o", "m", " is", "."]
    columns = word_columns(pair_tokens(a, b, texts=(a, b)), a, b)
    sides = [(tuple(p.a for p in c if p.a is not None), tuple(p.b for p in c if p.b is not None)) for c in columns]
    assert sides == [((0,), (0, 1, 2, 3, 4)), ((1,), (5,)), ((), (6,))]


def test_a_script_without_spaces_is_aligned_token_by_token():
    a, b = ["日本", "的", "首都", "是"], ["法国", "的", "大", "首都", "是"]
    assert pair_tokens(a, b, texts=(a, b)).to_b == {0: 0, 1: 1, 2: 3, 3: 4}


@pytest.mark.parametrize(("a", "b"), [(A, A), (A, []), ([], B), ([1, 2, 3], [7, 8, 9, 10]), (A, B), (B, A)])
def test_every_position_stands_in_exactly_one_pair(a, b):
    pairs = pair_tokens(a, b).pairs
    assert sorted(p.a for p in pairs if p.a is not None) == list(range(len(a)))
    assert sorted(p.b for p in pairs if p.b is not None) == list(range(len(b)))


def test_a_correction_overrules_and_may_cross():
    swapped = pair_tokens(["Mary", "and", "John"], ["John", "and", "Mary"], parse_fixes("0:2,2:0"))
    assert kinds(swapped) == [(0, 2, "equal"), (1, 1, "equal"), (2, 0, "equal")]
    alone = pair_tokens([1, 2, 3], [1, 5, 3], parse_fixes("1:"))
    assert kinds(alone) == [(0, 0, "equal"), (1, None, "deleted"), (None, 1, "inserted"), (2, 2, "equal")]


@pytest.mark.parametrize(
    ("fixes", "says"),
    [("9:1", "0 to 6"), ("1:9", "0 to 6"), ("1:2,1:3", "twice"), ("a:b", "written"), (":", "written")],
)
def test_a_correction_that_cannot_be_is_a_sentence(fixes, says):
    with pytest.raises(VisitError, match=says):
        pair_tokens(A, B, parse_fixes(fixes))


def test_the_differences_in_words():
    a, b = [" a", " b"], [" a", " c", " d"]
    assert describe(pair_tokens(a, b), a, b) == "+ “·c”, “·b” → “·d”"
    a, b = [" of", " Japan", " is"], [" of", " the", " K", "ing", "d", "o", "m", " is"]
    assert describe(pair_tokens(a, b, texts=(a, b)), a, b) == "+ “·the”, “·Japan” → “·Kingdom”"
    assert describe(pair_tokens(a, a), a, a) == ""


def test_two_tokenizers_are_aligned_where_their_tokens_end():
    """One splits into words, the other into characters: a word stands with its last character."""
    model = models.small("gpt2")
    text = "The capital of Japan"
    whole = capture(model, text)
    letters = [model.tokenizer.encode(c, add_special_tokens=False)[0] for c in text]
    other = visit.models.model.wrap(model.hf, _Letters(letters), "letters")
    fine = capture(other, text)
    assert len(fine.token_ids) == len(text)
    found = pair(model, whole, other, fine)
    ends = [len("".join(whole.tokens[: i + 1])) - 1 for i in range(len(whole.tokens))]
    assert [found.to_b[i] for i in range(len(whole.tokens))] == ends
    assert sum(p.kind == "inserted" for p in found.pairs) == len(text) - len(whole.tokens)


class _Letters:
    """visit-mini's vocabulary, but every text is split into the ids it was made with, a character each."""

    is_fast = False

    def __init__(self, ids: list[int]) -> None:
        self.inner = AutoTokenizer.from_pretrained(MINI_FOLDER)
        self.ids = ids
        self.backend_tokenizer = self.inner.backend_tokenizer

    def __len__(self) -> int:
        return len(self.inner) - 1  # one word less: another vocabulary

    def __call__(self, text, **_):
        return {"input_ids": self.ids}

    def encode(self, text, **_):
        return self.ids

    def convert_ids_to_tokens(self, ids):
        return self.inner.convert_ids_to_tokens(ids)


# ---- the difference graph ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", models.KINDS)
def test_differences_add_up(name):
    """At every node: Σ of the incoming differences = the node's difference. A token of one prompt alone adds 0."""
    _, _, found = compared(name)
    edges = found.edges[found.edges["kind"].isin(["add", "residual"])]
    change = edges["contribution_b"].fillna(0) - edges["contribution_a"].fillna(0)
    sums = change.groupby(edges["target"]).sum()
    true = found.nodes.set_index("id")["difference"].loc[sums.index]
    assert len(sums) > 10 and true.notna().all()
    assert float((sums - true).abs().max()) <= 1e-10 * float(true.abs().max())
    absent = found.nodes["absent"].notna()
    assert absent.any(), "the prompts have tokens of their own"
    one_sided = edges["contribution_a"].isna() | edges["contribution_b"].isna()
    ends = set(edges.loc[one_sided, "source"])
    assert ends <= set(found.nodes.loc[absent, "id"]), "an edge stands on one side only where its node is absent"


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_every_number_is_that_of_a_graph_of_one_side(name):
    left, right, found = compared(name)
    model = models.small(name)
    for side, ids, graph in (("a", A, left), ("b", B, right)):
        whole = build_flow_graph(model, capture(model, ids), keep=Keep(None, None, None, None)).nodes.set_index("id")
        mine = found.nodes[found.nodes[f"id_{side}"].notna()].set_index(f"id_{side}")
        if model.family.rotary:  # a query is read as the most attended shown position sees it
            mine = mine[mine["kind"] != "query"]
        mine = mine[mine["kind"] != "rest"]
        true = whole.loc[mine.index]
        for column in ("prob", "norm", "contribution", "entropy"):
            ours = mine[f"{column}_{side}"].astype(float)
            pd.testing.assert_series_equal(ours, true[column].astype(float), check_names=False, rtol=1e-9)
        assert mine[f"word_{side}"].tolist() == [tokens[0] for tokens in true["tokens"]]
        kept = {"a": ("only A", "word", "alike"), "b": ("only B", "word", "alike")}[side]
        shown = set(mine.index[mine["status"].isin(kept)])
        base = set(graph.nodes["id"]) & set(mine.index)
        assert len(base) > 20
        assert base <= shown
        heads = {".".join(i.split(".")[:2]) for i in shown - base}
        assert all(".head" in h and h not in base for h in heads), "what else is kept is of a head that came in"


def test_the_status_says_whose_pruning_kept_a_node():
    left, right, found = compared("gpt2")
    rows = found.nodes.set_index("id")
    assert set(rows["status"]) == {"only A", "only B", "word", "alike"}
    both = rows[rows["status"].isin(["word", "alike"])]
    assert ((both["word_a"] == both["word_b"]) == (both["status"] == "alike")).all()
    heads = {s: set(g.nodes.loc[g.nodes["kind"] == "head", "id"]) for s, g in (("A", left), ("B", right))}
    for name, others in (("A", heads["A"] - heads["B"]), ("B", heads["B"] - heads["A"])):
        assert set(rows.index[(rows["kind"] == "head") & (rows["status"] == f"only {name}")]) == others


def test_absent_is_said_only_of_a_token_that_the_other_prompt_does_not_have():
    _, _, found = compared("gpt2", keep=Keep(heads=2, values=None, attn_neurons=0, mlp_neurons=0))
    rows = found.nodes.set_index("id")
    assert rows.loc["L0.head0.value1" if "L0.head0" in rows.index else "L0.head1.value1", "absent"] == "B"
    values = rows[rows["kind"] == "value"]
    assert set(values.loc[values["absent"] == "B", "source_pos_a"]) == {1}
    assert set(values.loc[values["absent"] == "A", "source_pos_b"]) == {4}
    assert all(i.endswith("value4b") for i in values.index[values["absent"] == "A"])
    assert rows.loc[~rows["kind"].isin(["value", "key"]), "absent"].isna().all()
    assert rows.loc[rows["absent"].isna(), ["id_a", "id_b"]].notna().all(axis=None)


def test_swapping_the_sides_turns_every_difference_round():
    left, right, found = compared("llama")
    back = compare(right, left)
    names = {"only A": "only B", "only B": "only A"}
    ours = found.nodes.set_index(["kind", "id_a", "id_b"])
    other = back.nodes.rename(columns={"id_a": "id_b", "id_b": "id_a"}).set_index(["kind", "id_a", "id_b"])
    other = other.loc[ours.index]
    assert (other["status"].replace(names) == ours["status"]).all()
    assert (ours["difference"].fillna(0) + other["difference"].fillna(0)).abs().max() < 1e-12
    assert ours["difference"].abs().max() > 1e-3


def test_one_prompt_against_itself_shows_no_difference():
    _, _, found = compared("gpt2", A, A)
    assert set(found.nodes["status"]) == {"alike"} and found.nodes["absent"].isna().all()
    assert found.nodes["difference"].fillna(0).abs().max() == 0
    assert found.tables["changes"]["difference"].abs().max() == 0


def test_names_go_there_and_back():
    pairing = pair_tokens(A, B)
    for side in ("a", "b"):
        for node in ("L0.head1.value5", "L1.head0.key2", "L0.mlp_value3", "L2-3.rest", "logits", "L0.head1.value4"):
            assert own_id(common_id(node, side, pairing), side, pairing) == node
    assert common_id("L0.head1.value2", "b", pairing) == "L0.head1.value3"
    assert common_id("L0.head1.value4", "b", pairing) == "L0.head1.value4b"
    assert own_id("L0.head1.value4b", "a", pairing) is None and own_id("L0.head1.value1", "b", pairing) is None


def test_answers_are_the_models_own_on_both_sides():
    model = models.small("gpt2")
    left, right = (
        build_flow_graph(model, capture(model, ids), target=t, distractor=9, layers=[0]) for ids, t in ((A, 7), (B, 11))
    )
    table = compare(left, right).tables["answers"]
    assert table["whose"].tolist() == ["target of A", "target of B", "distractor of A, distractor of B"]
    for side, ids in (("a", A), ("b", B)):
        logits = capture(model, ids).logits[-1]
        for row, token in zip(table.to_dict("records"), (7, 11, 9), strict=True):
            assert row[f"prob_{side}"] == pytest.approx(float(logits.softmax(-1)[token]), rel=1e-12)
            assert row[f"rank_{side}"] == 1 + int((logits > logits[token]).sum())
            assert row[f"logit_over_mean_{side}"] == pytest.approx(float(logits[token] - logits.mean()), rel=1e-9)


@pytest.mark.parametrize("distractors", [(None, None), (5, None), (5, 9)])
def test_sentences_of_two_passes_need_no_graph(distractors, monkeypatch):
    model = models.exact("llama")
    runs = [capture(model, prompt) for prompt in ([5, 17, 3, 99, 41], [5, 17, 8, 99, 41])]
    asked = [ask(model, run, -1, None, other) for run, other in zip(runs, distractors, strict=True)]
    pairing = pair(model, runs[0], model, runs[1])
    graphs = [build_flow_graph(model, one.acts, distractor=one.distractor) for one in asked]
    apart, singles = part(model, runs[0], model, runs[1], pairing), single_parts(*asked, pairing)
    whole = contrast_parts(compare(*graphs, pairing), apart, singles)
    monkeypatch.setattr("visit.graph.build.read", None)
    assert contrast_parts(told_sides(*asked, pairing, (None, None)), apart, singles) == whole
    assert whole["largest"] and whole["prompts"] and bool(whole["scales"]) == (distractors == (5, None))


def test_changes_are_sorted_and_lead_to_their_nodes():
    _, _, found = compared("gpt2")
    table = found.tables["changes"]
    sizes = table["difference"].abs().tolist()
    assert sizes == sorted(sizes, reverse=True) and set(table["id"]) <= set(found.nodes["id"])
    assert table["component"].is_unique


def test_graphs_without_their_passes_are_compared_as_they_are():
    left, right, _ = compared("gpt2")
    bare = [visit.FlowGraph.of_tables(g.nodes, g.edges, g.meta) for g in (left, right)]
    found = compare(*bare)
    only = found.nodes[(found.nodes["status"] == "only A") & (found.nodes["kind"] == "mlp_value")]
    assert len(only) and only["contribution_b"].isna().all() and only["difference"].isna().all()
    assert only["absent"].isna().all(), "not shown is not absent"


def test_what_a_user_has_hidden_stays_hidden():
    model = models.small("gpt2")
    left = build_flow_graph(model, capture(model, A), keep=Keep(heads=None))
    right = build_flow_graph(model, capture(model, B), keep=Keep(heads=None, pin=("-L0.head1",)))
    found = compare(left, right)
    assert "L0.head1" not in set(found.b.nodes["id"])
    assert pd.isna(found.nodes.set_index("id").loc["L0.head1", "absent"])


def test_models_of_other_shapes_have_no_difference_graph():
    graphs = [build_flow_graph(m, capture(m, A)) for m in (models.small("gpt2"), models.small("gpt2-untied-scaled"))]
    with pytest.raises(VisitError, match=r"as many layers.*side by side"):
        compare(*graphs)
    model = models.small("gpt2")
    graphs = [build_flow_graph(model, capture(model, A), layers=[n]) for n in (0, 1)]
    with pytest.raises(VisitError, match="the same layers shown"):
        compare(*graphs)


def test_a_pair_is_a_fact():
    with pytest.raises(AttributeError):
        Pair(0, 0, "equal").a = 1


@pytest.mark.parametrize("name", models.KINDS)
def test_two_positions_of_one_prompt_can_be_compared(name):
    """The later position sees tokens that the earlier one cannot: their values are absent there, and add nothing."""
    model = models.small(name)
    acts = capture(model, A)
    found = compare(*(build_flow_graph(model, acts, pos, target=7, keep=Keep(1, None, 1, 1)) for pos in (-1, 3)))
    values = found.nodes[found.nodes["kind"] == "value"]
    assert set(values.loc[values["absent"] == "B", "source_pos_a"]) == {4, 5, 6}
    edges = found.edges[found.edges["kind"].isin(["add", "residual"])]
    change = edges["contribution_b"].fillna(0) - edges["contribution_a"].fillna(0)
    sums = change.groupby(edges["target"]).sum()
    true = found.nodes.set_index("id")["difference"].loc[sums.index]
    assert float((sums - true).abs().max()) <= 1e-10 * float(true.abs().max())
