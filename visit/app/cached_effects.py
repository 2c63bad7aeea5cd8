"""What becomes of one pass when parts of it are changed, kept: effects, roles, lists of edits, how the text goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from visit.app.cache import Prompt, kept, st_pass


@kept()
def st_effects(
    name: str, prompt: Prompt, pos: int, target: int, distractor: int | None, units: str, how: str, at: str
) -> Any:
    """What becomes of the target when every head, or each of the most influential neurons or values, is taken out."""
    from visit.causal.effects import effects
    from visit.exact.influence import influence

    model, acts = st_pass(name, prompt)
    nodes: Any = units
    if units == "values":
        table = influence(model, acts, pos, target, distractor)
        values = table[table["node"].str.contains(".value", regex=False)]
        nodes = values.loc[values["influence"].abs().nlargest(100).index, "node"].tolist()
    return effects(model, acts, nodes, pos, target, distractor, how, at)  # type: ignore[arg-type]


@kept()
def st_roles(name: str, prompt: Prompt, pos: int) -> Any:
    from visit.causal.roles import roles

    return roles(*st_pass(name, prompt), pos=pos)


@kept()
def st_edited_flows(
    name: str, prompt: Prompt, pos: int, target: int, distractor: int | None, edits: str, other: Prompt,
    opened: tuple[int, ...],
) -> Any:  # fmt: skip
    """The flow without the changes and with them, as the difference of two graphs of one prompt."""
    from visit.analyses.graph_difference import compare
    from visit.analyses.token_alignment import pair
    from visit.graph.build import build_folded_graph

    model, acts = st_pass(name, prompt)
    edited = st_ablation(name, prompt, pos, target, distractor, edits, other)[0].edited
    graphs = [build_folded_graph(model, run, pos, None, target, distractor, opened=opened) for run in (acts, edited)]
    found = compare(graphs[0], graphs[1], pair(model, acts, model, edited))
    return replace(found, a=replace(found.a, source=None), b=replace(found.b, source=None))


@kept()
def st_ablation(
    name: str, prompt: Prompt, pos: int, target: int, distractor: int | None, edits: str, other: Prompt
) -> Any:
    """(a run with the changes `edits` of an address beside the run without, which changes are left out, and why).

    `other`: the other prompt. The first is None where none can be made.
    """
    from visit.app.edit_list import possible
    from visit.causal.ablate import ablate

    model, acts = st_pass(name, prompt)
    made, refused = possible(model, acts, edits, lambda: st_pass(name, other)[1])
    return (ablate(model, acts, made, pos, target, distractor) if made else None), refused


@kept()
def st_continuation(name: str, prompt: Prompt, edits: str, other: Prompt, count: int, force: str) -> Any:
    """How the text goes on with the changes, and without. `force`: position and word that stands there, `12= word`."""
    from visit.app.edit_list import forced, possible
    from visit.causal.continuation import continuation

    model, acts = st_pass(name, prompt)
    made, _ = possible(model, acts, edits, lambda: st_pass(name, other)[1])
    return continuation(model, acts.token_ids, count, made, forced(force))


def st_effects_seconds(name: str, prompt: Prompt, pos: int, at: str = "last") -> float:
    """How long the map of all heads' effects will take here; timed once for a model and a number of tokens."""
    acts = st_pass(name, prompt)[1]
    return _effects_seconds(name, len(acts.token_ids), pos + 1, at, (prompt, pos))


@kept()
def _effects_seconds(name: str, tokens: int, seen: int, at: str, _of: tuple[Prompt, int]) -> float:
    from visit.causal.cost import effects_cost

    return effects_cost(*st_pass(name, _of[0]), "heads", at, _of[1]).seconds  # type: ignore[arg-type]


def causes(name: str, prompt: Prompt, pos: int, target: int, distractor: int | None) -> Any:
    """(effects of all heads, what a story tells of those that it names), made anew: `st_measuring` keeps it."""
    from visit.causal.effects import told_effects
    from visit.causal.named_heads import named_heads
    from visit.exact.question import Question
    from visit.narrate.causes import cause_story

    model, acts = st_pass(name, prompt)
    table = told_effects(Question(model, acts, pos, target, distractor))
    return table, cause_story(named_heads(model, acts, table))
