"""Real loading code on real folders: what is refused, and with which sentence."""

from __future__ import annotations

import json
import shutil
import time

import models
import pytest
import torch
from huggingface_hub import utils as hub_utils
from transformers import AutoConfig, BertConfig
from transformers.utils import logging as hf_logging

import visit
from visit import VisitError, capture, load_model
from visit.models import load_weights
from visit.models.catalog import MINI_FOLDER, check_hosted
from visit.models.tokens import single_token, token_strings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small Llama saved as users save theirs."""
    path = tmp_path_factory.mktemp("saved")
    model = models.small("llama", torch.float32)
    model.hf.save_pretrained(path)
    model.tokenizer.save_pretrained(path)
    return path


def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "model")


def test_a_saved_folder_loads_and_gives_the_same_logits(folder):
    model = load_model(str(folder))
    before = models.small("llama", torch.float32)
    ids = [5, 9, 7]
    assert torch.equal(capture(model, ids).logits, capture(before, ids).logits)
    assert (model.n_heads, model.n_kv_heads, model.d_head, model.d_mlp) == (4, 2, 10, 37)
    assert model.d_vocab == before.d_vocab
    assert model.vocabulary[-1] == f"[{model.d_vocab - 1}]"
    assert model.revision.startswith("sha256:")


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_dtype_is_what_was_asked_for(folder, dtype):
    model = load_model(folder, dtype=dtype)
    assert str(model.dtype) == f"torch.{dtype}" and model.hf.config._attn_implementation == "eager"
    assert visit.ledger(model, capture(model, [4, 5, 6]))["holds"].all()


def test_no_model_no_weights_pickles_only(folder, tmp_path):
    with pytest.raises(VisitError, match=r"no config\.json"):
        load_model(tmp_path)
    path = copied(folder, tmp_path)
    (path / "model.safetensors").unlink()
    with pytest.raises(VisitError, match="no weights"):
        load_model(path)
    (path / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    with pytest.raises(VisitError, match=r"pickled weights \(pytorch_model\.bin\)"):
        load_model(path)


def test_a_broken_config_an_unknown_family_and_half_a_checkpoint(folder, tmp_path):
    path = copied(folder, tmp_path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text("{")
    with pytest.raises(VisitError, match="config"):
        load_model(path)
    (path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 5}))
    with pytest.raises(VisitError, match="incomplete"):
        load_model(path)
    BertConfig(hidden_size=24, num_attention_heads=4, num_hidden_layers=1).save_pretrained(path)
    with pytest.raises(VisitError, match=r"'bert'.*no module paths"):
        load_model(path)
    assert AutoConfig.from_pretrained(path).model_type == "bert"


def test_truncated_weights_are_a_sentence(folder, tmp_path):
    path = copied(folder, tmp_path)
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(VisitError, match="weights of"):
        load_model(path)


def test_remote_code_is_never_run(folder, tmp_path):
    path = copied(folder, tmp_path)
    config = json.loads((path / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}
    (path / "config.json").write_text(json.dumps(config))
    (path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(VisitError):
        load_model(path)
    assert not (tmp_path / "ran").exists()


def test_a_hub_that_cannot_be_reached_says_so_in_seconds(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("visit.models.hub.HfApi", lambda: __import__("huggingface_hub").HfApi("http://127.0.0.1:9"))
    started = time.monotonic()
    with pytest.raises(VisitError, match=r"neither a folder nor whole in the local cache.*did not answer"):
        load_model("some-org/some-model-that-is-not-cached")
    assert time.monotonic() - started < 20  # a hang, not a speed, is what this guards against
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(VisitError, match="HF_HUB_OFFLINE"):
        load_model("some-org/some-model-that-is-not-cached")


@pytest.mark.parametrize("name", ["/no/such/folder", "a/b/c", "../x", "<script>", "a b", "a\nb"])
def test_what_is_neither_folder_nor_hub_id(name, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # where the tests were started there may be a `../x`
    with pytest.raises(VisitError, match="no hub id"):
        load_model(name)


def test_a_wrong_dtype_gets_a_sentence(folder):
    with pytest.raises(VisitError, match="float128"):
        load_model(folder, dtype="float128")


def test_a_hosted_app_loads_listed_models_only(folder, monkeypatch):
    monkeypatch.setenv("VISIT_HOSTED", "1")
    for name in (str(folder), "some-org/anything", str(MINI_FOLDER)):
        with pytest.raises(VisitError, match="hosted"):
            load_model(name)
    check_hosted("visit-mini")


def test_sdpa_is_refused_because_it_has_no_patterns():
    from transformers import AutoModelForCausalLM

    from visit.models.model import wrap

    hf = AutoModelForCausalLM.from_config(models.CONFIGS["gpt2"](50), attn_implementation="sdpa")
    with pytest.raises(VisitError, match="eager"):
        wrap(hf, models.tokenizer(), "x")


def test_tokens_are_text_and_broken_bytes_are_shown():
    words = models.tokenizer()
    texts = token_strings(words, len(words) + 3)
    assert texts[-1] == f"[{len(words) + 2}]" and len(texts) == len(words) + 3
    assert " Tokyo" in texts and "\\xe9" in texts and "\n" in texts
    for text in (" Tokyo", " the", "a"):
        assert texts[single_token(words, text, "target")] == text


def test_a_target_of_several_tokens_is_named_with_its_pieces():
    words = models.tokenizer()
    with pytest.raises(VisitError, match=r"'Tokyoo' is 6.*'T', 'o'"):
        single_token(words, "Tokyoo", "target")
    vocabulary = token_strings(words, len(words))
    known = set(vocabulary)
    only_inside = next(t for t in vocabulary if len(t) > 3 and t.startswith(" ") and t[1:] not in known)
    with pytest.raises(VisitError, match="leading space"):
        single_token(words, only_inside[1:], "target")


def test_sentencepiece_pieces_are_read_as_text():
    class Pieces:
        def __len__(self):
            return 4

        def convert_ids_to_tokens(self, ids):
            known = ["▁Tokyo", "<0xE9>", "<s>", "<0x41>"]
            return [known[i] for i in ids]

    assert token_strings(Pieces(), 4) == [" Tokyo", "\\xe9", "<s>", "A"]


def said() -> tuple[int, bool, bool]:
    return hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled(), hub_utils.are_progress_bars_disabled()


def test_loading_leaves_the_progress_bars_and_reports_of_others_as_they_were():
    before = said()
    assert before[1], "nothing to lose"
    load_model("visit-mini")
    assert said() == before
    hf_logging.disable_progress_bar()
    try:
        load_model("visit-mini")
        assert not hf_logging.is_progress_bar_enabled() and hub_utils.are_progress_bars_disabled(), "a choice of theirs"
    finally:
        hf_logging.enable_progress_bar()


def test_two_who_load_at_once_are_quiet_until_the_last_has_left():
    before = said()
    first, second = load_weights.quiet(), load_weights.quiet()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)  # the first to come is the first to go: it must not take the other's quiet along
    assert said()[:2] == (hf_logging.CRITICAL, False)
    second.__exit__(None, None, None)
    assert said() == before
