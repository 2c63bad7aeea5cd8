"""Folders that somebody else has made: nothing is believed, waited for or given memory before it is checked."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import tracemalloc

import gguf_files
import models
import pytest
import torch

from visit import VisitError, capture, load_model
from visit.models import checkpoint, load_weights
from visit.models.checkpoint import MAX_HEADER
from visit.models.fingerprint import stamp
from visit.models.hub import cached_folder, check_id
from visit.models.pool import Shelf


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole")
    model = models.small("gpt2", torch.float32)
    model.hf.save_pretrained(path)
    model.tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def refused(path) -> str:
    with pytest.raises(VisitError) as problem:
        load_model(path)
    assert "\n" not in str(problem.value) and len(str(problem.value)) < 900
    return str(problem.value)


def rewritten(path, file="config.json", **values):
    found = json.loads((path / file).read_text())
    (path / file).write_text(json.dumps({**found, **values}))
    return path


def with_header(path, header: bytes, more: int = 0):
    (path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * more)
    return path


# ---- sizes that are claimed ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"vocab_size": 30_000_000}, "in the checkpoint, and by config.json it would be [30000000, 24]"),
        ({"n_inner": 20_000_000}, "20000000"),
        ({"n_embd": 24_000}, "72000"),
        ({"n_layer": 9_000}, "9,000 layers, and there are 40 tensors"),
        ({"n_layer": 10**9}, "1e+09"),
        ({"n_head": 0}, "num_attention_heads = 0"),
        ({"n_embd": 0}, "hidden_size = 0"),
        ({"n_layer": -1}, "num_hidden_layers = -1"),
        ({"vocab_size": 10**18}, "not loaded"),
        ({"n_positions": 10**15}, "by config.json"),
        ({"n_embd": True}, "expected int, got bool"),
    ],
)
def test_a_config_that_claims_other_sizes_is_refused_before_a_weight_is_made(folder, monkeypatch, values, says):
    def never(*_args, **_options):
        pytest.fail("transformers was asked for the weights")

    monkeypatch.setattr(load_weights.AutoModelForCausalLM, "from_pretrained", never)
    assert says in refused(rewritten(folder, **values))


def test_a_model_without_most_of_its_weights_is_refused_before_they_are_made(folder, monkeypatch):
    monkeypatch.setattr(load_weights.AutoModelForCausalLM, "from_pretrained", lambda *a, **o: pytest.fail("asked"))
    one = json.dumps({"a": {"dtype": "F32", "shape": [0] + [10**6] * 90, "data_offsets": [0, 0]}}).encode()
    assert "contradicts" in refused(with_header(folder, one))
    many = {f"t{i}": {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]} for i in range(50)}
    assert "incomplete: 4" in refused(with_header(folder, json.dumps(many).encode(), 200))


@pytest.mark.parametrize(
    "header",
    [
        b'{"a":{"dtype":"F32","shape":["x",8000000000],"data_offsets":[0,0]}}',
        b'{"a":' * 200_000,
        b'{"a":' + b"[" * 200_000,
        json.dumps({"a": {"dtype": "F32", "shape": [10**18] * 200, "data_offsets": [0, 0]}}).encode(),
        b'{"a":{"dtype":"F32","shape":[1e18],"data_offsets":[0,0]}}',
    ],
    ids=["text", "deep", "deeper", "huge", "float"],
)
def test_a_header_that_lies_costs_nothing(folder, header):
    tracemalloc.start()
    try:
        said = refused(with_header(folder, header))
        assert "safetensors" in said and tracemalloc.get_traced_memory()[1] < 50 << 20
    finally:
        tracemalloc.stop()


def test_a_header_longer_than_any_models_is_not_parsed(folder, monkeypatch):
    monkeypatch.setattr(checkpoint, "safe_open", lambda *_a: pytest.fail("parsed"))
    with_header(folder, b" " * (MAX_HEADER + 1))
    assert "no model's has more" in refused(folder)


@pytest.mark.parametrize(
    "content", ["[1]", "{", "[" * 200_000, "null", '"a"'], ids=["list", "cut", "deep", "null", "text"]
)
def test_a_config_or_index_that_is_none(folder, content):
    (folder / "model.safetensors").rename(folder / "x.safetensors")
    (folder / "model.safetensors.index.json").write_text(content)
    assert "no index of shards" in refused(folder)
    (folder / "config.json").write_text(content)
    assert "config" in refused(folder)


def test_a_gguf_file_that_claims_more_blocks_than_tensors(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIT_CACHE", str(tmp_path / "cache"))
    file = gguf_files.write(tmp_path / "small.gguf", "llama", gguf_files.random_model("llama"))
    data = file.read_bytes()
    at = data.index(b"llama.block_count") + len(b"llama.block_count") + 4
    file.write_bytes(data[:at] + (10**9).to_bytes(4, "little") + data[at + 4 :])
    assert "1,000,000,000 blocks" in refused(file)


# ---- what is no file -------------------------------------------------------------------------------------------------
def pipe(path):
    os.mkfifo(path)


def plug(path):
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's name has 108 characters at most
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


def ring(path):
    path.symlink_to(path.name)


def dangling(path):
    path.symlink_to("nowhere")


@pytest.mark.parametrize("make", [pipe, plug, ring, dangling, os.mkdir])
@pytest.mark.parametrize("name", ["model.safetensors", "more.safetensors", "config.json", "tokenizer.json", "x.gguf"])
def test_what_bears_the_name_of_a_file_and_is_none_is_never_opened(folder, make, name):
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    found = []

    def attempt():
        try:
            Shelf().get(str(folder))
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive(), "it waits for a pipe"
    assert isinstance(found[0], VisitError) and name in str(found[0]) and "not a file" in str(found[0])
    stamp(str(folder))


@pytest.mark.parametrize("make", [pipe, ring, dangling])
def test_a_path_that_is_no_folder(tmp_path, make):
    make(tmp_path / "model")
    refused(tmp_path / "model")
    assert stamp(str(tmp_path / "model")) == ()


@pytest.mark.parametrize(
    "name",
    ["--x", "a..b", "한국어", "~nouser/x", "x" * 280, "a/" * 5000, "a\0b", "..", ".", "a b", "x.git", "a--b", "", " "],
)
def test_names_that_are_neither_a_folder_nor_a_hub_id(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cached_folder(name) is None and stamp(name) == ()
    assert len(refused(name)) < 400
    if name not in (".",):
        with pytest.raises(VisitError):
            check_id(name)


# ---- a tokenizer that panics in Rust ---------------------------------------------------------------------------------
UNKNOWN_START = {
    "type": "TemplateProcessing", "pair": [], "special_tokens": {},
    "single": [{"SpecialToken": {"id": "x", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
}  # fmt: skip


def test_a_tokenizer_that_panics_when_it_is_read_is_a_sentence_for_all_who_wait(folder):
    rewritten(folder, "tokenizer.json", post_processor=UNKNOWN_START)
    shelf, told = Shelf(), []

    def ask():
        try:
            shelf.get(str(folder))
        except VisitError as error:
            told.append(str(error))

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(told) == 3 and all("tokenizer" in one and "no entry found for key" in one for one in told)


class PanicException(BaseException):
    """As pyo3 makes them: no `Exception`, and of a class that nobody can import."""


def test_whatever_ends_a_load_is_told_to_all_who_wait():
    def load(_name, _report):
        raise PanicException("index out of bounds")

    with pytest.raises(VisitError, match="index out of bounds"):
        Shelf(2, load).get("x")


@pytest.mark.parametrize("what", ["capture", "target"])
def test_a_panic_while_a_prompt_is_read_is_a_sentence(monkeypatch, what):
    model = models.small("gpt2", torch.float32)

    class Tokenizer:
        def __call__(self, *_a, **_o):
            raise PanicException("chunk size must be non-zero")

        encode = __call__

        def __len__(self):
            return len(model.tokenizer)

        def __getattr__(self, name):
            return getattr(model.tokenizer, name)

    object.__setattr__(broken := __import__("copy").copy(model), "tokenizer", Tokenizer())
    with pytest.raises(VisitError, match=r"(?s)tokenizer of .* failed inside its library \(chunk size"):
        capture(broken, "The capital of") if what == "capture" else broken.token_id(" two words")


@pytest.mark.parametrize("family", ["neox", "llama-biased-tied", "opt-projected"])
def test_names_that_only_transformers_knows_are_left_to_it(family, tmp_path):
    """GPT-NeoX's unembedding is stored under another name than its module has."""
    model = models.small(family, torch.float32)
    model.hf.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    assert torch.equal(capture(load_model(tmp_path), [5, 9]).logits, capture(model, [5, 9]).logits)
