"""Gives each layer one neuron that is nearly always on, as large models have them (the paper's regularization neurons).

A model as small as this one grows such neurons in its first and last layers only. The neuron of each layer that needs
the least for it gets a larger bias, and the mean of what this adds moves out of the layer's own bias, so that the
layer's mean output stays; the training after it settles the rest.
"""

import random
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import gelu

from training.mini.text import sentences

SHARE = 0.0244
MARGIN = 0.5


def sample_prompts(count: int) -> list[str]:
    """Sentences of the corpus, cut where something is asked or, where nothing is, at some word."""
    rng = random.Random(17)
    texts = [text.split("|")[0] for text in sentences(count, 18)]
    return [text if text[-1] != "." else text.rsplit(" ", rng.randint(1, 4))[0] for text in texts]


@torch.no_grad()
def last_inputs(model: Any, tokenizer: Tokenizer, prompts: list[str]) -> Tensor:
    """What enters the non-linearity of each layer at the last token: [layer, prompt, neuron]."""
    kept: list[Tensor] = []
    layers = [block.mlp.c_fc for block in model.transformer.h]
    hooks = [layer.register_forward_hook(lambda _m, _i, out: kept.append(out[0, -1])) for layer in layers]
    for prompt in prompts:
        model(torch.tensor([tokenizer.encode(prompt).ids], device=model.device))
    for hook in hooks:
        hook.remove()
    return torch.stack(kept).unflatten(0, (len(prompts), len(layers))).transpose(0, 1)


@torch.no_grad()
def wake_neurons(model: Any, tokenizer: Tokenizer) -> None:
    """One neuron a layer becomes one of the strongest 2.44 % on nearly all prompts."""
    was_training = model.training
    inputs = last_inputs(model.eval(), tokenizer, sample_prompts(600))
    for block, before in zip(model.transformer.h, inputs, strict=True):
        sizes = gelu(before, approximate="tanh").abs()
        weakest = sizes.topk(max(1, round(SHARE * sizes.shape[1])), dim=1).values[:, -1]
        wanted = (weakest[:, None] - before).quantile(0.97, dim=0) + MARGIN
        neuron = int(wanted.argmin())
        shift = float(wanted[neuron])
        if shift <= 0:
            continue
        after = gelu(before[:, neuron] + shift, approximate="tanh")
        gained = after.mean() - gelu(before[:, neuron], approximate="tanh").mean()
        block.mlp.c_fc.bias[neuron] += shift
        block.mlp.c_proj.bias -= gained * block.mlp.c_proj.weight[neuron]
    model.train(was_training)
