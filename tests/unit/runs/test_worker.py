"""Long runs live in one thread: shared, queued, watched, cancelled, resumed, and in nobody's way."""

from __future__ import annotations

import os
import sys
import threading
from typing import ClassVar

import models
import numpy as np
import pytest
from jobs import PATIENCE, Calls, Sums, gate_of, same, until

from visit import VisitError, capture
from visit.cache import weight
from visit.runs.answers import answering
from visit.runs.job import MAX_FILES, _next_batch, steps
from visit.runs.prompts import Row, read_prompts, shipped_set
from visit.runs.worker import MAX_WAITING, NICE, WORKER, Worker

pytestmark = pytest.mark.usefixtures("every_batch_is_written")


def test_equal_keys_share_one_run_and_its_result(worker):
    gate, made = gate_of(0), Calls()
    made.how = {"gate": gate}
    run = worker.submit(("a", 1), made)
    assert all(worker.submit(("a", 1), made) is run for _ in range(5)) and worker.find(("a", 1)) is run
    gate.release(1000)
    assert same(run.wait(PATIENCE)) and run.state == "done" and run.progress.done == run.progress.total == 200
    assert worker.submit(("a", 1), made) is run and len(made) == 1
    other = worker.submit(("a", 2), made)
    assert other is not run and same(other.wait(PATIENCE)) and len(made) == 2
    assert worker.find(("b",)) is None


def test_runs_go_in_their_order_and_know_their_place(worker):
    gate, order = gate_of(0), []

    def make(name):
        order.append(name)
        return Sums(gate=gate)

    runs = [worker.submit(name, lambda name=name: make(name)) for name in "abcd"]
    until(lambda: order == ["a"])
    assert [r.place for r in runs] == [0, 1, 2, 3] and worker.runs() == runs
    assert [r.state for r in runs] == ["running", "waiting", "waiting", "waiting"]
    runs[1].cancel()
    assert runs[1].state == "cancelled" and [r.place for r in runs] == [0, None, 1, 2]
    gate.release(10_000)
    assert all(same(r.wait(PATIENCE)) for r in (runs[0], runs[2], runs[3]))
    assert order == ["a", "c", "d"] and runs[3].place is None and runs[1].result is None


def test_a_run_in_the_background_makes_room_and_goes_on_where_it_was(worker):
    gate, other = gate_of(0), gate_of(0)
    quiet, made = None, Calls(gate=gate)
    quiet = worker.submit("quiet", made, background=True)
    later = worker.submit("later", Calls(), background=True)
    gate.release(2)
    until(lambda: quiet.progress.done > 0)
    asked = worker.submit("asked", Calls(gate=other))
    gate.release()
    until(lambda: asked.place == 0)
    assert quiet.alive and quiet.state == "waiting" and 0 < quiet.progress.done < 200
    assert later.place == 1 and quiet.place == 2, "whoever came first goes on"
    assert worker.submit("quiet", made) is quiet and quiet.place == 1, "now somebody waits for it"
    other.release(1000)
    gate.release(1000)
    assert same(asked.wait(PATIENCE)) and same(quiet.wait(PATIENCE)) and same(later.wait(PATIENCE))
    assert len(made) == 2 and made[0].seen + made[1].seen == 200, "nothing was done twice"
    assert not quiet.background


def test_a_run_that_is_asked_for_as_it_makes_room_goes_before_the_background(worker, monkeypatch):
    gate, other, made = gate_of(0), gate_of(0), Calls()
    made.how = {"gate": gate}
    quiet = worker.submit("quiet", made, background=True)
    until(lambda: quiet.place == 0)
    later = worker.submit("later", Calls(), background=True)
    asked = worker.submit("asked", Calls(gate=other))
    wanted = worker.wanted_by_others

    def and_asked_for(run):
        room = wanted(run)
        if room:
            worker.submit("quiet", made)
        return room

    monkeypatch.setattr(worker, "wanted_by_others", and_asked_for)
    gate.release()
    until(lambda: asked.place == 0)
    assert (quiet.place, later.place) == (1, 2)
    other.release(1000)
    gate.release(1000)
    assert all(same(run.wait(PATIENCE)) for run in (asked, quiet, later))


