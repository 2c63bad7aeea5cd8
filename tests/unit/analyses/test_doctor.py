"""The doctor: a pass, or the exact reason why not."""

from __future__ import annotations

import copy
import json

import models
import pytest
import torch
from safetensors.torch import load_file, save_file

from visit.__main__ import main
from visit.analyses.doctor import _on_cpu, against_cpu, examine, verdict, wrong_device
from visit.exact.ledger import model_ledger
from visit.models.model import wrap


def saved(path, name, **broken):
    """A small model whose named weights are made not-a-number at one place."""
    model = models.small(name, torch.float32)
    model.hf.save_pretrained(path)
    model.tokenizer.save_pretrained(path)
    weights = load_file(path / "model.safetensors")
    for key, bad in broken.items():
        weights[key].flatten()[3:5] = bad
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    return path


def doctor(capsys, *arguments):
    capsys.readouterr()  # what saving a model says
    status = main(["doctor", *map(str, arguments)])
    caught = capsys.readouterr()
    return status, caught.out, caught.err


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_good_model_passes_with_everything_that_is_known_of_it(capsys, name):
    _, tables = examine(models.small(name, torch.float32))
    known = dict(zip(tables["model"]["property"], tables["model"]["value"], strict=True))
    assert known["layers"] == "3" and known["special"] and "embedding rows without a token" in known["tokenizer"]
    memory = dict(zip(tables["memory"]["property"], tables["memory"]["value"], strict=True))
    assert memory["verdict"] == "fits" and "one capture at 64 tokens" in memory
    assert tables["ledger"]["identity"].tolist() == list(range(1, 11)) and tables["ledger"]["holds"].all()


@pytest.mark.parametrize(
    ("name", "key", "bad", "layer"),
    [
        ("gpt2", "transformer.h.1.mlp.c_proj.weight", torch.nan, 1),
        ("llama", "model.layers.2.self_attn.o_proj.weight", torch.nan, 2),
        ("llama", "model.layers.1.mlp.up_proj.weight", torch.inf, 1),
        ("gpt2", "transformer.wte.weight", torch.nan, None),
    ],
)
def test_weights_that_are_no_numbers_fail_the_ledger_and_are_named(capsys, tmp_path, name, key, bad, layer):
    status, out, err = doctor(capsys, saved(tmp_path, name, **{key: bad}))
    said = out.splitlines()[-1]
    assert status == 1 and err == "" and said.startswith("Identities that fail: ")
    assert f"{key} is NaN or infinite in 2 places." in said
    assert layer is None or f"first in layer {layer} " in said
    status, out, _ = doctor(capsys, tmp_path, "--json")
    report = json.loads(out)
    assert status == 1 and report["meta"]["verdict"] == said and not report["meta"]["ledger"]["holds"]


def test_a_wrong_sum_is_named_by_its_identity_and_layer():
    model = models.small("llama", torch.float32)
    table = model_ledger(model)
    wrong = (table["identity"] == 4) & (table["layer"] == 1)
    table.loc[wrong, ["max_rel_error", "holds"]] = [0.5, False]
    said = verdict(model, table)
    assert "Identities that fail: 4, first in layer 1 (identity 4: the stream is the sum" in said and "NaN" not in said


def test_what_is_no_model_exits_2_with_one_sentence(capsys, tmp_path):
    status, out, err = doctor(capsys, tmp_path)
    assert status == 2 and out == "" and err.startswith("visit: ") and err.count("\n") == 1
    status, _, err = doctor(capsys, "visit-mini", "--device", "banana")
    assert status == 2 and "banana" in err


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3"])
def test_a_device_that_computes_what_the_cpu_computes_passes_and_one_that_inverts_the_logits_does_not(name):
    model = models.small(name, torch.float32)
    good = against_cpu(model, _on_cpu(model))
    assert good["holds"] and good["max_rel_error"] == 0 and good["same_word"] == good["words"] == 8
    assert wrong_device(good) == []
    broken = wrap(copy.deepcopy(model.hf), model.tokenizer, name)  # stands for a device whose kernels are wrong
    broken.hf.get_output_embeddings().register_forward_hook(lambda _m, _a, out: -out)
    found = against_cpu(broken, _on_cpu(model))
    assert not found["holds"] and found["same_word"] < 8 and found["max_rel_error"] > 0.5
    assert wrong_device(found)[0].startswith("This device computes wrongly: cpu and CPU differ by ")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_differs_from_its_copy_in_float32_by_its_rounding_only(dtype):
    model = models.small("llama", dtype)
    copied = _on_cpu(model)
    assert {p.dtype for p in copied.parameters()} == {torch.float32} and model.dtype == dtype, "the model is left alone"
    found = against_cpu(model, copied)
    assert found["holds"] and 0 < found["max_rel_error"] < found["allowed"]


def test_a_device_that_gives_no_numbers_fails():
    model = models.small("gpt2", torch.float32)
    broken = wrap(copy.deepcopy(model.hf), model.tokenizer, "gpt2")
    broken.hf.get_output_embeddings().register_forward_hook(lambda _m, _a, out: out * torch.nan)
    assert not against_cpu(broken, _on_cpu(model))["holds"]


def test_on_the_cpu_there_is_nothing_to_compare_and_a_wrong_device_is_exit_status_1(capsys, monkeypatch):
    status, out, _ = doctor(capsys, "visit-mini")
    assert status == 0 and "CPU: nothing to compare" in out and out.splitlines()[-1] == "All identities hold."
    wrong = {"device": "mps", "holds": False, "max_rel_error": 2.0, "sentence": "mps and CPU differ by 2e+00"}
    monkeypatch.setattr("visit.analyses.doctor.against_cpu", lambda _model: wrong)
    status, out, _ = doctor(capsys, "visit-mini")
    assert status == 1 and "This device computes wrongly: mps and CPU differ" in out.splitlines()[-1]


def test_an_apple_gpu_that_is_not_there_is_a_sentence(capsys):
    if torch.backends.mps.is_available():
        pytest.skip("this machine has one")
    status, _, err = doctor(capsys, "visit-mini", "--device", "mps")
    assert status == 2 and "torch finds no Apple GPU here" in err
