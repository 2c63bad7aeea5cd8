"""A pasted set is read, tokenised and hashed once for a model, not at every click."""

from __future__ import annotations

import pytest

from visit.app import prompt_sets, shared
from visit.app.cache import st_model
from visit.app.prompt_sets import own_set, part_of, readable
from visit.app.shared import kept_set
from visit.models.catalog import MINI
from visit.runs.prompts import read_prompts

PASTED = "\n".join(f"The capital of Japan is {n}" for n in range(300)).encode()


@pytest.fixture(autouse=True)
def empty():
    shared._sets().clear()


def test_a_second_run_of_the_page_reads_nothing_again(monkeypatch):
    calls = []
    for name in ("fitting", "read_prompts"):
        real = getattr(prompt_sets, name)
        monkeypatch.setattr(prompt_sets, name, lambda *a, _r=real, _n=name, **k: calls.append(_n) or _r(*a, **k))
    model = st_model(MINI)

    def rerun():
        return [part_of(readable(model, own_set(PASTED), targets), 20) for targets in (False, True)]

    assert all(a is b for a, b in zip(rerun(), rerun(), strict=True))
    assert calls == ["read_prompts", "fitting", "fitting"]


def test_what_differs_is_read_anew_and_the_sets_have_a_bound(monkeypatch):
    one = own_set(PASTED)
    assert own_set(PASTED, "a.txt").name == "a.txt" and own_set(PASTED + b"\nmore") != one
    moved = read_prompts(b"\n\n" + PASTED)
    assert moved.hash == one.hash and moved.identity != one.identity, "the lines of notes are others"
    monkeypatch.setattr(shared._sets(), "max_bytes", 1_000)
    for n in range(5):
        kept_set(n, lambda: one)
    assert len(shared._sets().records) == 1
