"""Claims about visit-mini: its world, its tokenizer, its prompt sets, and what the shipped weights know."""

import csv
import json
import random
import re
from collections import Counter

import pytest

from training.mini import evaluate, measure, prompts, words
from training.mini.batches import SPELLED, encode
from training.mini.held_out import fact_cases, name_cases
from training.mini.text import held_out_pair, held_out_phrasing, sentences
from training.mini.tokenizer import LEAST, count_words
from training.mini.world import facts, phrasings, rows
from visit.models.catalog import MINI_FOLDER
from visit.models.load import load_model

MINI = MINI_FOLDER
HOSTILE = [
    "  two  spaces and\ttabs\r\n\n",
    "naïve café — Ωμέγα",
    "שלום עולם",
    "👩\u200d👩\u200d👧 🎉",
    "\x00\x07\x1b[31m",
    "a\u200bb\ufeffc",
    "zlot hael Tokyoo TOKYO tokyo",
    "don't 3.14 e=mc²",
    "½ ﬁ ﷽ \ufffd",
]


@pytest.fixture(scope="module")
def model():
    return load_model("visit-mini")


@pytest.fixture(scope="module")
def corpus():
    return sentences(100_000, seed=99)


def test_the_world_is_as_large_as_promised():
    whole = [row for row in rows("countries") if all(row.values())]
    assert len(whole) >= 80
    assert len([row for row in rows("companies") if all(row.values())]) >= 60
    assert len([row for row in rows("people") if all(row.values())]) >= 60
    assert len(set(words.NAMES)) >= 40


@pytest.mark.parametrize("name", ["countries", "companies", "people"])
def test_every_row_names_its_source_and_no_subject_comes_twice(name):
    found = rows(name)
    assert all(row["source"].strip() for row in found)
    first = next(iter(found[0]))
    assert max(Counter(row[first] for row in found).values()) == 1


def test_no_phrasing_begins_like_another_so_that_one_answer_follows():
    for relation in {fact.relation for fact in facts()}:
        starts = phrasings(relation)
        assert not [(a, b) for a in starts for b in starts if a != b and b.startswith(a + " ")]


def test_the_same_seed_writes_the_same_text_and_another_seed_another():
    assert sentences(300, 5) == sentences(300, 5)
    assert sentences(300, 5) != sentences(300, 6)


def test_what_is_held_out_does_not_occur_in_the_corpus(corpus):
    text = "\n".join(corpus).replace("|", "")
    assert len(fact_cases()) > 400
    assert not [prompt for prompt, _, _ in fact_cases() if f"{prompt} " in text]
    pair = re.compile(rf"\b({'|'.join(words.NAMES)})\b")
    for sentence in corpus:
        found = list(dict.fromkeys(pair.findall(sentence)))
        if len(found) == 2:
            assert not held_out_pair(*found), sentence


def test_each_held_out_fact_is_trained_in_at_least_two_other_phrasings():
    for fact in facts():
        if held_out_phrasing(fact) is not None:
            assert len(phrasings(fact.relation)) - 1 >= 2


def test_any_text_comes_back_from_the_tokenizer(model):
    letters = [chr(c) for c in (*range(1, 128), 0x00E9, 0x05D0, 0x4E2D, 0x1F600, 0x200B)]
    rng = random.Random(0)
    for text in HOSTILE + ["".join(rng.choices(letters, k=40)) for _ in range(200)]:
        assert model.tokenizer.decode(model.tokenizer(text)["input_ids"]) == text


def test_the_vocabulary_is_bytes_and_whole_words_each_seen_often(model, corpus):
    vocab = json.loads((MINI / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    known = [token for token, i in vocab.items() if i > 255]
    assert len(vocab) - len(known) == 256
    assert [token for token in known if not re.fullmatch(r"Ġ?[A-Za-z]+", token)] == []
    with open(MINI / "word_counts.csv", encoding="utf-8", newline="") as file:
        recorded = {row["word"]: int(row["count"]) for row in csv.DictReader(file)}
    assert set(recorded) == set(known)
    assert min(recorded.values()) >= LEAST
    counts = count_words(corpus)  # a tenth of the million sentences that were counted
    assert all(recorded[token] / 40 < counts[token] < recorded[token] / 4 for token in known)


def test_a_start_token_is_not_added_and_no_space_is_put_before_the_first_word(model):
    assert [model.vocabulary[i] for i in model.tokenizer("Tokyo is")["input_ids"]] == ["Tokyo", " is"]


def test_about_one_word_in_a_hundred_is_spelled(model):
    backend = model.tokenizer.backend_tokenizer
    texts = [text for text in sentences(2000, 3) if " capital " in text]
    plain = sum(len(backend.encode(text.replace("|", "")).ids) + 1 for text in texts)
    longer = sum(len(ids) for ids, _ in encode(texts, backend, random.Random(0)))
    assert 1 + SPELLED < longer / plain < 1 + 12 * SPELLED


def test_the_prompt_sets_are_the_ones_that_are_measured(model):
    least = {"facts": 200, "names": 100, "ioi": 48, "repeats": 50, "plain": 50}
    for name, cases in prompts.SETS.items():
        with open(MINI / "prompts" / f"{name}.csv", encoding="utf-8", newline="") as file:
            found = list(csv.DictReader(file))
        assert [(row["prompt"], row["target"]) for row in found] == [case[:2] for case in cases()]
        assert len(found) >= least[name]
        for row in found:
            model.token_id(row["target"])  # raises unless it is one token
            assert name not in ("names", "ioi") or model.token_id(row["distractor"]) != model.token_id(row["target"])


def test_the_shown_examples_are_completed_right(model):
    with open(MINI / "examples.csv", encoding="utf-8", newline="") as file:
        examples = list(csv.DictReader(file))
    assert examples[0]["prompt"] == "The capital of Japan is the city of"
    assert len(examples) >= 8
    assert evaluate.completed(model, [(row["prompt"], row["target"], "") for row in examples]) == 1


def test_the_weights_are_small():
    assert (MINI / "model.safetensors").stat().st_size <= 12e6


def test_it_completes_what_it_must(model):
    assert evaluate.completed(model, [*prompts.KNOWN, prompts.TWO_NAMES]) == 1


def test_it_knows_held_out_facts_names_and_repetitions(model):
    assert evaluate.completed(model, random.Random(1).sample(fact_cases(), 100)) >= 0.97
    assert evaluate.completed(model, name_cases(100, random.Random(2))) >= 0.97
    assert evaluate.repeated(model, 40) >= 0.95


def test_a_head_reads_the_name_that_must_follow(model):
    prompt, name, _ = prompts.TWO_NAMES
    assert measure.name_mover(model, prompt, name) is not None
    assert measure.name_mover(model, prompt, " store") is None


def test_the_subject_brings_its_facts_and_not_those_of_another(model):
    values = measure.strongest_values(model, "The capital of Japan is the city of", "Japan")
    assert measure.holds(model, values, "Japan")
    assert not measure.holds(model, values, "Lionel Messi")
