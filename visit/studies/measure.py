"""One pass's numbers: every figure's cells for one prompt, from one reading of each vector."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from visit.activations.record import Activations
from visit.exact.circuits import key_readings, query_readings
from visit.exact.decompose import head_results, memory_values, needed
from visit.exact.question import kv_head
from visit.lenses.linear import Lens
from visit.lenses.similarity import Tops, agreement, read_tops
from visit.lenses.similarity import ranks as ranked
from visit.models.model import Model
from visit.studies.early import early
from visit.studies.plan import OTHERS, Plan, has_places, readings
from visit.studies.settings import ATTENDED, DEPTHS, EARLY, EXITS, LONGEST

STUDY_PARTS = ("resid_pre", "q", "k", "v", "pattern", "z", "attn_out", "resid_mid", "resid_post", "rotary")
Numbers = dict[str, Float[Tensor, "measure layer head rank"]]  # by block; ranks that a short prompt lacks are cut off


class Read:
    """What the vectors of one prompt read, layer by layer; `broken`: a vector was no number."""

    def __init__(self, acts: Activations, t: int, final: Int[Tensor, " k"], fine: bool) -> None:
        self.acts, self.t, self.final = acts, t, final
        self.prediction = int(final[0])
        self.broken = not fine
        self.ids: dict[str, list[Tensor]] = {}  # by kind, a tensor [.., k] per layer of the plan
        self.prob: dict[str, list[Tensor]] = {}
        self.norms: list[Tensor] = []
        self.early: dict[str, dict[str, Tensor]] = {}  # by lens and measure
        self.places: list[int] = []  # layers after which the states of `stream` and `attn_out` stand

    def keep(self, kind: str, ids: Tensor, fine: Tensor, prob: Tensor | None = None) -> None:
        self.ids.setdefault(kind, []).append(ids)
        self.broken |= not bool(fine.all())
        if prob is not None:
            self.prob.setdefault(kind, []).append(prob)

    def states(self, model: Model, name: str, places: Iterable[int]) -> Float[Tensor, "layer d_model"]:
        """States of this prompt at its position."""
        return torch.stack([state_at(model, self.acts, name, n, self.t) for n in places])

    def at(self, kind: str, layers: Iterable[int]) -> Int[Tensor, "layer k"]:
        """What the states after some layers read."""
        return self.ids[kind][0][[self.places.index(n) for n in layers]]

    def all(self, kind: str) -> Tensor:
        """`[layer, …, k]`."""
        return torch.stack(self.ids[kind])


def final_words(model: Model, records: list[Activations], pos: int, k: int) -> list[Read]:
    """The last state of every prompt, read: its first word is the model's own prediction."""
    places = [acts.index(pos) for acts in records]
    last = [state_at(model, acts, "resid_post", -1, t) for acts, t in zip(records, places, strict=True)]
    tops = read_tops(model, torch.stack(last), k)
    found = zip(records, places, tops.ids, tops.fine.tolist(), strict=True)
    return [Read(acts, t, ids, fine) for acts, t, ids, fine in found]


def measure(model: Model, plan: Plan, prompts: list[Read], lens: Lens | None = None) -> list[Numbers]:
    """The cells of every prompt. Vectors of all prompts are read together, one layer at a time.

    `lens`: the fitted one that the settings name.
    """
    if wanted := {name: lens if name == "fitted" else None for name in plan.settings.lenses_wanted()}:
        for prompt in prompts:
            prompt.early = early(model, prompt.states(model, "resid_post", range(model.n_layers)), wanted)
            prompt.broken |= not all(bool(x.isfinite().all()) for own in prompt.early.values() for x in own.values())
    if any(block.figure != EARLY for block in plan.blocks):
        _read_states(model, plan, prompts)
        for layer in plan.layers:
            _read_layer(model, plan, prompts, layer)
    return [_cells(model, plan, prompt) for prompt in prompts]


# ---- reading: the vectors of several prompts in one product --------------------------------------------------------


def _read_together(model: Model, k: int, parts: list[tuple[Read, str, Tensor, Tensor | None]]) -> None:
    """Read `(prompt, kind, vectors [.., d_model], words asked of them or None)` in one go and hand each its own."""
    parts = sorted(parts, key=lambda part: part[3] is None)  # those that are asked for a word come first
    if not parts:
        return
    asked = [words.flatten() for *_, words in parts if words is not None]
    flat = torch.cat([x.reshape(-1, x.shape[-1]) for _, _, x, _ in parts])
    tops: Tops = read_tops(model, flat, k, torch.cat(asked) if asked else None)
    start = 0
    for prompt, kind, x, words in parts:
        shape = x.shape[:-1]
        rows = slice(start, start + shape.numel())
        prob = None if words is None else tops.prob[rows].view(shape)
        prompt.keep(kind, tops.ids[rows].view(*shape, k), tops.fine[rows], prob)
        start = rows.stop


