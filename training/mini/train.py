"""Trains visit-mini: `python -m training.mini.train` writes tokenizer and model into `visit/data/visit-mini`.

A run that was interrupted goes on from its last checkpoint.
"""

import argparse
import math
import random
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel

from training.mini import tokenizer as words
from training.mini.batches import batches
from training.mini.progress import accuracies
from training.mini.wake import wake_neurons
from visit.models.catalog import MINI_FOLDER

FOLDER = Path(__file__).parent
FIRST, STEPS = 12_500, 14_500  # then one neuron a layer is woken, and the rest settles
PEAK_RATE, SECOND_RATE = 2e-3, 4e-4
WARM_UP = 300
STEPS_PER_CHUNK = 280  # of sentences, about
SEED = 7


class PooledDropout(nn.Module):
    """Dropout whose masks are slices of one random pool: on a CPU, drawing them afresh takes half of a step."""

    def __init__(self, pool: Tensor) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        start = int(torch.randint(0, self.pool.numel() - x.numel(), ()))
        return x * self.pool[start : start + x.numel()].view_as(x)


def new_model(d_vocab: int) -> GPT2LMHeadModel:
    config = GPT2Config(
        vocab_size=d_vocab, n_positions=256, n_embd=128, n_layer=8, n_head=8, n_inner=512,
        embd_pdrop=0.1, resid_pdrop=0.1, attn_pdrop=0.0, activation_function="gelu_pytorch_tanh",
        initializer_range=0.05, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model: GPT2LMHeadModel = GPT2LMHeadModel._from_config(config, attn_implementation="sdpa")
    model.transformer.wpe.weight.data = waves(256, 128)
    return model


def waves(count: int, width: int, size: float = 0.1) -> Tensor:
    """Where the position embedding starts: sines and cosines, in which "one position before" is a rotation."""
    angles = torch.arange(count)[:, None] / 1000 ** (torch.arange(width // 2) / (width // 2))
    return size * torch.cat((angles.sin(), angles.cos()), dim=1)


def pool_dropout(model: nn.Module, rate: float) -> None:
    pool = (torch.rand(1 << 22) > rate).float() / (1 - rate)
    device = next(model.parameters()).device
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Dropout) and child.p:
                setattr(parent, name, PooledDropout(pool.to(device)))


def rate_at(step: int) -> float:
    """Linear warm-up, then a cosine down to 2 % of the peak; twice."""
    peak, steps = (PEAK_RATE, FIRST) if step < FIRST else (SECOND_RATE, STEPS - FIRST)
    step = step if step < FIRST else step - FIRST
    if step < WARM_UP:
        return peak * (step + 1) / WARM_UP
    return peak * (0.02 + 0.98 * (1 + math.cos(math.pi * (step - WARM_UP) / (steps - WARM_UP))) / 2)


def loss_of(model: GPT2LMHeadModel, ids: Tensor, weights: Tensor) -> Tensor:
    """Mean surprise over the predicted tokens, by weight; padding (weight 0) is left out of the readout."""
    hidden = model.transformer(ids, use_cache=False).last_hidden_state[:, :-1]
    keep = weights[:, 1:] > 0
    losses = cross_entropy(model.lm_head(hidden[keep]), ids[:, 1:][keep], reduction="none")
    kept = weights[:, 1:][keep]
    return (losses * kept).sum() / kept.sum()


def save(model: GPT2LMHeadModel, folder: Path) -> None:
    """The model as plain GPT-2: `gelu_new` is the same function as the faster one used in training."""
    trained = model.config.activation_function
    model.config.activation_function = "gelu_new"
    model.save_pretrained(folder)
    model.config.activation_function = trained


def train(folder: Path, checkpoint: Path) -> GPT2LMHeadModel:
    torch.manual_seed(SEED)
    known = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(known)) if checkpoint.exists() else words.write(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = new_model(tokenizer.get_vocab_size()).train()
    model.to(torch.device(device))
    pool_dropout(model, 0.1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    first = resume(model, optimizer, checkpoint)
    stream = batches(tokenizer, SEED + first, first // STEPS_PER_CHUNK)
    started = time.time()
    for step in range(first, STEPS):
        if step == FIRST:
            wake_neurons(model, tokenizer)
            optimizer.state.clear()
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step)
        ids, weights = (part.to(device) for part in next(stream))
        loss = loss_of(model, ids, weights)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 100 == 99:
            print(f"step {step + 1} loss {loss.item():.3f} {time.time() - started:.0f} s", flush=True)
        if step % 500 == 499:
            report(model, tokenizer)
        if step % 500 == 499 or step == STEPS - 1:
            save(model, folder)
            torch.save((step + 1, model.state_dict(), optimizer.state_dict()), checkpoint)
    wake_neurons(model, tokenizer)  # once more: some have drifted below the strongest
    save(model, folder)
    return model


def resume(model: nn.Module, optimizer: torch.optim.Optimizer, checkpoint: Path) -> int:
    """Loads the checkpoint, if there is one, and returns the step to go on with."""
    if not checkpoint.exists():
        return 0
    step, weights, moments = torch.load(checkpoint)
    model.load_state_dict(weights)
    optimizer.load_state_dict(moments)
    return int(step)


def report(model: GPT2LMHeadModel, tokenizer: Tokenizer) -> None:
    model.eval()
    found = accuracies(model, tokenizer, random.Random(0))
    print("  ", *(f"{name} {value}" for name, value in found.items()), flush=True)
    model.train()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=MINI_FOLDER)
    arguments = parser.parse_args()
    train(arguments.out, arguments.out / "checkpoint.pt")
    (arguments.out / "checkpoint.pt").unlink()
