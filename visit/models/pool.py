"""The models in memory: a bounded number, loaded one at a time in threads of their own, with their progress."""

from __future__ import annotations

import gc
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from visit.models.fingerprint import fingerprint
from visit.models.load import read_checkpoint
from visit.models.model import Model, wrap

MOST = 2  # the model at hand and the one before it, or the two of a comparison

Report = Callable[[int, int], None]


@dataclass(eq=False)
class Loading:
    """A model that is being loaded: `done` of `total` tensors are read (`total` is 0 while its files are judged)."""

    name: str
    done: int = 0
    total: int = 0
    model: Model | None = None
    error: Exception | None = None
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


def load(name: str, report: Report) -> Model:
    """Load one model as `load_model` does, telling `report` how far it is."""
    read = read_checkpoint(name, None, None, None, report)
    model = wrap(read.hf, read.tokenizer, name, read.revision, read.quantization)
    threading.Thread(target=fingerprint, args=(model,), daemon=True).start()  # not in the thread of a page that asks
    return model


class Shelf:
    """At most `most` models; the one used longest ago goes first, before a new one is read. Safe with threads."""

    def __init__(self, most: int = MOST, load: Callable[[str, Report], Model] = load) -> None:
        self.most, self._load = most, load
        self._kept: OrderedDict[str, Model] = OrderedDict()
        self._going: dict[str, Loading] = {}
        self._lock, self._turn = threading.Lock(), threading.Lock()

    def find(self, name: str) -> Model | None:
        """The model if it is in memory."""
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
            return self._kept.get(name)

    def begin(self, name: str) -> Loading:
        """Start to load a model, or join those who wait for it already."""
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
                loading = Loading(name, model=self._kept[name])
                loading.ended.set()
                return loading
            if name not in self._going:
                self._going[name] = Loading(name)
                threading.Thread(target=self._run, args=(self._going[name],), daemon=True).start()
            return self._going[name]

    def get(self, name: str) -> Model:
        """The model, loaded now if it is not at hand; raises what loading it raises."""
        return self.find(name) or self.begin(name).result()

    @property
    def names(self) -> list[str]:
        """What is in memory, the latest used last."""
        with self._lock:
            return list(self._kept)

    def _run(self, loading: Loading) -> None:
        try:
            with self._turn:  # one after the other: their forecasts must not count the same free memory twice
                self._make_room()
                loading.model = self._load(loading.name, loading.report)
                gc.collect()
                gc.freeze()  # the garbage collector need not look at a model and its imports again
        except Exception as error:
            loading.error = error
        with self._lock:
            if loading.model is not None:
                self._kept[loading.name] = loading.model
            del self._going[loading.name]
        loading.ended.set()

    def _make_room(self) -> None:
        """Keep one place free; the model used last stays, so that a failure leaves it there."""
        with self._lock:
            while len(self._kept) > max(1, self.most - 1):
                self._kept.popitem(last=False)
        gc.collect()
