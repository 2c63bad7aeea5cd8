"""Prompts and sums of studies, for the tests of their figures, bands and tables."""

from __future__ import annotations

from visit import capture
from visit.runs.job import steps
from visit.runs.prompts import Row
from visit.studies.plan import CellBlock
from visit.studies.run import StudyRun
from visit.studies.settings import ALIGNED, Settings

K = 12
TEXTS = (
    "The capital of Japan is", "Mary and John went to the store and", "Paris is in", "The",
    "When the boy saw his friend he", "She gave the book to",
)  # fmt: skip


def rows_of(model, texts=TEXTS):
    """Prompts: the model's own answer as target for every other one, a wrong one for the rest, none for the last."""
    found = []
    for n, text in enumerate(texts):
        answer = int(capture(model, text).logits[-1].argmax())
        target = model.vocabulary[answer if n % 2 == 0 else (answer + 1) % 500 + 10]
        found.append(Row(text, None if n == len(texts) - 1 else target, line=n + 1))
    return found


def run(model, rows, **settings):
    job = StudyRun(model, rows, Settings(**{"figures": ALIGNED, "k": K, "draws": 50, **settings}))
    for _ in steps(job):
        pass
    return job.snapshot()


def plan_block():
    return CellBlock("2b", "block", ("intersection",), (0,))
