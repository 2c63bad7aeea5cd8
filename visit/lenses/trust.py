"""Why one may believe a fitted lens: how near it comes to the model's prediction, and four controls that could fail.

- Agreement: KL (bits) and top-1, per block, plain and fitted, on text not used in the fit.
- Wrong answers stay low: the right answer's rank through the lens beside the rank of another prompt's answer.
- Specific: how much of the lens's top words the model finally predicts here, and how much of it for another prompt.
- Causal: put the last state after a block of prompt B into prompt A; does A now answer B's answer, where the lens names
  it?
- Shuffled: a lens whose maps belong to other blocks, or were fitted to other rows' ends, reads worse.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from visit.activations.forward import capture_many
from visit.errors import VisitError
from visit.lenses.logit import lens_logits, read, top_of
from visit.models.attention import soft_cap
from visit.models.model import Model

if TYPE_CHECKING:
    from visit.lenses.linear import Lens

TOP, FINAL = 5, 50  # words of the lens looked for among so many of the final prediction (the specific control)


class Agreement:
    """How far the plain and the fitted lens are from the final prediction, block by block, on held-out positions."""

    def __init__(self, model: Model, lens: Lens, states: Tensor) -> None:
        """`states` `[layer, pos, d_model]`: behind every block, at held-out positions."""
        self.model, self.lens, self.states = model, lens, states
        self.sums = np.zeros((4, model.n_layers))
        self.usual = np.zeros((model.n_layers, model.d_vocab), np.float32)  # summed probabilities, of the fitted lens
        self.done = 0

    @property
    def whole(self) -> bool:
        return self.done >= self.states.shape[1]

    @torch.no_grad()
    def compare(self, start: int, stop: int) -> None:
        """Add positions `start` to `stop`."""
        states = self.states[:, start:stop]
        if not states.shape[1]:
            return
        for layer, row, gap, same, probs in _trust_gaps(self.model, states, self.lens):
            self.sums[[row, row + 2], layer] += gap, same
            if probs is not None:
                self.usual[layer] += probs.cpu().numpy()
        self.done = stop

    def table(self) -> pd.DataFrame:
        means = self.sums / max(1, min(self.done, self.states.shape[1]))
        columns = dict(zip(("kl_plain", "kl", "top1_plain", "top1"), means, strict=True))
        return pd.DataFrame({"layer": range(self.model.n_layers), **columns})

    def habit(self) -> Tensor:
        """`[layer, d_vocab]`: the mean probability of every word at a block, whatever the text."""
        return torch.from_numpy(self.usual / max(1, min(self.done, self.states.shape[1]))).to(torch.float16)


def _trust_gaps(model: Model, states: Tensor, lens: Lens) -> Iterator[tuple[int, int, float, float, Tensor | None]]:
    """(layer, 0 plain or 1 fitted, KL in bits of the final prediction, agreeing top words, probabilities), all summed.

    One pass over the logits for all of them; that of the final prediction serves every block, plain and fitted.
    """
    final = _capped_logits(model, states[-1])
    first, logs = final.argmax(-1), final.log_softmax(-1)
    probs = logs.exp()
    own = _dot(probs, logs)
    last = model.n_layers - 1
    for layer in range(last):
        x = states[layer].to(model.wide)
        for row, through in ((0, x), (1, lens.carry(x, layer))):
            found = _capped_logits(model, through).log_softmax(-1)
            same = int((found.argmax(-1) == first).sum())
            gap = (own - _dot(probs, found)).sum().item() / math.log(2)
            yield layer, row, gap, same, found.exp_().sum(0) if row else None
    yield last, 0, 0.0, len(first), None
    yield last, 1, 0.0, len(first), probs.sum(0)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """The products of rows with rows, `[pos]`, no table of products beside them."""
    return (a[:, None] @ b[:, :, None])[:, 0, 0]


@torch.no_grad()
def _capped_logits(model: Model, x: Tensor) -> Tensor:
    """The lens's logits as the model would output them, capped where it caps."""
    parts = [logits for _, logits in lens_logits(model, x)]
    found = torch.cat(parts) if len(parts) > 1 else parts[0]  # no second copy of them
    return found if model.logit_cap is None else soft_cap(found, model.logit_cap)