def _read_states(model: Model, plan: Plan, prompts: list[Read]) -> None:
    """The stream and attn_out at the plan's layers and, for Figure 15, at the one before each; each of them once."""
    settings, layers = plan.settings, plan.layers
    if not settings.states_wanted():
        return
    around = settings.asks("15")
    places = sorted({*layers, *(n - 1 for n in layers if n and around)})
    parts: list[tuple[Read, str, Tensor, Tensor | None]] = []
    for prompt in prompts:
        prompt.places = places
        words = torch.full((len(places),), prompt.prediction, dtype=torch.long, device=prompt.final.device)
        parts.append((prompt, "stream", prompt.states(model, "resid_post", places), words))
        if settings.asks("2a", "2b", "3", "13", "15"):
            parts.append((prompt, "attn_out", prompt.states(model, "attn_out", places), None))
        if around and 0 in layers:
            parts.append((prompt, "start", prompt.states(model, "resid_pre", [0]), None))
        if around and prompt.acts.resid_mid is not None:
            parts.append((prompt, "middle", prompt.states(model, "resid_mid", layers), None))
    _read_together(model, settings.k, parts)


def _read_layer(model: Model, plan: Plan, prompts: list[Read], layer: int) -> None:
    """Heads, memory values, queries and keys of one layer."""
    settings = plan.settings
    parts: list[tuple[Read, str, Tensor, Tensor | None]] = []
    for prompt in prompts:
        acts, t = prompt.acts, prompt.t
        if settings.heads_wanted():
            own = head_results(model, acts, layer, t)
            prompt.norms.append(own.norm(dim=-1))
            parts.append((prompt, "head", own, None))
        if settings.asks("2a") and has_places(model):
            parts.append((prompt, "z", in_place(needed(acts, "z")[layer, t].to(model.wide)[:, None])[:, 0], None))
        if count := settings.values_wanted(t + 1):
            at = attended(acts, layer, t, count)
            words = torch.tensor(acts.token_ids, device=at.device)[at] if settings.asks("18") else None
            parts.append((prompt, "value", memory_values(model, acts, layer, at), words))
        if settings.asks("19", "20"):
            parts += [(prompt, kind, x, None) for kind, x in _queries_and_keys(model, plan, prompt, layer)]
    _read_together(model, settings.k, parts)


def _queries_and_keys(model: Model, plan: Plan, prompt: Read, layer: int) -> Iterable[tuple[str, Tensor]]:
    """Each head's query and the keys of its most attended sources, in every way that this model allows."""
    acts, t, ln1 = prompt.acts, prompt.t, model.block_norm("ln1", layer)
    at = attended(acts, layer, t, plan.settings.sources)
    found = {"key": key_readings(model, acts, layer, t, at)}
    if plan.settings.asks("19"):  # as every source sees it; without rotation one query for all
        columns = at.unbind(1) if model.family.rotary else at[:, :1].unbind(1)
        found["query"] = torch.stack([query_readings(model, acts, layer, t, column) for column in columns], dim=1)
    for side, x in found.items():
        yield f"{side} circuit", x
        if ln1 is not None:
            yield f"{side} gain", x * model.gain(ln1)
    if has_places(model):  # before any rotation; a key that several heads share stands at the place of each of them
        shared = torch.tensor([kv_head(model, head) for head in range(model.n_heads)], device=at.device)
        yield "key naive", in_place(needed(acts, "k")[layer, at, shared[:, None]].to(model.wide))
        if "query" in found:
            yield "query naive", in_place(needed(acts, "q")[layer, t].to(model.wide)[:, None])


def state_at(model: Model, acts: Activations, name: str, layer: int, t: int) -> Float[Tensor, " d_model"]:
    """A state of the stream, or attn_out, at one position."""
    return needed(acts, name)[layer, t].to(model.wide)


def attended(acts: Activations, layer: int, t: int, count: int) -> Int[Tensor, "head n"]:
    """The `count` positions that each head attends to most, the most attended first; equal ones in their order.

    In a windowed layer positions outside the window have pattern 0 and come last.
    """
    pattern = needed(acts, "pattern")[layer, :, t, : t + 1]
    return pattern.argsort(dim=-1, descending=True, stable=True)[:, :count]


def in_place(x: Float[Tensor, "head n d_head"]) -> Float[Tensor, "head n d_model"]:
    """Each head's vectors at its own place in a vector of zeros: read naively (the paper's footnote 6)."""
    alone = torch.diag_embed(x.permute(1, 2, 0), dim1=1, dim2=2)  # [n, head, head, d_head]: one head kept, zeros else
    return alone.flatten(2).transpose(0, 1)


