"""The models in memory: a bounded number, loaded one at a time in threads of their own, with their progress."""

from __future__ import annotations

import gc
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from visit.errors import VisitError
from visit.models.catalog import TooLarge
from visit.models.fingerprint import Stamp, fingerprint, stamp
from visit.models.load import read_checkpoint
from visit.models.load_weights import ProgressCallback, first_line
from visit.models.model import Model, wrap

MAX_MODELS = 2  # the model at hand and the one before it, or the two of a comparison
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


class Shelf:
    """At most `most` models; the one used longest ago goes first, before a new one is read. Safe with threads.

    A model whose files have changed since is read again. The two models of a comparison that goes on are not parted:
    for their sake there may be one more than `most`, while there is memory for it.
    """

    def __init__(self, most: int = MAX_MODELS, load: Callable[[str, ProgressCallback], Model] = load) -> None:
        self.most, self._load = most, load
        self._kept: OrderedDict[str, Loading] = OrderedDict()
        self._going: dict[str, Loading] = {}
        self._pair: tuple[frozenset[str], float] = (frozenset(), 0.0)  # of a comparison, and when it was last used
        self._lock, self._turn = threading.Lock(), threading.Lock()

    def find(self, name: str) -> Model | None:
        """The model if it is in memory, and is what lies on the disk."""
        now = stamp(name)
        with self._lock:
            kept = self._current(name, now)
            return None if kept is None else kept.model

    def begin(self, name: str) -> Loading:
        """Start to load a model, or join those who wait for it already."""
        now = stamp(name)
        with self._lock:
            if kept := self._current(name, now):
                return kept
            if name not in self._going:
                self._going[name] = Loading(name)
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

    def _current(self, name: str, now: Stamp) -> Loading | None:
        """What is kept under a name, used now; dropped where its files are others (files that are gone say nothing)."""
        kept = self._kept.get(name)
        if kept is None:
            return None
        if now and now != kept.stamp:
            del self._kept[name]
            return None
        self._kept.move_to_end(name)
        self._shrink(self.most + bool(self._protected()), frozenset())
        return kept

    def _run(self, loading: Loading) -> None:
        try:
            with self._turn:  # one after the other: their forecasts must not count the same free memory twice
                self._make_room()
                loading.stamp = stamp(loading.name)
                loading.model = self._attempt(loading)
                gc.collect()
                gc.freeze()  # the garbage collector need not look at a model and its imports again
        except Exception as error:
            loading.error = error
        except BaseException as error:  # a library in Rust that panics: whoever waits must hear of it
            loading.error = VisitError(f"{loading.name!r} cannot be read: {type(error).__name__}: {first_line(error)}")
            loading.error.__cause__ = error
        with self._lock:
            if loading.model is not None:
                self._kept[loading.name] = loading
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
        """Let go of models until `most` are left, the one used longest ago first, and none that is protected."""
        for name in [name for name in self._kept if name not in protected][: max(0, len(self._kept) - most)]:
            del self._kept[name]
