"""Fitting a lens to a model, on text that the model itself writes: no corpus, nothing learned by descent.

How a lens is fitted, in five steps:

1. The model writes rows of text at temperature 1 from its start token, with a cache of keys and values; the states of
   every step are read where a capture reads them, so that no text is run twice. (A text of the user's is run instead.)
2. Position 0 and rows longer than ten times their state's median are left out (attention sinks, in x and in y).
3. Sums in float64, per state: n, Σx, Σy, X'X, X'Y, where y is the last block's output. No state is kept.
4. Affine least squares in closed form: A = (Sxx + λ · mean(diag Sxx) · I)⁻¹ Sxy, b = mean(y) − mean(x) A, λ = 1e-5.
5. On rows that were not used, the lens and the plain lens are compared with the model's final prediction: the report.

Source: Din et al. 2023 (the linear shortcut); settings and their measurements: our own.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from visit.activations.hooks import Recorder
from visit.errors import VisitError
from visit.lenses.least_squares import RIDGE, Sums
from visit.lenses.linear import Lens, all_sites, keep_lens
from visit.lenses.logit import unembed
from visit.lenses.trust import Agreement, held_states, spread
from visit.lenses.written_rows import drawn, end_ids, start_ids, training_texts, turning_lengths
from visit.models.fingerprint import fingerprint
from visit.models.model import Model
from visit.models.provenance import provenance
from visit.models.tokens import start_tokens

TOKENS = 8000  # to fit; a tenth more is held out
LENGTH = 48  # positions of a row that the model writes
PER_WIDTH = 3  # fewer tokens than this times d_model make a lens worse
ROWS = 192  # at once, where their keys, values and logits have room
ROOM = 400 << 20  # bytes for keys and values, and for logits
HELD = 48  # rows held out at least: with 18 the report of one visit-mini was off by 1.4 bits
COMPARED = 64  # positions of the report at once
TIMED, SLOWER = 96, 1.5  # vectors of the forecast's product; how many times slower than it the fit's steps are
REPORTED, WORK = (256, 2000), 1e12  # held-out positions that the report is of: as many as so many operations read
_ENDS_AT_ONCE = 0.5  # share of end tokens in what a model writes above which it is no text


@dataclass(frozen=True)
class Item:
    """What one step does: feed columns `start` to `stop` of a batch of rows, solve, or compare some positions."""

    kind: str  # "feed", "solve" or "report"
    batch: int = 0
    start: int = 0
    stop: int = 0


class LensFit:
    """The fit as a job that can be stopped between two tokens and resumed: what it has written is all it must keep."""

    version = "lens 2"

    def __init__(self, model: Model, tokens: int = TOKENS, text: str | Sequence[str] | None = None, seed: int = 0,
                 shuffled: bool = False, keeps: bool = False) -> None:  # fmt: skip
        """`shuffled`: a control, each x with another row's y. `keeps`: the whole lens is put into the cache folder."""
        least = PER_WIDTH * model.d_model
        self.model, self.seed, self.shuffled, self.keeps = model, seed, shuffled, keeps
        self.tokens = max(tokens, least) if tokens == TOKENS else tokens
        if self.tokens < least:
            raise VisitError(
                f"A lens for {model.name} needs at least {least:,} tokens (3 × d_model); got {self.tokens:,}."
            )
        self.sites = tuple(all_sites(model))
        self.text = None if text is None else training_texts(text)
        self.ids = self._rows_of_text(least) if self.text is not None else self._starts()
        self._sums: Sums | None = None
        self._cache: Any = None
        self._compared: Tensor | None = None  # states `[layer, pos, d_model]` of the positions that the report is of
        self._lens: Lens | None = None
        self._agreement: Agreement | None = None
        self._done = 0  # items

    # ---- the plan ------------------------------------------------------------------------------------------------
    def _starts(self) -> np.ndarray:
        """Rows that hold a start token only: −1 is not written yet. The last rows are those held out."""
        length = min(LENGTH, self.model.max_tokens, *turning_lengths(self.model))
        fit = -(-self.tokens // (length - 1))
        ids = np.full((fit + held_rows(fit), length), -1, np.int64)
        ids[:, 0] = start_ids(self.model, len(ids), np.random.default_rng(self.seed))
        return ids

    def _rows_of_text(self, least: int) -> np.ndarray:
        """The text's tokens, cut into rows of one length, each behind a start token where the tokenizer has one."""
        assert self.text is not None
        model, start = self.model, list(start_tokens(self.model.tokenizer))
        stream = [i for part in self.text for i in model.tokenizer(part, add_special_tokens=False)["input_ids"]]
        width = min(128, model.max_tokens) - len(start)
        rows = [start + stream[at : at + width] for at in range(0, len(stream) - width + 1, width)]
        fitted = (len(rows) - -(-len(rows) // 10)) * (len(start) + width - 1)
        if fitted < least:
            raise VisitError(
                f"A lens for {model.name} needs a text of at least {least * 11 // 10:,} tokens (3 × d_model to fit, a "
                f"tenth more held out); got {len(stream):,}. Without a text the model writes one."
            )
        rows = rows[: -(-self.tokens * 11 // (10 * (len(start) + width - 1)))]
        return np.array(rows, np.int64)

    @property
    def _held(self) -> int:
        """How many rows at the end are held out."""
        return (
            -(-len(self.ids) // 11) if self.text is not None else held_rows(-(-self.tokens // (self.ids.shape[1] - 1)))
        )

    @cached_property
    def batches(self) -> tuple[slice, ...]:
        """Equal shares of the rows to fit, as large as there is room for, and the rows held out."""
        model, fit, length = self.model, len(self.ids) - self._held, self.ids.shape[1]
        kept = 8 * length * model.n_layers * model.n_kv_heads * model.d_head
        most = max(1, min(ROWS, ROOM // kept, ROOM // (8 * model.d_vocab)))
        size = -(-fit // -(-fit // most))
        ends = [*range(0, fit, size), fit]
        return (*(slice(a, b) for a, b in pairwise(ends)), slice(fit, len(self.ids)))

    @cached_property
    def reported(self) -> int:
        """How many held-out positions the report is of."""
        model, held = self.model, self._held * (self.ids.shape[1] - 1)
        return min(
            held, max(REPORTED[0], min(REPORTED[1], int(WORK / (4 * model.n_layers * model.d_vocab * model.d_model))))
        )

    @cached_property
    def items(self) -> tuple[Item, ...]:
        length = self.ids.shape[1]
        feeds = [
            Item("feed", batch, start, stop)
            for batch in range(len(self.batches))
            for start, stop in ([(0, length)] if self.text is not None else [(s, s + 1) for s in range(length)])
            if self.text is None or batch < len(self.batches) - 1  # a given text that is held out is read at the end
        ]
        return (
            *feeds,
            Item("solve"),
            *(Item("report", start=s, stop=s + COMPARED) for s in range(0, self.reported, COMPARED)),
        )

    @cached_property
    def work(self) -> tuple[float, ...]:
        """Seconds that every item takes at 100 billion operations a second."""
        model = self.model
        per_token = 2.0 * sum(p.numel() for p in model.hf.parameters())
        added = 4.0 * len(self.sites) * model.d_model**2 * 2  # in float64
        read = 4.0 * model.n_layers * model.d_vocab * model.d_model
        costs = {"solve": len(self.sites) * 2.0 * model.d_model**3, "report": COMPARED * read}
        return tuple(
            (costs[i.kind] if i.kind != "feed" else (i.stop - i.start) * self._count(i) * (per_token + added)) / 1e11
            for i in self.items
        )  # fmt: skip

    def _count(self, item: Item) -> int:
        rows = self.batches[item.batch]
        return rows.stop - rows.start

    def doing(self, done: int) -> str:
        kind = self.items[done].kind if done < len(self.items) else ""
        reads = "reading its states" if self.text is None else "reading the text"
        return {"feed": f"the model writes, and {reads}" if self.text is None else reads, "solve": "fitting the maps",
                "report": "comparing on text not used"}.get(kind, "")  # fmt: skip

    # ---- the job -------------------------------------------------------------------------------------------------
    def update(self, items: Sequence[Item]) -> None:
        with torch.no_grad():
            for item in items:
                if item.kind == "feed":
                    self._feed(item.batch, item.start, item.stop)
                elif item.kind == "solve":
                    self._solve()
                else:
                    assert self._agreement is not None
                    self._agreement.compare(item.start, item.stop)
                self._done += 1
        if self.keeps and self._done == len(self.items):
            found = self.snapshot()
            assert found is not None
            keep_lens(self.model, found)

    def snapshot(self) -> Lens | None:
        """The lens, once it is whole; None before."""
        if self._lens is None or self._agreement is None or not self._agreement.whole:
            return None
        return replace(self._lens, habit=self._agreement.habit(), report=self._agreement.table())

    def state(self) -> dict[str, np.ndarray]:
        return {"ids": self.ids.copy(), "done": np.array(self._done)}

    def load(self, state: dict[str, np.ndarray]) -> None:
        """Read again what was read before: a batch in one pass over its words, none of which is chosen anew."""
        ids, done = state["ids"], int(state["done"])
        if ids.shape != self.ids.shape or (ids[:, 0] != self.ids[:, 0]).any():
            raise ValueError("these rows are of another fit")
        self.ids, self._sums, self._cache, self._compared, self._done = ids.astype(np.int64), None, None, None, 0
        fed = [item for item in self.items[:done] if item.kind == "feed"]
        ends = {item.batch: item.stop for item in fed}
        with torch.no_grad():
            for batch, stop in ends.items():
                self._feed(batch, 0, stop, choose=False)
        self._done = len(fed)
        self.update(self.items[len(fed) : done])

    # ---- steps 1 to 3 --------------------------------------------------------------------------------------------
    def _feed(self, batch: int, start: int, stop: int, choose: bool = True) -> None:
        """Run columns `start` to `stop` of the batch's rows, add their states, and let the model write the next."""
        model, rows, length = self.model, self.batches[batch], self.ids.shape[1]
        held, own = batch == len(self.batches) - 1, self.text is None
        mid = ("resid_mid", 0) in self.sites and not held
        recorder = Recorder(model, frozenset({"resid_post", "resid_mid"} if mid else {"resid_post"}), None)
        ids = torch.from_numpy(self.ids[rows, start:stop]).to(model.device)
        recorder.shape = (len(ids), stop - start)
        with model.lock, recorder.hooks():
            out = model.hf(
                ids, past_key_values=self._cache if start else None, use_cache=own,
                logits_to_keep=1 if model.ln_final is not None else 0,
            )  # fmt: skip
        self._cache = out.past_key_values if own and stop < length else None
        if held:
            self._keep(recorder.buffers["stream"], start)
        else:
            self._add(recorder.buffers, start)
        if own and choose and stop < length:
            self.ids[rows, stop] = self._written(out.logits[:, -1], batch, stop)

    def _written(self, logits: Tensor, batch: int, step: int) -> np.ndarray:
        """A word for every row, drawn from the model's own distribution; behind an end a new text starts."""
        generator = torch.Generator().manual_seed(((self.seed * 65_537 + batch) * 65_537 + step) % (1 << 62))
        chosen = drawn(logits, generator).numpy()
        if (chosen < 0).any():
            raise VisitError(f"{self.model.name} computes values that are no numbers; no lens can be fitted to it.")
        ends, start = end_ids(self.model), self.ids[self.batches[batch], 0]
        before = self.ids[self.batches[batch], step - 1]
        if ends:
            again = np.isin(before, ends) & ~np.isin(before, start) if step > 1 else np.zeros(len(chosen), bool)
            chosen = np.where(again, start, chosen)
            written = self.ids[self.batches[batch], 1:step]
            if step == self.ids.shape[1] // 2 and np.isin(written, ends).mean() > _ENDS_AT_ONCE:
                raise VisitError(
                    f"What {self.model.name} writes ends at once, so that no lens can be fitted to it. Give a text "
                    "of your own (text=, or --text FILE)."
                )
        return chosen

    def _add(self, buffers: dict[str, Tensor], start: int) -> None:
        """Add the states of these columns to the sums; position 0 is dropped."""
        skip = 1 if start == 0 else 0
        stream = buffers["stream"][:, :, skip:].flatten(1, 2)
        if not stream.shape[1]:
            return
        mid = buffers["resid_mid"][:, :, skip:].flatten(1, 2) if "resid_mid" in buffers else None
        places = {"resid_pre": lambda n: stream[n], "resid_post": lambda n: stream[n + 1]}
        x = [places[name](n) if name in places else mid[n] for name, n in self.sites]  # type: ignore[index]
        self._sums = self._sums or Sums(self.model, len(self.sites), self.shuffled)
        self._sums.add(x, stream[-1])

    def _keep(self, stream: Tensor, start: int) -> None:
        """Keep the held-out states of these columns that the report is of; `stream` `[layer, row, pos, d_model]`."""
        kept = self.ids.shape[1] - 1  # position 0 is dropped
        at = spread(self._held * kept, self.reported)
        columns = at % kept + 1
        now = (columns >= start) & (columns < start + stream.shape[2])
        if self._compared is None:
            self._compared = stream.new_empty(len(stream) - 1, len(at), stream.shape[3])
        self._compared[:, now] = stream[1:, at[now] // kept, columns[now] - start]

    # ---- steps 4 and 5 -------------------------------------------------------------------------------------------
    def _solve(self) -> None:
        assert self._sums is not None
        maps, bias = self._sums.solve()
        self._sums, self._cache = None, None
        held = torch.from_numpy(self.ids[self.batches[-1]])
        model, text = self.model, self.text
        words = None if text is None else hashlib.sha256("\0".join(text).encode()).hexdigest()[:12]
        meta = {
            **provenance(model, "n_layers", "d_model", "d_vocab"), "fingerprint": fingerprint(model),
            "tokens": self.tokens, "seed": self.seed, "text": None if words is None else f"a given text ({words})",
            "length": self.ids.shape[1], "ridge": RIDGE, "shuffled": self.shuffled,
        }  # fmt: skip
        none = torch.zeros(0)
        self._lens = Lens(self.sites, maps, bias, held, none, meta, pd.DataFrame())
        states = held_states(model, held, self.reported) if self._compared is None else self._compared
        self._compared, self._agreement = None, Agreement(model, self._lens, states)


def fit_lens(
    model: Model, tokens: int = TOKENS, text: str | Sequence[str] | None = None, seed: int = 0,
    progress: Callable[[float, str], None] | None = None, shuffled: bool = False,
) -> Lens:  # fmt: skip
    """Fit a linear lens to a model: see the steps at the top of this module.

    `tokens`: how many to fit to (at least 3 × d_model, which the default becomes in wide models; a tenth more is held
    out, 48 rows at least). `text`: a text of one's own, or
    several, instead of what the model writes from `seed`. `progress(share, doing)` is told after every step.
    `shuffled`: the control in which every state is fitted to another one's end. Takes about what a forward pass over
    the tokens takes, and as much again. Raises `VisitError` for too few tokens, a text that is too short, or a model
    whose samples end at once. Source: Din et al. 2023, by closed form.
    """
    job = LensFit(model, tokens, text, seed, shuffled)
    whole, done = sum(job.work), 0.0
    for at, item in enumerate(job.items):
        job.update([item])
        done += job.work[at]
        if progress is not None:
            progress(done / whole, job.doing(at))
    found = job.snapshot()
    assert found is not None
    return found


def forecast_seconds(model: Model) -> float:
    """About how long a fit takes on this machine, if it has nothing else to do: a product is timed for it.

    The shortest of some: the first one warms up, and the page that asks is drawn at the same time.
    """
    rows = torch.randn(TIMED, model.d_model, dtype=model.wide, device=model.device)
    taken = []
    with torch.no_grad():
        for _ in range(6):
            started = time.perf_counter()
            unembed(model, rows)[0, 0].item()
            taken.append(time.perf_counter() - started)
    speed = 2.0 * TIMED * model.d_vocab * model.d_model / min(taken)
    return sum(LensFit(model).work) * 1e11 / speed * SLOWER


def fit_bytes(model: Model) -> int:
    """Memory that a fit takes beside the model: the sums of every state, keys and values of what is written."""
    return len(tuple(all_sites(model))) * 2 * 8 * model.d_model**2 + 2 * ROOM


def held_rows(rows: int) -> int:
    """How many rows are held out beside those to fit to: a tenth, and so many that no single text decides."""
    return max(HELD, -(-rows // 10))