# ---- the numbers of one prompt -------------------------------------------------------------------------------------


def _cells(model: Model, plan: Plan, prompt: Read) -> Numbers:
    """Every block's cells; where something was no number, all of them are NaN and the prompt must not be counted."""
    found: Numbers = {}
    wanted = {block.figure for block in plan.blocks}
    if wanted & {"2a", "2b", "3"}:
        found |= _cells_of_heads(plan, prompt, wanted)
    if wanted & {"5", "16", "17"}:
        found |= _cells_of_values(plan, prompt, wanted)
    if "14" in wanted:
        at = [prompt.places.index(n) for n in plan.layers]
        found["14/prediction"] = prompt.prob["stream"][0][None, at, None, None].double()
        if "fitted" in prompt.early:
            found["14/fitted"] = prompt.early["fitted"]["probability"][None, plan.layers, None, None]
    if EARLY in wanted:
        for name, read in prompt.early.items():
            found[f"{EARLY}/{name}"] = torch.stack([read[m][list(plan.layers)] for m in DEPTHS])[..., None, None]
            found[f"{EARLY}/{name}: exit"] = torch.stack([read[m] for m in EXITS])[:, None, None, None]
    if "15" in wanted:
        found |= _cells_of_states(plan, prompt)
    if "18" in wanted:
        own = torch.stack(prompt.prob["value"])[..., : plan.settings.values]
        found["18/value"] = own.double().flatten(1).mean(1)[None, :, None, None]
    for figure in wanted & {"19", "20"}:
        found |= _cells_of_keys(model, plan, prompt, figure)
    return found


def _cells_of_heads(plan: Plan, prompt: Read, wanted: set[str]) -> Numbers:
    """Heads with what they are added to: Figures 2a, 2b and 3."""
    measures = plan.settings.measures
    attn_out, block = (prompt.at(name, plan.layers)[:, None] for name in ("attn_out", "stream"))
    others = {"attn_out": attn_out, "block": block, "final": prompt.final}
    found: Numbers = {}
    for name in OTHERS:
        if "2a" in wanted:
            found[f"2a/{name}"] = agreement(prompt.all("z"), others[name], measures).mean(-1)[..., None, None]
        if "2b" in wanted:
            own = agreement(prompt.all("head"), others[name], measures)
            found[f"2b/{name}"] = own.mean(-1)[..., None, None]
            order = ranked(torch.stack(prompt.norms)).argsort(-1)[:, :LONGEST]  # [layer, rank]: which head
            found[f"3/{name}"] = own.gather(2, order.expand(len(measures), -1, -1))[:, :, None, :]
    return found


def _cells_of_values(plan: Plan, prompt: Read, wanted: set[str]) -> Numbers:
    """Memory values, the most attended first, with their own head: Figures 5, 16 and 17."""
    shown = max(ATTENDED, plan.settings.values or prompt.t + 1) if "16" in wanted else ATTENDED
    own = agreement(prompt.all("value")[:, :, :shown], prompt.all("head")[:, :, None], plan.settings.measures)
    mean = own.mean(2, keepdim=True)  # [measure, layer, 1, rank]
    return {
        "5/value": mean[..., :ATTENDED], "16/value": mean[..., : plan.settings.values], "17/value": own[..., :ATTENDED],
    }  # fmt: skip


def _cells_of_states(plan: Plan, prompt: Read) -> Numbers:
    """What attention adds with the stream around it: Figure 15."""
    layers, later = plan.layers, [n for n in plan.layers if n]
    start = prompt.ids.get("start", [])  # what enters block 0, where that is looked at
    pairs = {
        "before": (layers, torch.cat([*start, prompt.at("stream", [n - 1 for n in later])])),
        "block": (layers, prompt.at("stream", layers)),
        "previous": (later, prompt.at("attn_out", [n - 1 for n in later])),
    }
    if "middle" in prompt.ids:
        pairs["after"] = layers, prompt.ids["middle"][0]
    return {
        f"15/{name}": agreement(prompt.at("attn_out", at), other, plan.settings.measures)[..., None, None]
        for name, (at, other) in pairs.items() if at
    }  # fmt: skip


def _cells_of_keys(model: Model, plan: Plan, prompt: Read, figure: str) -> Numbers:
    """Queries with keys (Figure 19) or keys with memory values (Figure 20), mean over sources and heads."""
    found = {}
    for way in readings(model):
        key = prompt.all(f"key {way}")
        other = prompt.all(f"query {way}") if figure == "19" else prompt.all("value")[:, :, : key.shape[2]]
        own = agreement(key, other, plan.settings.measures)
        found[f"{figure}/{way}"] = own.flatten(2).mean(-1)[..., None, None]
    return found
