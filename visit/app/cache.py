"""The analyses with their caches: one computation for all users of a server who ask the same. Bounded, frozen."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar
from weakref import ref

import streamlit as st

from visit.app.heap import trim_heap
from visit.app.recorded import is_recorded, recorded_answer, recorded_lens, recorded_model, recorded_pass, run_named
from visit.app.shared import model_shelf
from visit.cache import Store, Turns, weight
from visit.errors import VisitError
from visit.models.catalog import title
from visit.text.markdown import plain
from visit.text.visible import visible

if TYPE_CHECKING:
    from visit.activations.record import Activations
    from visit.app.measuring import Measuring
    from visit.graph.flowgraph import FlowGraph, Node
    from visit.graph.prune import Keep
    from visit.lenses.linear import Found, Lens
    from visit.models.model import Model
    from visit.models.tokens import Message

Prompt: TypeAlias = "str | Message"  # as typed; to be wrapped by the model's chat template
PassKey = tuple[str, Prompt]  # model, prompt
About = tuple[str, Prompt, int, int, int | None]  # model, prompt, position, target, distractor
Layers = tuple[int, ...] | None  # None: all
Seen = tuple[str, bool]  # key of the lens that states are read through (empty: the plain one); whether parts are, too
PLAIN: Seen = ("", False)
P = ParamSpec("P")
R = TypeVar("R")
CROWDED = "More models are in use here at once than fit into memory, so it is read again. It lasts less with fewer."
PASSES_BYTES = 192 << 20  # of captured passes, for all users of one server together: 24 short ones of SmolLM2
RESULTS_BYTES = 96 << 20  # of all other results: a graph of SmolLM2 has 1 MB
LEAST_WEIGHT = 1 << 16  # bytes that a result counts for: a story is many small texts
COMPUTE_AT_ONCE = 2  # computations
_DRAWN = ("st_map_rows", "st_ledger_lines")  # made of other results, of a recording as of a model


def st_model(name: str) -> Model:
    """One model for all users; a bounded number stays in memory."""
    return recorded_model(name) if is_recorded(name) else model_shelf().get(name)


def st_model_watched(name: str, place: Any) -> Model:
    """The same, with how far the reading is shown in `place`; it goes on if the visitor leaves meanwhile."""
    short = plain(title(name))
    loading = model_shelf().begin(name)
    why = f" {CROWDED}" if loading.crowded else ""
    while not loading.ended.wait(0.1):
        if loading.before:
            others = f"{loading.before} other model{'s are' if loading.before > 1 else ' is'} read first"
            place.progress(0.0, f"Loading {short}: {others}.{why}")
        elif loading.total:
            share = loading.done / loading.total
            place.progress(share, f"Loading {short}: {loading.done:,} of {loading.total:,} weights are read.{why}")
    place.empty()
    return loading.result()


@st.cache_resource(show_spinner=False)
def turns() -> Turns:
    """Who computes now: a class that asks at once would else need the memory of thirty computations."""
    return Turns(COMPUTE_AT_ONCE, trim_heap)


@st.cache_resource(show_spinner=False)
def _results() -> Store:
    return Store(RESULTS_BYTES, turns())


@st.cache_resource(show_spinner=False)
def _passes() -> Store:
    return Store(PASSES_BYTES, turns())


def _waiting(before: int) -> Any:
    return st.spinner(f"Many ask at once: {before} before you.")


def kept(weighs: int = LEAST_WEIGHT, spinner: str = "") -> Callable[[Callable[P, R]], Callable[P, R]]:
    """An analysis whose latest results are kept, for the models as they are now: weights that change make it anew.

    Its parameter `name` is the name of a model, `a` and `b` are tuples that begin with one. All parameters are part of
    the key but those that begin with `_`, and so is each model's edition (`Shelf.edition`). `weighs`: the bytes that a
    result counts for at least; what is filled later, or hides what it holds, says so.
    """

    def keep(analysis: Callable[P, R]) -> Callable[P, R]:
        parameters = inspect.signature(analysis).parameters
        defaults = {name: p.default for name, p in parameters.items() if p.default is not p.empty}
        names, what = list(parameters), f"{analysis.__module__}.{analysis.__qualname__}"

        @wraps(analysis)
        def asked(*args: P.args, **named: P.kwargs) -> R:
            given: dict[str, Any] = {**defaults, **dict(zip(names, args, strict=False)), **named}
            models = [given["name"]] if "name" in given else [given[side][0] for side in ("a", "b") if side in given]
            if models and is_recorded(models[0]):
                return _of_recording(analysis, given)
            editions = tuple(model_shelf().edition(name) for name in models)
            if len(set(models)) == 2:
                model_shelf().together(*models)
            key = what, editions, tuple(given[name] for name in names if name[0] != "_")

            def make() -> tuple[R]:  # in a tuple, for an analysis may find that there is nothing
                with st.spinner(spinner) if spinner else nullcontext():
                    return (analysis(**given),)  # type: ignore[call-arg]

            found: tuple[R] = _results().get(key, make, lambda made: max(weighs, weight(made)), _waiting)
            return found[0]

        return asked

    return keep


def _of_recording(analysis: Callable[..., Any], given: dict[str, Any]) -> Any:
    """What an analysis gives for a recording: as it was recorded, or drawn of that."""
    return analysis(**given) if analysis.__name__ in _DRAWN else recorded_answer(analysis.__name__, given)


@kept()
def st_examination(name: str) -> Any:
    from visit.analyses.doctor import examine

    return examine(st_model(name))


@kept()
def st_ledger(name: str) -> Any:
    from visit.exact.ledger import model_ledger

    return model_ledger(st_model(name))


@kept()
def st_ledger_lines(name: str) -> str:
    """A line for every identity, as the sidebar of every page tells them."""
    errors = (
        st_ledger(name)
        .groupby(["identity", "name"], as_index=False)
        .agg(error=("max_rel_error", "max"), allowed=("tolerance", "max"), holds=("holds", "all"))
    )
    marks = {True: ":material/check:", False: ":material/close:"}
    return "\n\n".join(
        f"{marks[bool(row['holds'])]} {plain(str(row['name']))}: {row['error']:.0e} (allowed {row['allowed']:.0e})"
        for row in errors.to_dict("records")
    )


@kept()
def st_index_seconds(name: str) -> float:
    """How long reading every neuron as words will take."""
    from visit.lenses.weights import forecast_seconds

    return forecast_seconds(st_model(name))


def st_capture(name: str, prompt: Prompt) -> Activations:
    """One pass of one prompt, shared by all users who ask for it."""
    if is_recorded(name):
        return recorded_pass(name)  # type: ignore[return-value]
    from visit.activations.forward import capture
    from visit.models.chat import chat_prompt
    from visit.models.tokens import Message

    model = st_model(name)

    def run() -> Activations:
        return capture(model, chat_prompt(model, prompt.text, prompt.system) if isinstance(prompt, Message) else prompt)

    return _passes().get((model_shelf().edition(name), prompt), run, told=_waiting)


def st_pass(name: str, prompt: Prompt) -> tuple[Model, Activations]:
    """A model and its pass, as most analyses begin."""
    return st_model(name), st_capture(name, prompt)


def while_kept(key: PassKey, model: Model, acts: Activations) -> tuple[Callable[[], Model], Callable[[], Activations]]:
    """What gives a model and its pass again, and holds neither: they are made anew when they have left the memory."""
    seen_model, seen_acts = ref(model), ref(acts)
    return lambda: seen_model() or st_model(key[0]), lambda: seen_acts() or st_capture(*key)


# ---- fitted lenses ---------------------------------------------------------------------------------------------------
def st_lens(name: str) -> Found:
    """The lens fitted to a model, shared by all users; the library keeps it in memory."""
    from visit.lenses.linear import find_lens

    return find_lens(st_model(name))


def lens_under(name: str, key: str) -> Lens | None:
    """The lens of a key, None for the plain one."""
    if is_recorded(name):
        return recorded_lens(name) if key else None
    found = st_lens(name) if key else None
    if found is not None and found.key != key:
        raise VisitError(
            "The lens of this model has been fitted anew just now. Look again: all is read through it then."
        )
    return None if found is None else found.lens


@kept()
def st_fit_seconds(name: str) -> float:
    """How long fitting a lens will take."""
    from visit.lenses.fit_linear import forecast_seconds

    return forecast_seconds(st_model(name))


# ---- one prompt ------------------------------------------------------------------------------------------------------
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


@kept()
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


@kept(weighs=4 << 20)  # it grows: all nodes of SmolLM2 weigh 13 MB, few are opened
def _nodes_read(name: str, prompt: Prompt, pos: int, target: int, seen: Seen) -> _NodesRead:
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

    known = _nodes_read(name, prompt, pos, target, seen)
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


# ---- two prompts -----------------------------------------------------------------------------------------------------
@kept()
def st_pairing(a: PassKey, b: PassKey, align: str) -> Any:
    from visit.analyses.token_alignment import pair, parse_fixes

    return pair(*st_pass(*a), *st_pass(*b), parse_fixes(align))


@kept()
def st_compare(
    a: About, b: About, layers: Layers, keep: Keep, keep_b: Keep, align: str, opened: tuple[int, ...] | None,
    seen: Seen = PLAIN, seen_b: Seen = PLAIN, influence: bool = False,
) -> Any:  # fmt: skip
    """The difference of two passes in the blocks `opened` (None: all, for files); each side's graph as on its page."""
    from visit.analyses.graph_difference import compare

    graphs = [
        replace(
            st_whole_graph(*side, layers, pruned, read, influence) if opened is None
            else st_graph(*side, layers, pruned, opened, read, influence),
            source=st_pass(*side[:2]), lens=lens_under(side[0], read[0]),
        )
        for side, pruned, read in ((a, keep, seen), (b, keep_b, seen_b))
    ]  # fmt: skip
    found = compare(graphs[0], graphs[1], st_pairing(a[:2], b[:2], align))
    for side, graph, read in ((a, found.a, seen), (b, found.b, seen_b)):
        if opened is not None:  # a twin that came in from the other side is not read again either
            _nodes_read(*side[:4], read).add(graph)
    return replace(found, a=replace(found.a, source=None, lens=None), b=replace(found.b, source=None, lens=None))


