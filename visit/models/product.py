"""Products of rows with a large float32 matrix, as the unembedding is, by the quicker of two libraries in PyTorch.

On x86 PyTorch multiplies float32 matrices by MKL, which takes slow paths on processors that are not Intel's: a core of
a Zen 5 does 87 Gflop/s with it and 220 with oneDNN, which PyTorch brings, too. Reading a state as words is little else.

1. oneDNN is asked where it is there: on the CPU, for float32, where no gradient is wanted. Else PyTorch decides.
2. It compiles code for every number of rows and keeps that of a thousand, a megabyte each. So rows go in blocks of few
   sizes, the last of them filled up with zeros; what a row gives does not depend on the rows beside it then.
"""

from __future__ import annotations

import platform
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

SIZES = (8, 16, 32, 64, 128)  # rows of a block: below 8 rows oneDNN adds up in another order


def product(
    x: Float[Tensor, "n width"], weight: Float[Tensor, "out width"], bias: Float[Tensor, " out"] | None = None
) -> Float[Tensor, "n out"]:
    """`x @ weight.T + bias` as `torch.nn.functional.linear` gives it, within float32's rounding."""
    if not _onednn_takes(x, weight):
        return functional.linear(x, weight, bias)
    blocks = [_filled_block(part, weight, bias) for part in x.split(SIZES[-1])]
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


def _filled_block(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    size = next(size for size in SIZES if len(x) <= size)
    filled = x if len(x) == size else functional.pad(x, (0, 0, 0, size - len(x)))
    return torch.ops.mkldnn._linear_pointwise(filled, weight, bias, "none", [], "")[: len(x)]


def _onednn_takes(x: Tensor, weight: Tensor) -> bool:
    wanted = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    plain = all(t.dtype == torch.float32 and t.device.type == "cpu" and not t.is_sparse for t in (x, weight))
    return plain and not wanted and _has_onednn()


@cache
def _has_onednn() -> bool:
    """Whether PyTorch was built with it, for a processor that MKL serves badly or as well."""
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return there and platform.machine() in ("x86_64", "AMD64")
