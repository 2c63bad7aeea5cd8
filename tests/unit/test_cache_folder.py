"""Where things are kept for a user without a home, as containers have them."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest

from visit import cache
from visit.models.checkpoint import local_path


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    def nobody(*_args):
        raise RuntimeError("Could not determine home directory.")

    for name in ("VISIT_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    monkeypatch.setattr(Path, "expanduser", nobody)
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(tmp_path))
    cache._without_home.cache_clear()
    yield tmp_path
    cache._without_home.cache_clear()


@pytest.mark.parametrize("given", [None, "~/kept"])
def test_a_user_without_a_home_has_the_temporary_folder_and_is_told_once(homeless, caplog, monkeypatch, given):
    if given:
        monkeypatch.setenv("VISIT_CACHE", given)
    with caplog.at_level(logging.WARNING, "visit"):
        folders = {cache.cache_folder() for _ in range(3)}
    assert folders == {homeless / f"visit-{os.getuid()}"}
    assert [record.getMessage().count("no home folder") for record in caplog.records] == [1]
    cache.write_arrays(cache.cache_folder() / "runs" / "a.npz", {"a": np.ones(3)}, {})
    assert cache.read_arrays(cache.cache_folder() / "runs" / "a.npz") is not None
    assert (homeless / f"visit-{os.getuid()}").stat().st_mode & 0o077 == 0, "others cannot look into it"
    assert local_path("~/model") is None


def test_a_folder_of_somebody_else_in_the_temporary_folder_is_not_used(homeless, monkeypatch):
    monkeypatch.setattr(cache.tempfile, "mkdtemp", lambda prefix: str(homeless / f"{prefix}own"))
    monkeypatch.setattr(os, "getuid", lambda: 987654)
    assert cache.cache_folder() == homeless / "visit-own"
