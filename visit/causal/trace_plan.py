"""What a causal trace is asked, its subject found in the prompt or guessed, and which runs answer it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from numbers import Real
from typing import Any, NamedTuple

from visit.activations.record import Activations
from visit.analyses.function_words import function_words, is_function_word
from visit.errors import VisitError, check_kind, check_positive
from visit.exact.question import Question
from visit.models.model import Model
from visit.models.tokens import special_ids, start_tokens
from visit.text.visible import visible

Where = str | int | Iterable[int]
TRACE_SITES = ("resid", "attn_out", "mlp_out")
LEAST_WINDOW = 3  # blocks
SAMPLES, NOISE, MOST_SAMPLES = 10, 3.0, 1_000


def subject_positions(acts: Activations, subject: Where) -> tuple[int, ...]:
    """The positions of a subject: a text of whole tokens, everywhere it stands in the prompt, or positions.

    A space in front belongs to a token and may be left out. Raises `VisitError` for a text that is not there or begins
    or ends inside a token, and for positions that the prompt does not have.
    """
    if isinstance(subject, str):
        return _found_in_text(acts, subject)
    several = subject if isinstance(subject, Iterable) else (subject,)
    if not isinstance(subject, Iterable) and not hasattr(subject, "__index__"):
        raise VisitError(f"The subject is a text in the prompt, or positions of it; got {subject!r}.")
    found = tuple(sorted({acts.index(pos) for pos in several}))
    if not found:
        raise VisitError("The subject has at least one token; got none.")
    return found


def _found_in_text(acts: Activations, text: str) -> tuple[int, ...]:
    bare, whole = text.strip(), "".join(acts.tokens)
    if not bare:
        raise VisitError(f"The subject has at least one token; got {text!r}.")
    ends = list(accumulate(map(len, acts.tokens), initial=0))
    spans = list(pairwise(ends))
    starts = [one.start() for one in re.finditer(f"(?={re.escape(bare)})", whole)]
    places = [(start, start + len(bare)) for start in starts]
    found: set[int] = set()
    for start, end in places:
        held = [i for i, (a, b) in enumerate(spans) if a < end and b > start]
        if not whole[spans[held[0]][0] : start].strip() and not whole[end : spans[held[-1]][1]].strip():
            found |= set(held)
    if found:
        return tuple(sorted(found))
    if not places:
        raise VisitError(
            f"The subject must stand in the prompt; got “{visible(text)}”. The prompt's tokens are "
            f"{_tokens_listed(acts.tokens)}."
        )
    held = [i for i, (a, b) in enumerate(spans) if a < places[0][1] and b > places[0][0]]
    raise VisitError(
        f"The subject must be made of whole tokens; “{visible(text)}” is a part of "
        f"{_tokens_listed(acts.tokens[i] for i in held)}. Name these tokens whole, or give their positions."
    )


def subject_text(acts: Activations, where: Sequence[int]) -> str:
    """The tokens of a subject as one text, with … where others stand between."""
    parts = [acts.tokens[where[0]]]
    for before, here in pairwise(where):
        parts.append(acts.tokens[here] if here == before + 1 else f" …{acts.tokens[here]}")
    return "".join(parts)


def _tokens_listed(tokens: Iterable[str]) -> str:
    shown = [f"“{visible(token)}”" for token in tokens]
    return ", ".join(shown[:40]) + (", …" if len(shown) > 40 else "")


def guessed_subject(question: Question) -> tuple[int, ...]:
    """The likely subject before the position looked at: a guess to start from, none in a prompt of one token.

    1. Tokens are put together to words: one that has letters and no space in front goes on with the word before it.
    2. Where the answer itself stands there (a name that is to be said again), it is that word, its last place.
    3. Else the longest run of names: words with a capital that are no function words. A capital that only begins a
       sentence counts where there is no other name, and not where the word also stands there without it.
    4. Else the longest run of content words, else the first word. Of equal runs the last: it is what the end asks for
       in "the opposite of left is right, and the opposite of loud is". Source: ours.
    """
    words = _words_before(question)
    tokens, listed = question.acts.tokens, function_words()
    spelled = ["".join(tokens[p] for p in word).strip() for word in words]
    content = [text[:1].isalpha() and not is_function_word(text, listed) for text in spelled]
    answer = question.model.vocabulary[question.target].strip()
    again = [text == answer and good for text, good in zip(spelled, content, strict=True)]
    names = [good and text[:1].isupper() for good, text in zip(content, spelled, strict=True)]
    begins = [p[0] == words[0][0] or tokens[p[0] - 1].strip()[-1:] in (*".!?:", "") for p in words]
    sure = [
        name and not (first and text.lower() in spelled)
        for name, first, text in zip(names, begins, spelled, strict=True)
    ]
    alone = [first and not any(sure[n + 1 : n + 2]) for n, first in enumerate(begins)]
    inside = [name and not one for name, one in zip(sure, alone, strict=True)]
    for kind in (again, inside, sure, content):
        if runs := _runs(kind):
            start, stop = max(reversed(runs), key=lambda run: run[1] - run[0])
            return tuple(p for word in words[start:stop] for p in word)
    return tuple(words[0]) if words else ()


def _words_before(question: Question) -> list[list[int]]:
    """The positions of every word before the one looked at, but for control tokens."""
    model, acts, pos = question.model, question.acts, question.pos
    control, first = special_ids(model.tokenizer), len(start_tokens(model.tokenizer))
    words: list[list[int]] = []
    for p in range(pos):
        if acts.token_ids[p] in control or p < first < pos:
            continue
        token = acts.tokens[p]
        if words and words[-1][-1] == p - 1 and token[:1].isalnum() and acts.tokens[p - 1][-1:].isalnum():
            words[-1].append(p)
        else:
            words.append([p])
    return words


def _runs(marks: list[bool]) -> list[tuple[int, int]]:
    """(start, stop) of each run of marks that are set."""
    padded = [False, *marks, False]
    edges = [i for i, (a, b) in enumerate(pairwise(padded)) if a != b]
    return list(zip(edges[::2], edges[1::2], strict=True))


def check_settings(model: Model, samples: Any, seed: Any, noise: Any, window: Any) -> None:
    """Refuse numbers that no trace can be made with, each in a sentence."""
    check_kind("samples", samples, int, f"a whole number from 1 to {MOST_SAMPLES:,}")
    if isinstance(samples, bool) or not 1 <= samples <= MOST_SAMPLES:
        raise VisitError(f"samples must be from 1 to {MOST_SAMPLES:,}; got {samples}.")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise VisitError(f"A seed is a whole number from 0 to 2^63 − 1; got {seed!r}.")
    if isinstance(noise, bool) or not isinstance(noise, Real) or not math.isfinite(noise) or noise <= 0:
        raise VisitError(
            f"noise must be a number above 0, in standard deviations of the subject's embeddings; got {noise!r}. With "
            "0 nothing is made unreadable. 3 is usual."
        )
    check_positive("window", window)
    if window is not None and window > model.n_layers:
        raise VisitError(f"window must be at most {model.n_layers}, the blocks of {model.name}; got {window}.")


def check_subject(question: Question, where: tuple[int, ...]) -> None:
    """Refuse a subject that the looked-at position does not see, or that is that position alone."""
    acts, t = question.acts, question.pos
    if where[-1] > t:
        raise VisitError(
            f"The subject must stand before the position looked at: position {t} does not see position {where[-1]} "
            f"(“{visible(acts.tokens[where[-1]])}”)."
        )
    if where == (t,):
        raise VisitError(
            f"The subject must stand before the position looked at; got that position alone ({t}, "
            f"“{visible(acts.tokens[t])}”), where every block that is put back brings the whole answer back. Name "
            "an earlier word."
        )


# ---- what is put back ------------------------------------------------------------------------------------------------
class Restored(NamedTuple):
    """One thing put back: blocks of a site. `join`: the block at which its run leaves the noisy one."""

    join: int
    site: str
    layer: int
    blocks: range


def window_blocks(n_layers: int, window: int | None) -> list[range]:
    """The blocks that are restored together around each block; at the ends of the model as many as there are."""
    wide = window_width(n_layers, window)
    return [range(max(0, n - wide // 2), min(n_layers, n + (wide + 1) // 2)) for n in range(n_layers)]


def window_width(n_layers: int, window: int | None) -> int:
    """How many blocks a window has: a fifth of the model's and at least 3, unless it is said."""
    return min(n_layers, max(LEAST_WINDOW, round(n_layers / 5))) if window is None else window


def restored_runs(n_layers: int, window: int | None) -> list[Restored]:
    """What is put back at every position, one by one, in the order in which the runs join their batch."""
    around = window_blocks(n_layers, window)
    runs = [Restored(n + 1, "resid", n, range(n, n + 1)) for n in range(n_layers)]
    runs += [Restored(around[n].start, site, n, around[n]) for site in TRACE_SITES[1:] for n in range(n_layers)]
    return sorted(runs)
