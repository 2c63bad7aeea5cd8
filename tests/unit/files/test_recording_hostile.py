"""A recording is a file from anybody: whatever is wrong with one is said in a sentence, and nothing of it is used."""

from __future__ import annotations

import errno
import io
import json
import os
import struct
import tracemalloc
import zipfile
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import JAPAN, opened, parts, recorded, rezipped, tampered, tiny, use_all

import visit
from visit.errors import VisitError
from visit.files import recording_file
from visit.files.flow_page import flow_html
from visit.files.recorded_results import Results
from visit.files.recorded_values import StoredValues, WrittenValues, to_plain, write_table
from visit.files.recording import RecordedRun, load_recording

FEW = settings(max_examples=40, deadline=None)


def refused(data: bytes, why: str) -> None:
    with pytest.raises(VisitError, match=why):
        opened(data)


# ---- the file as a whole ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [0, 1, 30, 1000, -1000, -22, -1])
def test_a_truncated_file_is_refused(size):
    refused(recorded()[:size], "cannot be opened")


def test_what_is_no_zip_is_refused():
    for data in (b"", b"PK\x03\x04", b"{}", b"\x80\x04." * 100, os.urandom(5000)):
        refused(data, "no zip file as VISIT writes it")


@FEW
@given(st.data())
def test_a_flipped_or_lost_byte_is_told_or_changes_nothing(data):
    """A byte of the zip's own dates may be anything; every byte that is read is under a sum."""
    whole = bytearray(recorded())
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        whole[at] ^= data.draw(st.integers(1, 255))
    else:
        del whole[at : at + data.draw(st.integers(1, 4000))]
    try:
        found = load_recording(bytes(whole))
    except VisitError:
        return
    assert found.meta == load_recording(recorded()).meta


def test_a_newer_version_is_told_as_that():
    def newer(archive, members):
        head = json.loads(members.pop("recording.json"))
        archive.writestr("recording.json", json.dumps(head | {"version": 2}))
        for name, data in members.items():
            archive.writestr(name, data)

    refused(rezipped(newer), "version 2 of the format; this VISIT reads version 1. Open it with a newer VISIT")


@pytest.mark.parametrize("head", [
    "[]", "{}", '{"format": "visit-recording"}', '{"format": "visit-recording", "version": true, "members": {}}',
    '{"format": "visit-recording", "version": 0, "members": {}}', '{"format": "x", "version": 1}', "{" * 5000, "NaN",
    '{"format": "visit-recording", "version": 1, "members": {"content.json": {"bytes": 1e3, "sha256": ""}}}',
    '{"format": "visit-recording", "version": 1' + "0" * 5000 + "}", "\ud800".encode("utf-8", "surrogatepass"),
])  # fmt: skip
def test_a_wrong_head_is_refused(head):
    def change(archive, members):
        for name, data in (members | {"recording.json": head}).items():
            archive.writestr(name, data)

    refused(rezipped(change), "cannot be opened|version")


