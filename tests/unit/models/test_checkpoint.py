"""Checkpoints as people have them: whole, in shards, with an adapter, resized, damaged, contradicting themselves."""

from __future__ import annotations

import copy
import json
import shutil

import models
import pytest
import torch
from safetensors.torch import load_file, save_file

import visit
from visit import VisitError, capture, load_model
from visit.models.checkpoint import inspect_weights
from visit.models.load import read_checkpoint

IDS = [5, 9, 7]


def saved(path, name="llama", **options):
    """A small model as `save_pretrained` writes it."""
    model = models.small(name, torch.float32)
    model.hf.save_pretrained(path, **options)
    model.tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    path = saved(tmp_path_factory.mktemp("shards"), max_shard_size="20KB")
    assert len(list(path.glob("model-*.safetensors"))) > 3
    return path


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "model")


def rewritten(path, **values):
    file = path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    return path


def refused(path) -> str:
    with pytest.raises(VisitError) as problem:
        load_model(path)
    assert "\n" not in str(problem.value) and str(problem.value).endswith((".", ")"))
    return str(problem.value)


# ---- whole ones ------------------------------------------------------------------------------------------------------
def test_shards_and_one_file_are_the_same_model(folder, shards):
    assert torch.equal(capture(load_model(shards), IDS).logits, capture(load_model(folder), IDS).logits)
    assert inspect_weights(shards).parameters == inspect_weights(folder).parameters


def test_headers_count_the_parameters(folder):
    true = sum(p.numel() for p in models.small("llama", torch.float32).hf.parameters())
    assert inspect_weights(folder).parameters == true


def test_a_resized_and_padded_vocabulary(tmp_path):
    """Two new words and an embedding rounded up to 64 rows: all is there, and rows without a token say their number."""
    hf, words = copy.deepcopy(models.small("gpt2", torch.float32).hf), models.tokenizer()
    words.add_tokens(["<new>", "<other>"])
    hf.resize_token_embeddings(len(words), pad_to_multiple_of=64, mean_resizing=False)
    hf.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    model = load_model(tmp_path)
    assert model.d_vocab % 64 == 0 and model.d_vocab > len(words)
    assert model.vocabulary[model.token_id("<new>")] == "<new>"
    assert model.vocabulary[-1] == f"[{model.d_vocab - 1}]"
    acts = capture(model, "The capital<new> of")
    assert "<new>" in acts.tokens and visit.ledger(model, acts)["holds"].all()


def test_reading_tells_how_far_it_is(folder):
    told = []
    read_checkpoint(str(folder), None, None, None, lambda done, total: told.append((done, total)))
    total = told[-1][1]
    assert told == [(i, total) for i in range(total + 1)] and total == len(load_file(folder / "model.safetensors"))


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_half_precision_is_never_held_in_float32(folder, name, monkeypatch):
    model = load_model(folder, dtype=name)
    assert {p.dtype for p in model.hf.parameters()} == {getattr(torch, name)}


def test_auto_places_the_model_and_refuses_to_leave_weights_on_the_disk(folder, monkeypatch):
    pytest.importorskip("accelerate", reason="device='auto' is accelerate's")
    assert torch.equal(capture(load_model(folder, device="auto"), IDS).logits, capture(load_model(folder), IDS).logits)
    monkeypatch.setattr("transformers.integrations.accelerate.accelerate_max_memory", lambda *_a: {"cpu": 60_000})
    with pytest.raises(VisitError, match="does not fit onto the devices"):
        load_model(folder, device="auto")


def test_auto_without_accelerate_and_devices_that_are_not_there(folder, monkeypatch):
    with pytest.raises(VisitError, match="got 'banana'"):
        load_model(folder, device="banana")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(VisitError, match="no GPU"):
        load_model(folder, device="cuda")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(VisitError, match="pip install accelerate"):
        load_model(folder, device="auto")


# ---- damaged ones ----------------------------------------------------------------------------------------------------
def test_half_a_checkpoint_is_named_by_its_missing_files(shards, tmp_path):
    path = shutil.copytree(shards, tmp_path / "model")
    gone = sorted(path.glob("model-*.safetensors"))[1]
    gone.unlink()
    assert gone.name in refused(path) and "half there" in refused(path)


@pytest.mark.parametrize(("keep", "says"), [(-100, "cut short"), (100, "less than its own header"), (0, "0 bytes")])
def test_a_file_cut_short(copied, keep, says):
    file = copied / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert says in refused(copied)


@pytest.mark.parametrize(
    ("length", "content", "says"),
    [
        (20, b"not json, not at all" + b"x" * 99, "no safetensors file"),
        (3, b"[1]" + b"x" * 99, "no safetensors file"),
        (61, b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, -8]}}' + b"x" * 8, "no safetensors file"),
        (1 << 40, b"x" * 99, "less than its own header"),
    ],
)
def test_a_file_that_is_no_safetensors(copied, length, content, says):
    (copied / "model.safetensors").write_bytes(length.to_bytes(8, "little") + content)
    assert says in refused(copied)


