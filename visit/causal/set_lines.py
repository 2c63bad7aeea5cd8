"""The lines of a set of prompts as a model can be asked about them; what cannot be asked is noted with its line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import pandas as pd

from visit.causal.effects import EffectHow
from visit.causal.path_lines import pieces_of, word_id
from visit.errors import VisitError, check_choice
from visit.models.model import Model, tokenize
from visit.runs.prompts import PromptSet, Row, as_rows
from visit.text.alignment import token_partners

FEWEST_MEAN = 5  # prompts that a mean of one position takes (`visit.activations.means`)
SHOWN_LINES = 8  # that a note names


@dataclass(frozen=True)
class Line:
    """A line of the set as a model is asked: `target` None stands for its own prediction."""

    row: Row
    ids: tuple[int, ...]
    pos: int
    target: int | None
    distractor: int | None
    partner: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Asked:
    """The lines that can be asked, the set of them with notes on all others, and what is odd about it, in sentences."""

    lines: tuple[Line, ...]
    promptset: PromptSet
    notes: tuple[str, ...]
    several: tuple[int, ...] = ()  # lines with a word of several tokens: left out, or its first one taken

    @property
    def answer(self) -> str:
        """What is measured: "difference" (target − distractor) or "logit" (the target's, above the mean)."""
        return "logit" if all(line.distractor is None for line in self.lines) else "difference"


def asked_lines(
    model: Model, promptset: PromptSet, how: EffectHow = "zero", pos: int = -1, first_token: bool = False
) -> Asked:
    """The lines of a set as this model can be asked about them; the others become notes of the set, each with its line.

    Left out: what the model cannot read; a position that is not there; a target or distractor that is no single token
    (`first_token`: its first one is taken); both the same; no target, or no distractor, where other lines have one;
    with `how` "from" no partner (`abc`), or one without a token for the looked-at position. Raises `VisitError` where
    no line is left.
    """
    check_choice("how", how, get_args(EffectHow))
    have = {name: any(getattr(row, name) is not None for row in promptset.rows) for name in ("target", "distractor")}
    lines: list[Line] = []
    wrong: dict[int, str] = {}
    several: list[int] = []  # lines of which a word has several tokens
    for i, row in enumerate(promptset.rows):
        try:
            lines.append(_asked_line(model, row, how, pos, have, first_token, several))
        except VisitError as problem:
            wrong[i] = str(problem)
    left = promptset.without(wrong)
    if not lines:
        first = [*left.notes[len(promptset.notes) :], *left.notes]
        why = f" ({first[0]})" if first else ""
        raise VisitError(f"{promptset.name} holds no line that this question can be asked about{why}. Give others.")
    cut = several if first_token else []
    return Asked(tuple(lines), left, tuple(_oddities(lines, how, cut)), tuple(sorted(set(several))))


def _asked_line(
    model: Model, row: Row, how: EffectHow, pos: int, have: dict[str, bool], first_token: bool, several: list[int]
) -> Line:
    ids = tokenize(model, row.prompt)
    at = pos if row.pos is None else row.pos
    if not -len(ids) <= at < len(ids):
        raise VisitError(f"it has {len(ids)} tokens, so no position {at}")
    at %= len(ids)
    words: dict[str, int | None] = {}
    for name in ("target", "distractor"):
        text = getattr(row, name)
        if text is None and have[name]:
            raise VisitError(f"it has no {name}, and other lines have one")
        words[name] = None if text is None else _asked_word(model, text, name, first_token, row.line, several)
    if words["target"] is not None and words["target"] == words["distractor"]:
        both = model.vocabulary[words["target"]]
        raise VisitError(f"target and distractor are the same token, {both!r}; they must differ")
    if how != "from":
        return Line(row, ids, at, words["target"], words["distractor"])
    if row.abc is None:
        raise VisitError("it has no partner text (a column abc) to take values from")
    other = tokenize(model, row.abc)
    texts = tuple([model.vocabulary[i] for i in side] for side in (ids, other))
    if len(other) != len(ids) and at not in token_partners(ids, other, texts):  # type: ignore[arg-type]
        raise VisitError(f"its partner has {len(other)} tokens, it has {len(ids)}: none there stands for position {at}")
    return Line(row, ids, at, words["target"], words["distractor"], other)


def _asked_word(model: Model, text: str, name: str, first_token: bool, line: int, several: list[int]) -> int:
    """The token of a target or distractor; of several the first where that is wanted. The line is remembered."""
    try:
        return model.token_id(text, name)
    except VisitError:
        if len(pieces_of(model, text)) > 1:
            several.append(line)
        return word_id(model, text, name, first_token)


def _oddities(lines: Sequence[Line], how: EffectHow, cut: Sequence[int]) -> list[str]:
    """What a reader of the means must know of the lines: sentences."""
    found = []
    lengths = sorted({len(line.ids) for line in lines})
    ends = {len(line.ids) - line.pos for line in lines}
    if all(line.target is None for line in lines):
        found.append("No line names a target: it is the model's own prediction, line by line.")
    if all(line.distractor is None for line in lines):
        found.append("No line names a distractor: the answer is the target's logit above the mean of all words.")
    if cut:
        found.append(f"{_lines_named(sorted(set(cut)))}: a word of several tokens stands for its first one.")
    if len(lengths) > 1 and (how == "mean" or len(ends) > 1):
        found.append(
            f"The prompts have {lengths[0]} to {lengths[-1]} tokens: "
            + ("means are taken over what is as far from the end." if how == "mean" else "positions differ by line.")
        )
    if how == "mean" and len(lines) < FEWEST_MEAN:
        found.append(f"Fewer than {FEWEST_MEAN} prompts: each mean is taken over all positions but the first.")
    uneven = [line.row.line for line in lines if line.partner is not None and len(line.partner) != len(line.ids)]
    if uneven:
        found.append(f"{_lines_named(uneven)}: the partner has another length; its tokens are aligned by words.")
    return found


def _lines_named(numbers: Sequence[int]) -> str:
    """`Line 3`, `Lines 3, 4 and 9`, `Lines 3, 4, … (20 in all)`."""
    if len(numbers) == 1:
        return f"Line {numbers[0]}"
    if len(numbers) > SHOWN_LINES:
        return f"Lines {', '.join(map(str, numbers[:SHOWN_LINES]))}, … ({len(numbers):,} in all)"
    return f"Lines {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def as_set(prompts: PromptSet | pd.DataFrame | Sequence[str | Row]) -> PromptSet:
    """Prompts of any kind as a set; the lines of a table are counted from 1."""
    if isinstance(prompts, PromptSet):
        return prompts
    if not isinstance(prompts, pd.DataFrame):
        return PromptSet("prompts", tuple(as_rows(prompts)))
    if "prompt" not in prompts:
        raise VisitError(f"A table of prompts needs a column prompt; got {', '.join(map(str, prompts.columns))}.")
    names = [name for name in ("prompt", "target", "distractor", "pos", "abc") if name in prompts]
    clean = prompts[names].astype(object).where(prompts[names].notna(), None).to_dict("records")
    rows = []
    for n, own in enumerate(clean, start=1):
        if own.get("pos") is not None:
            own["pos"] = int(own["pos"])
        rows.append(Row(**{str(name): value for name, value in own.items()}, line=n))
    return PromptSet("prompts", tuple(as_rows(rows)))
