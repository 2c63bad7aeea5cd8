"""One protocol of sums: any split of the prompts, merged in order, is the whole, for every analysis of a set."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass

import models
import numpy as np
import pytest
import torch

from visit import VisitError
from visit.analyses.neuron_sets import neuron_job
from visit.analyses.neuron_tokens import tokens_job
from visit.analyses.norm_sets import shift_job
from visit.cache import read_arrays, write_arrays
from visit.runs.answers import answering
from visit.runs.job import finish, steps
from visit.runs.prompts import PromptSet, Row
from visit.runs.sums import derived, each, joined, load_sums, maximum, merge, minimum, state_of, summed
from visit.studies.run import StudyRun
from visit.studies.settings import ALIGNED, Settings

ROWS = [Row([(7 * i + 3 * j * j) % 2100 for j in range(1 + i % 9)], line=i + 1) for i in range(20)]
ROWS += [Row([5, 17, 3, 9]), Row([5, 17, 3]), Row([5, 17, 3, 9, 2]), Row([5])]  # beginnings in common
TEXTS = [Row(text, " the", line=n) for n, text in enumerate(("Paris is in", "The", "She gave the book to", "One two"))]
JOBS = {
    "norms": lambda model: shift_job(model, ROWS, ("ln1", "final"), None),
    "neurons": lambda model: neuron_job(model, ROWS, 0.1),
    "tokens": lambda model: tokens_job(model, ROWS, 1, 6),
    "answered": lambda model: answering(model, PromptSet("texts", tuple(TEXTS))),
    "study": lambda model: StudyRun(model, TEXTS, Settings(figures=(*ALIGNED, "7", "8", "23"), k=9, draws=7)),
}


@dataclass(frozen=True, eq=False)
class Part:
    n: int = summed()


@dataclass(frozen=True, eq=False)
class Everything:
    of: str
    n: int = summed()
    high: np.ndarray = maximum()
    low: torch.Tensor = minimum()
    names: np.ndarray = joined()
    lines: tuple[int, ...] = joined()
    parts: dict[str, Part] = each()
    words: str | None = derived()


def everything(*numbers: int) -> Everything:
    array = np.array(numbers or (0,), float)
    low, high = torch.tensor([array.min()]), np.array([array.max()])
    return Everything("a", len(numbers), high, low, array[: len(numbers)], tuple(numbers), {"x": Part(sum(numbers))})


def close(a, b, where=""):
    """Equal records, all the way down; floats within rounding."""
    for own in fields(a):
        x, y, name = getattr(a, own.name), getattr(b, own.name), f"{where}{own.name}"
        if own.name in ("seconds", "words"):
            continue
        if isinstance(x, dict):
            assert x.keys() == y.keys(), name
            for key in x:
                close(x[key], y[key], f"{name}.{key}.")
        elif isinstance(x, torch.Tensor):
            torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9, equal_nan=True, msg=name)
        elif isinstance(x, np.ndarray) and x.dtype.names:
            close_arrays = {n: (x[n], y[n]) for n in x.dtype.names}
            assert all(np.allclose(p, q, rtol=1e-6, atol=1e-6) for p, q in close_arrays.values()), name
        elif isinstance(x, np.ndarray):
            assert np.allclose(x, y, rtol=1e-9, atol=1e-9, equal_nan=True), name
        else:
            assert x == y, name


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def model(request):
    return models.exact(request.param)


@pytest.fixture(scope="module", params=JOBS)
def job(request, model):
    return lambda: JOBS[request.param](model)


def prompts_of(job):
    return [item for item in job.items if isinstance(item, Row)]


@pytest.mark.parametrize("cuts", [(1,), (3,), (1, 2), (2, 2, 3)])
def test_any_split_of_the_prompts_merged_in_order_is_the_whole(job, cuts):
    """As several machines would do it: each reads its part, and their sums are merged, in any grouping."""
    whole, parts, start = job(), [], 0
    rows = prompts_of(whole)
    whole.update(rows)
    for stop in (*cuts, len(rows)):
        part = job()
        if rows[start:stop]:
            part.update(rows[start:stop])
        parts.append(part.sums)
        start = stop
    left, right = parts[0], parts[-1]
    for part in parts[1:]:
        left = merge(left, part)
    for part in parts[-2::-1]:
        right = merge(part, right)
    close(left, whole.sums)
    close(right, whole.sums)
    assert is_dataclass(left) and left is not parts[0]


def test_sums_of_no_prompt_change_nothing(job):
    whole, none = job(), job().sums
    whole.update(prompts_of(whole))
    close(merge(none, merge(whole.sums, none)), whole.sums)


def test_a_file_brings_back_what_was_kept_and_the_run_goes_on_to_the_same_sums(job, tmp_path):
    whole, first, again = job(), job(), job()
    rows = prompts_of(whole)
    whole.update(rows)
    first.update(rows[:2])
    write_arrays(tmp_path / "state.npz", first.state(), {})
    arrays, _ = read_arrays(tmp_path / "state.npz")
    assert not any(array.dtype == object for array in arrays.values())
    again.load(arrays)
    close(again.sums, first.sums)
    again.update(rows[2:])
    close(again.sums, whole.sums)


def test_a_batch_leaves_what_was_kept_before_as_it_is(job):
    run = job()
    rows = prompts_of(run)
    run.update(rows[:2])
    kept = run.state()
    copy = {name: array.copy() for name, array in kept.items()}
    run.update(rows[2:])
    assert all(np.array_equal(kept[name], copy[name], equal_nan=kept[name].dtype.kind == "f") for name in copy)


def test_the_state_of_other_sums_is_refused(model):
    for name, make in JOBS.items():
        for other in JOBS.keys() - {name}:
            with pytest.raises(VisitError, match=r"of another run: its .* does not fit"):
                make(model).load(JOBS[other](model).state())


def test_the_library_runs_the_job_of_the_page_and_no_clock_decides_on_its_batches(job, monkeypatch):
    here, there, told = job(), job(), []
    finish(here, lambda done, total: told.append((done, total)))
    for aim in (1e-9, 1.0):
        monkeypatch.setattr("visit.runs.job.AIM", aim)
        there = job()
        for _ in steps(there):
            pass
        close(here.sums, there.sums)
    assert told[-1] == (len(here.items), len(here.items))


# ---- the rules, on a record that has one field of each kind ----------------------------------------------------------


def test_every_field_merges_as_it_says():
    found = merge(everything(3, 9), everything(4))
    assert (found.n, found.high[0], float(found.low[0])) == (3, 9, 3)
    assert found.names.tolist() == [3, 9, 4] and found.lines == (3, 9, 4) and found.parts["x"].n == 16
    back = load_sums(everything(), state_of(found))
    close(back, found)
    assert type(back.n) is int and type(back.lines) is tuple and back.low.dtype == found.low.dtype


def test_what_is_derived_is_in_no_file_and_goes_with_the_next_merge():
    found = everything(1)
    object.__setattr__(found, "words", "said")
    assert "words" not in state_of(found) and merge(found, everything(2)).words is None


@pytest.mark.parametrize(
    "other",
    [Everything("b", *list(vars(everything(1)).values())[1:]),
     Everything("a", 1, np.zeros(2), *list(vars(everything(1)).values())[3:]),
     Everything("a", *list(vars(everything(1)).values())[1:6], {"y": Part(1)})],
)  # fmt: skip
def test_sums_of_other_things_are_not_merged(other):
    with pytest.raises(VisitError, match="Only sums of the same model and settings can be merged"):
        merge(everything(1), other)
