"""Downloads by the hub's real library against a hub on the loopback interface: watched, stopped, taken up again."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import models
import pytest
import torch
from hub_double import COMMIT, NAME
from huggingface_hub.utils._shared_blobs import publish_blob_to_shared_store

from visit import VisitError, capture, load_model
from visit.models import hub
from visit.models.download import AT_ONCE, Downloads
from visit.models.hub import cached_folder, look_up


@pytest.fixture
def downloads():
    found = Downloads()
    yield found
    found.stop()


def test_a_download_fetches_what_is_needed_and_the_model_loads_from_the_cache(served, downloads, hub_folder):
    with served() as double:
        assert cached_folder(NAME) is None
        download = downloads.start(NAME)
        assert download.ended.wait(60) and download.state == "done", download.error
        needed = [p for p in hub_folder.iterdir() if p.suffix in (".json", ".safetensors")]
        assert download.done == download.total == sum(p.stat().st_size for p in needed)
        assert set(double.sent) == {p.name for p in needed}, "no pickles, no texts"
    model = load_model(NAME)  # the hub is gone
    assert model.revision == COMMIT and cached_folder(NAME).name == COMMIT
    ids = [5, 9, 7]
    assert torch.equal(capture(model, ids).logits, capture(models.small("llama", torch.float32), ids).logits)


@pytest.mark.slow
def test_a_stopped_download_keeps_its_whole_files_and_goes_on(served, downloads, hub_cache):
    with served(pause=0.3) as double:
        download = downloads.start(NAME)
        assert double.begun.wait(60)
        while download.state == "running" and double.sent["model-00001-of-00006.safetensors"] < 1:
            time.sleep(0.02)
        download.cancel()
        assert download.state == "cancelled" and download.process.poll() is not None
        assert 0 < download.done < download.total
        assert not list(hub_cache.rglob("*.incomplete")), "a broken file is no part of the cache"
        assert cached_folder(NAME) is None, "half a model is not taken for one"
        kept = dict(double.sent)
        double.pause = 0
        again = downloads.start(NAME)
        assert again is not download and again.ended.wait(60) and again.state == "done", again.error
        assert double.sent["model-00001-of-00006.safetensors"] == kept["model-00001-of-00006.safetensors"] == 1
        assert double.sent["tokenizer.json"] == 1 and double.sent["model-00006-of-00006.safetensors"] == 1
    assert load_model(NAME).n_layers == 3


def test_a_load_without_a_download_before_it_fetches_by_itself(served):
    with served() as double:
        assert look_up(NAME).bytes > 100_000
        assert load_model(NAME).revision == COMMIT
        assert "pytorch_model.bin" not in double.sent


def test_what_would_never_fit_is_not_downloaded(served, downloads, monkeypatch):
    with served(parameters=10**13) as double:
        download = downloads.start(NAME)
        assert download.ended.wait(60) and download.state == "failed"
        assert "is not downloaded: even at half precision it needs 20,000" in download.error
        with pytest.raises(VisitError, match=r"is not loaded: it needs \d\d,\d{3}\.\d GB in float32 or"):
            load_model(NAME)
        assert not any(file.endswith(".safetensors") for file in double.sent)


def test_a_name_that_the_hub_does_not_have(served, downloads):
    with served():
        download = downloads.start("some-org/other")
        assert download.ended.wait(60) and download.state == "failed"
        assert "The hub has no model 'some-org/other'" in download.error


def test_one_model_is_downloaded_once_and_a_server_runs_few_at_a_time(served, downloads):
    with served(pause=5):
        first = downloads.start(NAME)
        assert downloads.start(NAME) is first is downloads.find(NAME)
        for i in range(1, AT_ONCE):
            downloads.start(f"some-org/other{i}")
        with pytest.raises(VisitError, match="downloaded already"):
            downloads.start("some-org/one-more")
        downloads.stop()
        assert first.state == "cancelled"
        downloads.forget(NAME)
        assert downloads.find(NAME) is None


def test_a_download_ends_with_the_program_that_started_it(served):
    with served(pause=0.3) as double:
        program = f"from visit.models.download import DOWNLOADS as d; import time, sys; x = d.start({NAME!r}); "
        program += "print(x.process.pid, flush=True); time.sleep(60)"
        parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        child = int(parent.stdout.readline())
        assert double.begun.wait(60)
        parent.kill()
        parent.wait()
        import psutil

        until = time.monotonic() + 20
        while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < until, "the child lives on"
            time.sleep(0.05)


def test_hosted_apps_download_listed_models_only(downloads, monkeypatch):
    monkeypatch.setenv("VISIT_HOSTED", "1")
    with pytest.raises(VisitError, match="hosted"):
        downloads.start(NAME)


# ---- what the cache has and is no longer whole -----------------------------------------------------------------------
def cut(file):
    data = file.resolve()
    data.write_bytes(data.read_bytes()[:-20])


def flipped(file):
    data = file.resolve()
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 0xFF
    data.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flipped])
@pytest.mark.parametrize("which", ["model-00003-of-00006.safetensors", "tokenizer.json", "config.json"])
def test_a_damaged_file_is_fetched_again_and_no_other(served, downloads, hub_cache, which, damage):
    with served() as double:
        first = downloads.start(NAME)
        assert first.ended.wait(60) and first.state == "done", first.error
        before = dict(double.sent)
        file = next(hub_cache.rglob(which))
        damage(file)
        assert damage is flipped or cached_folder(NAME) is None, "what is cut short is not taken for whole"
        again = downloads.start(NAME)
        assert again.ended.wait(60) and again.state == "done", again.error
        more = {name: double.sent[name] - before[name] for name in double.sent if double.sent[name] != before[name]}
        assert more == {which: 1}
    ids = [5, 9, 7]
    assert torch.equal(capture(load_model(NAME), ids).logits, capture(models.small("llama", torch.float32), ids).logits)


def test_a_hosted_app_keeps_the_models_that_were_read_last(served, hub_cache, monkeypatch):
    with served() as double:
        size = look_up(NAME).bytes
        load_model(NAME)
        monkeypatch.setenv("VISIT_HOSTED", "1")
        monkeypatch.setattr("visit.models.hub.MAX_HOSTED", 3 * size)
        hub.make_room("some-org/second", size)
        assert cached_folder(NAME) is not None, "there is room for both"
        hub.make_room(NAME, 3 * size)
        assert cached_folder(NAME) is not None, "a model does not make room for itself"
        hub.make_room("some-org/second", 3 * size)
        assert cached_folder(NAME) is None and double.sent
        with pytest.raises(VisitError, match="keeps models of"):
            hub.make_room("some-org/second", 4 * size)
    monkeypatch.delenv("VISIT_HOSTED")
    hub.make_room("some-org/second", 1 << 60)  # at home nothing is removed


def test_the_bound_of_a_hosted_app_holds_against_one_who_stops_each_download(served, hub_cache, monkeypatch):
    """What was younger than ten minutes was kept and never refused; parts of stopped downloads were not counted."""
    with served():
        size = look_up(NAME).bytes
        load_model(NAME)
    monkeypatch.setenv("VISIT_HOSTED", "1")
    monkeypatch.setattr("visit.models.hub.MAX_HOSTED", 3 * size)
    next(hub_cache.rglob("model-00003-of-00006.safetensors")).unlink()
    with pytest.raises(VisitError, match="others are being downloaded"):
        hub.make_room("some-org/second", 3 * size)
    blobs = hub_cache / "models--some-org--third" / "blobs"
    blobs.mkdir(parents=True)
    part = blobs / ("0" * 64 + ".12345678.incomplete")
    part.write_bytes(bytes(2 * size))
    with pytest.raises(VisitError, match="others are being downloaded"):
        hub.make_room("some-org/second", size + 1000)
    os.utime(part, (0, 0))  # its process was killed long ago
    hub.make_room("some-org/second", size + 1000)
    assert not part.exists()


FIRST, SECOND = "openai-community/gpt2-large", "EleutherAI/pythia-1.4b"  # that a hosted app offers


@pytest.mark.slow
def test_two_downloads_at_once_have_the_room_of_both_claims(served, downloads, hub_cache, monkeypatch):
    """Of 5 GB each, into 8: what the first had still to fetch was in no file, and both were let in."""
    claims = {"model-00001-of-00006.safetensors": 5 << 30}
    with served(more=(FIRST, SECOND), claims=claims, pause=0.2) as double:
        monkeypatch.setenv("VISIT_HOSTED", "1")
        assert hub.MAX_HOSTED < 10 << 30
        both = [downloads.start(name) for name in (FIRST, SECOND)]
        until = time.monotonic() + 60
        while all(one.state == "running" for one in both) and time.monotonic() < until:
            time.sleep(0.05)
        refused, other = sorted(both, key=lambda one: one.state == "running")
        assert refused.state == "failed" and "others are being downloaded" in refused.error
        assert double.begun.wait(60) and other.state == "running"
        os.kill(other.process.pid, 9)  # it can take nothing back
        assert other.ended.wait(60)
        double.pause = 0
        again = downloads.start(refused.name)
        assert again.ended.wait(60) and again.state == "done", again.error
        assert not list(hub_cache.rglob("visit-promises/*.json"))


def test_what_another_process_was_promised_is_counted_until_it_ends(hub_cache, monkeypatch):
    monkeypatch.setenv("VISIT_HOSTED", "1")
    monkeypatch.setattr("visit.models.hub.MAX_HOSTED", 1000)
    with hub.room_for("some-org/one", 600):
        hub.make_room("some-org/one", 600)  # it is not counted twice
        with pytest.raises(VisitError, match="others are being downloaded"), hub.room_for("some-org/two", 600):
            pass
        with hub.room_for("some-org/two", 400):
            (promise,) = hub_cache.rglob("visit-promises/*two.json")
            told = promise.read_text()
    for text in (told.replace('"born": 1', '"born": 2'), "{}", "[]", '{"name"', ""):  # processes that were killed
        promise.write_text(text)
        with hub.room_for("some-org/three", 1000):
            assert len(list(hub_cache.rglob("visit-promises/*.json"))) == 1


def shared(file, cache):
    """A file as the hub's library has those of its Xet store: a link to a link to what models share."""
    blob = file.parent / os.readlink(file)
    assert publish_blob_to_shared_store(
        blob_path=str(blob), xet_hash="ab" * 32, cache_dir=cache, expected_size=blob.stat().st_size
    )
    return file.resolve()


