"""What a question over a set will take, said before it is asked for."""

from __future__ import annotations

import time

from visit.activations.forward import capture
from visit.causal.cost import BACKWARD, effects_cost
from visit.causal.effects import EffectHow
from visit.causal.head_sets import SetParts, head_looks, no_lines, set_parts
from visit.causal.set_lines import Asked
from visit.models.model import Model


def question_seconds(model: Model, asked: Asked, kind: SetParts, how: EffectHow) -> float:
    """What `visit.head_question` takes on this machine, by the line in the middle by length: its passes and its map.

    `asked`: of `causal.head_sets.asked_lines`. Runs the model twice on that line. Source: ours.
    """
    line = sorted(asked.lines, key=lambda one: len(one.ids))[len(asked.lines) // 2]
    capture(model, line.ids)  # the first pass of a model warms up
    started = time.perf_counter()
    acts = capture(model, line.ids)
    run = time.perf_counter() - started
    nodes = "neurons" if kind == "neurons" else set_parts(model, no_lines(model, kind, asked.answer))
    passes = 1 + (how != "zero") + (kind == "neurons") * (1 + BACKWARD)
    looked = 0.0
    if kind == "heads":
        started = time.perf_counter()
        head_looks(model, acts, line.pos, (line.target or 0, line.distractor))
        looked = time.perf_counter() - started
    return len(asked.lines) * (effects_cost(model, acts, nodes, "last", line.pos).seconds + passes * run + looked)
