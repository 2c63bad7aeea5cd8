"""What *Guide me* says and marks on each page: five steps over the pass on screen, and where to go next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import streamlit as st

from visit.app import graph_panel as graphs
from visit.app.cache import Prompt
from visit.app.cached_effects import causes, st_ablation, st_effects_seconds
from visit.app.cached_flow import st_facts
from visit.app.cached_heads import st_active, st_token_shift
from visit.app.edit_list import Listed
from visit.app.guide import LAST_STEP, Way, show_strip
from visit.app.lens_choice import seen
from visit.app.marks import Mark
from visit.app.measuring import measured, st_measuring
from visit.app.sessions import state

if TYPE_CHECKING:
    from visit.app.set_question import SetQuestion
    from visit.app.subject import Subject
    from visit.narrate.guide import GuideStep


_PROMPT = (Mark("prompt", nodes=("logits",)),)


def is_on() -> bool:
    """Whether a step is shown. Not beside a lesson, which asks what the guide would tell."""
    return bool(state().guide) and not (state().lesson or state().recording)


# ---- one prediction --------------------------------------------------------------------------------------------------
def on_flow(subject: Subject) -> None:
    """The five steps of the flow page."""
    if is_on():
        steps = _steps(subject)
        head, word = (steps[n] for n in (2, 3))
        show_strip(
            steps,
            (
                (Mark("prompt", nodes=("logits",)),),
                (Mark("map", nodes=_nodes_of(steps[1].node)),),
                (Mark("graph", nodes=_nodes_of(head.node)),),
                (Mark("graph", nodes=_nodes_of(word.node) + _nodes_of(head.node)), Mark("prompt", tokens=word.tokens)),
                (Mark("causes"),),
            ),
            graphs.select,
            _ways(subject, steps),
        )


def _nodes_of(node: str | None) -> tuple[str, ...]:
    return () if node is None else (node,)


def _steps(subject: Subject) -> list[GuideStep]:
    """The steps of the prediction; what is measured, only for the last of them."""
    from visit.narrate.guide import guide_steps

    told = _told_of(subject)
    if state().guide < LAST_STEP or told.strongest is None:
        return guide_steps(told)
    found = _effects(subject)
    return guide_steps(told, found, None if found is None else _word_blurred(subject, told))


def _told_of(subject: Subject) -> Any:
    return st_facts(*subject.about, seen(subject.model.name)[0][0])


def _effects(subject: Subject) -> Any:
    """What every head's removal does, None while it is not measured; then this place says so."""
    about = subject.about
    found = measured(
        st_measuring(*about, "heads"), partial(causes, *about), partial(st_effects_seconds, *about[:3]),
        "what each head does",
    )  # fmt: skip
    return None if found is None else found[0]


def _word_blurred(subject: Subject, told: Any) -> Any:
    """What the word does that the strongest head draws on; None where that is the position itself."""
    if told.strongest is None or int(told.strongest["source_pos"]) == subject.pos:
        return None
    return _without(subject, _blurred(int(told.strongest["source_pos"])), "what the word does")


def _without(subject: Subject, one: Listed, what: str) -> Any:
    """What becomes of the prediction with this change, measured beside the page; None meanwhile."""
    about = subject.about
    return measured(st_measuring(*about, one.text), partial(changed_run, *about, one.text), lambda: 0.0, what)


def changed_run(name: str, prompt: Prompt, pos: int, target: int, distractor: int | None, edits: str) -> Any:
    """What becomes of the prediction with the changes `edits`, as What if shows it."""
    found, _ = st_ablation(name, prompt, pos, target, distractor, edits, "")
    return None if found is None else found.table


def _blurred(source: int) -> Listed:
    return Listed(f"embed.pos{source}", "mean", at=str(source))


def _ways(subject: Subject, steps: Sequence[GuideStep]) -> list[Way]:
    """Where to go from the last step: the same removal, the same word blurred, another word in its place."""
    head, word = steps[2].node, steps[3].tokens
    ways: list[Way] = []
    if head:
        out = Listed(head, "zero", at=str(subject.in_address(subject.pos)))
        ways.append(("Take this head out yourself", "whatif", {"edits": out.text, "guide": 0}))
    if word and word[0] != subject.pos:
        ways.append(("Blur the word yourself", "whatif", {"edits": _blurred(word[0]).text, "guide": 0}))
    return [*ways, ("Change a word and compare", "compare", {"prompt_b": state().prompt, "guide": 1})]


# ---- the other pages -------------------------------------------------------------------------------------------------
def on_memory(subject: Subject) -> None:
    """The five steps of the attention memory."""
    from visit.narrate.guide import memory_steps

    if is_on():
        told = _told_of(subject)
        steps = memory_steps(told, _effects(subject) if state().guide == LAST_STEP else None)
        marks = _PROMPT, (Mark("heads"),), (Mark("reading"), Mark("prompt", tokens=steps[2].tokens)), (Mark("sources"),)
        out = Listed(steps[1].node or "", "zero", at=str(subject.in_address(subject.pos)))
        ways = [("Take this head out yourself", "whatif", {"edits": out.text, "guide": 0})] if steps[1].node else []
        show_strip(steps, (*marks, (Mark("reading"),)), graphs.select, ways)