@pytest.mark.parametrize("name", ["../../evil.py", "/etc/passwd", "C:\\evil", "content.json", "recording.json/../x"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_lead_out_or_stand_twice_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def change(archive, members):
        for one, data in members.items():
            archive.writestr(one, data)
        archive.writestr(name, b"print('never')")

    refused(rezipped(change), "it holds 4 files")
    assert not list(tmp_path.iterdir())


def test_a_missing_member_is_refused():
    refused(rezipped(lambda archive, members: archive.writestr("recording.json", members["recording.json"])), "1 files")


def test_a_zip_bomb_is_refused_before_it_is_unpacked(monkeypatch):
    def bomb(archive, members):
        for one, data in (members | {"numbers.safetensors": bytes(90 << 20)}).items():
            archive.writestr(one, data)

    data = rezipped(bomb)
    assert len(data) < 1 << 20
    monkeypatch.setattr(recording_file, "_member", None)
    refused(data, "packed more than 500 times")
    monkeypatch.setitem(recording_file.LARGEST_MEMBER, "numbers.safetensors", 1 << 20)
    refused(data, "numbers.safetensors would have 90 MB")


def test_a_member_that_is_longer_than_it_says_is_refused():
    """The size that the zip's list announces is a lie: what is unpacked is bounded by it, and misses its sum."""
    data = bytearray(recorded())
    at = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)  # of content.json in the list at the end
    size = struct.unpack_from("<I", data, at + 24)[0]
    struct.pack_into("<I", data, at + 24, size // 2)
    refused(bytes(data), "cannot be opened")


def test_an_encrypted_or_oddly_packed_member_is_refused():
    data = bytearray(recorded())
    for mark in (b"PK\x01\x02", b"PK\x03\x04"):
        at = data.index(mark)
        data[at + (8 if mark == b"PK\x01\x02" else 6)] |= 1
    refused(bytes(data), "encrypted")

    def other(archive, members):
        for one, content in members.items():
            archive.writestr(one, content, compress_type=zipfile.ZIP_LZMA)

    refused(rezipped(other), "packed in another way")


def test_a_file_that_is_too_large_is_refused_unread(monkeypatch):
    monkeypatch.setattr(recording_file, "LARGEST_FILE", 1 << 16)
    refused(recorded(), "at most")


def test_a_path_that_cannot_be_read_is_told(tmp_path):
    for path in (tmp_path, tmp_path / "none.visit"):
        with pytest.raises(VisitError, match="cannot be read"):
            load_recording(path)


def test_an_edited_member_is_told():
    def edit(archive, members):
        content = members["content.json"].replace(b" Tokyo", b" Osaka")
        for one, data in (members | {"content.json": content}).items():
            archive.writestr(one, data)

    refused(rezipped(edit), "content.json is not what was saved: it was damaged or edited")


# ---- sums that fit, and content that lies ----------------------------------------------------------------------------
def _set(array: str, value: Any, at: Any = 0):
    def change(content, arrays):
        changed = arrays[array].copy()
        changed[at] = value
        arrays[array] = changed

    return change


def _at(*path: Any, value: Any):
    def change(content, arrays):
        place = content
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return change


def _nested(content, arrays):
    deep: Any = []
    for _ in range(100):
        deep = [deep]
    content["meta"]["keep"] = deep


NODES = ("runs", 0, "results", "graph")
LIES = {
    "a probability above one": (_set("a/lens_map/prob", 2.0), "has a prob that cannot be"),
    "a negative probability in a list": (_set("a/heads/probs", -0.5), "has a probs that cannot be"),
    "a gap where none may be": (_set("a/heads/norm", np.nan), "has a gap in norm"),
    "a number without bound": (_set("a/graph/edges/weight", np.inf), "without bound"),
    "an unbounded probability": (_set("a/heads/probs", np.inf), "a gap where none may be"),
    "a rank of zero": (_set("a/lens_map/rank", 0), "has a rank that cannot be"),
    "a rank beyond the vocabulary": (_set("a/lens_map/rank", 30000), "has a rank that cannot be"),
    "a head that is not there": (_set("a/heads/head", 99), "has a head that cannot be"),
    "a text that is not there": (_set("a/lens_map/top", 32000), "names a text that is not there"),
    "a node twice": (_set("a/graph/nodes/id", 5, slice(4, 6)), "its graph|a node of its graph"),
    "an edge to nowhere": (_set("a/graph/edges/source", 1500, 3), "its graph"),
    "more words than are there": (_set("a/heads/tokens/length", 11), "numbers instead of"),
    "a shorter column": (lambda c, a: a.update({"a/heads/norm": a["a/heads/norm"][:3]}), "numbers instead of"),
    "a missing column": (lambda c, a: a.pop("a/heads/norm"), "are missing"),
    "a column as a square": (lambda c, a: a.update({"a/pattern": a["a/pattern"].reshape(2, -1)}), "another type"),
    "a pattern of another prompt": (lambda c, a: a.update({"a/pattern": a["a/pattern"][:-1]}), "instead of"),
    "numbers as texts": (lambda c, a: a.update({"a/heads/norm": a["a/heads/rank"]}), "another type"),
    "a type that is none": (_at(*NODES, "nodes", "columns", "norm", value=["category", "numbers"]), "type that no"),
    "a huge number of rows": (_at(*NODES, "nodes", "rows", value=10**12), "numbers instead of"),
    "no number of rows": (_at(*NODES, "nodes", "rows", value=-1), "no number of rows"),
    "an unknown kind": (_at(*NODES, "kind", value="pickle"), "unknown kind"),
    "an unknown family": (_at("model", "family", value="os.system"), "unknown family"),
    "too many layers": (_at("model", "n_layers", value=10**9), "n_layers is no whole number"),
    "a layer too many": (_at("model", "n_layers", value=9), "cannot|instead of"),
    "no layers": (_at("model", "n_layers", value=0), "n_layers is no whole number"),
    "a position that is not there": (_at("runs", 0, "pos", value=8), "position is no whole number"),
    "a position in words": (_at("runs", 0, "pos", value="7"), "position is no whole number"),
    "a token too few": (_at("runs", 0, "tokens", value=["x"]), "tokens have no ids"),
    "no runs": (_at("runs", value=[]), "neither one prompt nor two"),
    "three runs": (lambda c, a: c.update(runs=c["runs"] * 2), "neither one prompt nor two"),
    "a huge text": (_at("runs", 0, "prompt", value="x" * 300_000), "prompt is no text of at most"),
    "a huge text among all": (_at("texts", 0, value="x" * 300_000), "text is no text of at most"),
    "a text that is none": (_at("texts", 0, value={"a": 1}), "text is no text of at most"),
    "nested deep": (_nested, "nested"),
    "a graph of layers that are not": (_at(*NODES, "meta", "layers", value=[0, 99]), "layer is no whole number"),
    "a graph of half of its tokens": (_at(*NODES, "meta", "tokens", value=["x"]), "position is no whole|other layers"),
    "rows that do not add up": (lambda c, a: c["runs"][0]["results"]["memory"]["rows"].pop(), "do not add up"),
    "a word without a text": (_at("runs", 0, "words", value=[]), "has no text"),
    "long texts": (_at("texts", 5, value="x" * 2001), "no text of at most 2,000 characters"),
    "a long text in every cell": (lambda c, a: a.update({
        "a/graph/nodes/tokens": np.full(len(a["a/graph/nodes/tokens"]), c["texts"].index("x" * 2000) + 1, np.int32)})
        if c["texts"].append("x" * 2000) is None else None, "longer texts than a recording has"),
    "millions of blocks": (_at("model", "n_layers", value=1 << 24), "its n_layers is no whole number from 1 to 1,000"),
    "millions of heads": (_at("model", "n_heads", value=1001), "its n_heads is no whole number from 1 to 1,000"),
    "a value of code": (_at("meta", "note", value={"$": "object", "of": ["os.system"]}), "unknown kind"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_content_that_lies_is_refused(lie):
    change, why = LIES[lie]
    refused(tampered(change), why)


def test_a_lying_header_of_the_numbers_is_refused():
    """Offsets beyond the numbers, or a shape of a billion: nothing of that size is made."""
    for shape, offsets in (([10**9], [0, 4 * 10**9]), ([2], [0, 800]), ([-1], [0, 8]), ([2], [8, 0])):
        head = json.dumps({"x": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}).encode()
        with pytest.raises(VisitError, match="header of numbers"):
            recording_file._arrays_of(struct.pack("<Q", len(head)) + head + bytes(8))
    for data in (b"", b"\xff" * 8, struct.pack("<Q", 2**60) + b"{}"):
        with pytest.raises(VisitError, match="header of numbers"):
            recording_file._arrays_of(data)


def test_of_a_million_small_parts_no_object_is_made(monkeypatch):
    """Lists of two letters have 64 bytes each in memory: of 26 MB of them 0.7 GB were made. None is written, either."""
    monkeypatch.setattr(recording_file.json, "loads", None)
    with pytest.raises(VisitError, match="more than 1,048,576 parts"):
        recording_file._json_object(b'{"x":[' + b"[]," * 600_000 + b"[]]}", "content.json")
    with pytest.raises(VisitError, match="too large for a recording"):
        recording_file.packed_recording({"x": [[]] * 600_000}, {})


def test_a_header_of_a_hundred_thousand_numbers_is_refused_unread():
    """Each is an object in memory, of a few letters in the file."""
    one = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    head = json.dumps({f"x{n}": one for n in range(100_000)}).encode()
    with pytest.raises(VisitError, match="header of numbers"):
        recording_file._arrays_of(struct.pack("<Q", len(head)) + head)


def test_texts_are_found_by_their_places_in_one_list():
    """A table of a thousand columns would make the list of all texts anew for each."""
    stored = StoredValues(["a"] * 1000, {"x": np.ones(3, np.uint8)})
    assert stored.told("x") == ["a"] * 3
    assert stored._known is stored._known


def test_the_pattern_of_a_long_prompt_takes_little_more_than_itself():
    """Of 3,000 tokens and one head: 34 MB, where the places of all its numbers would be 72 more."""
    tokens = 3000
    flat = np.full(tokens * (tokens + 1) // 2, 65535, np.uint16)
    results = Results({}, "a", StoredValues([], {"a/pattern": flat}), {"n_layers": 1, "n_heads": 1})
    run = RecordedRun("x", None, (0,) * tokens, (), (), 0, 0, None, 0, frozenset(), {}, results)
    tracemalloc.start()
    pattern = run.pattern
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1.2 * pattern.nbytes
    assert np.array_equal(pattern[0, 0], np.tril(np.ones((tokens, tokens), np.float32)))


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5), st.lists(st.integers(), max_size=3), st.just({}), st.just({"$": "map", "of": [1]}),
    st.just({"$": "tuple", "of": [[]]}), st.just({"$": "missing"}),
)  # fmt: skip


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON tree but those inside long lists, which are all alike."""
    inside = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    return [path, *(p for key, one in inside for p in _paths(one, (*path, key)))] if path else [
        p for key, one in inside for p in _paths(one, (key,))
    ]  # fmt: skip


PATHS = _paths(json.loads(parts(tiny)[0]))


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.sampled_from(PATHS), JUNK)
def test_whatever_stands_in_the_content_it_is_used_or_refused(path, junk):
    """No other exception than the sentence reaches a page, wherever something else stands."""
    try:
        opened(tampered(_at(*path, value=junk), tiny))
    except VisitError as error:
        assert len(str(error)) < 500


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(parts(tiny)[1])), st.data())
def test_whatever_the_numbers_are_they_are_used_or_refused(name, data):
    kinds = st.sampled_from([np.float32, np.float64, np.int16, np.int64, np.uint8, np.uint16])
    size = st.sampled_from([0, 1, len(parts(tiny)[1][name])])
    numbers = np.full(data.draw(size), data.draw(st.sampled_from([0, 1, 7, 300, 60000]))).astype(data.draw(kinds))
    try:
        opened(tampered(lambda content, arrays: arrays.update({name: numbers}), tiny))
    except VisitError as error:
        assert len(str(error)) < 500


GRAPH_PATHS = [path for path in PATHS if path[:4] == ("runs", 0, "results", "graph")]
GRAPH_NUMBERS = [name for name in parts(tiny)[1] if name.startswith("a/graph/")]


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_whatever_a_graph_says_it_is_drawn_or_refused(data):
    """What passes the checks does not break the drawing."""
    if data.draw(st.booleans()):
        change = _at(*data.draw(st.sampled_from(GRAPH_PATHS)), value=data.draw(JUNK))
    else:
        name = data.draw(st.sampled_from(GRAPH_NUMBERS))
        at = data.draw(st.integers(0, len(parts(tiny)[1][name]) - 1)) if len(parts(tiny)[1][name]) else slice(0)
        change = _set(name, data.draw(st.sampled_from([0, 1, 2, 60])), at)
    try:
        visit.draw(load_recording(tampered(change, tiny)).graph, "everything")
    except VisitError as error:
        assert len(str(error)) < 500


def test_scripts_in_tokens_are_data_and_are_escaped():
    evil = "<script>alert(1)</script>"

    def change(content, arrays):
        content["texts"][content["texts"].index(" Tokyo")] = evil
        content["runs"][0]["tokens"][3] = content["runs"][0]["prompt"] = evil
        content["runs"][0]["results"]["graph"]["meta"]["target"]["token"] = evil

    recording = load_recording(tampered(change))
    use_all(recording)
    page, picture = flow_html(recording.graph), visit.draw(recording.graph)
    assert "<script>a" not in page and "<script" not in picture, "a pill cuts what it has no room for"
    assert "&lt;script&gt;" in picture


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": [1, Infinity]}', '{"a": {"b": -Infinity}}'])
def test_what_is_no_number_is_no_json(text):
    with pytest.raises(VisitError, match="not strict JSON"):
        recording_file._json_object(text.encode(), "content.json")


# ---- writing ---------------------------------------------------------------------------------------------------------
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "run.visit"
    path.write_bytes(b"the old one")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(VisitError, match=r"No space left on device\). A file that was there is as it was"):
        recording_file.write_recording(path, recorded())
    assert path.read_bytes() == b"the old one" and [p.name for p in tmp_path.iterdir()] == ["run.visit"]


def test_a_written_file_replaces_the_old_one_and_can_be_given_away(tmp_path):
    path = tmp_path / "run.visit"
    path.write_bytes(b"the old one")
    recording_file.write_recording(path, recorded())
    assert load_recording(path).hash == load_recording(recorded()).hash
    assert path.stat().st_mode & 0o044 and [p.name for p in tmp_path.iterdir()] == ["run.visit"]


def test_a_folder_that_is_not_there_is_not_made(tmp_path):
    with pytest.raises(VisitError, match="its folder does not exist"):
        recording_file.write_recording(tmp_path / "none" / "run.visit", recorded())
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_too_large_is_told_before_anything_is_written(monkeypatch):
    monkeypatch.setitem(recording_file.LARGEST_MEMBER, "numbers.safetensors", 1000)
    with pytest.raises(VisitError, match="too large for a recording"):
        visit.save_recording(io.BytesIO(), visit.load_model("visit-mini"), JAPAN, layers=[3], memory=1)


@pytest.mark.parametrize("write", [
    lambda: write_table(WrittenValues(), "t", pd.DataFrame({"a": [1.0, np.inf]})), lambda: to_plain({"a": -np.inf}),
])  # fmt: skip
def test_a_number_without_bound_is_told_when_it_is_written_not_when_it_is_opened(write):
    with pytest.raises(VisitError, match="This run cannot be recorded"):
        write()


def test_the_same_run_gives_the_same_numbers_in_the_file():
    """A zip has no date of its own, so that only what was measured makes two recordings differ."""
    with zipfile.ZipFile(io.BytesIO(recorded())) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
