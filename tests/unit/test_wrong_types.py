"""What is of a wrong Python type is said in a sentence, and no traceback of the inside."""

from __future__ import annotations

import models
import pytest
import torch

import visit
from visit import Edit, VisitError

MODEL = models.small("gpt2", torch.float32)
ACTS = visit.capture(MODEL, [5, 9, 7, 12])
CHANGE = [Edit("L1.head1")]


@pytest.mark.parametrize("source", [[None], [ACTS, None], 3])
def test_sources_of_a_mean(source):
    with pytest.raises(VisitError):
        visit.ablate(MODEL, ACTS, [Edit("L1.head1", "mean", source=source)])


@pytest.mark.parametrize(
    "call",
    [
        *(lambda n=n: visit.effects(MODEL, ACTS, nodes=n) for n in (None, 3, [3], [None])),
        *(lambda n=n: visit.continuation(MODEL, [5, 9], tokens=n) for n in (1.5, "3", None, -1, True)),
        *(lambda lens=lens: visit.lens_map(MODEL, ACTS, lens=lens) for lens in ("fitted", 3, object())),
        *(lambda s=s: visit.trace(MODEL, [5, 9, 7], s) for s in (None, 1.5, [None], ["x"], object())),
        *(lambda k=k: visit.lens_map(MODEL, ACTS, k=k) for k in (0, -1, 1.5, "3", None)),
        *(lambda p=p: visit.load_lens(p) for p in (3, None, b"x", [1])),
        *(lambda w=w: visit.roles(MODEL, ACTS, words=w) for w in (3, [3.5])),
        *(lambda p=p: visit.capture(MODEL, p) for p in (3, None, [1.5], [None], object())),
        *(lambda e=e: visit.ablate(MODEL, ACTS, e) for e in (None, 3, ["x"])),
        *(lambda n=n: visit.build_flow_graph(MODEL, ACTS, layers=n) for n in (1.5, ["a"], [1.5])),
        *(lambda p=p: visit.load_recording(p) for p in (3, None, [1], "a\0b")),
        *(lambda m=m: visit.save_recording("x.visit", m, [5, 9]) for m in (None, 3)),
        *(lambda p=p: visit.save_recording("x.visit", MODEL, p) for p in (None, 3, [None])),
        lambda: visit.save_recording("x.visit", MODEL, [5, 9], keep={"heads": 3}),
        lambda: visit.save_recording("x.visit", MODEL, [5, 9], memory=1.5),
        lambda: visit.check_recording(b"x", MODEL),
    ],
)  # fmt: skip
def test_arguments(call):
    with pytest.raises(VisitError):
        call()


@pytest.mark.parametrize("model, acts", [(MODEL, None), (None, ACTS), (MODEL, "a text"), (3, ACTS)])
@pytest.mark.parametrize(
    "analysis", ["effects", "roles", "lens_map", "influence", "faithfulness", "build_flow_graph", "ledger"]
)
def test_a_model_or_a_record_that_is_none(analysis, model, acts):
    with pytest.raises(VisitError, match=r"visit\.(capture|load_model)"):
        getattr(visit, analysis)(model, acts)
    with pytest.raises(VisitError, match=r"visit\.(capture|load_model)"):
        visit.ablate(model, acts, CHANGE)
    with pytest.raises(VisitError, match=r"visit\.(capture|load_model)"):
        visit.head_memory(model, acts, 1, 1)
