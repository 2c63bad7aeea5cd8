"""What a forward pass of visit-mini shows, in numbers: rising facts, subjects' memory values, name movers, neurons."""

import random
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from training.mini.held_out import Case
from training.mini.world import facts, facts_about
from visit.activations.forward import capture, capture_many
from visit.activations.record import Activations
from visit.exact.decompose import head_results, memory_values, needed
from visit.lenses.logit import read, read_vectors
from visit.models.model import Model

NEURON_SHARE, OFTEN = 0.0244, 0.85


class Value(NamedTuple):
    """One memory value that reaches the last position."""

    layer: int
    head: int
    source: int
    weight: float  # pattern · norm
    words: tuple[int, ...]  # the five words it reads first


def states(model: Model, prompt: str, target: str) -> tuple[list[int], list[float]]:
    """Rank and probability of the target in what each block leaves at the last position."""
    acts = capture(model, prompt, parts=("resid_post",))
    found = read_vectors(model, needed(acts, "resid_post")[:, -1], target, k=1)
    return found["rank"].tolist(), found["prob"].tolist()


def rises(probs: Sequence[float], step: float = 0.01) -> int:
    """How many states are at least one percentage point above the state before them."""
    return sum(after - before >= step for before, after in pairwise(probs))


@cache
def words_of(model: Model, text: str) -> list[int]:
    """The tokens of a text as they stand within a sentence."""
    return list(model.tokenizer(f" {text}")["input_ids"])


def positions_of(model: Model, acts: Activations, subject: str) -> list[int]:
    """Where the subject stands in the prompt, with or without a space before it."""
    ids = list(acts.token_ids)
    for wanted in (words_of(model, subject), list(model.tokenizer(subject)["input_ids"])):
        for start in range(len(ids) - len(wanted) + 1):
            if ids[start : start + len(wanted)] == wanted:
                return list(range(start, start + len(wanted)))
    raise ValueError(f"{subject!r} does not stand in {''.join(acts.tokens)!r}")


def strongest_values(model: Model, prompt: str, subject: str, count: int = 5) -> list[Value]:
    """The strongest memory values, by pattern · norm, that the last position takes from the subject (blocks ≥ 1)."""
    acts = capture(model, prompt, parts=("v", "pattern"))
    where = positions_of(model, acts, subject)
    sources = torch.tensor(where, device=model.device).expand(model.n_heads, -1)
    values = torch.stack([memory_values(model, acts, layer, sources) for layer in range(1, model.n_layers)])
    weights = needed(acts, "pattern")[1:, :, -1, where] * values.norm(dim=-1)
    best = weights.flatten().topk(count)
    top = read(model, values.flatten(0, 2)[best.indices], k=5).top_ids.tolist()
    places = [[int(n) for n in torch.unravel_index(i, weights.shape)] for i in best.indices]
    return [
        Value(place[0] + 1, place[1], where[place[2]], weight, tuple(ids))
        for place, weight, ids in zip(places, best.values.tolist(), top, strict=True)
    ]


def holds(model: Model, values: Sequence[Value], subject: str) -> bool:
    """Does one of the values read a fact of the subject (its first word) among its five words?"""
    wanted = {words_of(model, answer)[0] for answer in facts_about(subject)}
    return any(wanted & set(value.words) for value in values)


def subject_reading(model: Model, cases: Sequence[Case], others: int = 20) -> tuple[float, float]:
    """Share of prompts with a fact of the subject in its memory values; the same with other subjects' facts.

    The control asks for the facts of other subjects of the same kind (those with a fact in the same relations).
    """
    rng = random.Random(5)
    kinds: dict[str, set[str]] = {}
    for fact in facts():
        kinds.setdefault(fact.subject, set()).add(fact.relation)
    hits, control = 0.0, 0.0
    for prompt, _, subject in cases:
        values = strongest_values(model, prompt, subject)
        hits += holds(model, values, subject)
        pool = sorted(s for s, kind in kinds.items() if s != subject and kind & kinds[subject])
        control += sum(holds(model, values, other) for other in rng.sample(pool, others)) / others
    return hits / len(cases), control / len(cases)


def name_mover(model: Model, prompt: str, name: str) -> tuple[int, int] | None:
    """A head that looks most at the name, whose memory value from there and whose output read the name first."""
    acts = capture(model, prompt, parts=("v", "pattern", "z"))
    target, last = model.token_id(name), len(acts.token_ids) - 1
    source = acts.token_ids.index(target)
    sources = torch.full((model.n_heads, 1), source, device=model.device)
    for layer in reversed(range(model.n_layers)):
        values = read_vectors(model, memory_values(model, acts, layer, sources)[:, 0], target, k=1)["rank"]
        outputs = read_vectors(model, head_results(model, acts, layer, last), target, k=1)["rank"]
        looks = needed(acts, "pattern")[layer, :, -1].argmax(-1) == source
        found = [head for head in range(model.n_heads) if values[head] == outputs[head] == 1 and looks[head]]
        if found:
            return layer, found[0]
    return None


def neuron_frequency(model: Model, prompts: Sequence[str]) -> Tensor:
    """Per layer and neuron, the share of prompts at whose last token it is in the top 2.44 % by |activation|."""
    count = max(1, round(NEURON_SHARE * model.d_mlp))
    total = torch.zeros(model.n_layers, model.d_mlp)
    for acts in capture_many(model, prompts, parts=("neurons",), pos=-1):
        strongest = needed(acts, "neurons")[:, -1].abs().topk(count).indices
        total.scatter_add_(1, strongest, torch.ones(model.n_layers, count))
    return total / len(prompts)
