"""GGUF files: read bit for bit as transformers reads them, kept once in memory, refused in a sentence."""

from __future__ import annotations

import logging
import struct

import gguf_files as files
import numpy as np
import pytest
import torch
from gguf_files import Q, random_model, write
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import visit
from visit import VisitError, load_model
from visit.models import gguf
from visit.models.gguf_header import MAX_ELEMENTS, check_header
from visit.models.provenance import quantization_note

IDS = [5, 90, 7, 33, 12, 64]
WRITTEN = list(files.CONFIGS)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def refused(path) -> str:
    with pytest.raises(VisitError) as problem:
        load_model(path)
    assert "\n" not in str(problem.value) and str(problem.value).endswith((".", ")"))
    return str(problem.value)


def same(one, two, within=0.0):
    left, right = one.state_dict(), two.state_dict()
    assert left.keys() == right.keys()
    for name in left:
        assert torch.allclose(left[name], right[name], rtol=0, atol=within), name


# ---- what is read ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("architecture", WRITTEN)
def test_a_file_of_plain_numbers_is_the_model_it_was_written_from(architecture, tmp_path):
    """Weights bit for bit, and the config: the same logits. Not only what transformers makes of the file."""
    original = random_model(architecture)
    model = load_model(write(tmp_path / "small.gguf", architecture, original))
    same(model.hf, original, within=1e-6 if "gemma" in architecture else 0)  # whose norms are stored as 1 + weight
    ids = torch.tensor([IDS])
    assert torch.allclose(model.hf(ids).logits, original(ids).logits, rtol=1e-5, atol=1e-5)
    assert model.quantization == "" and quantization_note(model) == ""


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2", "gemma3"])
def test_texts_are_tokens_as_transformers_reads_the_file_and_as_their_maker_did(architecture, tmp_path):
    file = write(tmp_path / "small.gguf", architecture, random_model(architecture))
    words = load_model(file).tokenizer
    read = AutoTokenizer.from_pretrained(tmp_path, gguf_file=file.name)
    for text in ("The capital of Japan, in 12: two  spaces\nand a line", "東京", "<bos>a"):
        assert words(text)["input_ids"] == read(text)["input_ids"]
    if "gemma" not in architecture:
        text = "The capital of Japan, and 12"
        assert words(text)["input_ids"] == files.tokenizer()(text)["input_ids"]


@pytest.mark.parametrize("kind", [Q.Q4_1, Q.Q8_0, Q.BF16])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma3"])
def test_quantised_weights_are_those_of_transformers_bit_for_bit(architecture, kind, tmp_path):
    file = write(tmp_path / "small.gguf", architecture, random_model(architecture), kind)
    model = load_model(file, dtype="float32")
    same(model.hf, AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32))


def test_mistral_files_are_written_as_llama_and_have_the_window_that_they_name(tmp_path):
    original = random_model("llama")
    for window in (None, 5):
        extra = {} if window is None else {"llama__attention__sliding_window": window}
        model = load_model(write(tmp_path / f"{window}.gguf", "llama", original, name="mistral", **extra))
        assert model.family.name == "Mistral" and model.hf.config.sliding_window == window
        same(model.hf, original)


def test_gpt2_as_transformers_reads_it(tmp_path):
    """At its own 1,024 positions: for another number transformers keeps its default and fails; we take the file's."""
    original = AutoModelForCausalLM.from_config(
        files.hf.GPT2Config(n_layer=1, n_embd=64, n_head=4, vocab_size=len(files.tokenizer())), dtype=torch.float32
    )
    file = write(tmp_path / "small.gguf", "gpt2", original, Q.Q8_0)
    same(load_model(file).hf, AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32))


def test_the_config_is_that_of_transformers(tmp_path):
    file = write(tmp_path / "small.gguf", "llama", random_model("llama"), Q.Q4_1)
    model = load_model(file)
    read, oracle = model.hf.config.to_dict(), AutoConfig.from_pretrained(tmp_path, gguf_file=file.name).to_dict()
    own = {"_name_or_path", "dtype", "architectures"}
    assert {n: v for n, v in read.items() if n not in own} == {n: v for n, v in oracle.items() if n not in own}


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3"])
def test_the_ledger_holds_on_dequantised_weights(architecture, tmp_path):
    model = load_model(write(tmp_path / "small.gguf", architecture, random_model(architecture), Q.Q4_1))
    acts = visit.capture(model, IDS)
    assert visit.ledger(model, acts)["holds"].all()


