"""Tokenizers and chat templates of other kinds than visit-mini's, and a small model that has them."""

from __future__ import annotations

from dataclasses import replace

import models
import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers import models as kinds
from transformers import PreTrainedTokenizerFast

TEXTS = ["The capital of Japan is the city of Tokyo. a test of café here", "Tokyo and Paris are capitals often"] * 9
BYTES = [f"<0x{i:02X}>" for i in range(256)]
CHATML = (  # SmolLM2's, with a shorter system message of its own
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are of help<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA = (  # trims, writes the start token, and puts the system message inside the first turn
    "{% if messages[0]['role'] == 'system' %}{% set system = '<<SYS>>' + messages[0]['content'] + '<</SYS>>' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{% for m in messages %}{{ bos_token + '[INST] ' + system + m['content'] | trim + ' [/INST]' }}{% endfor %}"
)
GEMMA = (  # refuses a system message
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] | trim + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<|im_start|>model\n'}}{% endif %}"
)
ODD = (  # what else the sandbox of transformers offers
    "{%- set ns = namespace(n=0) -%}{% for m in messages %}{% if m.role == 'tool' %}{% continue %}{% endif %}"
    "{% generation %}{{ dict(a=m.content) | tojson }}{% endgeneration %}{% set ns.n = ns.n + 1 %}{% endfor %}\n"
    "  {% if tools is none and ns.n %}\n{{ strftime_now('%Y') }} é{% endif %}"
)


def llama(legacy: bool) -> PreTrainedTokenizerFast:
    """Byte-pair pieces with byte fallback and `<s>` in front. `legacy`: as Llama 1 and 2 prepend a space to all."""
    words = Tokenizer(kinds.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    if legacy:
        words.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        words.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    words.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<unk>", "<s>", "</s>", *BYTES]
    words.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=330, special_tokens=special, show_progress=False))
    words.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def byte_level():
    words = models.tokenizer()
    words.add_special_tokens({"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"})
    return words


WORDS = {
    "byte-level": byte_level, "metaspace": lambda: llama(False), "legacy": lambda: llama(True)
}  # fmt: skip


def chatty(template=CHATML, words=byte_level):
    """A small model whose tokenizer has a chat template."""
    made = words()
    made.chat_template = template
    return replace(models.small("llama", torch.float32), tokenizer=made, name="chatty")
