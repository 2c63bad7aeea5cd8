"""Tokens as text: what each id reads, and the id that a word is; a message as its ids. No torch."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from visit.errors import VisitError

# GPT-2's byte alphabet, inverted: printable bytes stand for themselves, the others for U+0100 onwards
_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_BYTE_OF = {chr(b): b for b in _PRINTABLE}
_BYTE_OF |= {chr(256 + i): b for i, b in enumerate(b for b in range(256) if b not in _PRINTABLE)}


def token_strings(tokenizer: Any, d_vocab: int) -> list[str]:
    """The text of every token id below `d_vocab`.

    Bytes that are no complete UTF-8 character are written `\\xe9`; an id that the tokenizer does not know (an
    embedding padded to a round number) is written `[id]`.
    """
    size = min(len(tokenizer), d_vocab)
    pieces = tokenizer.convert_ids_to_tokens(list(range(size)))
    decode = _decode_bytes if _is_byte_level(tokenizer) else _decode_piece
    texts = [f"[{i}]" if piece is None else decode(piece) for i, piece in enumerate(pieces)]
    return texts + [f"[{i}]" for i in range(size, d_vocab)]


def _is_byte_level(tokenizer: Any) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend is not None and "ByteLevel" in repr(backend.decoder)


_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")  # SentencePiece: one byte of a character that has no piece of its own


def _decode_bytes(piece: str) -> str:
    if any(c not in _BYTE_OF for c in piece):
        return piece  # an added token is stored as plain text
    return bytes(_BYTE_OF[c] for c in piece).decode("utf-8", errors="backslashreplace")


def _decode_piece(piece: str) -> str:
    if byte := _BYTE_PIECE.fullmatch(piece):
        return bytes([int(byte[1], 16)]).decode("utf-8", errors="backslashreplace")
    return piece.replace("▁", " ")


def _bytes_of(tokenizer: Any, token: int) -> bytes:
    piece = tokenizer.convert_ids_to_tokens(token) or ""
    if _is_byte_level(tokenizer) and all(c in _BYTE_OF for c in piece):
        return bytes(_BYTE_OF[c] for c in piece)
    byte = _BYTE_PIECE.fullmatch(piece)
    return bytes([int(byte[1], 16)]) if byte else piece.replace("▁", " ").encode("utf-8", errors="surrogatepass")


def split_characters(tokenizer: Any, ids: Sequence[int]) -> dict[int, tuple[int, str]]:
    """Characters whose bytes are spread over several tokens: last position → (first position, the text they spell).

    Such tokens read `\\xe2`, `\\x82`, `\\xac` one by one; together they are the text "€".
    """
    found: dict[int, tuple[int, str]] = {}
    first, pending = 0, b""
    for i, token in enumerate(ids):
        first = first if pending else i
        pending += _bytes_of(tokenizer, token)
        text, left = _complete(pending)
        if left is None or (text and not left and i == first):  # no text at all, or whole in one token
            pending = b""
        elif not left:
            found[i] = (first, text)
            pending = b""
    return found


def character_parts(tokenizer: Any, ids: Sequence[int]) -> dict[int, tuple[str, int, int]]:
    """Position → (the text that several tokens spell, which part of it this token is, from 1, of how many)."""
    return {
        i: (text, i - first + 1, last - first + 1)
        for last, (first, text) in split_characters(tokenizer, ids).items()
        for i in range(first, last + 1)
    }


def spelled_tokens(tokenizer: Any, ids: Sequence[int], tokens: Sequence[str]) -> list[str]:
    """The tokens of a pass as a reader names them: one of several that spell a character is `東 1/2`, not a byte."""
    parts = character_parts(tokenizer, ids)
    return ["{} {}/{}".format(*parts[i]) if i in parts else token for i, token in enumerate(tokens)]


def _complete(data: bytes) -> tuple[str, bytes | None]:
    """(the whole characters, the bytes of one that has only begun; None where the bytes are no text)."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        return decoder.decode(data), decoder.getstate()[0]
    except UnicodeDecodeError:
        return "", None


