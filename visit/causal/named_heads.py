"""The heads that a story of causes names: those most for and against the target, and those that steer others.

From a map of effects over all heads each gets what a reader asks next: from which token it takes what it writes, what
it recalls there, what kind of head it is, and how its contribution splits between target and distractor.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from visit.activations.record import Activations
from visit.causal.thresholds import ADDS, AS_MUCH, ATTENDS, MORE, READS, changed_by, steers
from visit.exact.decompose import attribution, head_results, memory_values, needed, value_norms, value_parts
from visit.lenses.logit import read_vectors
from visit.models.model import Model

COUNT = 5  # heads most for the target, as many against it, as many that steer


def named_heads(model: Model, acts: Activations, table: pd.DataFrame, count: int = COUNT) -> pd.DataFrame:
    """Who is for the target, who against it, who steers others: a row a head, at most `count` of each.

    `table`: `visit.effects` of all heads of this record, whose `.attrs` are kept. Its columns, and: `side` ("for",
    "against", "steers"), `change` (`changed_by`); `target_part`, `distractor_part` (the contribution to the target, and
    what is taken from the distractor; they sum to `contribution`; without a distractor the second is missing);
    `source_pos`, `source_token`, `source_pattern`: the memory value that gives most of its push (of a head that steers:
    that moves most); `recalls`: words that it reads there, negated where that is what the head writes; `kind`: "copies"
    (it reads the source's word, which is target or distractor), "suppresses" (its negative does), "steers others"
    (nothing direct, yet its removal costs), "adds by itself" (its removal costs about what it adds), or missing.
    Source: ours.
    """
    attrs = table.attrs
    heads = table[table["node"].str.fullmatch(r"L\d+\.head\d+")].copy()
    heads["change"] = [changed_by(row, attrs["before"]) for row in heads.to_dict("records")]
    heads["side"] = [_side(c, d) for c, d in zip(heads["contribution"], heads["change"], strict=True)]
    order = {"for": -heads["contribution"], "against": heads["contribution"], "steers": -heads["change"].abs()}
    chosen = [key[heads["side"] == side].sort_values(kind="stable").index[:count] for side, key in order.items()]
    found = pd.concat([heads.loc[own] for own in chosen], ignore_index=True)
    rows = found.to_dict("records")
    with torch.no_grad():
        drawn = [_drawn_from(model, acts, attrs, row) for row in rows]
        values = torch.stack([value for _, value in drawn]) if rows else torch.empty(0, model.d_model)
        words = read_vectors(model, torch.cat([values, -values]), k=READS)["tokens"].tolist()  # few cost as many
        about = [
            _about(model, acts, attrs, row, source, words[n], words[len(rows) + n])
            for n, (row, (source, _)) in enumerate(zip(rows, drawn, strict=True))
        ]
    columns = ["target_part", "distractor_part", "source_pos", "source_token", "source_pattern", "recalls", "kind"]
    found = pd.concat([found, pd.DataFrame(about, columns=columns)], axis=1)
    found.attrs = attrs
    return found


def _side(contribution: float, change: float) -> str | None:
    if steers(contribution, change):
        return "steers"
    return None if abs(contribution) < ADDS else "for" if contribution > 0 else "against"


def _drawn_from(model: Model, acts: Activations, attrs: dict[str, Any], row: dict[str, Any]) -> tuple[int, Tensor]:
    """The position whose memory value gives most of the head's push (of a head that steers: moves most), and it."""
    t, layer, head = attrs["position"], int(row["layer"]), int(row["head"])
    other: int | None = None if attrs["distractor"] is None else attrs["distractor"]["id"]
    pattern = needed(acts, "pattern")[layer, head, t, : t + 1].to(model.wide)
    if row["side"] == "steers":
        source = int((pattern * value_norms(model, acts, layer, t)[head]).argmax())
    else:
        direction = attribution(model, acts, t, attrs["target"]["id"], other).direction
        parts = pattern * value_parts(model, acts, layer, t, direction[:, None])[head, :, 0]
        source = int((parts if row["contribution"] >= 0 else -parts).argmax())
    sources = torch.full((model.n_heads, 1), source, device=model.device)
    return source, memory_values(model, acts, layer, sources, t)[head, 0]


def _about(
    model: Model, acts: Activations, attrs: dict[str, Any], row: dict[str, Any], source: int, reads: list[str],
    negated: list[str],
) -> tuple[Any, ...]:  # fmt: skip
    """The columns of one head that the map does not have. `reads`, `negated`: words of its memory value at `source`."""
    t, layer, head = attrs["position"], int(row["layer"]), int(row["head"])
    target: int = attrs["target"]["id"]
    other: int | None = None if attrs["distractor"] is None else attrs["distractor"]["id"]
    result = head_results(model, acts, layer, t)[head]
    target_part = float(attribution(model, acts, t, target).of(result))
    distractor_part = math.nan if other is None else -float(attribution(model, acts, t, other).of(result))
    pattern = needed(acts, "pattern")[layer, head, t]
    word, attention = acts.tokens[source], float(pattern[source])
    asked = acts.token_ids[source] in (target, other) and attention > ATTENDS
    kind = None
    if row["side"] == "steers":
        kind = "steers others"
    elif asked and word in reads:
        kind = "copies"
    elif asked and word in negated:
        kind = "suppresses"
    elif AS_MUCH <= -row["change"] / row["contribution"] <= MORE:
        kind = "adds by itself"
    recalls = (negated if kind == "suppresses" else reads)[:3]
    if kind in ("copies", "suppresses") and word not in recalls:
        recalls = [*recalls[:2], word]
    return target_part, distractor_part, source, word, attention, recalls, kind
