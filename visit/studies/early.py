"""How early does the model know? What every block's state reads, beside what the model predicts in the end.

For one prompt, at the position looked at, through one lens (plain or fitted), with w the word the model predicts:

- per block: `rank` (log2 of w's place, so that means are of the geometric kind), `top1` (w is first), `precision` (w is
  among the first 10), `probability` of w, `surprisal` (−log2 of it), `kl` (bits, of the final prediction from what is
  read), `settled` (w is first here and in every later block);
- per prompt: `saturation` (the first block that is settled), `saved` (how many blocks come after it: what an exit that
  knew the end would save), and what an exit saves that cannot know it: it stops at the first block whose first word
  reaches `CONFIDENT`; `exit_saved` blocks, and `exit_same`, whether that word is w.

Source: saturation Geva et al. 2022; precision@k and surprisal Din et al. 2023; the exits ours.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from visit.lenses.linear import Lens, through
from visit.lenses.logit import lens_logits
from visit.models.attention import soft_cap
from visit.models.model import Model

AMONG = 10  # of precision@k
CONFIDENT = 0.9  # the probability of the first word at which an exit stops
LN2 = math.log(2)


def early(
    model: Model, states: Float[Tensor, "layer d_model"], lenses: dict[str, Lens | None]
) -> dict[str, dict[str, Float[Tensor, " layer"]]]:
    """By lens and measure: one prompt's numbers. `states`: the stream after every block, at the position looked at.

    The last block is the prediction itself, in every lens.
    """
    found = {}
    for name, lens in lenses.items():
        carried = torch.cat([through(lens, x[None], "resid_post", layer) for layer, x in enumerate(states)])
        logits = torch.cat([part for _, part in lens_logits(model, carried)])
        found[name] = _exits(_gaps(logits if model.logit_cap is None else soft_cap(logits, model.logit_cap)))
    return found


def _gaps(logits: Float[Tensor, "row d_vocab"]) -> dict[str, Float[Tensor, " row"]]:
    """How far every row is from the last one, which is the prediction."""
    whole = logits.logsumexp(-1)
    final = (logits[-1] - whole[-1]).exp()
    word = int(logits[-1].argmax())
    own = logits[:, word]
    rank = 1 + (logits > own[:, None]).sum(-1)
    surprisal = (whole - own) / LN2
    entropy = (final * (whole[-1] - logits[-1])).sum()
    kl = (whole - logits @ final - entropy) / LN2
    kl[-1] = 0
    return {
        "rank": rank.double().log2(), "top1": (rank == 1).double(), "precision": (rank <= AMONG).double(),
        "probability": (own - whole).exp().double(), "surprisal": surprisal.double(),
        "kl": kl.double().clamp(min=0), "sure": (logits.amax(-1) - whole).exp().double(),
    }  # fmt: skip


def _exits(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """The numbers of every block, and those of the whole pass."""
    last = len(found["top1"]) - 1
    settled = found["top1"].flip(0).cumprod(0).flip(0)
    saved = settled[:-1].sum()
    sure = found.pop("sure") >= CONFIDENT
    sure[-1] = True
    stop = int(sure.double().argmax())
    return found | {
        "settled": settled, "saturation": last - saved, "saved": saved,
        "exit_saved": torch.full_like(saved, last - stop), "exit_same": found["top1"][stop],
    }  # fmt: skip
