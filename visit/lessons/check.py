"""Whether an answer is right on the learner's own run, and what is said to it.

1. What was typed, clicked or chosen is read: a token with its leading space forgiven, a node as L4.head1 or L4 H1, a
   number with or without its % sign. What cannot be read is no wrong answer: it is said how to write it.
2. It is compared with what the lesson's query gives (`visit.lessons.queries`), never with a fixed text.
3. A wrong answer gets the sentence that the lesson has for it (`wrong:`), else one that says what the chosen thing
   does instead.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from visit.activations.forward import capture
from visit.activations.record import Activations
from visit.errors import VisitError
from visit.exact.decompose import needed
from visit.exact.question import ask
from visit.lessons.grammar import Query
from visit.lessons.lesson import Exercise, Lesson, LessonStep, Wrong, address_of
from visit.lessons.queries import LearnerRun, RunAnswer, answer, asked_of, does, number_text, paired, said, spelled
from visit.lessons.words import fill
from visit.models.model import Model
from visit.text.node_id import NodeId
from visit.text.numbers import percent
from visit.text.visible import as_word, quoted, visible

ANSWER_CHARACTERS = 2_000  # of a free answer
SHARE_TOLERANCE = 5.0  # percentage points
LENGTH_TOLERANCE = 0.05  # of the right number, for logits and lengths, and at least 0.05


@dataclass(frozen=True)
class Judged:
    """`right`: True, False, or None where nothing is checked or the answer could not be read.

    `given`: the answer as it is kept, empty where it could not be read; `sentence`: what is said to it.
    """

    right: bool | None
    given: str
    sentence: str


def judge(lesson: Lesson, question: Exercise, given: str | Sequence[int], run: LearnerRun | None = None) -> Judged:
    """Judge an answer. `given`: a text; of a choice or an order the numbers of options, from 0, as a text or a list.

    `run`: the learner's pass; a choice, an order and a free text need none.
    """
    if question.kind in ("choice", "order", "free"):
        judged = _without_run(question, given)
        told = judged.sentence
        return replace(judged, sentence=filled(lesson, told, run, question) if run is not None else told)
    assert run is not None and question.answer is not None and isinstance(given, str)
    run = asked_of(run, question.answer)
    expected = answer(run, question.answer)
    try:
        found = read_answer(run, question, given)
    except VisitError as problem:
        return Judged(None, "", str(problem))
    kept = kept_text(run, found)
    if same(question, found, expected):
        return Judged(True, kept, explanation(lesson, question, run))
    return Judged(False, kept, _said_to(lesson, question, run, found, expected))


def explanation(lesson: Lesson, question: Exercise, run: LearnerRun | None) -> str:
    """What is told when a question is answered, filled from the run."""
    if run is None:
        return question.explain
    return filled(lesson, question.explain, run, question)


def filled(
    lesson: Lesson, text: str, run: LearnerRun, question: Exercise | None = None, yours: RunAnswer | None = None
) -> str:  # fmt: skip
    """A text of the lesson with its placeholders filled from the run; what the run does not have is `–`."""

    def told(name: str, about: str) -> str:
        try:
            of = asked_of(run, question.answer if question is not None else None)
            return _placeholder(lesson, of, name, about, question, yours)
        except VisitError:
            return "–"

    return fill(text, told)


def _placeholder(
    lesson: Lesson, run: LearnerRun, name: str, about: str, question: Exercise | None, yours: RunAnswer | None
) -> str:
    q = run.question
    if name == "prompt":
        return f"“{visible(run.acts.prompt)}”"
    if name == "model":
        return run.model.name
    probability = float(needed(run.acts, "logits")[q.pos].to(run.model.wide).softmax(-1)[q.target])
    if name == "probability":
        return percent(probability)
    if name == "answer" and question is not None and question.answer is not None:
        found = answer(run, question.answer)
    elif name == "yours" and yours is not None:
        found = yours
    elif name in lesson.let:
        run = asked_of(run, lesson.let[name])
        found = answer(run, lesson.let[name])
    else:
        token = {"target": q.target, "distractor": q.distractor}.get(name)
        if name == "prediction":
            token = int(needed(run.acts, "logits")[q.pos].argmax())
        if token is None:
            return "–"
        found = RunAnswer("token", token)
    return said(run, found, about) if about else spelled(run, found)


def runs_of(lesson: Lesson, model: Model) -> Callable[[LessonStep], LearnerRun]:
    """What gives a step its run on a model: one pass a text, and what was measured on it, for all steps alike."""
    passes: dict[str, Activations] = {}
    tables: dict[str, dict[str, Any]] = {}

    def one(given: Mapping[str, str], side: str) -> LearnerRun:
        prompt = given[f"prompt{side}"]
        if prompt not in passes:
            passes[prompt] = capture(model, prompt)
        about = ask(model, passes[prompt], int(given.get(f"pos{side}") or -1), given.get(f"target{side}"),
                    given.get(f"distractor{side}"))  # fmt: skip
        return LearnerRun(about, None, tables.setdefault(repr((prompt, about.pos, about.target, about.distractor)), {}))

    def run_of(step: LessonStep) -> LearnerRun:
        given = address_of(lesson, step)
        first = one(given, "")
        return paired(first, one(given, "_b")) if step.page == "compare" and given.get("prompt_b") else first

    return run_of


# ---- reading what was given ------------------------------------------------------------------------------------------
def read_answer(run: LearnerRun, question: Exercise, given: str) -> RunAnswer:
    """What was given, as an answer of the question's kind. Raises `VisitError` that says how it is written."""
    text = given[:200].strip("\n\r\t")
    if not text.strip():
        raise VisitError("There is no answer yet.")
    assert question.answer is not None
    if question.kind == "node":
        return RunAnswer("node", _read_node(run, text.strip()))
    if question.kind == "position":
        return RunAnswer("position", _position(run, text.strip()))
    if question.kind == "token":
        return RunAnswer("token", _read_token(run, text))
    return RunAnswer("number", _read_number(text.strip()), question.answer.unit)