def on_whatif(subject: Subject) -> None:
    """The five steps of the What-if page."""
    from visit.app.edit_list import current
    from visit.narrate.guide import whatif_steps, which_head, which_word
    from visit.text.node_id import part_name

    if is_on():
        told, now = _told_of(subject), state().guide
        found = _effects(subject) if now in (3, 4) else None
        without = _word_blurred(subject, told) if now == LAST_STEP else None
        steps = whatif_steps(told, [part_name(one.node) for one in current() if one.on], found, without)
        marks = _PROMPT, (Mark("changes"),), (Mark("units"),), (Mark("units"),), (Mark("changes"),)
        ways = [way for way in _ways(subject, (*steps[:2], which_head(told), which_word(told))) if way[1] != "compare"]
        show_strip(steps, marks, graphs.select, [*ways, ("See it in the flow", "flow", {"guide": 3})])


def strip_later() -> Any:
    """The place of the strip, for a page that knows its steps only when it has drawn more."""
    return st.container(key="guide_place")


def on_trace(subject: Subject, where: Sequence[int], table: Any) -> None:
    """The five steps of the trace page; `where`: positions made unreadable, `table`: the trace so far, or None."""
    from visit.narrate.guide import trace_steps

    if is_on():
        text = "".join(subject.acts.tokens[p] for p in where)
        found = Mark("maps") if table is not None else Mark("reading")
        marks = _PROMPT, (Mark("subject"),), (found,), (found,), (Mark("reading"),)
        blurred = ";".join(_blurred(p).text for p in where)
        ways: list[Way] = [("Blur the word yourself", "whatif", {"edits": blurred, "guide": 0}), _SEE_FLOW]
        show_strip(trace_steps(_told_of(subject), text, table), marks, graphs.select, ways)


def on_layernorm(subject: Subject, layer: int | None, norm: str, final: bool | None) -> None:
    """The five steps of the layer norm page."""
    from visit.narrate.guide import layer_norm_steps

    if is_on():
        shift = st_token_shift(*subject.key, subject.pos, subject.target, layer, norm, final)
        marks = (Mark("prompt"),), (Mark("norm"),), (Mark("norm"),), (Mark("norm"),), (Mark("set"),)
        show_strip(layer_norm_steps(_told_of(subject), shift), marks, graphs.select, [_SEE_FLOW])


def on_neurons(subject: Subject, layer: int, count: int) -> None:
    """The five steps of the neuron page, of the `count` neurons that it lists of a layer."""
    from visit.narrate.guide import neuron_steps

    if is_on():
        told, now = _told_of(subject), state().neurons
        table = st_active(*subject.about, layer, now.kind, now.nsort, count)
        best = neuron_steps(told, table)[2].node or ""
        out = Listed(best, "zero", at=str(subject.in_address(subject.pos)))
        without = _without(subject, out, "what this neuron does") if state().guide == LAST_STEP else None
        marks = (Mark("prompt"),), (Mark("active"),), (Mark("active"),), (Mark("active"),), (Mark("active"),)
        ways: list[Way] = [("Take this neuron out yourself", "whatif", {"edits": out.text, "guide": 0}), _SEE_FLOW]
        show_strip(neuron_steps(told, table, without), marks, graphs.select, ways)


_SEE_FLOW: Way = ("See it in the flow", "flow", {"guide": 1})


def on_compare(told_apart: Callable[[], dict[str, Any]], same: bool, pick: Callable[[str], None]) -> None:
    """The five steps of the compare page. `told_apart`: makes the sentences; `same`: both sides are one."""
    from visit.narrate.guide import compare_steps

    if is_on():
        parts = ("prompts",) * 5 if same else ("prompts", "reading", "apart", "reading", "graphs")
        ways: list[Way] = [_SEE_FLOW, ("Take a head out", "whatif", {"guide": 3})]
        show_strip(compare_steps(told_apart()), [(Mark(part),) for part in parts], pick, ways)


def on_study(model: str, prompts: int, figures: int, ran: bool) -> None:
    """The five steps of the page of studies. `ran`: there is a run, and what it found is drawn."""
    from visit.narrate.guide import study_steps

    if is_on():
        found = Mark("found" if ran else "run")
        marks = (Mark("asked"),), (Mark("asked"),), (Mark("run"),), (found,), (found,)
        show_strip(study_steps(model, prompts, figures, ran), marks, graphs.select, [_SEE_FLOW])


def on_heads(one: SetQuestion) -> None:
    """The five steps of the page of heads over a set, before its run and with what it has found so far."""
    from visit.narrate.guide import set_steps

    if is_on():
        first = one.asked.lines[0]
        table = None if one.sums is None else one.table
        steps = set_steps(one.named, first.row, one.asked.answer, one.kind, table)
        found = Mark("run" if table is None else "found")
        marks = (Mark("asked"),), (Mark("asked"),), (found,), (found,), (Mark("paths"),)
        line = {"prompt": first.row.prompt, "target": first.row.target or "", "distractor": first.row.distractor or ""}
        ways: list[Way] = [("Its first line in the flow graph", "flow", {**line, "guide": 1})]
        show_strip(steps, marks, graphs.select, ways)
