"""A study that is stopped goes on to the same numbers, and its progress, clock and forecast are of the whole run."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import models
import numpy as np
import pandas as pd
import pytest
import torch

import visit
from visit.__main__ import main
from visit.runs.job import how_far, steps
from visit.runs.prompts import Row
from visit.studies import duration as forecasting
from visit.studies import run as running
from visit.studies.run import Part, StudyRun
from visit.studies.settings import ALIGNED, FIGURES, Settings
from visit.studies.study import prompt_set, study_of

TEXTS = ("The capital of Japan is", "Mary and John went to the store and", "Paris is in", "The", "She gave the book to")
FILE = "prompt,target\n" + "".join(f"{text}, the\n" for text in TEXTS)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def groups(monkeypatch):
    """Every prompt a group of its own and a batch of its own, as on a large model."""
    slow(monkeypatch)


def slow(monkeypatch):
    monkeypatch.setattr(running, "FLOP", 1.0)
    monkeypatch.setattr("visit.runs.job.AIM", 1e-9)


def tables_of(job, model, rows):
    return study_of(model, prompt_set(rows), job.snapshot()).tables


def equal(a, b):
    assert list(a) == list(b)
    for figure, table in a.items():
        pd.testing.assert_frame_equal(table, b[figure], check_exact=True, obj=figure)


# ---- stopped, and gone on with -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("stage", ["read", "_read_rows"])
def test_a_command_that_is_stopped_goes_on_to_equal_numbers(number, stage, groups, tmp_path, monkeypatch, capsys):
    """The signal comes in the middle of a step whose numbers are half added."""
    (tmp_path / "few.csv").write_text(FILE, encoding="utf-8")
    asked = ["study", "--prompts", str(tmp_path / "few.csv"), "--figures", "2b,8,14", "--draws", "20",
             "--layers", "0-4", "--json"]  # fmt: skip
    original, calls = getattr(StudyRun, stage), []

    def interrupted(self, *arguments):
        found = original(self, *arguments)
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), number)
            time.sleep(5)  # until the handler is called, which is at once
        return found

    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        patch.setattr(StudyRun, stage, interrupted)
        assert main(asked) == 128 + number
    out, err = capsys.readouterr()
    assert out == "" and "visit: stopped at: " in err and "goes on from the last step" in err and "Traceback" not in err
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers

    seen = []
    monkeypatch.setattr(StudyRun, stage, lambda self, *a: seen.append(1) or original(self, *a))
    assert main(asked) == 0
    out, err = capsys.readouterr()
    done = "2 of 5 prompts" if stage == "read" else "all 5 prompts; 512 of 9,216 rows of the weights"
    assert f"goes on from: {done}" in err
    monkeypatch.undo()
    monkeypatch.setenv("VISIT_CACHE", str(tmp_path / "another"))
    slow(monkeypatch)
    assert main(asked) == 0
    whole, again = json.loads(capsys.readouterr().out), json.loads(out)
    assert again["tables"] == whole["tables"], "equal to the last bit"
    for found in (whole, again):
        del found["meta"]["seconds"], found["meta"]["seconds_expected"]
    assert again["meta"] == whole["meta"]


def test_batches_of_any_size_give_the_same_bits(monkeypatch):
    """What is computed together is a matter of the set: a slow moment must not change a number."""
    model = models.small("gpt2", torch.float32)
    rows = [Row(text, line=n) for n, text in enumerate(TEXTS * 3, start=1)]
    settings = Settings(figures=(*ALIGNED, "7", "8"), k=20, draws=10)
    one = 2.0 * model.d_model * model.d_vocab * forecasting.vectors_of(model, 5, settings)
    monkeypatch.setattr(running, "FLOP", 3 * one)
    found = []
    for aim in (1e-9, 0.002, 1e9):
        monkeypatch.setattr("visit.runs.job.AIM", aim)
        job, batches = StudyRun(model, rows, settings), []
        for done in steps(job):
            batches.append(done)
        assert set(batches) <= set(job.stops) and batches[-1] == len(job.items)
        found.append((len(batches), job.state(), tables_of(job, model, rows)))
    assert 2 < sum(stop <= len(rows) for stop in job.stops) < len(rows), "groups of several"
    assert found[0][0] > found[2][0]
    for _, state, tables in found[1:]:
        for name in set(state) - {"seconds"}:
            assert np.array_equal(state[name], found[0][1][name], equal_nan=True), name
        equal(tables, found[0][2])


# ---- progress and clock are of the whole run -----------------------------------------------------------------------


def test_progress_ends_when_all_is_done_and_counts_every_part(groups, monkeypatch):
    model = models.small("gpt2", torch.float32)
    told, made = [], []
    monkeypatch.setattr("visit.studies.study.study_of", lambda *given: made.append(1) or study_of(*given))

    def step(now):
        told.append((now, time.perf_counter(), len(made)))
        time.sleep(0.01)

    started = time.perf_counter()
    found = visit.study(model, list(TEXTS), step, k=20, draws=5)
    shares = [now.share for now, *_ in told]
    assert shares == sorted(shares) and shares[-1] == 1 and shares[-2] < 1, "the last step is the end"
    assert any("rows of the weights" in now.doing for now, *_ in told), "the static index is a part of the run"
    assert told[-1][0].done == told[-1][0].total == len(TEXTS) + sum(isinstance(i, Part) for i in items(model))
    assert told[-2][1] - told[0][1] < found.meta["seconds"] < told[-1][1] - started
    assert [tables for *_, tables in told[-2:]] == [0, 1], "nothing follows the last step"


def items(model):
    return StudyRun(model, [Row(text) for text in TEXTS]).items


def test_the_run_itself_reads_the_rows_and_makes_the_words(monkeypatch):
    """After its last step nothing long is left for a page: no row is read and no table of words made."""
    model = models.small("gpt2", torch.float32)
    job = StudyRun(model, [Row(text) for text in TEXTS], Settings(k=20, draws=5))
    assert job.snapshot().words is None
    for _ in steps(job):
        pass

    def never(*_arguments):
        pytest.fail("made again")

    for name in (
        "visit.studies.tables.other_tables",
        "visit.studies.tables.static_index",
        "visit.lenses.weights.compute",
    ):
        monkeypatch.setattr(name, never)
    found = study_of(model, prompt_set([Row(text) for text in TEXTS]), job.snapshot())
    assert {figure.split("-")[0] for figure in found.tables} == set(FIGURES) - {"13"}  # no prompt has a target
    assert found.verdicts["7"] and found.verdicts["8"]


def test_seconds_of_a_run_in_two_parts_are_those_of_both(groups):
    model = models.small("gpt2", torch.float32)
    rows = [Row(text) for text in TEXTS]
    first, second = (StudyRun(model, rows, Settings(figures=("2b",), k=20, draws=5)) for _ in range(2))
    first.update(rows[:3])
    assert first.snapshot().seconds > 0
    second.load(first.state())
    second.update(rows[3:])
    assert second.snapshot().seconds > first.snapshot().seconds


def test_seconds_left_are_weighed_by_what_each_step_takes(monkeypatch):
    """Ten prompts of a second and a hundred rows of a hundredth: after the prompts one second is left, not ten."""
    model = models.small("gpt2", torch.float32)
    job = StudyRun(model, [Row(text) for text in TEXTS[:2]], Settings(figures=("8",), draws=5))
    static = len(job.items) - 3
    job.__dict__["work"] = [5.0, 5.0, *[1 / static] * static, 0.0]
    now = how_far(job, [(0.0, 0), (10.0, 2)])
    assert now.seconds_left == pytest.approx(1.0) and now.share == pytest.approx(10 / 11)
    assert now.doing.startswith("all 2 prompts; 0 of ")


def test_without_a_terminal_the_command_says_where_it_is_now_and_then(tmp_path, monkeypatch, capsys, groups):
    (tmp_path / "few.csv").write_text(FILE, encoding="utf-8")
    monkeypatch.setattr("visit.cli.telling.STATUS_SECONDS", 0.001)
    assert not sys.stderr.isatty()
    assert main(["study", "--prompts", str(tmp_path / "few.csv"), "--figures", "2b,14", "--draws", "5"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert "loading the model" in lines and any(line.startswith("3 of 5 prompts: ") for line in lines)
    assert all("\r" not in line for line in lines)


# ---- the forecast counts all that is done --------------------------------------------------------------------------


@pytest.mark.parametrize("figures", [FIGURES, ("2b", "7"), ("23",), ("8",), ("2b", "14"), ("21", "tables")])
def test_the_forecast_counts_passes_norms_rows_and_sums(figures, monkeypatch):
    model = models.small("gpt2", torch.float32)
    rows = [Row(text, model.vocabulary[700]) for text in TEXTS]
    settings = Settings(figures=figures, k=20, draws=1000)
    table = forecasting.study_forecast(model, rows, settings).set_index("part")["vectors"]
    seen = dict.fromkeys(("passes", "norms", "rows", "sums"), 0)
    capture, probs, add = running.capture_many, visit.analyses.norm_sets.probs_of, running.cells_of
    read = visit.lenses.weights._read_into

    def captured(model, prompts, *more, **options):
        seen["passes"] += sum(len(visit.models.model.tokenize(model, prompt)) for prompt in prompts)
        return capture(model, prompts, *more, **options)

    def norms(model, x, *more):
        seen["norms"] += len(x)
        return probs(model, x, *more)

    def static(model, x, *more):
        seen["rows"] += len(x)
        return read(model, x, *more)

    def added(blocks, numbers, members, drawn):
        for block in blocks:
            seen["sums"] += len(members) * len(block.groups) * int(np.prod(block.shape))
        return add(blocks, numbers, members, drawn)

    job = StudyRun(model, rows, settings)
    for module in ("visit.studies.run", "visit.analyses.norm_sets", "visit.analyses.neuron_sets"):
        monkeypatch.setattr(f"{module}.capture_many", captured)
    monkeypatch.setattr("visit.analyses.norm_sets.probs_of", norms)
    monkeypatch.setattr("visit.lenses.weights._read_into", static)
    monkeypatch.setattr(running, "cells_of", added)
    job.update(rows)
    expected = dict(seen)
    job.update(job.items[len(rows) :])
    assert (expected["passes"], expected["sums"]) == (seen["passes"], seen["sums"])
    names = ("forward passes", "norms (Figures 7, 21 to 23, tables)", "all rows of the weights, once per model",
             "the sums of resampled sets")  # fmt: skip
    assert [int(table.get(name, 0)) for name in names[:3]] == [seen["passes"], expected["norms"], seen["rows"]]
    assert table[names[3]] >= seen["sums"] > 0.5 * table[names[3]] or not seen["sums"], "ranks a short set lacks"


@pytest.mark.parametrize("second", ["rbo", "none"])
def test_the_forecast_counts_the_charts_that_the_page_draws(second):
    from visit.figures.study import panels
    from visit.files import study_report as report

    model = models.small("gpt2", torch.float32)
    answer = model.vocabulary[int(visit.capture(model, TEXTS[0]).logits[-1].argmax())]
    rows = [Row(TEXTS[0], answer), Row(TEXTS[1], answer), Row(TEXTS[2], answer)]
    found = visit.study(model, rows, k=20, draws=5, second=second)
    drawn = sum(len(panels(report.study_run(found, figure), figure)) for figure in found.tables)
    settings = Settings(k=20, draws=5, second=second)
    counted = forecasting.charts(model, settings, [5])
    assert abs(counted - drawn) <= 4
