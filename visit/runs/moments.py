"""Means over prompts with 95 % bands, of numbers that each prompt gives once: sums of constant size.

Kept are how many prompts were seen, their mean, and the squared distances from it (Chan et al. 1979): the parts of a
set merge to the whole. The band is Student's, mean ± t(n − 1) · s / √n: it takes the prompts for a sample and says
where the mean over many more such prompts would lie. It needs no seed, and is right for few prompts, too, as far as
their numbers are spread as a normal distribution; one prompt has no band.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float

from visit.runs.sums import together

CONFIDENCE = 0.95  # of a band: the share of such bands that hold what they are for


def _pooled(a: Moments, b: Moments) -> dict[str, Any]:
    total, apart = a.count + b.count, b.mean - a.mean
    n = max(1, total)
    return {
        "count": total,
        "mean": a.mean + apart * (b.count / n),
        "spread": a.spread + b.spread + apart**2 * (a.count * b.count / n),
    }


@dataclass(frozen=True, eq=False)
class Moments:
    """How often an array of numbers was seen, its mean, and its squared distances, summed (`visit.runs.sums`)."""

    count: int = together(_pooled)
    mean: Float[np.ndarray, "..."] = together(_pooled)
    spread: Float[np.ndarray, "..."] = together(_pooled)

    @property
    def error(self) -> Float[np.ndarray, "..."]:
        """The standard error of the mean, s / √n; NaN for fewer than two prompts."""
        if self.count < 2:
            return np.full_like(self.mean, np.nan)
        return np.sqrt(self.spread / (self.count - 1) / self.count)

    @property
    def band(self) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
        """The ends of the 95 % band of every mean; NaN for fewer than two prompts."""
        if self.count < 2:
            return self.error, self.error
        half = student(self.count - 1) * self.error
        return self.mean - half, self.mean + half


def no_moments(*shape: int) -> Moments:
    """The moments of no prompt."""
    return Moments(0, np.zeros(shape), np.zeros(shape))


def moments_of(values: Float[np.ndarray, "prompt ..."] | Sequence[Any]) -> Moments:
    """The moments of some prompts' numbers, at least one prompt's."""
    found = np.asarray(values, float)
    mean = found.mean(0)
    return Moments(len(found), mean, ((found - mean) ** 2).sum(0))


def difference_band(a: Moments, b: Moments) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """b's means minus a's, with the ends of their 95 % bands, for two samples that do not depend on each other.

    Welch's: the errors add as squares, the degrees of freedom are Satterthwaite's, rounded down. NaN where a side has
    fewer than two prompts; a difference of two constants is sure.
    """
    apart, parts = b.mean - a.mean, (a.error**2, b.error**2)
    total = parts[0] + parts[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        free = total**2 / sum(part**2 / max(1, m.count - 1) for part, m in zip(parts, (a, b), strict=True))
    whole = np.nan_to_num(free, nan=1.0, posinf=1e6).astype(int).clip(min=1)
    half = np.array([student(int(n)) for n in whole.flat]).reshape(whole.shape) * np.sqrt(total)
    return apart, apart - half, apart + half


@lru_cache(maxsize=4096)
def student(free: int) -> float:
    """t with P(|T| < t) = 95 % for Student's distribution with `free` degrees of freedom: the root of its closed form.

    Abramowitz and Stegun 26.7.3 and 26.7.4; beyond 2,000 degrees of freedom by the first terms of 26.7.5.
    """
    if free > 2000:
        z = 1.959963984540054
        return z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    odd = free % 2
    k = np.arange(1 + odd, free - 1, 2)  # 1, 3, … or 2, 4, …: each term is the one before times k / (k + 1) · cos²θ
    ratios = np.cumprod(np.concatenate([[1.0], k / (k + 1)])) if free > 1 else np.zeros(1)
    low, high = 1.0, 13.0
    while high - low > 1e-13 * high:
        t = (low + high) / 2
        angle = math.atan(t / math.sqrt(free))
        powers = math.cos(angle) ** (2 * np.arange(len(ratios)) + odd)
        inside = math.sin(angle) * float(ratios @ powers)
        share = 2 / math.pi * (angle + inside) if odd else inside
        low, high = (t, high) if share < CONFIDENCE else (low, t)
    return (low + high) / 2