_HEAD_NAME = re.compile(r"(?:l|layer |block )(\d{1,4})[ .,]*h(?:ead ?)?(\d{1,4})", re.IGNORECASE)


def _read_node(run: LearnerRun, text: str) -> str:
    match = _HEAD_NAME.fullmatch(text)
    name = f"L{match[1]}.head{match[2]}" if match else text
    node = NodeId.parse(name)
    if node is None or node.layer is None:
        raise VisitError(
            f"{quoted(text[:40])} is no part of the graph: click one, or write L2 H5 for head 5 of block 2."
        )
    if node.layer >= run.model.n_layers or (node.head or 0) >= run.model.n_heads:
        raise VisitError(
            f"{visible(text)[:40]} does not exist: {run.model.name} has blocks 0 to {run.model.n_layers - 1} with "
            f"heads 0 to {run.model.n_heads - 1}."
        )
    if node.head is not None and node.kind in ("query", "rest"):
        return f"L{node.layer}.head{node.head}"  # the head that it belongs to
    return str(node)


def _position(run: LearnerRun, text: str) -> int:
    if match := re.fullmatch(r"(?:position )?(\d{1,6})", text, re.ASCII):
        return run.acts.index(int(match[1]))
    for plainly in (str, str.casefold):
        names = [{plainly(one) for one in (token, token.strip(), visible(token))} for token in run.acts.tokens]
        same = [i for i, known in enumerate(names) if plainly(text) in known]
        if same:
            break
    if len(same) == 1:
        return same[0]
    if same:
        raise VisitError(f"{quoted(text)} stands at positions {', '.join(map(str, same))}; click the one you mean.")
    raise VisitError(f"No token of this prompt reads {quoted(text[:40])}; click one, or write its position.")


