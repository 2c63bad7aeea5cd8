"""Tokenizers of other kinds than GPT-2's: SentencePiece as Llama has it, with a start token and pieces for bytes."""

from __future__ import annotations

import models
import pytest
import torch
from chats import TEXTS, llama
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers import models as kinds
from transformers import PreTrainedTokenizerFast

from visit import VisitError, capture, ledger, load_model
from visit.analyses.doctor import examine
from visit.models.tokens import (
    character_parts,
    single_token,
    spelled_tokens,
    split_characters,
    start_tokens,
    token_strings,
    token_text,
)  # fmt: skip


def unigram() -> PreTrainedTokenizerFast:
    """As T5 has it: the pieces of a unigram model, an end token behind every text."""
    words = Tokenizer(kinds.Unigram())
    words.pre_tokenizer, words.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    words.train_from_iterator(
        TEXTS, trainers.UnigramTrainer(vocab_size=90, special_tokens=special, unk_token="<unk>", show_progress=False)
    )
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="</s>", pad_token="<pad>")


@pytest.fixture(scope="module", params=[True, False], ids=["legacy", "metaspace"])
def words(request):
    return llama(request.param)


def texts(words, prompt):
    return [token_text(words, i) for i in words(prompt)["input_ids"]]


def test_spaces_are_spaces_and_the_start_token_is_kept(words):
    shown = texts(words, "The city of Tokyo")
    assert shown[0] == "<s>" and "".join(shown[1:]) == " The city of Tokyo" and "▁" not in "".join(shown)
    assert start_tokens(words) == (1,)
    assert not any("▁" in text for text in token_strings(words, len(words)))


def test_bytes_are_readable_and_their_character_is_known(words):
    shown = texts(words, "a €🙂")
    assert shown[-7:] == ["\\xe2", "\\x82", "\\xac", "\\xf0", "\\x9f", "\\x99", "\\x82"]
    last = len(shown) - 1
    found = split_characters(words, words("a €🙂")["input_ids"])
    assert found == {last - 4: (last - 6, "€"), last: (last - 3, "🙂")}


def test_split_characters_of_a_byte_level_tokenizer():
    words = models.tokenizer()
    ids = words("a 🙂é x")["input_ids"]
    found = split_characters(words, ids)
    assert "".join(text for _, text in found.values()).strip() == "🙂é"
    for last, (first, text) in found.items():
        assert words.decode(ids[first : last + 1]) == text and last > first


def test_bytes_that_are_no_text_belong_to_no_character(words):
    byte = {b: words.convert_tokens_to_ids(f"<0x{b:02X}>") for b in (0xE2, 0x82, 0xAC, 0x41)}
    assert split_characters(words, [byte[0x82], byte[0xE2], byte[0x82]]) == {}
    ids = [byte[0xE2], byte[0x41], byte[0xE2], byte[0x82], byte[0xAC]]
    assert split_characters(words, ids) == {4: (2, "€")}
    assert character_parts(words, ids) == {2: ("€", 1, 3), 3: ("€", 2, 3), 4: ("€", 3, 3)}
    named = spelled_tokens(words, ids, [str(i) for i in range(len(ids))])
    assert named == ["0", "1", "€ 1/3", "€ 2/3", "€ 3/3", *map(str, range(5, len(ids)))], "others are left as they are"


def test_a_target_is_the_token_that_reads_like_it(words):
    known = set(token_strings(words, len(words)))
    both = [t for t in sorted(known) if t.isalpha() and f" {t}" in known]
    assert len(both) > 3
    for text in [*both, *(f" {t}" for t in both)]:
        assert token_text(words, single_token(words, text, "target")) == text
    alone = next(t for t in sorted(known) if t.startswith(" ") and len(t) > 3 and t[1:] not in known)
    assert token_text(words, single_token(words, alone, "target")) == alone
    assert token_text(words, single_token(words, alone[1:], "target")) == alone, "as the tokenizer itself writes it"
    with pytest.raises(VisitError, match="exactly one token"):
        single_token(words, "Tokyo and Paris", "target")


def test_unigram_pieces_and_an_end_token():
    words = unigram()
    shown = texts(words, "The city of Tokyo")
    assert "".join(shown) == " The city of Tokyo</s>" and start_tokens(words) == ()


def test_a_model_with_such_a_tokenizer_is_read_exactly(words, tmp_path):
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(num_hidden_layers=2, hidden_size=24, num_attention_heads=4, intermediate_size=32,
                         vocab_size=len(words) + 3, max_position_embeddings=64)  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    model = load_model(tmp_path)
    acts = capture(model, "The city of Tokyo €")
    assert acts.tokens[0] == "<s>" and acts.tokens[-1] == "\\xac" and ledger(model, acts)["holds"].all()
    assert acts.tokens[1].startswith(" ") and model.token_id(acts.tokens[1]) == acts.token_ids[1]
    known = examine(model)[1]["model"].set_index("property")["value"]
    assert "<s> in front" in known["start token"] and "attention sink" in known["start token"]