def spread(count: int, most: int) -> Tensor:
    """At most so many of `count` positions, evenly."""
    return torch.linspace(0, count - 1, min(most, count)).long()


def held_states(model: Model, held_out: Tensor, most: int) -> Tensor:
    """States `[layer, pos, d_model]` behind every block, at most so many; the first position of a row is dropped."""
    rows = [[i for i in row if i >= 0] for row in held_out.tolist()]
    records = capture_many(model, rows, ("resid_post",))
    states = torch.cat([acts.resid_post[:, 1:] for acts in records if acts.resid_post is not None], dim=1)
    return states[:, spread(states.shape[1], most).to(states.device)]


def report(model: Model, lens: Lens, positions: int = 256) -> pd.DataFrame:
    """The report of a lens, computed again from its held-out text: `layer`, `kl_plain`, `kl`, `top1_plain`, `top1`."""
    found = Agreement(model, lens, held_states(model, lens.held_out, positions))
    for start in range(0, positions, 32):
        found.compare(start, start + 32)
    return found.table()


# ---- the controls, over prompts --------------------------------------------------------------------------------------
def control_table(model: Model, lens: Lens, prompts: Sequence[str]) -> pd.DataFrame:
    """The controls over prompts that the model answers: a row per block.

    Columns: of `wrong_answers`, `specific` and `arrivals`, side by side. Raises `VisitError` for fewer than two prompts
    with different answers. Source: causes section 10.
    """
    run = ControlRun(model, lens, prompts)
    run.update(run.items)
    return run.snapshot()


class ControlRun:
    """The controls as a job, block by block: `control_table` as far as it is done."""

    version = "controls 1"

    def __init__(self, model: Model, lens: Lens, prompts: Sequence[str]) -> None:
        self.model, self.lens, self.asked = model, lens, _Asked(model, prompts)
        self.items = tuple(range(model.n_layers))
        self._rows: list[dict[str, float]] = []

    def update(self, items: Sequence[int]) -> None:
        for layer in items:
            parts = (make(self.model, self.lens, self.asked, layer) for make in (_ranks, _shares, _arrival))
            self._rows.append({name: value for part in parts for name, value in part.items()})

    def snapshot(self) -> pd.DataFrame:
        return pd.DataFrame(self._rows)

    def state(self) -> dict[str, np.ndarray]:
        table = self.snapshot()
        return {name: table[name].to_numpy() for name in table}

    def load(self, state: dict[str, np.ndarray]) -> None:
        self._rows = pd.DataFrame(state).to_dict("records")


