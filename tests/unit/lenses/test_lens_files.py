"""A fitted lens as a file: the same lens again; one of another model, and what is no lens, is a sentence."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from functools import cache

import models
import pytest
import torch
from safetensors.torch import save_file

from visit import VisitError, capture, fit_lens, lens_map, load_lens, read_vectors
from visit.lenses.linear import fitted_lens, lens_path


@cache
def small_lens():
    return fit_lens(models.small("llama"), tokens=100)


def test_a_saved_lens_is_the_same_lens(tmp_path):
    lens = small_lens()
    again = load_lens(lens.save(tmp_path / "a" / "small.safetensors"))
    assert (again.maps == lens.maps).all() and (again.bias == lens.bias).all() and again.sites == lens.sites
    assert again.meta == json.loads(json.dumps(lens.meta)) and again.report.equals(lens.report)
    assert (again.held_out == lens.held_out).all() and (again.habit == lens.habit).all()
    assert {"model", "revision", "fingerprint", "tokens", "seed", "versions"} <= set(again.meta)


def test_a_lens_of_another_model_is_refused():
    other = models.small("gpt2")
    acts = capture(other, [1, 2, 3])
    for call in (
        lambda: read_vectors(other, acts.resid_post[0], lens=small_lens(), layer=0),
        lambda: lens_map(other, acts, lens=small_lens()),
        lambda: small_lens().controls(other, ["Paris is in", "Rome is in"]),
    ):
        with pytest.raises(VisitError, match=r"was fitted to llama.*other weights than those of gpt2"):
            call()


def test_a_fitted_lens_wants_to_know_the_block():
    model = models.small("llama")
    acts = capture(model, [1, 2, 3])
    for layer in (None, 3, -2):
        with pytest.raises(VisitError, match="say behind which one"):
            read_vectors(model, acts.resid_post[0], lens=small_lens(), layer=layer)


def spoilt(tmp_path, change):
    lens = small_lens()
    path = lens.save(tmp_path / "x.safetensors")
    if callable(change):
        change(path, lens)
    return path


def _as(**parts):
    return lambda path, lens: replace(lens, **parts).save(path)


BAD = {
    "a pickle": (lambda path, lens: path.write_bytes(pickle.dumps({"maps": 1})), "no lens file"),
    "nothing": (lambda path, lens: path.write_bytes(b""), "no lens file"),
    "cut off": (lambda path, lens: path.write_bytes(path.read_bytes()[:2000]), "no lens file"),
    "other tensors": (lambda path, lens: save_file({"a": torch.zeros(3)}, path), "no lens file"),
    "other shapes": (lambda path, lens: _as(maps=lens.maps[:, :3])(path, lens), "maps must be"),
    "one map less": (lambda path, lens: _as(maps=lens.maps[1:])(path, lens), "maps must be"),
    "no numbers": (lambda path, lens: _as(bias=lens.bias * float("nan"))(path, lens), "no numbers"),
    "another vocabulary": (lambda path, lens: _as(habit=lens.habit[:, :9])(path, lens), "habit must be"),
    "another version": (lambda path, _: path.write_bytes(path.read_bytes().replace(b"lens 1", b"lens 9")), "version"),
    "nothing of its making": (lambda path, lens: _as(meta=lens.meta | {"tokens": None})(path, lens), "no lens file"),
    "layers that are not there": (lambda path, lens: _as(sites=(*lens.sites[:-1], ("resid_post", 99)))(path, lens),
                                  "other layers"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_file_that_is_no_lens_is_a_sentence(kind, tmp_path):
    change, says = BAD[kind]
    with pytest.raises(VisitError, match=says):
        load_lens(spoilt(tmp_path, change))


def test_a_file_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(VisitError, match="no file"):
        load_lens(tmp_path / "none.safetensors")


def test_the_lens_of_a_model_lies_in_the_cache_and_a_damaged_one_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIT_CACHE", str(tmp_path))
    model = models.small("llama")
    assert fitted_lens(model) is None
    small_lens().save(lens_path(model))
    assert (fitted_lens(model).maps == small_lens().maps).all()
    lens_path(model).write_bytes(b"x")
    assert fitted_lens(model) is None
