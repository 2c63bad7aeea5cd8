"""What *Guide me* says and marks on each page: five steps over the pass on screen, and where to go next."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from visit.app import graph_panel as graphs
from visit.app.cache import Prompt, causes, st_ablation, st_effects_seconds, st_facts, st_measuring
from visit.app.edit_list import Listed
from visit.app.guide import LAST_STEP, Way, show_strip
from visit.app.lens_choice import seen
from visit.app.marks import Mark
from visit.app.measuring import measured
from visit.app.state import state

if TYPE_CHECKING:
    from visit.app.prompt_bar import Subject
    from visit.narrate.guide import GuideStep


# ---- one prediction --------------------------------------------------------------------------------------------------
def flow(subject: Subject) -> None:
    """The five steps of the flow page."""
    if state().guide and not state().lesson:  # a lesson asks what the guide would tell
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

    about, lens = subject.about, seen(subject.model.name)[0][0]
    told = st_facts(*about, lens)
    head = told.strongest
    if state().guide < LAST_STEP or head is None:
        return guide_steps(told)
    found = measured(
        st_measuring(*about, "heads"), partial(causes, *about), partial(st_effects_seconds, *about[:3]),
        "what each head does",
    )  # fmt: skip
    source = int(head["source_pos"])
    if found is None or source == subject.pos:
        return guide_steps(told, None if found is None else found[0])
    blurred = measured(
        st_measuring(*about, f"without position {source}"), partial(without_word, *about, source), lambda: 0.0,
        "what the word does",
    )  # fmt: skip
    return guide_steps(told, found[0], blurred)


def without_word(name: str, prompt: Prompt, pos: int, target: int, distractor: int | None, source: int) -> Any:
    """What becomes of the prediction with the mean of the prompt's embeddings at one position; as What if shows it."""
    found, _ = st_ablation(name, prompt, pos, target, distractor, _blurred(source).text, "")
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
