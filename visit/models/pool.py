"""The models in memory: bounded in number and bytes, loaded one at a time in threads of their own, with their progress.

Where more are in use than fit, each is read again whenever its turn comes. Their turns are those in which they were
asked for, and `Loading.crowded` lets a page say what is happening.
"""

from __future__ import annotations

import gc
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from visit.errors import VisitError
from visit.models.catalog import TooLarge, memory_at_hand
from visit.models.fingerprint import Stamp, fingerprint, stamp
from visit.models.load import read_checkpoint
from visit.models.load_weights import ProgressCallback, first_line
from visit.models.model import Model, wrap

MAX_MODELS = 4
SHARE = 0.45  # of the memory that a new model may take, for all of them; the rest is for passes, graphs and visitors
LEAST = 1 << 29  # bytes that they may always take together
BACK_SOON = 120.0  # seconds within which a model that went and is asked for again shows that too many are in use
KNOWN_NAMES = 50  # whose files are remembered: names come from addresses
LOOK = 1.0  # seconds between two looks at free memory for models that are in memory
RECENT = 60.0  # seconds after its last use for which the two models of a comparison stay together


@dataclass(eq=False)
class Loading:
    """A model that is being loaded: `done` of `total` tensors are read (`total` is 0 while its files are judged)."""

    name: str
    done: int = 0
    total: int = 0
    model: Model | None = None
    error: Exception | None = None
    stamp: Stamp = ()  # of its files, taken before they were read
    bytes: int = 0  # of its weights
    crowded: bool = False  # it was in memory a moment ago: more models are in use than fit
    before: int = 0  # models whose turn comes first
    ended: threading.Event = field(default_factory=threading.Event, repr=False)

    def report(self, done: int, total: int) -> None:
        self.done, self.total = done, total

    def result(self) -> Model:
        """The model, when it is there; what went wrong is raised."""
        self.ended.wait()
        if self.error is not None:
            raise self.error
        assert self.model is not None
        return self.model


def load(name: str, report: ProgressCallback) -> Model:
    """Load one model as `load_model` does, telling `report` how far it is."""
    read = read_checkpoint(name, None, None, None, report)
    model = wrap(read.hf, read.tokenizer, name, read.revision, read.quantization)
    threading.Thread(target=fingerprint, args=(model,), daemon=True).start()  # not in the thread of a page that asks
    return model


def weights_bytes(model: Model) -> int:
    """What a model's weights take in memory; tied ones count once."""
    parameters = model.hf.parameters() if hasattr(model, "hf") else ()
    return sum(parameter.nelement() * parameter.element_size() for parameter in parameters)


def memory_for_models(held: int) -> int:
    """Bytes that all models together may take, where those in memory take `held` already."""
    return max(LEAST, int(SHARE * (memory_at_hand() + held)))