class _Asked:
    """What the controls are asked about: prompts, their last states after every block, answers, and whose is another.

    `states` `[layer, prompt, d_model]`, `answers` `[prompt]`; `partner`: for every prompt one with another answer, half
    the set away: in a set that is in order a neighbour asks for the same kind of thing, and what answers it is likely
    here, too (of the facts in SmolLM2 its median rank is 157 even in the final prediction, half the set away 8,400).
    """

    def __init__(self, model: Model, prompts: Sequence[str]) -> None:
        records = [acts.resid_post for acts in capture_many(model, prompts, ("resid_post",), pos=-1)]
        self.prompts, self.states = prompts, torch.cat([part for part in records if part is not None], dim=1)
        self.final = _capped_logits(model, self.states[-1])
        self.answers = self.final.argmax(-1)
        known, n = self.answers.tolist(), len(prompts)
        if n < 2 or len(set(known)) < 2:
            raise VisitError("The controls of a lens need at least two prompts with different answers.")
        away = max(1, n // 2)
        self.partner = [
            next(j % n for j in range(i + away, i + away + n) if known[j % n] != known[i]) for i in range(n)
        ]

    def through(self, model: Model, lens: Lens | None, layer: int) -> Tensor:
        x = self.states[layer].to(model.wide)
        return x if lens is None else lens.carry(x, layer)


def wrong_answers(model: Model, lens: Lens, prompts: Sequence[str]) -> pd.DataFrame:
    """Control a. `right_rank`, `wrong_rank`: medians of the own and of another prompt's answer; `_plain`: the same."""
    asked = _Asked(model, prompts)
    return pd.DataFrame([_ranks(model, lens, asked, layer) for layer in range(model.n_layers)])


def _ranks(model: Model, lens: Lens, asked: _Asked, layer: int) -> dict[str, float]:
    words = torch.stack([asked.answers, asked.answers[asked.partner]], dim=1)
    row: dict[str, float] = {"layer": layer}
    for end, through in (("", lens), ("_plain", None)):
        ranks = read(model, asked.through(model, through, layer), words, k=1).rank
        assert ranks is not None
        middle = ranks.double().quantile(0.5, dim=0).tolist()
        row |= {f"right_rank{end}": middle[0], f"wrong_rank{end}": middle[1]}
    return row


def specific(model: Model, lens: Lens, prompts: Sequence[str]) -> pd.DataFrame:
    """Control b. `own_share`, `other_share`: how much of the lens's top 5 is in the final top 50 here and elsewhere."""
    asked = _Asked(model, prompts)
    return pd.DataFrame([_shares(model, lens, asked, layer) for layer in range(model.n_layers)])


def _shares(model: Model, lens: Lens, asked: _Asked, layer: int) -> dict[str, float]:
    final = top_of(asked.final, min(FINAL, model.d_vocab))[1]
    top = read(model, asked.through(model, lens, layer), k=TOP).top_ids
    ends = {"own_share": final, "other_share": final[asked.partner]}
    return {
        "layer": layer,
        **{name: (top[:, :, None] == end[:, None, :]).any(-1).double().mean().item() for name, end in ends.items()},
    }


def arrivals(model: Model, lens: Lens, prompts: Sequence[str], layers: Sequence[int] | None = None) -> pd.DataFrame:
    """Control c. Prompt B's last state after a block is put into prompt A at its last position.

    Columns: `layer`; `arrives`: the share of pairs in which A then answers B's answer; `names`, `names_plain`: the
    share in which the fitted and the plain lens name B's answer first in that state.
    """
    asked = _Asked(model, prompts)
    among = range(model.n_layers) if layers is None else layers
    return pd.DataFrame([_arrival(model, lens, asked, layer) for layer in among])


def _arrival(model: Model, lens: Lens, asked: _Asked, layer: int) -> dict[str, float]:
    put = asked.states[layer][asked.partner]
    answered = _patched(model, asked.prompts, put, layer) == asked.answers[asked.partner]
    row = {"layer": layer, "arrives": answered.double().mean().item()}
    for name, through in (("names", lens), ("names_plain", None)):
        top = read(model, asked.through(model, through, layer), k=1).top_ids[:, 0]
        row[name] = (top == asked.answers).double().mean().item()
    return row


def _patched(model: Model, prompts: Sequence[str], values: Tensor, layer: int) -> Tensor:
    """What every prompt answers when its last state after `layer` is `values`; prompts of one length run together."""
    ids = [model.tokenizer(prompt)["input_ids"] for prompt in prompts]
    found = torch.zeros(len(ids), dtype=torch.long, device=values.device)
    for length in sorted({len(own) for own in ids}):
        rows = [n for n, own in enumerate(ids) if len(own) == length]

        def put(_module: Any, _args: Any, output: Any, rows: list[int] = rows) -> Any:
            stream = (output[0] if isinstance(output, tuple) else output).clone()
            stream[:, -1] = values[rows].to(stream)
            return (stream, *output[1:]) if isinstance(output, tuple) else stream

        batch = torch.tensor([ids[n] for n in rows], device=model.device)
        with model.lock, torch.no_grad():
            handle = model.blocks[layer].register_forward_hook(put)
            try:
                logits = model.hf(batch, use_cache=False).logits[:, -1]
            finally:
                handle.remove()
        found[rows] = logits.argmax(-1).to(found.device)
    return found


def shuffled_layers(lens: Lens) -> Lens:
    """Control d. Every state is read through the map of another: what is left of a lens that belongs to no block."""
    return replace(lens, maps=lens.maps.roll(len(lens.sites) // 2, 0), bias=lens.bias.roll(len(lens.sites) // 2, 0))