def test_what_quantisation_costs_is_said_wherever_the_model_is_named(tmp_path):
    model = load_model(write(tmp_path / "small.gguf", "llama", random_model("llama"), Q.Q4_1))
    note = "4-bit (Q4_1), dequantised: answers can differ a little from the original's"
    assert quantization_note(model) == note
    graph = visit.build_flow_graph(model, visit.capture(model, IDS), layers=[0])
    assert graph.meta["quantization"] == note
    assert note in visit.draw(graph)
    from visit.analyses.doctor import examine

    meta, tables = examine(model)
    assert meta["quantization"] == note
    assert note in tables["model"]["value"].tolist()


def test_half_precision_of_a_file_is_kept_where_it_is_asked_for(tmp_path):
    original = random_model("llama")
    model = load_model(write(tmp_path / "small.gguf", "llama", original, Q.BF16), dtype="bfloat16")
    assert model.dtype == torch.bfloat16
    assert torch.equal(model.hf.lm_head.weight, original.lm_head.weight.to(torch.bfloat16))


# ---- what is kept ----------------------------------------------------------------------------------------------------
def test_the_second_load_parses_nothing_and_reads_the_same(tmp_path, cache, monkeypatch):
    file = write(tmp_path / "small.gguf", "llama", random_model("llama"), Q.Q4_1)
    first = load_model(file)
    assert not list(cache.rglob("*.safetensors")), "never a second copy of the weights"
    assert sum(p.stat().st_size for p in cache.rglob("*") if p.is_file()) < 1 << 20

    def parse(*_):
        raise AssertionError("the file's header was parsed again")

    monkeypatch.setattr(gguf, "_reader", parse)
    second = load_model(file)
    same(first.hf, second.hf)
    assert second.tokenizer("a test")["input_ids"] == first.tokenizer("a test")["input_ids"]
    assert second.revision == first.revision and second.quantization == first.quantization


def test_another_file_in_the_same_place_is_another_model(tmp_path):
    original = random_model("llama")
    file = write(tmp_path / "small.gguf", "llama", original, Q.Q8_0)
    before = load_model(file)
    with torch.no_grad():
        original.lm_head.weight.mul_(2)
    after = load_model(write(file, "llama", original, Q.Q8_0))
    assert after.revision != before.revision
    assert not torch.equal(after.hf.lm_head.weight, before.hf.lm_head.weight)


def test_a_damaged_cache_is_made_again(tmp_path, cache):
    file = write(tmp_path / "small.gguf", "llama", random_model("llama"))
    first = load_model(file)
    (kept,) = cache.rglob("gguf.json")
    kept.write_text("{")
    same(load_model(file).hf, first.hf)


def test_a_cache_that_cannot_be_written_is_said_once_and_works(tmp_path, monkeypatch, caplog):
    (tmp_path / "not-a-folder").write_text("")
    monkeypatch.setenv("VISIT_CACHE", str(tmp_path / "not-a-folder"))
    file = write(tmp_path / "small.gguf", "llama", random_model("llama"))
    with caplog.at_level(logging.WARNING, "visit"):
        same(load_model(file).hf, load_model(file).hf)
    assert len([r for r in caplog.records if "cannot be written" in r.getMessage()]) == 1


def test_a_folder_with_one_file_is_that_file(tmp_path):
    file = write(tmp_path / "small.gguf", "llama", random_model("llama"))
    assert load_model(tmp_path).revision == load_model(file).revision


