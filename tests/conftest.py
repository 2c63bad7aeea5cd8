"""Fixtures that several files share."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # a process per core: one thread each, set before torch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hub_double import hub_cache, hub_folder, served
from wheel_double import gguf_wheel, slow_pip, wheel

__all__ = ["gguf_wheel", "hub_cache", "hub_folder", "served", "slow_pip", "smollm2", "wheel"]


@pytest.fixture(scope="session")
def smollm2():
    """The trained model of the tests in `real/`; skipped where it was not fetched, unless VISIT_REAL=required."""
    from visit import load_model
    from visit.models import wheels

    if wheels.find("smollm2") is None:
        missing = "SmolLM2 is not on this machine: python -m visit models fetch smollm2"
        pytest.fail(missing) if os.environ.get("VISIT_REAL") == "required" else pytest.skip(missing)
    return load_model("smollm2")
