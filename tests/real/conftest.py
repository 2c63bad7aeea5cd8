"""The trained model's tests take minutes: they have a lane of their own, as the clicks have."""

import os
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items):
    """VISIT_REAL=required runs them, and fails where the model was not fetched."""
    if "VISIT_REAL" not in os.environ:
        own_lane = pytest.mark.skip(reason="run by VISIT_REAL=required python -m pytest -n 2 tests/real")
        for item in items:
            if item.path.parent == Path(__file__).parent:
                item.add_marker(own_lane)