# ---- what is refused -------------------------------------------------------------------------------------------------
def test_a_file_that_is_cut_short_is_refused(tmp_path):
    file = write(tmp_path / "small.gguf", "llama", random_model("llama"))
    whole = file.read_bytes()
    for size in (len(whole) - 1000, len(whole) // 2, 5000, 30):
        file.write_bytes(whole[:size])
        assert "cut short or damaged" in refused(file), size


def test_a_header_that_lies_is_refused(tmp_path):
    file = write(tmp_path / "small.gguf", "llama", random_model("llama"))
    whole = bytearray(file.read_bytes())
    whole[8:16] = (1 << 40).to_bytes(8, "little")  # tensors that are not there
    file.write_bytes(bytes(whole))
    assert "its header claims 1,099,511,627,776 tensors" in refused(file)


def test_a_header_with_a_huge_list_is_refused_before_it_is_laid_out(tmp_path, monkeypatch):
    """Its elements are there, a byte each; the reader makes an array of every one."""
    word = lambda text: struct.pack("<Q", len(text)) + text  # noqa: E731
    for lists, said in (
        ([(0, MAX_ELEMENTS + 1)], f"lists of {MAX_ELEMENTS + 1:,} elements"),
        ([(0, MAX_ELEMENTS // 2 + 1)] * 2, f"lists of {MAX_ELEMENTS + 2:,} elements"),
        ([(0, 1 << 60)], "lists of 1,152,921,504,606,846,976 elements"),
        ([(9, 3)], "a list of lists"),
    ):
        file = tmp_path / "huge.gguf"
        with file.open("wb") as out:
            out.write(
                b"GGUF" + struct.pack("<IQQ", 3, 0, 1 + len(lists)) + word(b"general.name") + struct.pack("<I", 8)
            )
            out.write(word(b"x"))
            for kind, count in lists:
                out.write(word(b"tokenizer.ggml.token_type") + struct.pack("<IIQ", 9, kind, count))
                out.write(bytes(min(count, 3 * MAX_ELEMENTS)))
        with monkeypatch.context() as patch:
            patch.setattr("gguf.GGUFReader", None)
            assert said in refused(file)


def test_a_header_in_the_other_byte_order_is_counted_as_well(tmp_path):
    (tmp_path / "big.gguf").write_bytes(b"GGUF" + struct.pack(">IQQ", 3, 0, 1 << 40) + bytes(100))
    with pytest.raises(VisitError, match="claims 1,099,511,627,776 keys"):
        check_header(tmp_path / "big.gguf")


def test_another_magic_is_refused(tmp_path):
    (tmp_path / "small.gguf").write_bytes(b"GGML" + bytes(100))
    assert "is no GGUF file: it begins with b'GGML'" in refused(tmp_path / "small.gguf")


def test_two_files_in_a_folder_are_named(tmp_path):
    for name in ("one.gguf", "two.gguf"):
        write(tmp_path / name, "llama", random_model("llama"))
    assert "one.gguf, two.gguf" in refused(tmp_path)
    assert load_model(tmp_path / "two.gguf").n_layers == 2


def test_an_architecture_that_is_not_ours_is_refused_by_name(tmp_path):
    text = refused(write(tmp_path / "small.gguf", "phi3", random_phi3()))
    assert "'phi3'" in text and "llama, mistral, qwen2" in text


def random_phi3():
    config = files.hf.Phi3Config(
        num_hidden_layers=1, hidden_size=64, num_attention_heads=4, intermediate_size=64, pad_token_id=0,
        vocab_size=len(files.tokenizer()),
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config)


def test_a_quantisation_that_cannot_be_undone_is_refused_by_name(tmp_path, monkeypatch):
    import gguf.quants

    def dequantize(data, kind):
        raise NotImplementedError(kind)

    file = write(tmp_path / "small.gguf", "llama", random_model("llama"), Q.Q4_1)
    monkeypatch.setattr(gguf.quants, "dequantize", dequantize)
    assert "is quantised as " in refused(file)


def test_vision_parts_are_refused(tmp_path):
    file = write(tmp_path / "small.gguf", "llama", random_model("llama"), general__type="mmproj")
    assert "vision part" in refused(file)


def test_a_part_of_a_model_is_refused(tmp_path):
    file = write(tmp_path / "small-00001-of-00003.gguf", "llama", random_model("llama"))
    assert "one part of a model" in refused(file)


def test_a_scaled_rotation_is_refused_as_transformers_would_drop_it(tmp_path):
    options = {"llama__rope__scaling__type": "linear", "llama__rope__scaling__factor": 4.0}
    assert "scaled for long texts" in refused(write(tmp_path / "a.gguf", "llama", random_model("llama"), **options))


def test_a_tensor_that_has_no_place_is_refused(tmp_path, monkeypatch):
    """Biases of q, k and v in a Llama file: transformers' config has no word for them, and drops them."""
    laid = files.tensors
    extra = {"blk.0.attn_q.bias": np.zeros(64, np.float32)}
    monkeypatch.setattr(files, "tensors", lambda *about: {**laid(*about), **extra})
    text = refused(write(tmp_path / "small.gguf", "llama", random_model("llama")))
    assert "blk.0.attn_q.bias" in text


def test_a_tensor_that_is_missing_is_refused(tmp_path, monkeypatch):
    laid = files.tensors
    monkeypatch.setattr(
        files, "tensors", lambda *about: {n: t for n, t in laid(*about).items() if n != "blk.1.ffn_up.weight"}
    )
    text = refused(write(tmp_path / "small.gguf", "llama", random_model("llama")))
    assert "model.layers.1.mlp.up_proj.weight" in text


def test_a_file_without_a_tokenizer_is_refused(tmp_path):
    assert "holds no tokenizer" in refused(write(tmp_path / "a.gguf", "llama", random_model("llama"), words=False))


def test_a_model_that_does_not_fit_is_refused_before_its_weights_are_read(tmp_path, monkeypatch):
    file = write(tmp_path / "small.gguf", "llama", random_model("llama"))
    monkeypatch.setattr("visit.models.load.memory_at_hand", lambda *_: 1 << 20)
    monkeypatch.setattr(gguf.Weights, "read", lambda *_: pytest.fail("weights were read"))
    assert "is not loaded: it needs" in refused(file)
