"""A message as a chat model is used to it: wrapped by the tokenizer's chat template.

The template is rendered as transformers renders it, in a process of its own (`rendering`); control tokens typed
inside a message stay text, which is the work of transformers' `encode_marked_chat`.
"""

from __future__ import annotations

import hashlib
import re
from datetime import date
from functools import lru_cache
from typing import Any

from transformers.utils.chat_template_utils import encode_marked_chat, mark_control_tokens

from visit.errors import VisitError, told_panics
from visit.models.model import Model
from visit.models.rendering import render
from visit.models.tokens import Chat, ChatPrompt

_PLACE = "visit0system0message"  # stands for a system message where one is looked for


def chat_template(tokenizer: Any) -> str | None:
    """The source of the tokenizer's chat template (of several the default one); None where it has none."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    try:
        return str(tokenizer.get_chat_template())
    except ValueError:  # several, and none of them is the default
        return None


def chat_prompt(model: Model, message: str, system: str | None = None) -> ChatPrompt:
    """The token ids of `message` in the model's chat template, up to where its answer begins; for `capture`.

    Equal to `tokenizer.apply_chat_template(…, add_generation_prompt=True)`, but that control tokens inside `message`
    and `system` stay text. `system=None`: whatever the template says by itself. Raises `VisitError` for an empty
    message, a tokenizer without a template, and a template that fails or does not end within 2 s. Source: ours.
    """
    template = chat_template(model.tokenizer)
    if template is None:
        raise VisitError(f"The tokenizer of {model.name} has no chat template, so it takes plain prompts only.")
    for name, text in (("message", message), ("system message", system)):
        if text is not None and not text.strip():
            raise VisitError(f"The {name} is {'blank' if text else 'empty'}. Type at least one word.")
        if text is not None and any("\ud800" <= c <= "\udfff" for c in text):
            raise VisitError(f"The {name} holds bytes that are no text. Give it in UTF-8.")
    controls = _control_pattern(model.tokenizer, template)
    marked = [None if text is None else mark_control_tokens(text, controls) for text in (message, system)]
    names = tuple(sorted((k, v) for k, v in model.tokenizer.special_tokens_map.items() if isinstance(v, str)))
    text, added = _wrapped(template, names, *marked, date.today())
    try:
        with told_panics(f"The tokenizer of {model.name!r}"):
            ids = encode_marked_chat(model.tokenizer, text)
    except ValueError as error:
        raise VisitError(f"The message cannot be kept as text: {error}. Leave the control token out.") from error
    digest = hashlib.sha256(template.encode("utf-8", "backslashreplace")).hexdigest()[:12]
    return ChatPrompt(ids, Chat(message, system, added, f"sha256:{digest}"))


@lru_cache(maxsize=256)
def _wrapped(
    template: str, names: tuple[tuple[str, str], ...], message: str, system: str | None, today: date
) -> tuple[str, str | None]:
    """(the whole text, the system message that the template put in by itself). `today`: templates may write the date.

    What it put in shows by a second rendering with a system message: it stands where that one stands, between the same
    signs.
    """
    user = {"role": "user", "content": message}
    chats = [[user] if system is None else [{"role": "system", "content": system}, user]]
    if system is None:
        chats.append([{"role": "system", "content": _PLACE}, user])
    found = render(template, chats, dict(names))
    if isinstance(found, str):
        raise VisitError(f"The chat template {found.rstrip('.')}. Give a plain prompt, without the template.")
    whole, given = found[0] or "", found[1] if system is None else None
    if given is None or given.count(_PLACE) != 1:
        return whole, None
    before, after = given.split(_PLACE)
    if not (whole.startswith(before) and whole.endswith(after) and len(whole) >= len(before) + len(after)):
        return whole, None
    return whole, whole[len(before) : len(whole) - len(after)].strip() or None


def _control_pattern(tokenizer: Any, template: str) -> re.Pattern[str]:
    """The tokens that mean something to the model and not to a reader: special ones, and others the template writes."""
    added = tokenizer.added_tokens_decoder.values()
    texts = {t.content for t in added if t.special or (t.content in template and not t.content.isspace())}
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or "(?!)")