def fetch_all():
    """What a download does, in this process."""
    return dict(hub.fetch_files(NAME, None, list(look_up(NAME).files)))


def test_a_file_that_models_share_is_whole_under_its_first_name_and_goes_with_its_model(served, hub_cache, monkeypatch):
    """Such files were fetched again with each download, and stayed on the disk when their model was removed."""
    with served() as double:
        file = fetch_all()["model-00003-of-00006.safetensors"]
        data, before = shared(file, hub_cache), dict(double.sent)
        assert data.name == "ab" * 32 and hub.is_whole(file)
        fetch_all()
        assert double.sent == before
        content = data.read_bytes()
        data.write_bytes(bytes(len(content)))
        assert not hub.is_whole(file)
        data.write_bytes(content)
        monkeypatch.setenv("VISIT_HOSTED", "1")
        monkeypatch.setattr("visit.models.hub.MAX_HOSTED", look_up(NAME).bytes)
    hub.make_room("some-org/second", hub.MAX_HOSTED)
    assert cached_folder(NAME) is None and not data.exists()


@pytest.mark.parametrize(
    ("which", "make"),
    [
        ("model-00003-of-00006.safetensors", os.mkfifo),
        ("tokenizer.json", os.mkdir),
        ("config.json", lambda path: path.symlink_to("nowhere")),
        ("config.json", os.mkfifo),
    ],
)
def test_what_stands_in_place_of_a_file_is_fetched_anew(served, hub_cache, which, make):
    """The hub's library took a pipe for the file: the download was done at once, and fetched nothing."""
    with served() as double:
        file = fetch_all()[which]
        file.unlink()
        make(file)
        assert cached_folder(NAME) is None
        before = dict(double.sent)
        fetch_all()
        assert cached_folder(NAME) is not None and double.sent[which] == before[which] + 1


def test_a_model_that_is_downloaded_and_still_none_says_why(served, hub_cache):
    """The page had an empty red box."""
    with served():
        fetch_all()
    assert hub.cache_fault(NAME) == ""
    next(hub_cache.rglob("tokenizer.json")).unlink()
    assert "tokenizer is missing" in hub.cache_fault(NAME) and cached_folder(NAME) is None
    assert hub.cache_fault("some-org/never") == ""
