"""What the model knows so far: small samples of the held-out sets, printed during training."""

import random
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.mini.held_out import fact_cases, name_cases, repeat_cases


@torch.no_grad()
def states(model: Any, ids: Sequence[int]) -> Tensor:
    """What each block leaves at the last position, read with the lens: logits [block, word]."""
    kept: list[Tensor] = []
    hooks = [block.register_forward_hook(lambda _m, _i, out: kept.append(out)) for block in model.transformer.h]
    model(torch.tensor([ids], device=next(model.parameters()).device))
    for hook in hooks:
        hook.remove()
    last = [(out[0] if isinstance(out, tuple) else out)[0, -1] for out in kept]
    logits: Tensor = model.lm_head(model.transformer.ln_f(torch.stack(last)))
    return logits


def ranks(logits: Tensor, target: int) -> list[int]:
    """Rank of the target in each row, 1 is best."""
    found: list[int] = (1 + (logits > logits[:, target, None]).sum(1)).tolist()
    return found


def accuracies(model: Any, tokenizer: Tokenizer, rng: random.Random) -> dict[str, object]:
    """Share of sampled held-out prompts completed right, and the median rank of a fact over the blocks."""
    cases = {"facts": rng.sample(fact_cases(), 150), "names": name_cases(80, rng), "repeats": repeat_cases(40, rng)}
    result: dict[str, object] = {}
    for kind, found in cases.items():
        rows = [ranks(states(model, tokenizer.encode(p).ids), tokenizer.encode(t).ids[0]) for p, t, *_ in found]
        result[kind] = round(sum(row[-1] == 1 for row in rows) / len(rows), 3)
        result[kind + " ranks"] = [sorted(column)[len(rows) // 2] for column in zip(*rows, strict=True)]
    return result