def _read_token(run: LearnerRun, text: str) -> int:
    """The id of a word: as a token inside a text first, then as it was typed, then without regard to capitals."""
    word = text.strip()
    for way in (" " + word, word, text):
        try:
            return run.model.token_id(way, "word")
        except VisitError:
            continue
    vocabulary = run.model.vocabulary
    spelled_so = [i for i, token in enumerate(vocabulary) if word in (visible(token), as_word(token))]
    # a phone writes tokyo; of the same letters the one inside a text is meant
    same_letters = [i for i, token in enumerate(vocabulary) if token.strip().casefold() == word.casefold()]
    inside = [i for i in same_letters if vocabulary[i].startswith(" ")]
    if word and (found := spelled_so or inside or same_letters):
        return found[0]
    raise VisitError(
        f"{run.model.name} has no word {quoted(word[:40])} of its own: it writes it in pieces. Type one word that it "
        "may say next."
    )


def _read_number(text: str) -> float:
    plain = text.replace("−", "-").replace(" ", "").replace("\u202f", "")
    plain = plain.removesuffix("%").removesuffix("logits")
    if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", plain):
        plain = plain.replace(",", "")
    plain = plain.replace(",", ".").lstrip("+<>~")
    if not re.fullmatch(r"-?(\d{1,12}(\.\d{0,12})?|\.\d{1,12})", plain, re.ASCII):
        raise VisitError(f"{quoted(text[:40])} is no number; write one such as 12, 0.5 or 97 %.")
    return float(plain)


# ---- comparing -------------------------------------------------------------------------------------------------------
def same(question: Exercise, found: RunAnswer, expected: RunAnswer) -> bool:
    """Whether an answer is the expected one, a number within its tolerance.

    A share is compared in percent: 97 and 97 % are the same. What was typed below 1 may also be meant as a fraction.
    """
    if found.kind != "number":
        return found.value == expected.value
    value, right = float(found.value), float(expected.value)
    if expected.unit == "share":
        room = SHARE_TOLERANCE if question.tolerance is None else question.tolerance
        near = abs(value - 100 * right) <= room
        return near or (0 < value < 1 and abs(100 * value - 100 * right) <= room)
    if expected.unit in ("count", "block", ""):
        return abs(value - right) <= (question.tolerance or 0)
    room = max(LENGTH_TOLERANCE * abs(right), LENGTH_TOLERANCE) if question.tolerance is None else question.tolerance
    return abs(value - right) <= room


def kept_text(run: LearnerRun, found: RunAnswer) -> str:
    """An answer as a result file holds it."""
    if found.kind == "token":
        return run.model.vocabulary[int(found.value)]
    if found.kind == "number":
        return f"{found.value:g}{' %' if found.unit == 'share' and float(found.value) > 1 else ''}"
    return str(found.value)


def _said_to(lesson: Lesson, question: Exercise, run: LearnerRun, found: RunAnswer, expected: RunAnswer) -> str:
    for one in question.wrong:
        if _fits(run, question, one, found, expected):
            return filled(lesson, one.sentence, run, question, found)
    return instead(run, question, found, expected)


def _fits(run: LearnerRun, question: Exercise, one: Wrong, found: RunAnswer, expected: RunAnswer) -> bool:
    """Whether a wrong answer is of the form that a line `wrong:` names."""
    pattern = one.pattern
    if one.query is not None:
        try:
            return same(question, found, answer(run, one.query))
        except VisitError:
            return False
    if pattern in ("less", "more"):
        scale = 100 if expected.unit == "share" else 1
        return (float(found.value) < scale * float(expected.value)) == (pattern == "less")
    kept = kept_text(run, found).strip()
    names = [kept, str(found.value), spelled(run, found).strip("“”·")] if found.kind != "number" else [kept]
    return any(fnmatchcase(name, pattern) for name in names)


