"""The static index says what the lens says, finds what a loop finds, and believes only whole files of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import models
import numpy as np
import pytest
import torch

import visit
from visit import VisitError
from visit.lenses import weights as static
from visit.lenses.logit import read
from visit.lenses.weights import (
    StaticRun,
    compute,
    forecast_seconds,
    found_index,
    index_file,
    matrices,
    read_rows,
    row_words,
    search_weights,
    static_index,
    weight_rows,
    weights_key,
)
from visit.models.model import wrap
from visit.runs.worker import Worker


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("VISIT_CACHE", str(tmp_path))
    monkeypatch.setattr(static, "ROWS_PER_ITEM", 4)  # small models have few rows
    static._BUILT.clear()
    return tmp_path


@pytest.fixture(params=models.KINDS)
def model(request):
    return models.small(request.param)


def test_every_row_reads_as_the_lens_reads_it(model):
    index = static_index(model)
    for layer in range(model.n_layers):
        for matrix, count in matrices(model).items():
            rows, span = weight_rows(model, matrix, layer), index.span(matrix, layer)
            assert rows.shape == (count, model.d_model)
            plain, turned = read(model, rows, k=20), read(model, -rows, k=20)
            assert (index.ids[span, 0] == plain.top_ids.numpy()).all()
            assert (index.ids[span, 1] == turned.top_ids.numpy()).all()
            assert index.entropy[span] == pytest.approx(plain.entropy.numpy(), abs=1e-5)
            assert index.norm[span] == pytest.approx(plain.norm.numpy(), rel=1e-6)


def test_a_row_is_a_column_of_the_weights(model):
    assert (weight_rows(model, "W_in", 1)[5] == model.W_in(1)[:, 5]).all()
    assert (weight_rows(model, "W_out", 1)[5] == model.W_out(1)[5]).all()
    head, place = 2, 3
    assert (weight_rows(model, "W_O", 1)[head * model.d_head + place] == model.W_O(1)[head, place]).all()
    gate = model.W_gate(1)
    assert ("W_gate" in matrices(model)) == (gate is not None)
    if gate is not None:
        assert (weight_rows(model, "W_gate", 1)[5] == gate[:, 5]).all()


def test_a_row_is_small(model):
    assert static_index(model).row_bytes <= 100


def test_a_large_vocabulary_needs_wide_ids_and_no_more_than_180_bytes():
    config = models.hf.GPT2Config(n_layer=1, n_embd=8, n_head=1, n_positions=8, vocab_size=65_537, **models.IDS)
    hf = models.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    index = static_index(wrap(hf, models.tokenizer(), "wide"))
    assert index.ids.dtype == np.uint32 and 100 < index.row_bytes <= 180
    assert len(search_weights(index, 65_536)) == (index.ids == 65_536).sum()


def test_search_finds_what_a_loop_finds(model):
    index = static_index(model)
    for token in (0, 7, 345, model.d_vocab - 1):
        true = set()
        for (matrix, layer), start in index.starts.items():
            for n in range(index.sizes[matrix]):
                for side, sign in ((0, 1), (1, -1)):
                    ids = index.ids[start + n, side].tolist()
                    if token in ids:
                        true.add((layer, matrix, n, sign, ids.index(token) + 1))
        table = search_weights(index, token)
        assert set(table[["layer", "matrix", "neuron", "sign", "place"]].itertuples(index=False, name=None)) == true
        assert len(table) == len(true) and table["place"].is_monotonic_increasing
        assert (table["head"].isna() == (table["matrix"] != "W_O")).all()
        for _, row in table.head(5).iterrows():
            own = row_words(index, row["matrix"], row["layer"], [row["neuron"]]).iloc[0]
            words = own["tokens" if row["sign"] > 0 else "negated_tokens"]
            assert words[row["place"] - 1] == model.vocabulary[token] and words[:5] == row["tokens"]
            assert (own["norm"], own["entropy"]) == pytest.approx((row["norm"], row["entropy"]))


# ---- on disk ---------------------------------------------------------------------------------------------------------


def count_computing(monkeypatch) -> list[int]:
    calls = []

    def computed(*given):
        calls.append(1)
        return compute(*given)

    monkeypatch.setattr(static, "compute", computed)
    return calls


def test_the_second_process_reads_the_file(monkeypatch):
    model = models.small("gpt2")
    calls = count_computing(monkeypatch)
    first = static_index(model)
    assert static_index(model) is first
    static._BUILT.clear()
    second = static_index(model)
    assert len(calls) == 1 and (first.ids == second.ids).all() and (first.entropy == second.entropy).all()


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    place = len(content) // 3
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


@pytest.mark.parametrize("damage", [half, flipped, lambda c: b"", lambda c: b"no index", lambda c: c + bytes(1 << 20)])
def test_a_damaged_file_is_noticed_and_written_again(monkeypatch, damage):
    model = models.small("llama")
    calls = count_computing(monkeypatch)
    true = static_index(model)
    file = index_file(weights_key(model))
    good = file.read_bytes()
    file.write_bytes(damage(good))
    static._BUILT.clear()
    assert (static_index(model).ids == true.ids).all() and len(calls) == 2
    static._BUILT.clear()
    static_index(model)
    assert len(calls) == 2, "the file was written again"


def test_a_file_of_other_weights_or_another_version_is_foreign(monkeypatch):
    model, other = models.small("gpt2"), models.small("gpt2", torch.float32)
    calls = count_computing(monkeypatch)
    static_index(model)
    file = index_file(weights_key(other))
    file.write_bytes(index_file(weights_key(model)).read_bytes())  # the same sizes, another key
    static_index(other)
    assert len(calls) == 2
    static._BUILT.clear()
    monkeypatch.setattr(static, "STATIC_VERSION", 99)
    static_index(model)
    assert len(calls) == 3


def test_numbers_that_were_changed_do_not_match_their_checksum():
    model = models.small("gpt2")
    index = static_index(model)
    file = index_file(weights_key(model))
    with np.load(file) as found:
        arrays = {name: found[name] for name in found.files}
    arrays["ids"] = arrays["ids"][::-1]
    with file.open("wb") as out:
        np.savez(out, **arrays)
    static._BUILT.clear()
    assert (static_index(model).ids == index.ids).all()


def test_no_pickle_is_read(folder):
    model = models.small("gpt2")
    file = index_file(weights_key(model))
    file.parent.mkdir(parents=True)
    ids = static_index(model).ids
    np.savez(file, ids=np.array([print, 1], dtype=object), allow_pickle=True)
    static._BUILT.clear()
    assert (static_index(model).ids == ids).all()


def test_any_byte_of_the_weights_makes_another_key():
    def tiny():
        torch.manual_seed(3)
        config = models.hf.GPT2Config(n_layer=1, n_embd=8, n_head=2, n_positions=8, vocab_size=2141, **models.IDS)
        return models.AutoModelForCausalLM.from_config(config, attn_implementation="eager")

    keys = {weights_key(wrap(tiny(), models.tokenizer(), "a")), weights_key(wrap(tiny(), models.tokenizer(), "b"))}
    assert len(keys) == 1, "equal weights under two names share one file"
    for path in ("h.0.mlp.c_proj", "h.0.mlp.c_fc", "h.0.attn.c_proj", "ln_f", "wte"):
        hf = tiny()
        with torch.no_grad():
            hf.transformer.get_submodule(path).weight.view(-1)[-1] += 1e-3
        keys.add(weights_key(wrap(hf, models.tokenizer(), "a")))
    assert len(keys) == 6


def test_a_place_that_cannot_be_written_is_no_error(folder, monkeypatch):
    (folder / "file").write_text("no folder")
    monkeypatch.setenv("VISIT_CACHE", str(folder / "file"))
    assert len(static_index(models.small("gpt2")).norm)


def test_threads_build_once_and_an_interrupted_reading_keeps_nothing(monkeypatch, folder):
    model = models.small("gpt2")

    def stop(done, total):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        static_index(model, stop)
    assert not list(folder.rglob("*.npz"))
    calls, found = count_computing(monkeypatch), []
    threads = [threading.Thread(target=lambda: found.append(static_index(model))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1 and len(found) == 8 and all(f is found[0] for f in found)


@pytest.mark.slow
def test_two_processes_at_once_do_no_harm(folder):
    code = (
        "import json, visit; from visit.lenses.weights import compute;"
        "m = visit.load_model('visit-mini'); made = [compute(m) for _ in range(3)];"
        "print(json.dumps([int(index.ids.astype('int64').sum()) for index in made]))"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=env) for _ in range(2)]
    sums = [n for p in both for n in json.loads(p.communicate(timeout=120)[0])]
    model = visit.load_model("visit-mini")
    key = weights_key(model)
    assert len(set(sums)) == 1 and [f.name for f in (folder / "static").iterdir()] == [index_file(key).name]
    assert static.load_index(key, static._shapes(model))["ids"].astype("int64").sum() == sums[0]


def test_progress_reaches_the_end():
    model, seen = models.small("llama"), []
    static_index(model, lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == len(static_index(model).norm) and seen == sorted(seen)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda i: search_weights(i, -1), "from 0 to"),
        (lambda i: search_weights(i, 10**6), "got 1000000"),
        (lambda i: row_words(i, "W_up", 0, [0]), "W_out, W_in, W_O, layers 0 to 2; got W_up"),
        (lambda i: row_words(i, "W_in", 3, [0]), "got W_in, layer 3"),
        (lambda i: row_words(i, "W_out", 0, [40]), "run from 0 to 39; got 40"),
    ],
)
def test_a_wrong_question_gets_a_sentence(call, says):
    with pytest.raises(VisitError, match=says):
        call(static_index(models.small("gpt2")))


# ---- as a run --------------------------------------------------------------------------------------------------------


def counted_rows(monkeypatch) -> list[int]:
    """How many rows each batch of a run has read."""
    seen: list[int] = []
    update = StaticRun.update

    def counted(self, rows):
        update(self, rows)
        seen.append(len(rows))

    monkeypatch.setattr(StaticRun, "update", counted)
    return seen


def test_a_run_makes_the_same_index_whatever_its_batches(model):
    true, job = compute(model), StaticRun(model)
    sizes, at = [1, 7, 50, 3, 1000], 0
    while at < len(job.items):
        assert job.snapshot() is None, "a part answers no question about all neurons"
        size = sizes[0]
        sizes = [*sizes[1:], size]
        job.update(job.items[at : at + size])
        at += size
    found = job.snapshot()
    assert (found.ids == true.ids).all() and found.norm == pytest.approx(true.norm, rel=1e-6)
    assert found.entropy == pytest.approx(true.entropy, abs=1e-5)
    assert static_index(model) is found


def test_a_stopped_run_goes_on_where_it_was_and_the_whole_lies_in_the_indexs_own_file(tmp_path, monkeypatch):
    model, seen = models.small("llama"), counted_rows(monkeypatch)
    worker = Worker(tmp_path / "runs", seconds=0)
    update = StaticRun.update

    def stopping(self, rows):
        update(self, rows)
        if self.done > self.total // 3:
            run.cancel()

    with monkeypatch.context() as patch:
        patch.setattr(StaticRun, "update", stopping)
        run = worker.submit("index", lambda: StaticRun(model))
        run.wait(60)
    total, kept = len(StaticRun(model).items), run.progress.done
    assert run.state == "cancelled" and 0 < kept < total and run.result is None and found_index(model) is None
    del seen[:]
    again = Worker(tmp_path / "runs", seconds=0)  # as after a restart of the program
    index = again.submit("index", lambda: StaticRun(model)).wait(60)
    assert sum(seen) == total - kept and index_file(weights_key(model)).is_file() and found_index(model) is index
    assert (index.ids == compute(model).ids).all()
    assert next((tmp_path / "runs").glob("*.npz")).stat().st_size < 2_000, "not written a second time"
    static._BUILT.clear()
    del seen[:]
    third = Worker(tmp_path / "runs", seconds=0).recall("index", lambda: StaticRun(model))
    assert (third.result.ids == index.ids).all() and not seen


def test_what_is_at_hand_is_found_and_nothing_is_made_for_it(monkeypatch):
    model, calls = models.small("gpt2"), count_computing(monkeypatch)
    assert found_index(model) is None and not calls
    index = static_index(model)
    static._BUILT.clear()
    assert (found_index(model).ids == index.ids).all() and len(calls) == 1


def test_a_few_rows_are_read_without_an_index(model):
    assert found_index(model) is None
    few = {matrix: read_rows(model, matrix, 1, [3, 0, 5], 7) for matrix in matrices(model)}
    assert found_index(model) is None
    index = static_index(model)
    for matrix, rows in few.items():
        true = row_words(index, matrix, 1, [3, 0, 5], 7)
        assert rows["tokens"].tolist() == true["tokens"].tolist() and rows["neuron"].tolist() == [3, 0, 5]
        assert rows["negated_tokens"].tolist() == true["negated_tokens"].tolist()
        assert rows["entropy"].tolist() == pytest.approx(true.entropy.tolist(), abs=1e-5)
    with pytest.raises(VisitError, match="W_in run from 0 to"):
        read_rows(model, "W_in", 0, [10**6])


def test_the_forecast_grows_with_the_rows():
    seconds = forecast_seconds(models.small("gpt2"))
    assert 0 < seconds < 60
