"""What pages keep of their analyses: what is filled after it was made counts with what it holds by now."""

from __future__ import annotations

import numpy as np

from visit.app import cache
from visit.cache import Store


def test_what_grows_is_weighed_with_every_ask(monkeypatch):
    store = Store(10_000)
    monkeypatch.setattr(cache, "_results", lambda: store)

    @cache.kept(weighs=100, grows=True)
    def nodes(_of: str, which: int) -> list[np.ndarray]:
        return []

    first = nodes("", 1)
    first.append(np.zeros(500))  # 4,000 bytes
    assert nodes("", 1) is first
    nodes("", 2).append(np.zeros(500))
    assert nodes("", 2)[0].nbytes == 4_000 and nodes("", 1) is first  # both have room
    nodes("", 3).append(np.zeros(500))
    nodes("", 3)
    assert nodes("", 1) is first  # asked for last but one
    assert nodes("", 2) == []  # the least recently asked for had to go: three are more than 10,000 bytes
