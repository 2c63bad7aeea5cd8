"""Which numbers a study keeps: one block of cells per figure and series, and what is left out, with the reason."""

from __future__ import annotations

from dataclasses import dataclass

from visit.models.model import Model, has_norm
from visit.studies.settings import ATTENDED, DEPTHS, EARLY, EXITS, LONGEST, Settings

GROUPS = ("all", "correct", "incorrect")
OTHERS = ("attn_out", "block", "final")  # what heads are compared with
READINGS = ("naive", "circuit", "gain")  # of queries and keys
_SPLIT_FIGURES = ("2b", "3", "14", EARLY)  # figures whose sums are kept by group, where prompts have targets


@dataclass(frozen=True)
class CellBlock:
    """The cells of one series of one figure: `[measure, layer or 1, head or 1, rank or 1]`, for each of `groups`."""

    figure: str
    series: str
    measures: tuple[str, ...]
    layers: tuple[int, ...]  # none: a number of the whole pass
    heads: int = 0  # 0: the mean over heads, or no heads
    ranks: int = 0  # 0: no ranks
    groups: tuple[str, ...] = ("all",)

    @property
    def name(self) -> str:
        return f"{self.figure}/{self.series}"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.measures), max(1, len(self.layers)), max(1, self.heads), max(1, self.ranks)


@dataclass(frozen=True)
class Plan:
    """What a run computes. `layers`: those looked at; `left_out`: figure or series → why it is missing."""

    settings: Settings
    layers: tuple[int, ...]
    blocks: tuple[CellBlock, ...]
    left_out: dict[str, str]


def plan(model: Model, settings: Settings, longest: int, targets: bool) -> Plan:
    """The blocks of a run. `longest`: positions that the longest prompt's looked-at one can see; `targets`: are there.

    `settings`: as `visit.studies.settings.settled` gives them.
    """
    layers = settings.layers or tuple(range(model.n_layers))
    split = GROUPS if targets and settings.correct == "split" else GROUPS[:1]
    made: list[CellBlock] = []

    def add(figure: str, *series: str, measures: tuple[str, ...] = settings.measures, ranks: int = 0, heads: int = 0,
            at: tuple[int, ...] = layers) -> None:  # fmt: skip
        groups = split if figure in _SPLIT_FIGURES else GROUPS[:1]
        made.extend(CellBlock(figure, name, measures, at, heads, ranks, groups) for name in series if at)

    left_out = _left_out(model, settings, targets)
    if settings.asks("2a") and has_places(model):
        add("2a", *OTHERS)
    if settings.asks("2b", "3", "13"):  # 13 is made of both, and 3 is compared with all heads
        add("2b", *OTHERS)
    if settings.asks("3", "13"):
        add("3", *OTHERS, ranks=min(LONGEST, model.n_heads))
    if settings.asks("5"):
        add("5", "value", ranks=min(ATTENDED, longest))
    if settings.asks("14"):
        add("14", "prediction", *(("fitted",) if settings.lens else ()), measures=("probability",))
    if settings.asks(EARLY):
        for name in settings.lenses_wanted():
            add(EARLY, name, measures=DEPTHS)
            made.append(CellBlock(EARLY, f"{name}: exit", EXITS, (), groups=split))
    if settings.asks("15"):
        add("15", *(("after",) if has_resid_mid(model) else ()), "before", "block")
        add("15", "previous", at=tuple(layer for layer in layers if layer))
    if settings.asks("16"):
        add("16", "value", ranks=min(settings.values or longest, longest))
    if settings.asks("17"):
        add("17", "value", ranks=min(ATTENDED, longest), heads=model.n_heads)
    if settings.asks("18"):
        add("18", "value", measures=("probability",))
    for figure in ("19", "20"):
        if settings.asks(figure):
            add(figure, *readings(model))
    return Plan(settings, layers, tuple(made), left_out)


def readings(model: Model) -> tuple[str, ...]:
    """The ways in which this model's queries and keys can be read."""
    missing = {"naive": not has_places(model), "gain": not has_ln1(model)}
    return tuple(name for name in READINGS if not missing.get(name))


def has_places(model: Model) -> bool:
    """Whether the heads side by side are as wide as the stream, so that each has a place in it."""
    return model.n_heads * model.d_head == model.d_model


def has_resid_mid(model: Model) -> bool:
    """Whether there is a stream between attention and MLP: not where they stand side by side."""
    return not model.family.parallel


def has_ln1(model: Model) -> bool:
    """Whether a block has a norm before its attention, whose gain can be folded into queries and keys."""
    return model.block_norm("ln1", 0) is not None


def _left_out(model: Model, settings: Settings, targets: bool) -> dict[str, str]:
    """Figures and series (`19/naive`) that this model or these prompts cannot give, with the reason."""
    found: dict[str, str] = {}
    if not has_places(model):
        why = f"{model.n_heads} heads of width {model.d_head} have no places in a stream of width {model.d_model}"
        found |= {name: why for name in ("2a", "19/naive", "20/naive") if settings.asks(name.split("/")[0])}
    if not has_ln1(model):
        why = "a block has no norm before its attention, hence no gain to fold in"
        found |= {f"{name}/gain": why for name in ("19", "20") if settings.asks(name)}
    norms = {"7": "ln1", "21": "ln1", "23": "ln1", "22": "ln2"}
    for figure, norm in norms.items():
        if settings.asks(figure) and not has_norm(model, norm):
            found[figure] = f"a block of this model has no {norm} of its own"
    if settings.asks("tables") and not any(has_norm(model, norm) for norm in ("ln1", "ln2")):
        found["tables"] = "a block of this model has no norm before its sub-layers"
    if settings.asks("15") and not has_resid_mid(model):
        found["15/after"] = "attention and MLP run side by side: there is no stream between them"
    if settings.asks("14", EARLY) and not settings.lens:
        why = "read through the plain lens alone: fit a lens beside the lens map, or with `python -m visit lens fit` "
        why += "and then `--lens fitted`"
        found |= {f"{name}/fitted": why for name in ("14", EARLY) if settings.asks(name)}
    if not targets or settings.correct != "split":
        why = {
            "only": "only prompts answered correctly are run: there is nothing to compare them with",
            "all": "targets are ignored, so that nobody can say which answers are correct",
        }.get(settings.correct, "no prompt has a target of one token, so that nobody can say which answers are correct")
        found |= {name: why for name, figure in (("13", "13"), ("14/split", "14")) if settings.asks(figure)}
    return found