def test_progress_only_grows_and_partial_results_can_be_read(worker):
    gate = gate_of(0)
    run = worker.submit("a", lambda: Sums(gate=gate))
    assert run.result is None and run.progress.done == 0
    seen = []
    while run.state in ("waiting", "running"):
        gate.release()
        before = run.progress.done
        until(lambda before=before: run.progress.done > before or run.state == "done")
        seen.append(run.progress)
        assert run.result is not None
    done = [p.done for p in seen]
    assert done == sorted(done) and done[-1] == 200 and len(done) > 3
    assert all(p.rate > 0 and p.seconds_left >= 0 and p.total == 200 for p in seen) and seen[-1].seconds_left == 0


def test_a_result_that_is_read_does_not_change(worker):
    gate = gate_of(1)
    run = worker.submit("a", lambda: Sums(gate=gate))
    until(lambda: run.result is not None)
    partial = run.result
    copy = {name: array.copy() for name, array in partial.items()}
    gate.release(1000)
    run.wait(PATIENCE)
    assert partial is not run.result and all(np.array_equal(partial[n], copy[n]) for n in copy)


def test_cancelling_keeps_what_is_done_and_a_new_run_goes_on_from_there(worker):
    gate, made = gate_of(3), Calls()
    made.how = {"gate": gate}
    run = worker.submit("a", made)
    until(lambda: made and made[0].batches == 3)
    run.cancel()
    assert not run.alive and run.stopping, "until the batch at hand has ended"
    again = worker.submit("a", made)  # before the batch at hand has ended
    gate.release(1000)
    partial = run.wait(PATIENCE)
    assert run.state == "cancelled" and not run.stopping and 0 < partial["n"] == run.progress.done < 200
    assert same(again.wait(PATIENCE)) and worker.find("a") is again
    assert made[0].seen + made[1].seen == 200, "the second did the rest only"
    assert len(list(worker.folder.iterdir())) == 1, "one file, which the second has gone on with"


def test_a_bug_in_a_job_is_told_and_the_next_run_goes_on(worker, caplog):
    run = worker.submit("a", lambda: Sums(breaks_at=2))
    with pytest.raises(VisitError, match="mistake of the program: ZeroDivisionError: a bug"):
        run.wait(PATIENCE)
    assert run.state == "failed" and isinstance(run.error.__cause__, ZeroDivisionError) and "a bug" in caplog.text
    assert run.result["n"] > 0, "what was seen before stays"
    refused = worker.submit("b", lambda: read_prompts(""))
    with pytest.raises(VisitError, match="no prompt"):
        refused.wait(PATIENCE)
    left = worker.submit("c", lambda: (_ for _ in ()).throw(SystemExit))
    with pytest.raises(VisitError, match="SystemExit"):
        left.wait(PATIENCE)
    assert same(worker.submit("d", Sums).wait(PATIENCE))
    again = worker.submit("a", Sums)  # it has failed: a new attempt, from the checkpoint of the old one
    assert again is not run and same(again.wait(PATIENCE))


def test_checkpoints_and_results_and_the_queue_are_bounded(worker, monkeypatch):
    for i in range(MAX_FILES + 5):
        with pytest.raises(VisitError):
            worker.submit(i, lambda: Sums(breaks_at=1)).wait(PATIENCE)
    assert len(list(worker.folder.iterdir())) <= MAX_FILES
    worker.ended.max_bytes = 10_000
    for i in range(20):
        worker.submit(f"kept {i}", Sums).wait(PATIENCE)
    assert worker.find("kept 19") and not worker.find("kept 0")
    gate = gate_of(0)
    worker.submit("now", lambda: Sums(gate=gate))
    until(lambda: worker.find("now").place == 0)
    for i in range(MAX_WAITING):
        worker.submit(f"later {i}", Sums)
    with pytest.raises(VisitError, match="waiting already"):
        worker.submit("too many", Sums)
    gate.release(1000)


