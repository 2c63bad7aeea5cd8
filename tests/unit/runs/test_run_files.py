"""What a run leaves on disk: it goes on from there, is answered from there, and nothing damaged or foreign is used."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from jobs import PATIENCE, Calls, Sums, gate_of, same

from visit import VisitError
from visit.cache import read_arrays, write_arrays
from visit.runs.worker import Worker

pytestmark = pytest.mark.usefixtures("every_batch_is_written")


@pytest.mark.parametrize("after", [1, 2, 5])
def test_a_run_cut_off_goes_on_from_its_file_in_another_process(tmp_path, after):
    first, second = Worker(tmp_path, seconds=0), Worker(tmp_path, seconds=0)
    with pytest.raises(VisitError):
        first.submit(("a", "x"), lambda: Sums(breaks_at=after)).wait(PATIENCE)
    made = Calls()
    assert len(list(tmp_path.iterdir())) == 1
    assert same(second.submit(("a", "x"), made).wait(PATIENCE))
    assert 0 < made[0].seen == 200 - 4 * (2**after - 1)


@pytest.mark.parametrize("damage", ["cut", "empty", "foreign key", "other length", "other arrays", "text"])
def test_a_damaged_or_foreign_checkpoint_is_not_used(tmp_path, damage):
    worker = Worker(tmp_path, seconds=0)
    with pytest.raises(VisitError):
        worker.submit("a", lambda: Sums(breaks_at=3)).wait(PATIENCE)
    [path] = tmp_path.iterdir()
    n = 200
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif damage in ("empty", "text"):
        path.write_bytes(b"" if damage == "empty" else b"PK not at all")
    elif damage == "foreign key":
        with pytest.raises(VisitError):
            worker.submit("b", lambda: Sums(breaks_at=3)).wait(PATIENCE)
        next(p for p in tmp_path.iterdir() if p != path).replace(path)
    elif damage == "other length":
        n = 100
    else:
        with np.load(path) as file:
            kept = {name: file[name] for name in file.files if name != "largest"}
        np.savez(path, **kept)
    made = Calls(n=n)
    run = worker.submit("a", made)
    assert run.wait(PATIENCE)["n"] == n == made[-1].seen
    assert n == 100 or same(run.result)


def done_before(folder, key="a"):
    """The file of a run that another process has finished, and its result."""
    found = Worker(folder, seconds=0).submit(key, Sums).wait(PATIENCE)
    [path] = [p for p in folder.iterdir() if p.stat().st_size]
    return path, found


def test_a_finished_run_is_answered_from_disk_without_work(tmp_path):
    _, before = done_before(tmp_path)
    for ask in ("submit", "recall"):
        worker, made = Worker(tmp_path, seconds=0), Calls()
        run = getattr(worker, ask)("a", made)
        found = run.wait(PATIENCE)
        assert run.state == "done" and run.progress.done == run.progress.total == 200 and run.place is None
        assert [job.seen for job in made] == [0] and all(np.array_equal(found[n], before[n]) for n in before)
        assert worker.find("a") is run and worker.submit("a", made) is run and worker.recall("b", made) is None
        assert len(made) == 1 and len(list(tmp_path.iterdir())) == 1


def test_a_result_on_disk_is_recalled_past_a_queue_and_after_a_reset(worker):
    gate = gate_of(0)
    assert same(worker.submit("a", Sums).wait(PATIENCE)) and worker.reset() and worker.find("a") is None
    worker.submit("now", lambda: Sums(gate=gate))
    assert same(worker.recall("a", Sums).result), "while another run holds the thread"
    gate.release(1000)


@pytest.mark.parametrize("damage", ["cut", "flipped", "unfinished", "other key", "other program", "arrays"])
def test_a_result_on_disk_that_is_not_whole_or_not_ours_is_not_recalled(tmp_path, monkeypatch, damage):
    path, _ = done_before(tmp_path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "flipped":  # in an array: the archive's own checksum says so
        whole = bytearray(path.read_bytes())
        whole[whole.index(b"sums.npy") + 150] ^= 1
        path.write_bytes(whole)
    elif damage == "unfinished":
        path.unlink()
        with pytest.raises(VisitError):
            Worker(tmp_path, seconds=0).submit("a", lambda: Sums(breaks_at=2)).wait(PATIENCE)
    elif damage == "other key":
        done_before(tmp_path / "b", "b")[0].replace(path)
    elif damage == "other program":
        monkeypatch.setattr("visit.runs.job.program", lambda: "of tomorrow")
    else:
        state, header = read_arrays(path)
        write_arrays(path, {n: a for n, a in state.items() if n != "largest"}, header)
    worker, made = Worker(tmp_path, seconds=0), Calls()
    assert worker.recall("a", made) is None
    assert worker.recall("a", made) is None and len(made) <= 2, "what only says that it is whole is gone"
    assert same(worker.submit("a", made).wait(PATIENCE))


def test_the_folder_is_bounded_in_bytes_oldest_first(worker, monkeypatch):
    worker.submit(0, Sums).wait(PATIENCE)
    size = next(worker.folder.iterdir()).stat().st_size
    monkeypatch.setattr("visit.runs.job.MAX_STORED", 3 * size + size // 2)
    for i in range(1, 6):
        time.sleep(0.02)
        if i == 3:  # asked for again: not the oldest any more
            assert Worker(worker.folder).recall(0, Sums)
            time.sleep(0.02)
        worker.submit(i, Sums).wait(PATIENCE)
    again = Worker(worker.folder)
    assert [i for i in range(6) if again.recall(i, Sums)] == [3, 4, 5] and len(list(worker.folder.iterdir())) == 3
    monkeypatch.setattr("visit.runs.job.MAX_STORED", 10)
    worker.submit("large", Sums).wait(PATIENCE)
    assert Worker(worker.folder).recall("large", Sums) and len(list(worker.folder.iterdir())) == 1


def test_a_folder_that_cannot_be_written_stops_no_run(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    worker = Worker(tmp_path / "file" / "runs", seconds=0)
    assert same(worker.submit("a", Sums).wait(PATIENCE)) and "no checkpoint" in caplog.text


ANOTHER = """
import os, signal, sys, time
sys.path.insert(0, {tests!r})
import visit.runs.job
from visit.runs.worker import WORKER
from test_worker_job import Slow
visit.runs.job.SPARE = WORKER.seconds = 0
run = WORKER.submit("a", Slow)
while run.progress.done < 20:  # told before it is written: the file is a batch behind
    time.sleep(0.01)
assert "torch" not in sys.modules
{end}
"""
SLOW = """
import time
import numpy as np

class Slow:
    items = range(100_000)

    def __init__(self):
        self.sum = np.zeros((), np.int64)

    def update(self, items):
        time.sleep(0.02)
        self.sum = self.sum + sum(items)

    def snapshot(self):
        return int(self.sum)

    def state(self):
        return {"sum": self.sum}

    def load(self, state):
        self.sum = state["sum"]
"""


@pytest.mark.parametrize("end", ["sys.exit()", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_program_that_ends_leaves_what_it_has_done(tmp_path, end):
    (tmp_path / "test_worker_job.py").write_text(SLOW)
    program = ANOTHER.format(tests=str(tmp_path), end=end)
    env = {**os.environ, "VISIT_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(Path(__file__).parents[3])}
    subprocess.run([sys.executable, "-c", program], env=env, timeout=PATIENCE, check=False)
    files = list((tmp_path / "cache" / "runs").glob("*.npz"))
    assert len(files) == 1
    state, header = read_arrays(files[0])
    done = header["done"]
    assert 10 <= done < 100_000 and state["sum"] == done * (done - 1) // 2
