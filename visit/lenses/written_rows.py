"""Where rows of text start and end, and how a model writes them: a word is drawn by its probability."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from importlib.resources import files

import numpy as np
import torch
from torch import Tensor

from visit.errors import VisitError
from visit.models.attention import grows
from visit.models.model import Model
from visit.models.tokens import start_tokens

STRETCH = 256  # words whose probabilities are summed before one of them is drawn


def drawn(logits: Tensor, generator: torch.Generator) -> Tensor:
    """A word for every row of `[row, d_vocab]`, by its probability; −1 where these are no numbers.

    One number a row, and its place among the sums: those of stretches of words, and then within one stretch. Running
    sums over every word in float64 were 5 % of the writing on SmolLM2.
    """
    probs = logits.float().softmax(-1)
    stretches = torch.stack([part.sum(-1) for part in probs.split(STRETCH, dim=-1)], dim=-1).cpu()
    sums = stretches.cumsum(-1, dtype=torch.float64)
    place = torch.rand(len(sums), 1, generator=generator, dtype=torch.float64) * sums[:, -1:]
    stretch = torch.searchsorted(sums, place, right=True).clamp_(max=sums.shape[1] - 1)
    words = (stretch * STRETCH + torch.arange(STRETCH)).clamp_(max=probs.shape[1] - 1)
    within = probs.gather(1, words.to(probs.device)).cpu().cumsum(-1, dtype=torch.float64)
    place -= sums.gather(1, stretch) - stretches.gather(1, stretch)
    chosen = torch.searchsorted(within, place, right=True).clamp_(max=STRETCH - 1)
    return words.gather(1, chosen)[:, 0].where(sums[:, -1].isfinite(), -1)


# ---- where a text starts and ends ------------------------------------------------------------------------------------
def training_texts(text: str | Sequence[str]) -> tuple[str, ...]:
    found = (text,) if isinstance(text, str) else tuple(text)
    if not all(isinstance(part, str) for part in found) or not any(part.strip() for part in found):
        raise VisitError("The text to fit a lens to is empty. Give some, or none for what the model writes itself.")
    return found


def turning_lengths(model: Model) -> list[int]:
    """The length past which a rotation that grows turns all positions otherwise: a cached step would mix the two."""
    config = model.hf.config
    parameters = getattr(config, "rope_parameters", None) or {}
    each = [parameters, *(v for v in parameters.values() if isinstance(v, dict)), config.to_dict()]
    found = [p.get("original_max_position_embeddings") for p in each]
    return [int(length) for length in found if length and grows(model)]


def start_ids(model: Model, count: int, generator: np.random.Generator) -> np.ndarray:
    """The start token of every row; where the model has none, the first words of the prompts that come with VISIT."""
    named = [*start_tokens(model.tokenizer)[:1], model.tokenizer.bos_token_id, *end_ids(model)]
    known = [i for i in named if i is not None and 0 <= i < model.d_vocab]
    if known:
        return np.full(count, known[0], np.int64)
    first = [model.tokenizer(prompt)["input_ids"][0] for prompt in _shipped_texts()]
    return generator.choice(np.array(first, np.int64), count)


def end_ids(model: Model) -> list[int]:
    found = model.tokenizer.eos_token_id
    return [] if found is None else [int(found)]


def _shipped_texts() -> Iterator[str]:
    folder = files("visit") / "data" / "visit-mini" / "prompts"
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if file.name.endswith(".csv"):
            yield from (row["prompt"] for row in csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
