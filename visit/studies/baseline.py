"""What unrelated vectors score: by chance alone, and through this model's lens."""

from __future__ import annotations

import numpy as np
import torch

from visit.lenses.similarity import agreement, rank_weights, read_tops
from visit.models.model import Model

VECTORS = 64  # random vectors, every two of them compared
LONG = 200  # words from which on each is compared with one other alone: the time goes with k squared


def chance(d_vocab: int, k: int, measures: tuple[str, ...]) -> dict[str, float]:
    """What two lists of k words drawn at random score on average: k/V, and for rank-biased overlap `Σ_d w_d · d/V`.

    (Of the first d words of two random lists d²/V are common on average, that is a share of d/V.)
    """
    depth = torch.arange(1, k + 1, dtype=torch.float64)
    found = {"intersection": k / d_vocab, "rbo": float((rank_weights(k) * depth).sum()) / d_vocab}
    return {name: found[name] for name in measures}


def random_pairs(model: Model, k: int, measures: tuple[str, ...], seed: int = 0) -> dict[str, float]:
    """The mean score of pairs of random vectors, normal in every dimension, read through the lens.

    Higher than by chance: the final norm's bias and the unembedding favour the same words in every vector.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(VECTORS, model.d_model, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        ids = read_tops(model, x.to(model.device, model.wide), k).ids
    first, second = np.triu_indices(VECTORS, 1) if k <= LONG else np.arange(VECTORS).reshape(-1, 2).T
    found = agreement(ids[first], ids[second], measures).mean(-1)
    return dict(zip(measures, found.tolist(), strict=True))
