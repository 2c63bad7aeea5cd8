"""One recording of visit-mini; recordings that somebody has tampered with; programs without torch."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from functools import cache
from typing import Any

from models import small

import visit
from visit.files.recording import Recording, load_recording
from visit.files.recording_file import packed_recording, unpacked_recording

JAPAN, FRANCE = "The capital of Japan is the city of", "The capital of France is the city of"


@cache
def recorded() -> bytes:
    """Two prompts on visit-mini, with effects."""
    out = io.BytesIO()
    visit.save_recording(out, visit.load_model("visit-mini"), JAPAN, FRANCE, effects=True, note="of a test")
    return out.getvalue()


@cache
def tiny() -> bytes:
    """Two prompts on a random model of three blocks: all kinds of results, in little time."""
    out, model = io.BytesIO(), small("gpt2")
    visit.save_recording(out, model, [3, 1, 4], [3, 1, 5], target=9, target_b=8, memory=2, effects=True)
    return out.getvalue()


@cache
def parts(of: Callable[[], bytes] = recorded) -> tuple[str, dict[str, Any]]:
    """(content as JSON text, arrays) of a recording."""
    content, arrays = unpacked_recording(of())
    return json.dumps(content), arrays


def tampered(
    change: Callable[[dict[str, Any], dict[str, Any]], object], of: Callable[[], bytes] = recorded
) -> bytes:  # fmt: skip
    """A recording with its content and arrays changed, and sums that fit."""
    text, arrays = parts(of)
    content, own = json.loads(text), dict(arrays)
    change(content, own)
    return packed_recording(content, own)


def rezipped(change: Callable[[zipfile.ZipFile, dict[str, bytes]], object]) -> bytes:
    """The recording's members in another archive, written by `change(archive, members)`."""
    with zipfile.ZipFile(io.BytesIO(recorded())) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        change(archive, members)
    return out.getvalue()


def use_all(recording: Recording) -> None:
    """Decode everything, as pages would one by one."""
    assert recording.prompts and recording.meta and recording.tables
    for run in recording.runs:
        assert run.pattern.ndim == 4
        for key in run.results:
            run.result(key)
    if recording.pair is not None:
        for key in recording.pair.results:
            recording.pair.result(key)


def opened(data: bytes) -> Recording:
    """A recording of which everything has been used."""
    recording = load_recording(data)
    use_all(recording)
    return recording


def blocking(*packages: str) -> str:
    """The first lines of a program in which these packages cannot be imported."""
    return f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {packages!r}:
            raise ImportError(f"{{name}} is not there")
sys.meta_path.insert(0, Blocked())
"""