@kept()
def st_single_parts(a: About, b: About, align: str) -> Any:
    """What heads and neurons of all blocks do on both sides, for the sentences."""
    from visit.analyses.graph_difference import single_parts
    from visit.exact.question import Question

    one, two = (Question(*st_pass(*side[:2]), side[2], side[3], side[4]) for side in (a, b))
    return single_parts(one, two, st_pairing(a[:2], b[:2], align))


@kept()
def st_parting(
    a: PassKey, b: PassKey, align: str, first: int, last: int, lens: str = "", lens_b: str = ""
) -> Any:  # fmt: skip
    from visit.analyses.divergence import part

    lenses = lens_under(a[0], lens), lens_under(b[0], lens_b)
    return part(*st_pass(*a), *st_pass(*b), st_pairing(a, b, align), slice(first, last), lenses=lenses)


@kept()
def st_patch(
    a: PassKey, b: PassKey, target: int, distractor: int, site: str, at: str, verify: int | None
) -> Any:  # fmt: skip
    """The map of patches of B into A. `verify`: by attribution, with so many measured; None: all measured."""
    from visit.causal.patching import patch

    method, count = ("exact", 0) if verify is None else ("attribution", verify)
    (model, one), (_, other) = st_pass(*a), st_pass(*b)
    return patch(model, one, other, site, at, method, count, target, distractor)  # type: ignore[arg-type]


