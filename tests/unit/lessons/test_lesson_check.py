"""Queries and checks: against numbers computed another way, and what is said to every kind of answer."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

import visit
from visit.errors import VisitError
from visit.exact.question import ask
from visit.lessons.check import judge, same, show_me
from visit.lessons.grammar import PHRASES, parse_query
from visit.lessons.lesson import Exercise, Lesson, Wrong
from visit.lessons.queries import LearnerRun, RunAnswer, answer, does, paired

JAPAN = "The capital of Japan is the city of"
LESSON = Lesson("x", "y")


@cache
def run() -> LearnerRun:
    model = visit.load_model("visit-mini")
    return LearnerRun(ask(model, visit.capture(model, JAPAN)))


def value(text: str):
    return answer(run(), parse_query(text, {})).value


def question(kind: str, text: str, **more) -> Exercise:
    return Exercise("step1.1", 1, "?", kind, parse_query(text, {}), **more)


def test_what_a_head_adds_and_what_is_lost_are_those_of_effects():
    r = run()
    table = visit.effects(r.model, r.acts).set_index("node")
    assert value("largest contribution among heads") == table["contribution"].idxmax()
    order = table["contribution"].sort_values(ascending=False).index
    assert value("third largest contribution among heads") == order[2]
    assert value("largest contribution against among heads") == order[-1]
    assert value("contribution of L4.head1") == pytest.approx(table.loc["L4.head1", "contribution"], rel=1e-5)
    assert value("probability of target without L4.head1") == pytest.approx(table.loc["L4.head1", "prob"], rel=1e-6)
    edited = visit.capture(r.model, JAPAN, edits=[visit.Edit("L0.head7", pos=-1)])
    prob = float(edited.logits[-1].softmax(-1)[r.question.target])
    assert value("probability of target without L0.head7") == pytest.approx(prob, rel=1e-4)


def test_what_is_attended_and_read_is_what_the_record_holds():
    r = run()
    pattern = r.acts.pattern[4, 1, -1]
    assert value("position attended most by L4.head1") == int(pattern.argmax())
    assert value("attention of L4.head1 to position 3") == pytest.approx(float(pattern[3]))
    best = r.acts.pattern[:, :, -1, 3].flatten().argmax()
    assert value('largest attention to position of "Japan" among heads') == f"L{best // 8}.head{best % 8}"
    read = visit.read_vectors(r.model, r.acts.resid_post[:, -1], r.question.target)
    for block in range(r.model.n_layers - 1):
        assert r.model.vocabulary[value(f"top word after block {block}")] == read["tokens"][block][0]
        assert value(f"rank of target after block {block}") == read["rank"][block]
    assert value("first block where the target is first") == next(i for i, rank in enumerate(read["rank"]) if rank == 1)
    assert value("norm after block 3") == pytest.approx(float(r.acts.resid_post[3, -1].norm()), rel=1e-5)
    rows = r.model.W_out(7) * r.acts.neurons[7, -1][:, None]
    assert value("largest norm among neurons") == _largest(r, rows_norm=True)
    assert value("norm of L7.mlp_value377") == pytest.approx(float(rows[377].norm()), rel=1e-4)


def test_what_noise_takes_and_what_brings_it_back_is_the_page_s_trace():
    r = run()
    table = visit.trace(r.model, JAPAN, "Japan")
    stream = table[table["site"] == "resid"].pivot(index="layer", columns="pos", values="prob")
    lost = table.attrs["clean"] - table.attrs["corrupted"]
    assert value("probability of target under noise") == pytest.approx(table.attrs["corrupted"])
    for block in range(r.model.n_layers):
        assert value(f"position that brings most back after block {block}") == stream.loc[block].idxmax()
    half = table.attrs["corrupted"] + lost / 2
    for pos in (3, 7):
        assert value(f"last block that brings half back at position {pos}") == max(stream.index[stream[pos] >= half])
    with pytest.raises(VisitError, match="No single state there"):
        value("last block that brings half back at position 1")


def test_a_trace_that_takes_long_is_not_waited_for_in_a_lesson(monkeypatch):
    monkeypatch.setattr("visit.lessons.queries.TRACE_WORK", 0.0)
    with pytest.raises(VisitError, match="takes long on this model"):
        answer(LearnerRun(run().question), parse_query("probability of target under noise", {}))


def _largest(r: LearnerRun, rows_norm: bool) -> str:
    norms = torch.stack(
        [r.acts.neurons[layer, -1].abs() * r.model.W_out(layer).norm(dim=-1) for layer in range(r.model.n_layers)]
    )
    best = int(norms.argmax())
    return f"L{best // r.model.d_mlp}.mlp_value{best % r.model.d_mlp}"


@pytest.mark.parametrize("phrase", PHRASES)
def test_every_phrase_has_an_answer_or_a_sentence(phrase):
    filled = phrase.format(
        nth="largest", set="heads", node="L4.head1", pos="position 3", block="block 6", word='"Japan"', count="3"
    )
    try:
        found = answer(run(), parse_query(filled, {}))
    except VisitError as problem:
        assert filled == "distractor" and "no distractor" in str(problem)
        return
    kinds = {"node": str, "position": int, "token": int, "number": int | float}
    assert isinstance(found.value, kinds[found.kind])


@pytest.mark.parametrize(
    ("text", "says"),
    [("top word after block 8", "0 to 7"), ("contribution of L4.head9", "0 to 7"), ("word at position 12", "0 to 7"),
     ('position of "Rome"', "reads"), ("position attended most by L4.mlp_out", "Only a head")],
)  # fmt: skip
def test_what_a_run_does_not_have_is_a_sentence(text, says):
    with pytest.raises(VisitError, match=says):
        value(text)


@pytest.mark.parametrize("given", ["Tokyo", " Tokyo", "·Tokyo", " Tokyo ", "tokyo", "TOKYO"])
def test_a_leading_space_and_small_letters_are_forgiven(given):
    assert judge(LESSON, question("token", "final prediction"), given, run()).right


@pytest.mark.parametrize("given", ["3", "Japan", "japan", "position 3"])
def test_a_word_of_the_prompt_is_known_by_its_place_and_by_its_letters(given):
    assert judge(LESSON, question("position", "position attended most by L4.head1"), given, run()).right


def test_a_word_in_pieces_is_said_so_without_naming_a_letter():
    verdict = judge(LESSON, question("token", "final prediction"), "xyzzy", run())
    assert verdict.right is None and verdict.given == ""
    assert verdict.sentence.startswith("visit-mini has no word “xyzzy” of its own")


@pytest.mark.parametrize("given", ["L4 H1", "L4.head1", "l4h1", "layer 4 head 1", "block 4, head 1", "L4.head1.query"])
def test_a_head_is_known_by_all_its_names(given):
    assert judge(LESSON, question("node", "largest contribution among heads"), given, run()).right


@pytest.mark.parametrize("given", ["", "  ", "<b>", "L99 H1", "head", "L4.head1;drop", "x" * 10_000])
def test_what_cannot_be_read_is_no_wrong_answer(given):
    verdict = judge(LESSON, question("node", "largest contribution among heads"), given, run())
    assert verdict.right is None and verdict.given == "" and verdict.sentence


def test_a_number_has_its_tolerance_and_its_unit():
    share = question("number", "probability of target without L4.head1", tolerance=2)
    for given in ("99.4", "99,4 %", "98", "0.99"):
        assert judge(LESSON, share, given, run()).right, given
    for given in ("90", "1", "0.5", "-99.4"):
        assert judge(LESSON, share, given, run()).right is False, given
    whole = question("number", "first block where the target is first")
    assert judge(LESSON, whole, "6", run()).right and judge(LESSON, whole, "6.4", run()).right is False
    assert judge(LESSON, whole, "nan", run()).right is None


def test_a_wrong_answer_gets_the_lessons_sentence_or_what_the_thing_does_instead():
    r = run()
    runner = parse_query("second largest contribution among heads", {})
    asked = question(
        "node", "largest contribution among heads",
        wrong=(Wrong("L7*", "not the last block"), Wrong("x", "{yours} is second: {yours.contribution}", runner)),
    )  # fmt: skip
    assert judge(LESSON, asked, "L7 H3", r).sentence == "not the last block"
    assert judge(LESSON, asked, "L4 H7", r).sentence == "L4 H7 is second: +1.6 logits"
    told = judge(LESSON, asked, "L5 H5", r).sentence
    assert told.startswith(does(r, "L5.head5")) and "0.95 logits" in told and "Japan" in told


def test_a_check_follows_the_learners_own_prompt():
    model = visit.load_model("visit-mini")
    other = LearnerRun(ask(model, visit.capture(model, "The capital of France is the city of")))
    asked = question("token", "final prediction")
    assert judge(LESSON, asked, "Paris", other).right and not judge(LESSON, asked, "Tokyo", other).right
    assert same(asked, RunAnswer("token", 5), RunAnswer("token", 5))


def test_a_question_about_the_second_text_is_judged_and_told_on_its_run():
    model = visit.load_model("visit-mini")
    france = LearnerRun(ask(model, visit.capture(model, "The capital of France is the city of")))
    japan = LearnerRun(ask(model, visit.capture(model, JAPAN)))
    both = paired(japan, france)
    asked = replace(question("token", "in B: final prediction"), explain="{answer} from {prompt}, not {target}")
    assert judge(LESSON, asked, "Paris", both).right and judge(LESSON, asked, "Tokyo", both).right is False
    assert judge(LESSON, asked, "Paris", both).sentence.count("France") == 1
    assert show_me(LESSON, asked, both) == " Paris"
    assert answer(both, parse_query("final prediction", {})) == answer(japan, parse_query("final prediction", {}))
    assert answer(both.other, parse_query("in A: final prediction", {})) == answer(japan, parse_query("target", {}))
    with pytest.raises(VisitError, match="one text only"):
        answer(japan, parse_query("in B: final prediction", {}))


def test_hostile_texts_of_a_prompt_stay_texts():
    model = visit.load_model("visit-mini")
    r = LearnerRun(ask(model, visit.capture(model, "<script>alert(1)</script> {head}")))
    told = judge(LESSON, question("token", "final prediction", explain="{prompt}"), "the", r)
    assert told.sentence
