"""Record a run: one pass of one prompt or two, and all numbers that pages show of it, as one file.

How a run is recorded, in four steps:
1. The prompts are run (with the edits, if any) and what is asked of them is resolved once.
2. Every analysis that a page shows is made by the library's own function, for all blocks, heads or norms at once.
3. Each result is written down as it is (`recorded_values`), tables of one kind below each other.
4. The whole is packed, and written so that a file of that name stays until it is there (`recording_file`).
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from visit.analyses.graph_difference import Comparison, compare, single_parts
from visit.errors import check_kind, check_positive
from visit.files.recorded_edits import write_edits
from visit.files.recorded_model import RecordedModel
from visit.files.recorded_values import PATTERN_STEP, WrittenValues, to_plain, write_table
from visit.files.recording_cost import LIVES, MEMORY_HEADS, NEURONS, WORDS_OF_A_VECTOR
from visit.files.recording_file import RECORDING_VERSION, packed_recording, write_recording
from visit.graph.flowgraph import FlowGraph
from visit.graph.prune import Keep
from visit.models.catalog import LISTED, display_name, portable
from visit.text.citation import bibtex

if TYPE_CHECKING:
    from visit.activations.record import Edit
    from visit.exact.question import Question
    from visit.lenses.linear import Lens
    from visit.models.model import Model

ToldShare = Callable[[float, str], object]
HEAD_GRAPHS = 4


@dataclass(frozen=True)
class _RecordOptions:
    """What is recorded of every prompt, beside the prompt."""

    layers: Any
    keep: Keep
    lens: Lens | None
    influence: bool
    carry_parts: bool
    effects: bool
    memory: int


def save_recording(
    path: Any,
    model: Model,
    prompt: Any,
    compare: Any = None,
    pos: int = -1,
    target: int | str | None = None,
    distractor: int | str | None = None,
    layers: Iterable[int] | int | str | None = None,
    keep: Keep = Keep(),  # noqa: B008 - frozen
    lens: Lens | None = None,
    influence: bool = False,
    carry_parts: bool = False,
    edits: Sequence[Edit] = (),
    effects: bool = False,
    memory: int = MEMORY_HEADS,
    pos_b: int = -1,
    target_b: int | str | None = None,
    distractor_b: int | str | None = None,
    note: str = "",
    told: ToldShare = lambda share, what: None,
) -> None:
    """Record a run as a file that opens without the model (`visit.load_recording`), at `path` or into a file object.

    `prompt`: text or token ids (`visit.chat_prompt` for a chat message). `compare`: a second prompt, with `pos_b`,
    `target_b`, `distractor_b`; the two are then recorded as Compare shows them, too. `pos` to `carry_parts`: as of
    `visit.build_flow_graph`. `edits`: interventions of all prompts' passes, as of `visit.capture`. `effects`: also take
    every head out once (`visit.effects`), which takes as many runs. `memory`: of how many heads the memory table is
    kept, those with the largest |contribution| first. `note`: a sentence for whoever opens it, as a licence. `told`: is
    told from time to time which share is done, and what is next; what it raises ends the recording.
    What is recorded: `visit.files.recorded_results`. Raises `VisitError` as the analyses do, and where the file cannot
    be written: one that was there stays as it was. Source: ours.
    """
    check_positive("memory", memory)
    check_kind("keep", keep, Keep, "visit.Keep(…)")
    asked = _RecordOptions(layers, keep, lens, influence, carry_parts, effects, memory)
    sides = [(prompt, pos, target, distractor)]
    sides += [] if compare is None else [(compare, pos_b, target_b, distractor_b)]
    data = _recorded(model, sides, tuple(edits), asked, note, told)
    if hasattr(path, "write"):
        path.write(data)
    else:
        write_recording(path, data)


def _recorded(
    model: Model,
    sides: list[tuple[Any, int, Any, Any]],
    edits: tuple[Edit, ...],
    asked: _RecordOptions,
    note: str,
    told: ToldShare,
) -> bytes:
    """The bytes of the file."""
    from visit.activations.forward import capture
    from visit.exact.ledger import model_ledger
    from visit.exact.question import ask

    told(0.0, "running the model")
    questions = [ask(model, capture(model, p, edits=edits), pos, *words) for p, pos, *words in sides]
    out, runs = WrittenValues(), []
    part = 1 / (len(sides) + (len(sides) > 1))
    for n, (question, name) in enumerate(zip(questions, "ab", strict=False)):
        pen = _Pen(out, name)
        told(n * part, "the flow graph")
        pen.graph("graph", _graph_of(question, asked))
        write_edits(out, name, question.acts.edits)
        _write_run(pen, question, asked, partial(_told_part, told, n * part, part))
        runs.append(_run_of(question) | {"results": pen.results})
    pair = None
    if len(questions) == 2:
        told(1 - part, "the two prompts side by side")
        pair = {"results": _write_pair(_Pen(out, "pair"), questions, asked)}
    machine, ledger = _Pen(out, "machine"), model_ledger(model)
    machine.table("ledger", ledger)
    content = {
        "meta": to_plain(_recording_meta(questions[0], asked, ledger) | {"note": note}), "model": _model_of(model),
        "runs": runs, "pair": pair, "machine": machine.results, "texts": list(out.texts),
    }  # fmt: skip
    told(1.0, "packing")
    return packed_recording(content, out.arrays)


def _told_part(told: ToldShare, first: float, part: float, share: float, what: str) -> object:
    """Progress of one part of the work as progress of all of it."""
    return told(first + share * part, what)


def _recording_meta(question: Question, asked: _RecordOptions, ledger: pd.DataFrame) -> dict[str, Any]:
    """What was recorded, by what, when, and on which machine."""
    from visit.exact.ledger import summary, tolerance
    from visit.models.provenance import provenance

    model, edits = question.model, question.acts.edits
    return {
        **portable(provenance(model, "family", "d_vocab")), "format": RECORDING_VERSION,
        "made": datetime.now(UTC).isoformat(timespec="seconds"), "machine": _machine(model),
        "ledger": {**summary(ledger), "tolerance": tolerance(model, 2)},
        "lens": None if asked.lens is None else asked.lens.about, "carry_parts": asked.carry_parts,
        "keep": {f.name: getattr(asked.keep, f.name) for f in fields(asked.keep)}, "influence": asked.influence,
        "effects": asked.effects, "memory_heads": min(asked.memory, model.n_layers * model.n_heads),
        "pattern_step": PATTERN_STEP, "cite": bibtex(), "edits": [e.meta for e in edits],
    }  # fmt: skip


def _machine(model: Model) -> str:
    """System, processor and device, without a name of the computer."""
    import torch

    device = str(model.device)
    if model.device.type == "cuda":
        device = torch.cuda.get_device_name(model.device)
    return f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, {device}"


def _model_of(model: Model) -> dict[str, Any]:
    """What `RecordedModel` holds."""
    loads = model.name
    names = [f.name for f in fields(RecordedModel) if f.name.startswith(("n_", "d_")) and f.name != "dtype"]
    return {
        "name": display_name(model.name), "loads": loads if loads in LISTED or display_name(loads) == loads else None,
        "revision": model.revision, "family": model.family.name,
        "dtype": str(model.dtype).removeprefix("torch."), "quantization": model.quantization,
        **{name: int(getattr(model, name)) for name in names},
    }  # fmt: skip


def _run_of(question: Question) -> dict[str, Any]:
    """The prompt, its tokens, and what is asked of it."""
    from visit.models.tokens import special_ids, spelled_tokens, start_tokens

    model, acts = question.model, question.acts
    starts, ids = start_tokens(model.tokenizer), acts.token_ids
    special, typed = special_ids(model.tokenizer), None if acts.chat is None else acts.chat.typed
    best = [i for row in acts.logits.topk(min(10, model.d_vocab)).indices.tolist() for i in row]  # type: ignore[union-attr]
    known = dict.fromkeys(
        [*ids, question.target, *([] if question.distractor is None else [question.distractor]), *best]
    )
    return {
        "prompt": acts.prompt, "message": None if typed is None else [typed.text, typed.system],
        "token_ids": list(ids), "tokens": list(acts.tokens),
        "named": spelled_tokens(model.tokenizer, ids, acts.tokens), "pos": question.pos,
        "target": question.target, "distractor": question.distractor,
        "starts": len(starts) if starts and tuple(ids[: len(starts)]) == starts else 0,
        "special": [i for i, token in enumerate(ids) if token in special],
        "words": [[i, model.vocabulary[i]] for i in known],
    }  # fmt: skip


def _graph_of(question: Question, asked: _RecordOptions) -> FlowGraph:
    from visit.graph.build import build_flow_graph

    return build_flow_graph(
        question.model, question.acts, question.pos, asked.layers, question.target, question.distractor, asked.keep,
        asked.lens, asked.influence, asked.carry_parts,
    )  # fmt: skip


# ---- one result after the other --------------------------------------------------------------------------------------
@dataclass
class _Pen:
    """Where results of one run are written, under their keys."""

    out: WrittenValues
    owner: str
    results: dict[str, Any] = field(default_factory=dict)

    def table(self, key: str, table: pd.DataFrame) -> None:
        self.results[key] = {"kind": "table", "table": write_table(self.out, f"{self.owner}/{key}", table)}

    def plain(self, key: str, value: Any) -> None:
        self.results[key] = {"kind": "plain", "value": to_plain(value)}

    def graph(self, key: str, graph: FlowGraph) -> None:
        self.results[key] = {"kind": "graph", **self.graph_layout(key, graph)}

    def graph_layout(self, key: str, graph: FlowGraph) -> dict[str, Any]:
        nodes, edges = (write_table(self.out, f"{self.owner}/{key}/{part}", getattr(graph, part))
                        for part in ("nodes", "edges"))  # fmt: skip
        return {"nodes": nodes, "edges": edges, "meta": to_plain(portable(graph.meta))}

    def stack(self, name: str, tables: dict[str, pd.DataFrame], about: list[Any] | None = None) -> None:
        """Tables with the same columns, below each other."""
        if not tables:
            return
        with_numbers = [t for t in tables.values() if len(t)]
        whole = pd.concat(with_numbers or list(tables.values()), ignore_index=True)
        whole.attrs = {}
        self.results[name] = {
            "kind": "stack", "of": list(tables), "rows": [len(t) for t in tables.values()],
            "table": write_table(self.out, f"{self.owner}/{name}", whole),
            **({} if about is None else {"about": to_plain(about)}),
        }  # fmt: skip


def _write_run(pen: _Pen, question: Question, asked: _RecordOptions, told: ToldShare) -> None:
    """All results of one pass but its graph, which stands already."""
    steps: list[tuple[str, Callable[[], None]]] = [
        ("the stream", partial(_write_stream, pen, question, asked)),
        ("the heads", lambda: _write_heads(pen, question, asked, step)),
        ("the norms", partial(_write_norms, pen, question)),
        ("the neurons", partial(_write_neurons, pen, question)),
    ]
    if asked.effects:
        steps.append(("what each head does", partial(_write_effects, pen, question)))
    for n, (what, write) in enumerate(steps):
        step = partial(_told_part, told, (n + 1) / (len(steps) + 1), 1 / (len(steps) + 1))
        step(0.0, what)
        write()


def _write_stream(pen: _Pen, question: Question, asked: _RecordOptions) -> None:
    """Predictions, the lens map, the reading, and the pattern."""
    from visit.analyses.overview import block_moves, lens_map, predictions
    from visit.exact.decompose import needed
    from visit.narrate.flow import gathered, story_of

    model, acts, about = question.model, question.acts, (question.pos, question.target, question.distractor)
    found = pd.concat(
        [predictions(model, acts, t).assign(pos=t) for t in range(len(acts.token_ids))], ignore_index=True
    )
    logits = needed(acts, "logits").to(model.wide).softmax(-1)
    for role, word in (("target", question.target), ("distractor", question.distractor)):
        if word is not None:
            found[f"{role}_prob"] = [float(logits[t, word]) for t in found["pos"]]
    pen.table("predictions", found)
    pen.table("lens_map", lens_map(model, acts, question.target))
    if asked.lens is not None:
        pen.table("lens_map fitted", lens_map(model, acts, question.target, lens=asked.lens))
    facts = gathered(model, acts, *about, asked.lens)
    rest = {f.name: getattr(facts, f.name) for f in fields(facts) if f.name not in ("states", "moved")}
    pen.results["facts"] = {
        "kind": "facts", "rest": to_plain(rest),
        **{part: write_table(pen.out, f"{pen.owner}/facts/{part}", getattr(facts, part))
           for part in ("states", "moved")},
    }  # fmt: skip
    pen.plain("story", story_of(facts))
    pen.plain("moves", block_moves(model, acts, *about))
    pattern = needed(acts, "pattern").float().cpu().numpy()
    lower = pattern[..., *np.tril_indices(pattern.shape[-1])]
    pen.out.arrays[f"{pen.owner}/pattern"] = np.rint(lower.clip(0, 1) / PATTERN_STEP).astype(np.uint16).reshape(-1)


def _write_heads(pen: _Pen, question: Question, asked: _RecordOptions, told: ToldShare) -> None:
    """All heads, the memory of the largest, what tokens are remembered as, and whose words are whose."""
    from visit.analyses.attention_memory import head_memory, head_summary, value_life
    from visit.analyses.heads import head_map
    from visit.analyses.overlap import alignment_scores
    from visit.narrate.memory import head_graph

    model, acts, about = question.model, question.acts, (question.pos, question.target, question.distractor)
    heads = head_map(model, acts, *about, influence=True)
    pen.table("heads", heads)
    order = heads.loc[heads["contribution"].abs().sort_values(ascending=False, kind="stable").index]
    places = list(zip(order["node"], order["layer"], order["head"], strict=True))[: asked.memory]
    memories, summaries = {}, []
    for at, (node, n, j) in enumerate(places):
        told(at / len(places), "the heads")
        memories[node] = head_memory(model, acts, n, j, *about, k=WORDS_OF_A_VECTOR)
        summaries.append(head_summary(model, acts, n, j, *about))
    pen.stack("memory", memories, summaries)
    strongest = order.loc[order["contribution"].sort_values(ascending=False, kind="stable").index[:HEAD_GRAPHS]]
    for node, n, j in zip(strongest["node"], strongest["layer"], strongest["head"], strict=True):
        pen.graph(f"head graph {node}", head_graph(model, acts, n, j, *about))
    if len(heads) <= LIVES:
        lives = {str(i): value_life(model, acts, i, question.target, pos=question.pos) for i in range(question.pos + 1)}
        pen.stack("life", lives)
    pen.table("alignment", alignment_scores(model, acts, question.pos))


def _write_norms(pen: _Pen, question: Question) -> None:
    """The words before and after every norm."""
    from visit.analyses.norms import norm_sites, target_shifts, token_shift

    model, acts, about = question.model, question.acts, (question.pos, question.target)
    pen.stack("norm", {
        norm if layer is None else f"{norm} {layer}": token_shift(model, acts, layer, norm, *about)
        for layer, norm in norm_sites(model)
    })  # fmt: skip
    pen.table("norm layers", target_shifts(model, acts, *about))


def _write_neurons(pen: _Pen, question: Question) -> None:
    """The most active neurons of every layer."""
    from visit.analyses.neurons import active_neurons

    model, acts = question.model, question.acts
    pen.stack("neurons", {
        str(layer): active_neurons(model, acts, layer, question.pos, top=NEURONS, target=question.target,
                                   distractor=question.distractor)
        for layer in range(model.n_layers)
    })  # fmt: skip


def _write_effects(pen: _Pen, question: Question) -> None:
    """What the answer does without each head, and what a reader is told of it."""
    from visit.causal.effects import effects
    from visit.causal.named_heads import named_heads
    from visit.narrate.causes import cause_story

    model, acts = question.model, question.acts
    found = effects(model, acts, "heads", question.pos, question.target, question.distractor)
    pen.table("effects", found)
    pen.results["effects"]["table"]["attrs"] = to_plain(portable(found.attrs))
    pen.plain("causes", cause_story(named_heads(model, acts, found)))


def _write_pair(pen: _Pen, questions: list[Question], asked: _RecordOptions) -> dict[str, Any]:
    """Two prompts as Compare shows them."""
    from visit.analyses.divergence import part
    from visit.analyses.token_alignment import pair
    from visit.narrate.comparison import contrast_parts

    a, b = questions
    pairing = pair(a.model, a.acts, b.model, b.acts)
    pen.results["pairing"] = {"kind": "pairing", "value": to_plain([[p.a, p.b, p.kind] for p in pairing.pairs])}
    found = compare(_graph_of(a, asked), _graph_of(b, asked), pairing)
    pen.results["compare"] = {"kind": "compare", **_comparison_layout(pen, found)}
    singles = single_parts(a, b, pairing)
    pen.table("single parts", singles)
    apart = part(a.model, a.acts, b.model, b.acts, pairing, lenses=(asked.lens, asked.lens))
    pen.table("parting", apart)
    same = a.acts.token_ids == b.acts.token_ids and a.pos == b.pos
    pen.plain("contrast", {} if same else contrast_parts(found, apart, singles))
    return pen.results


def _comparison_layout(pen: _Pen, found: Comparison) -> dict[str, Any]:
    """Both graphs with each other's nodes, and which of these came in from the other side."""
    status = {"a": "only B", "b": "only A"}
    assert found.answers is not None
    return {
        **{side: pen.graph_layout(f"compare/{side}", getattr(found, side)) for side in "ab"},
        "added": {
            side: [getattr(both, side).id for both in found.pairs.values()
                   if both.status == status[side] and getattr(both, side) is not None]
            for side in "ab"
        },
        "answers": write_table(pen.out, f"{pen.owner}/compare/answers", found.answers),
    }  # fmt: skip
