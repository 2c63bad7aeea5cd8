"""One pass as the flow page shows it, kept: its lens map, its story, its graph."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from visit.app.cache import PLAIN, About, Prompt, Seen, kept, lens_under, st_model, st_pass
from visit.app.recorded import is_recorded, run_named
from visit.text.visible import visible

if TYPE_CHECKING:
    from visit.graph.flowgraph import FlowGraph, Node
    from visit.graph.prune import Keep

Layers = tuple[int, ...] | None  # None: all


@kept()
def _stream_readings(name: str, prompt: Prompt, positions: tuple[int, ...], lens: str) -> Any:
    from visit.analyses.overview import stream_readings

    return stream_readings(*st_pass(name, prompt), positions, lens_under(name, lens))


@kept()
def st_lens_map(
    name: str, prompt: Prompt, target: int, positions: tuple[int, ...], lens: str = "", ranked: bool = False
) -> Any:
    """`ranked`: with the target's rank everywhere; else only where it is high, for any target at the price of one."""
    from visit.analyses.overview import lens_map

    known = None if ranked else _stream_readings(name, prompt, positions, lens)
    return lens_map(*st_pass(name, prompt), target, positions, lens=lens_under(name, lens), known=known)


@kept(light=True)
def st_map_rows(
    name: str, prompt: Prompt, target: int, positions: tuple[int, ...], lens: str, color: Any, whole: bool
) -> dict[str, Any]:  # fmt: skip
    """The lens map as it is drawn; not to be changed."""
    from visit.analyses.function_words import function_words, is_function_word
    from visit.figures.lens_rows import rows_of
    from visit.models.tokens import spelled_tokens

    (model, acts), fitted = st_pass(name, prompt), lens_under(name, lens)
    listed = function_words()
    if is_recorded(name):
        named = list(run_named(name)[1].named)
    else:
        named = spelled_tokens(model.tokenizer, acts.token_ids, acts.tokens)
    table = st_lens_map(name, prompt, target, positions, lens, color == "rank")
    return rows_of(
        table, model.d_vocab, color, model.vocabulary[target],
        lambda t: is_function_word(t, listed), whole, [visible(named[i]) for i in positions],
        fitted.readable_from if fitted else None,
    )  # fmt: skip


@kept()
def st_story(name: str, prompt: Prompt, pos: int, target: int, distractor: int | None, lens: str = "") -> Any:
    from visit.narrate.flow import story_of

    return story_of(st_facts(name, prompt, pos, target, distractor, lens))


@kept()
def st_facts(name: str, prompt: Prompt, pos: int, target: int, distractor: int | None, lens: str = "") -> Any:
    """What the reading and the guide tell of a pass, gathered once for both."""
    from visit.narrate.flow import gathered

    return gathered(*st_pass(name, prompt), pos, target, distractor, lens_under(name, lens))


@dataclass(eq=False)
class _NodesRead:
    """The nodes of one pass, position, target and lens that were read so far: unfolding a block reads no other."""

    nodes: dict[Any, Node] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def all(self) -> list[Node]:
        with self.lock:
            return list(self.nodes.values())

    def add(self, graph: FlowGraph) -> None:
        with self.lock:
            for node in graph.by_id.values():
                if node.tokens:  # else it stands unread in a block drawn at the level of words
                    self.nodes.setdefault((node.id, node.source_pos), node)


@kept(grows=True, light=True)
def nodes_read(name: str, prompt: Prompt, pos: int, target: int, seen: Seen) -> _NodesRead:
    return _NodesRead()


@kept()
def st_graph(
    name: str, prompt: Prompt, pos: int, target: int, distractor: int | None, layers: Layers, keep: Keep,
    opened: tuple[int, ...], seen: Seen = PLAIN, influence: bool = False, worded: tuple[int, ...] = (),
) -> FlowGraph:  # fmt: skip
    """The graph as far as it is looked at: the blocks `opened` are taken apart, and nothing is read twice.

    `worded`: open blocks drawn at the level of words: what that does not show is not read.
    """
    from visit.graph.build import build_folded_graph

    known = nodes_read(name, prompt, pos, target, seen)
    graph = build_folded_graph(
        *st_pass(name, prompt),
        pos,
        layers,
        target,
        distractor,
        keep,
        opened,
        known.all(),
        lens=lens_under(name, seen[0]),
        carry_parts=seen[1],
        influence=influence,
        worded=worded,
    )
    known.add(graph)
    return replace(
        graph, source=None, lens=None
    )  # a cached graph must not hold a pass: the store of passes has a bound


@kept()
def st_whole_graph(
    name: str, prompt: Prompt, pos: int, target: int, distractor: int | None, layers: Layers, keep: Keep,
    seen: Seen = PLAIN, influence: bool = False,
) -> FlowGraph:  # fmt: skip
    """All of it, for files."""
    from visit.graph.build import build_flow_graph

    about = *st_pass(name, prompt), pos, layers, target, distractor, keep
    graph = build_flow_graph(*about, lens=lens_under(name, seen[0]), carry_parts=seen[1], influence=influence)
    return replace(graph, source=None, lens=None)


def st_opened(layers: Layers, *sides: About) -> dict[int, Any]:
    """How graphs are drawn when nobody has chosen: folded, but for the block that moves the targets most."""
    if is_recorded(sides[0][0]):
        runs = [run_named(side[0])[1] for side in sides]
        total = {n: sum(run.result("moves")[n] for run in runs) for n in runs[0].graph.meta["layers"]}
        most = max(total, key=lambda layer: total[layer])
        return {layer: "words" if layer == most else "states" for layer in total}
    from visit.analyses.overview import block_moves
    from visit.graph.build import shown_layers

    shown = shown_layers(st_model(sides[0][0]), layers)
    moves = [block_moves(*st_pass(*side[:2]), side[2], side[3], side[4], layers=shown) for side in sides]
    most = max(shown, key=lambda layer: sum(found[layer] for found in moves))
    return {layer: "words" if layer == most else "states" for layer in shown}