def test_an_index_that_is_none(shards, tmp_path):
    path = shutil.copytree(shards, tmp_path / "model")
    (path / "model.safetensors.index.json").write_text("[1]")
    assert "no index of shards" in refused(path)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"hidden_size": 48}, "[2141, 24] in the checkpoint, and by config.json it would be [2141, 48]"),
        ({"num_key_value_heads": 1}, "k_proj.weight is [20, 24] in the checkpoint"),
        ({"vocab_size": 77}, "[77, 24]"),
        ({"num_hidden_layers": 2}, "model of 2 layers that has no place for model.layers.2."),
        ({"num_hidden_layers": 5}, "incomplete: 18 of its model's weights"),
        ({"attention_bias": True}, "incomplete"),
        ({"num_attention_heads": 5}, "not a multiple of the number of attention heads"),
        ({"hidden_size": "wide"}, "expected int"),
    ],
)
def test_a_config_that_contradicts_its_weights(copied, values, says):
    assert says in refused(rewritten(copied, **values))


def test_biases_that_the_config_denies(tmp_path):
    path = rewritten(saved(tmp_path / "model", "llama-biased-tied"), attention_bias=False)
    assert "no place for model.layers.0.self_attn.k_proj.bias" in refused(path)


def test_old_buffers_beside_the_weights_do_no_harm(tmp_path):
    path = saved(tmp_path / "model", "gpt2")
    weights = load_file(path / "model.safetensors")
    weights["transformer.h.0.attn.bias"] = torch.ones(1, 1, 64, 64)
    weights["transformer.h.0.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    assert load_model(path).n_layers == 3


# ---- tokenizers ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["GPT2Tokenizer", "LlamaTokenizer", "PreTrainedTokenizerFast", "T5Tokenizer"])
def test_a_tokenizer_without_its_vocabulary(copied, kind):
    """transformers makes an empty tokenizer of some of these, which would turn every prompt into nothing."""
    (copied / "tokenizer.json").unlink()
    (copied / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    assert "tokenizer" in refused(copied) and "tokenizer.save_pretrained" in refused(copied)
    (copied / "vocab.json").write_text('{"a": 0}')
    assert "tokenizer" in refused(copied)


def test_a_vocabulary_larger_than_the_embedding(tmp_path):
    hf, words = copy.deepcopy(models.small("gpt2", torch.float32).hf), models.tokenizer()
    hf.resize_token_embeddings(len(words) - 10)
    hf.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    said = refused(tmp_path)
    assert f"up to {len(words) - 1:,}" in said and f"{len(words) - 10:,} rows" in said


# ---- adapters --------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module", params=["gpt2", "llama"])
def adapter(request, tmp_path_factory):
    """(folder of an adapter, the model with the adapter beside it)."""
    peft = pytest.importorskip("peft", reason="adapters are merged by peft (pip install peft)")
    path = tmp_path_factory.mktemp("adapter")
    base = saved(path / "base", request.param)
    conv = request.param == "gpt2"
    about = peft.LoraConfig(
        r=3, target_modules=["c_attn", "c_proj"] if conv else ["q_proj", "down_proj"], task_type="CAUSAL_LM",
        init_lora_weights=False, fan_in_fan_out=conv,
    )  # fmt: skip
    torch.manual_seed(1)
    both = peft.get_peft_model(copy.deepcopy(models.small(request.param, torch.float32).hf), about).eval()
    both.peft_config["default"].base_model_name_or_path = str(base)
    both.save_pretrained(path / "lora")
    return path / "lora", both


def changed(adapter, tmp_path, **values):
    path = shutil.copytree(adapter, tmp_path / "lora")
    file = path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    return path


def test_an_adapter_is_merged_into_its_base(adapter):
    folder, both = adapter
    model = load_model(folder)
    ids = torch.tensor([IDS])
    with torch.no_grad():
        true = both(ids).logits[0]
        with both.disable_adapter():
            plain = both(ids).logits[0]
    found = capture(model, IDS).logits
    assert (found - true).abs().max() < 1e-4 < (plain - true).abs().max()
    assert visit.ledger(model, capture(model, IDS))["holds"].all()
    assert "adapter sha256:" in model.revision and "lora" not in type(model.hf).__name__.lower()


def test_an_adapter_that_cannot_be_merged_says_why(adapter, tmp_path, monkeypatch):
    folder, _ = adapter
    assert "no hub id" in refused(changed(folder, tmp_path / "a", base_model_name_or_path="/no/such/base"))
    assert "names no base model" in refused(changed(folder, tmp_path / "b", base_model_name_or_path=None))
    assert "'IA3'" in refused(changed(folder, tmp_path / "c", peft_type="IA3"))
    assert "size mismatch" in refused(changed(folder, tmp_path / "d", r=7))
    path = changed(folder, tmp_path / "e")
    assert "adapter itself" in refused(changed(folder, tmp_path / "f", base_model_name_or_path=str(path)))
    (path / "adapter_model.safetensors").rename(path / "adapter_model.bin")
    assert "safetensors only" in refused(path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install peft" in refused(folder)
