"""A cache with a bound in bytes, for records: one of a long prompt can weigh as much as a hundred short ones."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from torch import Tensor


class Store:
    """The least recently used records go first. Safe with threads; two threads may make one record at the same time."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The record of `key`, made now if it is not at hand.

        The newest is kept however large it is: a page asks for it again and again.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][0]
        made = make()
        size = weight(made)
        with self._lock:
            self._kept[key] = (made, size)
            self._kept.move_to_end(key)
            while self.bytes > self.max_bytes and len(self._kept) > 1:
                self._kept.popitem(last=False)
        return made

    @property
    def bytes(self) -> int:
        """What the kept records weigh together."""
        return sum(size for _, size in self._kept.values())


def weight(record: Any) -> int:
    """Bytes of the tensors of a record; views of one tensor count once."""
    tensors = [v for v in vars(record).values() if isinstance(v, Tensor)]
    return sum({v.untyped_storage().data_ptr(): v.untyped_storage().nbytes() for v in tensors}.values())
