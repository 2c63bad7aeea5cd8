"""Builds the tokenizer: GPT-2's way of cutting text, 256 bytes, the whole words of the corpus and no fragments."""

import json
from collections import Counter
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from training.mini.text import sentences

SAMPLE = 1_000_000  # sentences: as many as a training sees
LEAST = 50


def byte_letters() -> list[str]:
    """The 256 printable characters that stand for the bytes in GPT-2, in the order of the bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(others)) for b in range(256)]


def count_words(texts: list[str]) -> Counter[str]:
    """How often each piece that is longer than a byte occurs, in byte letters."""
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False)
    counts: Counter[str] = Counter()
    for start in range(0, len(texts), 1000):
        pieces = cut.pre_tokenize_str("\n".join(texts[start : start + 1000]).replace("|", ""))
        counts.update(piece for piece, _ in pieces if len(piece) > 1)
    return counts


def build(counts: Counter[str]) -> Tokenizer:
    """The tokenizer whose words are those counted often enough; everything else is spelled in bytes."""
    known = sorted(word for word, count in counts.items() if count >= LEAST)
    vocab = {token: i for i, token in enumerate(byte_letters() + known)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def write(folder: Path, seed: int = 1) -> Tokenizer:
    """Counts a sample of the corpus, writes the tokenizer's files and the counts beside them."""
    counts = count_words(sentences(SAMPLE, seed))
    tokenizer = build(counts)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    lines = [f"{word},{counts[word]}\n" for word in sorted(counts) if counts[word] >= LEAST]
    (folder / "word_counts.csv").write_text("word,count\n" + "".join(lines), encoding="utf-8")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 256,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return tokenizer
