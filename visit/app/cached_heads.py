"""What is inside one pass, kept: its heads and their memory, its norms, its neurons."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from visit.app.cache import Prompt, kept, st_pass

if TYPE_CHECKING:
    from visit.graph.flowgraph import FlowGraph


@kept()
def st_heads(
    name: str, prompt: Prompt, pos: int, target: int, distractor: int | None, words: bool = False,
    influence: bool = False,
) -> Any:  # fmt: skip
    """All heads: their numbers at once, their words and influence where something on screen needs them."""
    from visit.analyses.heads import head_map

    return head_map(*st_pass(name, prompt), pos, target, distractor, words=words, influence=influence)


@kept()
def st_head(
    name: str, prompt: Prompt, pos: int, target: int, distractor: int | None, layer: int, head: int,
    sources: tuple[int, ...],
) -> Any:  # fmt: skip
    """(summary, rows) of one head; words are read for `sources` only, numbers are there for all."""
    from visit.analyses.attention_memory import head_memory, head_summary

    about = *st_pass(name, prompt), layer, head, pos, target, distractor
    return head_summary(*about), head_memory(*about, sources=sources)


@kept()
def st_life(name: str, prompt: Prompt, pos: int | None, source: int, target: int) -> Any:
    """`pos`: None where no value is compared with its head."""
    from visit.analyses.attention_memory import value_life

    return value_life(*st_pass(name, prompt), source, target, pos=pos)


@kept()
def st_alignment(name: str, prompt: Prompt, pos: int) -> Any:
    from visit.analyses.overlap import alignment_scores

    return alignment_scores(*st_pass(name, prompt), pos)


@kept()
def st_head_graph(
    name: str, prompt: Prompt, pos: int, target: int, distractor: int | None, layer: int, head: int
) -> FlowGraph:
    from visit.narrate.memory import head_graph

    return replace(head_graph(*st_pass(name, prompt), layer, head, pos, target, distractor), source=None)


@kept()
def st_token_shift(
    name: str, prompt: Prompt, pos: int, target: int, layer: int | None, norm: str, final: bool | None
) -> Any:
    from visit.analyses.norms import token_shift

    return token_shift(*st_pass(name, prompt), layer, norm, pos, target, final_norm=final)


@kept()
def st_target_shifts(name: str, prompt: Prompt, pos: int, target: int, final: bool | None) -> Any:
    from visit.analyses.norms import target_shifts

    return target_shifts(*st_pass(name, prompt), pos, target, final)


@kept()
def st_active(
    name: str, prompt: Prompt, pos: int, target: int, distractor: int | None, layer: int, kind: str, by: str, top: int
) -> Any:
    from visit.analyses.neurons import active_neurons

    about: Any = {"kind": kind, "top": top, "by": by, "target": target, "distractor": distractor}
    return active_neurons(*st_pass(name, prompt), layer, pos, **about)