def test_others_capture_while_a_run_goes_on(worker):
    model = models.small("gpt2")
    rows = shipped_set("plain").rows[:20]

    def endless():
        job = answering(model, read_prompts("prompt,target\n" + "\n".join(f"{r.prompt}, a" for r in rows), "a.csv"))
        job.items = [Row(r.prompt, " the") for r in rows] * 10_000
        return job

    alone = [capture(model, r.prompt) for r in rows]
    run = worker.submit("a", endless)
    until(lambda: run.progress.done > 50)
    found: dict[int, list] = {i: [] for i in range(3)}

    def visitor(i):
        found[i] = [capture(model, r.prompt) for r in rows]

    threads = [threading.Thread(target=visitor, args=(i,)) for i in found]
    [t.start() for t in threads]
    [t.join(PATIENCE) for t in threads]
    before = run.progress.done
    assert run.state == "running" and not any(t.is_alive() for t in threads)
    for acts in found.values():
        assert all((a.neurons == b.neurons).all() for a, b in zip(acts, alone, strict=True))
    until(lambda: run.progress.done > before)
    run.cancel()
    assert run.wait(PATIENCE).looked_at == run.progress.done


def test_batches_grow_towards_a_quarter_of_a_second_and_shrink(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("visit.runs.job.time.perf_counter", lambda: now[0])

    class Slow:
        items = range(3000)
        sizes: ClassVar[list[int]] = []
        each = 0.001

        def update(self, items):
            self.sizes.append(len(items))
            now[0] += self.each * len(items)
            self.each = 0.01 if sum(self.sizes) > 1500 else 0.001

    for _ in steps(Slow()):
        pass
    assert Slow.sizes[:4] == [4, 8, 16, 32] and 250 in Slow.sizes and sum(Slow.sizes) == 3000
    assert max(Slow.sizes) <= 256 and Slow.sizes[-2] in (24, 25)


def test_a_batch_counts_its_padding():
    rows = [Row("a" * n) for n in (10, 10, 10, 100, 10)]
    assert _next_batch(rows, 0, 100) == (3, 30) and _next_batch(rows, 3, 100) == (4, 100)
    assert _next_batch(rows, 0, 1) == (1, 10), "one at least"


def test_a_job_without_items_is_done_at_once(worker):
    assert worker.submit("a", lambda: Sums(0)).wait(PATIENCE)["n"] == 0


def test_resetting_stops_the_run_and_forgets(worker):
    gate = gate_of(0)
    runs = [worker.submit(name, lambda: Sums(gate=gate)) for name in "ab"]
    until(lambda: runs[0].place == 0)
    threading.Timer(0.05, gate.release).start()
    assert worker.reset() and [r.state for r in runs] == ["cancelled"] * 2
    assert worker.find("a") is None and worker.runs() == []
    assert same(worker.submit("c", Sums).wait(PATIENCE)), "it works on"
    assert WORKER.runs() == []


def test_results_are_weighed():
    import pandas as pd
    import torch

    array = np.zeros(1000)
    assert weight(array) == 8000 and weight(torch.zeros(1000)) == 4000
    assert 16_000 < weight({"a": array, "b": [array]}) < 17_000
    assert weight(pd.DataFrame({"a": array, "b": "x" * 100})) > 8000
    assert weight(Row("a" * 500)) > 500
    loop: list = []
    loop.append(loop)
    assert weight(loop) < 1000


# ---- two lanes -------------------------------------------------------------------------------------------------------


def test_a_lane_of_its_own_keeps_no_other_run_waiting_and_stands_back(tmp_path):
    slow, quick = Worker(tmp_path, seconds=0, stands_back=True), Worker(tmp_path, seconds=0)
    gate, nice = gate_of(1), []

    class Slow(Sums):
        def update(self, items):
            nice.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) if sys.platform == "linux" else 1)
            super().update(items)

    long = slow.submit("long", lambda: Slow(gate=gate))
    until(lambda: long.progress.done)
    assert same(quick.submit("short", Calls()).wait(PATIENCE)) and long.alive
    usual = os.getpriority(os.PRIO_PROCESS, 0) if sys.platform == "linux" else 0
    assert nice[0] > usual or usual >= NICE, "its thread gives way to all others"
    gate.release(1000)
    assert same(long.wait(PATIENCE)) and slow.reset() and quick.reset()