class Shelf:
    """At most `most` models of `room(held)` bytes together. The one used longest ago goes first. Safe with threads.

    A model whose files have changed since is read again; for `trusted` seconds they are taken to be as they were, for a
    page asks fifty times, and every look at ten files lets go of Python's lock as often. The two models of a comparison
    that goes on are not parted: for their sake there may be one more than `most`, while there is memory for it.
    """

    def __init__(
        self,
        most: int = MAX_MODELS,
        load: Callable[[str, ProgressCallback], Model] = load,
        room: Callable[[int], int] = memory_for_models,
        trusted: float = 0.0,
    ) -> None:
        self.most, self._load, self._room, self._trusted = most, load, room, trusted
        # name -> when its files were looked at, and what they were
        self._stamps: OrderedDict[str, tuple[float, Stamp]] = OrderedDict()
        self._left: dict[str, float] = {}  # name -> when it had to go
        self._tickets: deque[Loading] = deque()  # in the order in which they were asked for
        self._kept: OrderedDict[str, Loading] = OrderedDict()
        self._going: dict[str, Loading] = {}
        self._look = 0.0  # when free memory is looked at again
        self._pair: tuple[frozenset[str], float] = (frozenset(), 0.0)  # of a comparison, and when it was last used
        self._lock = threading.Lock()
        self._turn = threading.Condition(self._lock)

    def find(self, name: str) -> Model | None:
        """The model if it is in memory, and is what lies on the disk."""
        now = self._stamp(name)
        with self._lock:
            kept = self._current(name, now)
            return None if kept is None else kept.model

    def begin(self, name: str) -> Loading:
        """Start to load a model, or join those who wait for it already."""
        now = self._stamp(name)
        with self._lock:
            if kept := self._current(name, now):
                return kept
            if name not in self._going:
                loading = self._going[name] = Loading(name)
                loading.crowded = time.monotonic() - self._left.get(name, -BACK_SOON) < BACK_SOON
                loading.before = len(self._tickets)
                self._tickets.append(loading)
                threading.Thread(target=self._run, args=(self._going[name],), daemon=True).start()
            return self._going[name]

    def get(self, name: str) -> Model:
        """The model, loaded now if it is not at hand; raises what loading it raises."""
        return self.begin(name).result()

    def edition(self, name: str) -> tuple[str, str, Stamp]:
        """(name, revision, files) of the model as `get` gives it: what an analysis that is kept is of.

        The revision alone is not enough: of large files it is a sample, and says nothing of the tokenizer.
        """
        loading = self.begin(name)
        return name, loading.result().revision, loading.stamp

    def together(self, one: str, other: str) -> None:
        """Both are used at once, now: neither makes room for a third model within the next `RECENT` seconds."""
        with self._lock:
            self._pair = frozenset((one, other)), time.monotonic()

    @property
    def names(self) -> list[str]:
        """What is in memory, the latest used last."""
        with self._lock:
            return list(self._kept)

    def _stamp(self, name: str) -> Stamp:
        when, found = self._stamps.get(name, (-math.inf, ()))
        if (now := time.monotonic()) - when >= self._trusted:
            found = stamp(name)
            with self._lock:
                self._stamps[name] = now, found
                while len(self._stamps) > KNOWN_NAMES:
                    self._stamps.popitem(last=False)
        return found

    def _current(self, name: str, now: Stamp) -> Loading | None:
        """What is kept under a name, used now; dropped where its files are others (files that are gone say nothing)."""
        kept = self._kept.get(name)
        if kept is None:
            return None
        if now and now != kept.stamp:
            del self._kept[name]
            return None
        self._kept.move_to_end(name)
        if time.monotonic() >= self._look:  # a page asks forty times, and asking for free memory costs a millisecond
            self._shrink(self.most + bool(self._protected()), frozenset())
            self._look = time.monotonic() + LOOK
        return kept

    def _run(self, loading: Loading) -> None:
        try:
            with self._lock:
                self._turn.wait_for(lambda: self._tickets[0] is loading)
            try:  # one after the other: their forecasts must not count the same free memory twice
                self._make_room()
                loading.stamp = stamp(loading.name)
                loading.model = self._attempt(loading)
                loading.stamp = loading.stamp or stamp(loading.name)  # of what had to be fetched first
                loading.bytes = weights_bytes(loading.model)
                gc.collect()
                gc.freeze()  # the garbage collector need not look at a model and its imports again
            finally:
                with self._lock:
                    self._tickets.popleft()
                    for waiting in self._tickets:
                        waiting.before -= 1
                    self._turn.notify_all()
        except Exception as error:
            loading.error = error
        except BaseException as error:  # a library in Rust that panics: whoever waits must hear of it
            loading.error = VisitError(f"{loading.name!r} cannot be read: {type(error).__name__}: {first_line(error)}")
            loading.error.__cause__ = error
        with self._lock:
            if loading.model is not None:
                self._kept[loading.name] = loading
                self._stamps.clear()
                self._shrink(self.most + bool(self._protected()), self._protected() | {loading.name})
            del self._going[loading.name]
        loading.ended.set()

    def _attempt(self, loading: Loading) -> Model:
        try:
            return self._load(loading.name, loading.report)
        except TooLarge:
            with self._lock:
                crowded = len(self._kept) > max(1, self.most - 1)
                self._pair = frozenset(), 0.0
            if not crowded:
                raise
        self._make_room()  # outside of the error, whose frames would hold on to what goes
        return self._load(loading.name, loading.report)

    def _protected(self) -> frozenset[str]:
        names, used = self._pair
        return names if names <= self._kept.keys() and time.monotonic() - used < RECENT else frozenset()

    def _make_room(self) -> None:
        """Keep one place free; the model used last stays, so that a failure leaves it there."""
        with self._lock:
            self._shrink(max(1, self.most - 1), self._protected())
            self._shrink(self.most, frozenset())
        gc.collect()

    def _shrink(self, most: int, protected: frozenset[str]) -> None:
        """Let go of models until `most` are left in their room, the one used longest ago first, none that is protected.

        The last one stays, however large it is.
        """
        held = sum(kept.bytes for kept in self._kept.values())
        room = self._room(held) if held else 0
        for name in [name for name in self._kept if name not in protected]:
            if len(self._kept) <= most and (held <= room or len(self._kept) == 1):
                break
            held -= self._kept.pop(name).bytes
            self._left[name] = time.monotonic()
