"""What visitors send to a hosted app stays within bounds, whoever sends how much."""

from __future__ import annotations

import tomllib
from pathlib import Path
from types import SimpleNamespace

from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager

from visit.app import uploads
from visit.app.opened import UPLOAD_MB
from visit.lessons.room_file import FILE_BYTES
from visit.runs.prompts import MAX_SET_BYTES


def test_the_oldest_of_one_visitor_go_first_then_those_of_who_has_most():
    sent = {"a": {"1": 30, "2": 20, "3": 40}, "b": {"1": 10}, "c": {}}
    assert uploads.beyond(sent, 60, 100) == [("a", "1")]
    assert uploads.beyond(sent, 100, 100) == []
    assert uploads.beyond(sent, 100, 60) == [("a", "1"), ("a", "2")]
    assert uploads.beyond({"a": {"1": 500}, "b": {"1": 10}}, 60, 100) == [("a", "1")]
    assert uploads.beyond({str(n): {"1": 10} for n in range(20)}, 60, 100) == [(str(n), "1") for n in range(10)]


def test_a_server_keeps_no_more_than_its_bounds(monkeypatch):
    """Two hundred files of one visitor, sent as a browser sends them, took 12 GB."""
    monkeypatch.setattr(uploads, "SENT_BYTES", 1000)
    monkeypatch.setattr(uploads, "ALL_SENT_BYTES", 5000)
    manager = MemoryUploadedFileManager("/upload")
    assert uploads.keep_bounded(manager)
    for n in range(200):
        manager.add_file(f"visitor {n % 2}", SimpleNamespace(file_id=str(n), data=bytes(300)))
    assert manager._total_bytes == 2 * 900
    assert [file.file_id for file in manager.get_files("visitor 1", ["193", "195", "197", "199"])] == [
        "195",
        "197",
        "199",
    ]
    for n in range(20):
        manager.add_file(f"another {n}", SimpleNamespace(file_id="1", data=bytes(900)))
    assert manager._total_bytes <= 5000
    assert not uploads.keep_bounded(SimpleNamespace())


def test_a_file_that_a_page_asks_for_fits():
    config = tomllib.loads((Path(__file__).parents[3] / ".streamlit/config.toml").read_text(encoding="utf-8"))
    assert config["server"]["maxUploadSize"] == UPLOAD_MB
    assert config["server"]["maxWidgetStateSize"] * 1e6 > MAX_SET_BYTES
    assert FILE_BYTES < uploads.SENT_BYTES
