"""A map read once is asked for any other target without a product over the vocabulary, to the same numbers."""

from __future__ import annotations

import models
import numpy as np
import pytest

from visit import capture
from visit.analyses import overview
from visit.analyses.overview import READ_ON, lens_map, stream_readings

IDS = [5, 17, 3, 99, 41, 17, 8, 200, 31, 12]
AT = (1, 4, 9)


@pytest.mark.parametrize("name", models.NAMES)
def test_another_target_of_states_that_were_read_is_the_map_read_anew(name, monkeypatch):
    model = models.exact(name)
    acts = capture(model, IDS)
    known = stream_readings(model, acts, AT)
    targets = {int(known.top_ids[4, 0]), int(known.top_ids[-1, READ_ON - 1]), int(known.bottom_ids[2, 0]), 77}
    anew = {target: lens_map(model, acts, target, AT) for target in targets}
    monkeypatch.setattr(overview, "read", None)
    for target, full in anew.items():
        again = lens_map(model, acts, target, AT, known=known)
        for column in ("prob", "entropy", "top_prob"):
            np.testing.assert_allclose(again[column], full[column], rtol=1e-9, atol=1e-300)
        told = again["rank"].notna()
        assert (again["rank"][told] == full["rank"][told]).all() and (full["rank"][~told] > READ_ON).all()
        assert told[full["rank"] <= READ_ON].all() and told[full["depth"] == model.n_layers].all()
        rest = ["depth", "layer", "pos", "state", "token", "top", "tokens"]
        assert again[rest].equals(full[rest])
