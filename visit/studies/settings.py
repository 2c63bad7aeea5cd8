"""What a study is asked to do: which figures, of which layers, positions and prompts. Data, no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from visit.errors import VisitError

EARLY = "early"  # how early the model knows: no figure of the paper
# of section 3 and appendix D, and ours that has means per layer, too
ALIGNED = ("2a", "2b", "3", "5", "13", "14", EARLY, "15", "16", "17", "18", "19", "20")
NORM_FIGURES = ("7", "21", "22", "23", "tables")  # of section 5.2 and appendix E
NEURON_FIGURES = ("8", "9")  # of section 5.3
FIGURES = (*ALIGNED[:4], "7", "8", "9", *ALIGNED[4:], "21", "22", "23", "tables")
SECOND_MEASURES = ("rbo", "none")
CORRECT = ("only", "split", "all")
DEPTHS = ("settled", "top1", "precision", "rank", "probability", "surprisal", "kl")  # of "early", a number per layer
DRAWN = tuple(name for name in DEPTHS if name != "probability")  # which Figure 14 draws
EXITS = ("saturation", "saved", "exit_saved", "exit_same")  # of "early", a number per prompt
LONGEST = 3  # heads of a layer, by norm: Figure 3
ATTENDED = 3  # memory values of a head, by attention: Figures 5 and 17
MAX_BYTES = 16 << 20  # of a saved study that is read again


@dataclass(frozen=True)
class Settings:
    """What is asked of a study. Defaults: the paper's.

    `figures`: ids; `k`: words compared (at most d_vocab); `pos`: the position looked at; `layers`: those looked at
    (None = all); `values`: memory values of each head by attention in Figures 16 and 18 (None = all); `second`: the
    measure beside I_k; `draws` and `seed` of the bootstrap; `correct`: which prompts ("only" those answered correctly;
    "split": all, the figures 13, 14 and "early" also apart; "all": targets are ignored); `sources`: most attended
    sources per head in Figures 19 and 20; `lens`: what names the fitted lens (`Lens.label`) that Figure 14 and "early"
    are read through beside the plain one; empty: the plain one alone. Set by the run that is given the lens.
    """

    figures: tuple[str, ...] = FIGURES
    k: int = 50
    pos: int = -1
    layers: tuple[int, ...] | None = None
    values: int | None = None
    second: Literal["rbo", "none"] = "rbo"
    draws: int = 1000
    seed: int = 0
    correct: Literal["only", "split", "all"] = "split"
    sources: int = 3
    lens: str = ""

    @property
    def measures(self) -> tuple[str, ...]:
        """The measures of two readings' likeness."""
        return ("intersection",) if self.second == "none" else ("intersection", self.second)

    def asks(self, *figures: str) -> bool:
        """Whether one of these figures is wanted."""
        return any(figure in self.figures for figure in figures)

    def heads_wanted(self) -> bool:
        return self.asks("2b", "3", "5", "13", "16", "17")

    def lenses_wanted(self) -> tuple[str, ...]:
        """Through which lenses every block's state is compared with the final prediction."""
        both = ("plain", *(("fitted",) if self.lens else ()))
        return both if self.asks(EARLY) else both[1:] if self.asks("14") else ()

    def states_wanted(self) -> bool:
        return self.asks("2a", "2b", "3", "13", "14", "15")

    def values_wanted(self, seen: int) -> int:
        """How many memory values of each head must be read where `seen` positions can be attended to."""
        count = 0
        if self.asks("16", "18"):
            count = seen if self.values is None else self.values
        if self.asks("5", "17"):
            count = max(count, ATTENDED)
        if self.asks("20"):
            count = max(count, self.sources)
        return min(count, seen)


def settled(settings: Settings, model: Any) -> Settings:
    """The settings as this model can run them, figures and layers in order; a `VisitError` for those it cannot.

    `k` is lowered to d_vocab. `model`: anything with `n_layers`, `d_vocab`, `name`.
    """
    unknown = [figure for figure in settings.figures if figure not in FIGURES]
    if unknown or not settings.figures:
        got = f"got {unknown[0]!r}" if unknown else "got none"
        raise VisitError(f"The study's figures are {', '.join(FIGURES)}; {got}. Choose some of these.")
    for name, given, allowed in (("second", settings.second, SECOND_MEASURES), ("correct", settings.correct, CORRECT)):
        if given not in allowed:
            raise VisitError(f"{name} must be one of {', '.join(allowed)}; got {given!r}.")
    for name, number in (("k", settings.k), ("values", settings.values), ("draws", settings.draws),
                         ("sources", settings.sources)):  # fmt: skip
        if number is not None and number < 1:
            raise VisitError(f"{name} must be at least 1; got {number}.")
    layers = None if settings.layers is None else tuple(sorted(set(settings.layers)))
    wrong = [layer for layer in layers or () if not 0 <= layer < model.n_layers]
    if wrong or layers == ():
        got = f"got {wrong[0]}" if wrong else "got none"
        raise VisitError(f"Layers of {model.name} run from 0 to {model.n_layers - 1}; {got}.")
    figures = tuple(figure for figure in FIGURES if figure in settings.figures)
    return replace(settings, figures=figures, layers=layers, k=min(settings.k, model.d_vocab))


def read_through(settings: Settings, lens: Any) -> Settings:
    """The settings of a study that is given this fitted lens; None: the plain one alone."""
    return replace(settings, lens="" if lens is None else lens.label)
