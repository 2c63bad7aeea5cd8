"""What a map of effects will take, said before it is asked for: work counted, speed measured on one block.

Counted are blocks × positions of all changed runs (each from its own block on), the last states read, and the backward
pass for influence, three times a forward pass. Timed are one block and the reading of a state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from visit.activations.forward import capture
from visit.activations.record import Activations
from visit.causal.block import run_block
from visit.causal.effects import TOP_NEURONS, At, part_names
from visit.causal.patching import PatchingJob
from visit.causal.path_lines import PathLine, Receiver
from visit.causal.trace_plan import restored_runs
from visit.causal.triangle import BATCH_BYTES, run_bytes
from visit.exact.decompose import needed
from visit.exact.question import Question
from visit.lenses.logit import CHUNK_BYTES, lens_logits
from visit.models.model import Model
from visit.runs.job import shorter_of_two
from visit.text.node_id import NodeId
from visit.text.numbers import duration, size_text

COST_TOKENS = 64  # that a block is timed on
BACKWARD = 3  # forward passes that one forward and one backward pass take


@dataclass(frozen=True)
class Cost:
    """How many parts are taken out one by one, and about how many seconds and bytes beside the model that takes."""

    parts: int
    seconds: float
    bytes: int

    @property
    def takes(self) -> str:
        return f"about {duration(self.seconds)} and {size_text(self.bytes)} of memory"

    @property
    def text(self) -> str:
        return f"{self.parts:,} parts, one at a time: {self.takes}."


def effects_cost(
    model: Model, acts: Activations, nodes: str | Iterable[str] = "heads", at: At = "last", pos: int = -1
) -> Cost:
    """What `visit.effects` of these parts takes on this machine. Runs one block a few times, no forward pass.

    Raises `VisitError` as `visit.effects` does. Source: ours.
    """
    t = acts.index(pos)
    count = 1 if at == "last" else t + 1
    if isinstance(nodes, str) and nodes == "neurons":  # which ones is known after a backward pass: take all depths
        layers = [n % model.n_layers for n in range(TOP_NEURONS)]
    else:
        places = [NodeId.parse(name) for name in part_names(model, nodes, t)]
        layers = [place.layer for place in places if place is not None and place.layer is not None]
    with torch.no_grad():
        block, state = _seconds(model, acts, t, count)
    blocks = sum(model.n_layers - layer for layer in layers) * count
    seconds = block * (blocks + BACKWARD * model.n_layers * len(acts.token_ids)) + state * len(layers)
    held = min(len(layers) * run_bytes(model, t + 1 - count, t), max(BATCH_BYTES, run_bytes(model, t + 1 - count, t)))
    logits = min(CHUNK_BYTES, len(layers) * model.d_vocab * model.wide.itemsize)
    weights = sum(p.numel() for p in model.blocks[0].parameters())
    widened = 0 if model.dtype == model.wide else weights * model.wide.itemsize
    return Cost(len(layers), seconds, held + 3 * logits + widened)


def paths_seconds(model: Model, lines: Sequence[PathLine], receivers: Sequence[Receiver]) -> float:
    """About how many seconds `visit.paths` over these lines takes here: runs the first line once, and one block.

    Counted are blocks × positions: two passes a line, every sender up to the last receiver, every receiver's runs from
    its first block on. Source: ours.
    """
    acts = capture(model, lines[0].ids)
    with torch.no_grad():
        block, _ = _seconds(model, acts, len(acts.token_ids) - 1, 1)
    layers, heads = model.n_layers, model.n_heads
    ends = [one.layers(model) for one in receivers]
    stop = max(last for _, last in ends)
    sent = heads * sum(stop - layer for layer in range(stop))
    blocks = 0
    for line in lines:
        received = sum(heads * last * (layers - first) for first, last in ends) * (len(line.ids) - line.pos)
        blocks += 2 * layers * len(line.ids) + sent + received
    return block * blocks


def trace_cost(question: Question, subject: Sequence[int], samples: int, window: int | None) -> Cost:
    """What `visit.trace` takes on this machine. `parts`: the cells of its maps. Runs one block a few times. Source:
    ours."""
    model, acts, t, first = question.model, question.acts, question.pos, subject[0]
    blocks, count, runs = model.n_layers, question.pos + 1 - subject[0], restored_runs(model.n_layers, window)
    with torch.no_grad():
        block, state = _seconds(model, acts, t, max(1, count // 2))
    restored = sum(blocks - run.join for run in runs) * count * (count + 1) // 2
    checked = count * (blocks + blocks * (blocks - 1) // 2)  # and for every sample
    noisy = count * blocks + 2 * blocks * len(acts.token_ids)
    states = samples * (len(runs) * count + 1) + blocks + 1
    seconds = block * (samples * (restored + noisy) + checked) + state * states
    held = min(len(runs) * run_bytes(model, first, t), max(BATCH_BYTES, run_bytes(model, first, t)))
    logits = min(CHUNK_BYTES, len(runs) * model.d_vocab * model.wide.itemsize)
    return Cost(len(runs) * count, seconds, held + 3 * logits)


def patching_seconds(job: PatchingJob, verify: int | None = None) -> float:
    """About how long a map of patches takes: all its runs, or (`verify`) the quick map with that many of them.

    Runs one block a few times, no forward pass. Source: ours.
    """
    question = job.runs.question
    model, t, first = question.model, question.pos, job.runs.patched[0]
    with torch.no_grad():
        block, _ = _seconds(model, question.acts, t, t + 1 - first)
    works = [(model.n_layers - cell.layer) * (t + 1 - (first if cell.pos is None else cell.pos)) for cell in job.items]
    if verify is None:
        return block * sum(works)
    return block * (sum(sorted(works)[-verify:]) + BACKWARD * model.n_layers * len(question.acts.token_ids))


def _seconds(model: Model, acts: Activations, t: int, count: int) -> tuple[float, float]:
    """Per token of one block, and per state read through the vocabulary."""
    layer, runs = model.n_layers // 2, max(1, COST_TOKENS // count)
    x = needed(acts, "resid_pre")[layer, t + 1 - count : t + 1].to(model.wide).expand(runs, -1, -1).contiguous()
    block = shorter_of_two(lambda: run_block(model, acts, layer, x, t + 1 - count, lambda _seam, value: value))
    states = x[:1, -1].expand(8, -1)
    return block / (runs * count), shorter_of_two(lambda: list(lens_logits(model, states))) / len(states)