def instead(run: LearnerRun, question: Exercise, found: RunAnswer, expected: RunAnswer) -> str:
    """A sentence of its own for a wrong answer: what the chosen thing does instead."""
    if found.kind == "node":
        return f"{_doing(run, str(found.value))}. Another one is asked for."
    if found.kind == "position":
        return f"{spelled(run, found)} is not the one. {_looked_at(run, question, int(found.value))}".strip()
    if found.kind == "token":
        probs = needed(run.acts, "logits")[run.question.pos].to(run.model.wide).softmax(-1)
        own = float(probs[int(found.value)])
        rank = int((probs > own).sum()) + 1
        return f"{spelled(run, found)} is not the one: in the end it has {percent(own)}, place {rank:,} of all words."
    value, scale = float(found.value), 100 if expected.unit == "share" else 1
    side = "more" if value < scale * float(expected.value) else "less"
    yours = f"{value:g} %" if expected.unit == "share" else number_text(value, expected.unit)
    return f"It is {side} than {yours.lstrip('+')}. Look again at what is marked on the page."


def _doing(run: LearnerRun, name: str) -> str:
    try:
        return does(run, name)
    except VisitError as problem:
        return str(problem).removesuffix(".")


def _looked_at(run: LearnerRun, question: Exercise, pos: int) -> str:
    """How much the head that a question is about attends there."""
    inner = None if question.answer is None else question.answer.arg("node")
    if not isinstance(inner, Query):
        return ""
    head = NodeId.parse(str(answer(run, inner).value))
    if head is None or head.kind != "head" or pos > run.question.pos:
        return ""
    there = float(needed(run.acts, "pattern")[head.layer, head.head, run.question.pos, pos])
    return f"L{head.layer} H{head.head} gives it {percent(there)} of its attention."


# ---- what needs no run -----------------------------------------------------------------------------------------------
def _without_run(question: Exercise, given: str | Sequence[int]) -> Judged:
    if question.kind == "free":
        text = given if isinstance(given, str) else ""
        if not text.strip():
            return Judged(None, "", "There is no answer yet.")
        if len(text) > ANSWER_CHARACTERS:
            return Judged(None, "", f"An answer has at most {ANSWER_CHARACTERS:,} characters; yours has {len(text):,}.")
        return Judged(None, text.strip(), question.explain)
    chosen = (
        [int(part) for part in given.split(",") if part.strip().isdecimal()] if isinstance(given, str) else [*given]
    )
    count = len(question.options)
    if not chosen or any(not 0 <= n < count for n in chosen):
        return Judged(None, "", "There is no answer yet.")
    if question.kind == "choice":
        option = question.options[chosen[0]]
        told = option.why if not (option.right and question.explain) else f"{option.why} {question.explain}"
        return Judged(option.right, str(chosen[0]), told)
    if sorted(chosen) != list(range(count)):
        return Judged(None, "", f"Put all {count} in order.")
    kept = ",".join(map(str, chosen))
    if chosen == list(range(count)):
        return Judged(True, kept, question.explain)
    first = next(n for n, one in enumerate(chosen) if n != one)
    place = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")[first]
    return Judged(False, kept, f"“{question.options[chosen[first]].text}” does not come {place}.")


# ---- the third hint --------------------------------------------------------------------------------------------------
def show_me(lesson: Lesson, question: Exercise, run: LearnerRun | None) -> str:
    """What “Show me” fills in: an answer that the check accepts, as it would be given.

    The lesson's own `show:`, where this run accepts it; else what its query gives.
    """
    if question.kind == "choice":
        return str(next(n for n, option in enumerate(question.options) if option.right))
    if question.kind == "order":
        return ",".join(map(str, range(len(question.options))))
    if question.kind == "free" or run is None or question.answer is None:
        return question.show
    if question.show and judge(lesson, question, question.show, run).right:
        return question.show
    run = asked_of(run, question.answer)
    expected = answer(run, question.answer)
    if expected.unit == "share":
        digits = 100 * float(expected.value)
        return f"{digits:.4g} %"
    if expected.kind == "number":
        return f"{float(expected.value):.4g}" if math.isfinite(float(expected.value)) else ""
    return kept_text(run, expected)
