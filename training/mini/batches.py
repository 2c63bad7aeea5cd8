"""Turns sentences into training batches: token ids, and a weight for each token to be predicted."""

import random
from collections.abc import Iterator
from itertools import count

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.mini.text import sentences

TOKENS = 1024  # per batch: the circuits need many steps, and twice as large a batch takes twice as long
CHUNK = 20_000  # sentences written at a time
SPELLED = 0.01  # share of words spelled in bytes
ANSWER_WEIGHT = 3.0  # what is asked weighs three times as much as the other words
LENGTHS = {None: 0.5, 64: 0.2, 128: 0.15, 256: 0.15}  # row length → share of the batches; None: one sentence a row
NEWLINE = 10
ALONE = 8  # chunks at the start in which every sentence has a row of its own
GROWTH = (0.1,) * 6 + (0.2,) * 2 + (0.4,) * 2  # share of the world told in the first chunks

Sentence = tuple[list[int], list[float]]


def spellings(tokenizer: Tokenizer) -> list[list[int]]:
    """For each token its bytes; the first 256 tokens are the bytes themselves."""
    vocab = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    letters = dict(vocab[:256])
    return [[letters[c] for c in token] for token, _ in vocab]


def encode(texts: list[str], tokenizer: Tokenizer, rng: random.Random) -> list[Sentence]:
    """Ids and weights of marked sentences, each closed by a newline, about 1 % of the words spelled in bytes."""
    spelled = spellings(tokenizer)
    pieces = [text.split("|") for text in texts]
    coded = iter(tokenizer.encode_batch([piece for found in pieces for piece in found]))
    result: list[Sentence] = []
    for found in pieces:
        ids: list[int] = []
        weights: list[float] = []
        for n in range(len(found)):
            for i in next(coded).ids:
                ids += spelled[i] if i > 255 and rng.random() < SPELLED else [i]
            weights += [ANSWER_WEIGHT if n % 2 else 1.0] * (len(ids) - len(weights))
        result.append(([*ids, NEWLINE], [*weights, 1.0]))
    return result


def single_rows(found: list[Sentence]) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of rows of one sentence each, padded to the longest (weight 0)."""
    found = sorted(found, key=lambda sentence: len(sentence[0]))
    start = 0
    while start < len(found):
        end = start + max(1, TOKENS // len(found[start][0]))
        rows = [(ids[:256], weights[:256]) for ids, weights in found[start:end]]
        width = max(len(ids) for ids, _ in rows)
        yield (
            torch.tensor([ids + [NEWLINE] * (width - len(ids)) for ids, _ in rows]),
            torch.tensor([weights + [0.0] * (width - len(weights)) for _, weights in rows]),
        )
        start = end


def packed_rows(found: list[Sentence], length: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of rows of equal length, each starting with a sentence and filled with the ones that follow."""
    rows: list[Sentence] = []
    ids: list[int] = []
    weights: list[float] = []
    for more, heavier in found:
        ids, weights = ids + more, weights + heavier
        if len(ids) >= length:
            rows.append((ids[:length], weights[:length]))
            ids, weights = [], []
        if len(rows) == TOKENS // length:
            yield torch.tensor([row[0] for row in rows]), torch.tensor([row[1] for row in rows])
            rows = []


def batches(tokenizer: Tokenizer, seed: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end, in random order within each chunk of sentences; the first chunks tell of a smaller world."""
    rng = random.Random(seed)
    for chunk in count(first):
        share = GROWTH[chunk] if chunk < len(GROWTH) else 1.0
        found = encode(sentences(CHUNK, rng.getrandbits(32), share), tokenizer, rng)
        made: list[tuple[Tensor, Tensor]] = []
        start = 0
        for length, portion in (LENGTHS if chunk >= ALONE else {None: 1.0}).items():
            part = found[start : start + int(portion * CHUNK)]
            start += len(part)
            made += packed_rows(part, length) if length else single_rows(part)
        rng.shuffle(made)
        yield from made
