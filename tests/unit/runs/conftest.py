"""A worker of one's own, whose every batch lies on the disk."""

from __future__ import annotations

import pytest

from visit.runs.worker import Worker


@pytest.fixture
def every_batch_is_written(monkeypatch):
    monkeypatch.setattr("visit.runs.job.SPARE", 0)


@pytest.fixture
def worker(tmp_path):
    worker = Worker(tmp_path, seconds=0)
    yield worker
    assert worker.reset()