def single_token(tokenizer: Any, text: str, what: str) -> int:
    """The id of a string that is exactly one token; else a `VisitError` that shows the pieces and offers the first.

    SentencePiece tokenizers put a space of their own in front of every text: there the token that reads exactly like
    the string counts first, so that " Tokyo" and "Tokyo" are what they look like.
    """
    exact = None if _is_byte_level(tokenizer) else _exact_piece(tokenizer, text)
    if exact is not None:
        return exact
    ids = tokenizer.encode(text, add_special_tokens=False)
    if len(ids) == 1:
        return int(ids[0])
    if not ids:
        raise VisitError(f"The {what} must be one token; got an empty text. Leave it out to take the prediction.")
    # a character may be spread over several tokens, so each piece is shown as the tokenizer stores it
    pieces = [token_text(tokenizer, i) for i in ids]
    shown = ", ".join(repr(p) for p in pieces[:8]) + (", …" if len(pieces) > 8 else "")
    spaced = tokenizer.encode(" " + text, add_special_tokens=False)
    offer = f"{' ' + text!r} (with a leading space)" if len(spaced) == 1 else f"the first one, {pieces[0]!r}"
    raise VisitError(f"The {what} must be exactly one token; {text!r} is {len(ids)}: {shown}. Try {offer}.")


def _exact_piece(tokenizer: Any, text: str) -> int | None:
    piece = text.replace(" ", "▁")
    token = tokenizer.convert_tokens_to_ids(piece)
    known = isinstance(token, int) and tokenizer.convert_ids_to_tokens(token) == piece
    return token if known and piece else None


def token_text(tokenizer: Any, token: int) -> str:
    """The text of one token id."""
    piece = tokenizer.convert_ids_to_tokens(token)
    return (_decode_bytes if _is_byte_level(tokenizer) else _decode_piece)(piece)


def start_tokens(tokenizer: Any) -> tuple[int, ...]:
    """The ids that the tokenizer puts in front of every text by itself; most tokenizers put none, some one."""
    whole = tokenizer("a")["input_ids"]
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    for count in range(len(whole) - len(bare) + 1):
        if whole[count : count + len(bare)] == bare:
            return tuple(whole[:count])
    return ()


def special_ids(tokenizer: Any) -> frozenset[int]:
    """The ids of control tokens: they mark beginnings, ends and turns, and are no text."""
    named = {int(i) for i in tokenizer.all_special_ids if i is not None}
    added = tokenizer.added_tokens_decoder.items()
    return frozenset(named | {int(i) for i, t in added if t.special and not _BYTE_PIECE.fullmatch(t.content)})


def doubled_start(tokenizer: Any, ids: Sequence[int]) -> str | None:
    """A sentence where a prompt was typed with the start token that the tokenizer adds anyway; None elsewhere."""
    start = start_tokens(tokenizer)
    if not start or tuple(ids[: 2 * len(start)]) != start * 2:
        return None
    said = " ".join(token_text(tokenizer, i) for i in start)
    return f"{said} stands twice: the tokenizer puts it in front of every text. Leave it out of the prompt."


# ---- a message that a chat template wraps (how: `visit.models.chat`) -------------------------------------------------
@dataclass(frozen=True)
class Message:
    """What a user typed, to be wrapped by the template of whichever model reads it; it has no ids yet."""

    text: str
    system: str | None = None


@dataclass(frozen=True)
class Chat:
    """How a message was wrapped. `system`: as given; `added_system`: what the template said there by itself."""

    message: str
    system: str | None
    added_system: str | None
    template: str  # a short hash

    @property
    def typed(self) -> Message:
        """What was typed, without what the template made of it."""
        return Message(self.message, self.system)

    @property
    def meta(self) -> dict[str, Any]:
        """For the provenance of a result."""
        by = "the user" if self.system is not None else None if self.added_system is None else "the template"
        said = self.system if self.system is not None else self.added_system
        return {"chat": True, "system": said, "system_by": by, "chat_template": self.template}


class ChatPrompt(tuple[int, ...]):
    """The token ids of a wrapped message, as a tuple, and in `chat` what they were made of."""

    chat: Chat

    def __new__(cls, ids: Iterable[int], chat: Chat) -> ChatPrompt:
        made = super().__new__(cls, ids)
        made.chat = chat
        return made