@kept()
def st_patch_seconds(
    a: PassKey, b: PassKey, target: int, distractor: int, site: str, at: str, verify: int | None = None
) -> float:  # fmt: skip
    """How long that will take here."""
    from visit.causal.cost import patching_seconds
    from visit.causal.patching import PatchingJob
    from visit.causal.two_runs import two_runs

    (model, one), (_, other) = st_pass(*a), st_pass(*b)
    job = PatchingJob.of(two_runs(model, one, other, target, distractor), site, at)  # type: ignore[arg-type]
    return patching_seconds(job, verify)


# ---- heads, norms, neurons -------------------------------------------------------------------------------------------
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


# ---- what if ---------------------------------------------------------------------------------------------------------
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


@kept(weighs=1 << 18)
def st_measuring(name: str, prompt: Prompt, pos: int, target: int, distractor: int | None, what: str) -> Measuring:
    """The measurement `what` of a pass: begun by the first who asks, the same for all."""
    from visit.app.measuring import Measuring

    return Measuring()


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
    from visit.causal.effects import effects
    from visit.causal.named_heads import named_heads
    from visit.narrate.causes import cause_story

    model, acts = st_pass(name, prompt)
    table = effects(model, acts, "heads", pos, target, distractor)
    return table, cause_story(named_heads(model, acts, table))
