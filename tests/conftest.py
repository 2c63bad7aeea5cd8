"""Fixtures that several files share."""

import os
import shutil
import sys
import threading

if "PYTEST_XDIST_WORKER" in os.environ:  # a process per core: one thread each, set before torch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hub_double import hub_cache, hub_folder, served
from models import MATRIX
from wheel_double import gguf_wheel, slow_pip, wheel

__all__ = ["gguf_wheel", "hub_cache", "hub_folder", "served", "slow_pip", "smollm2", "wheel"]


def pytest_collection_modifyitems(config, items):
    """VISIT_MATRIX=rest runs what the test command leaves out: tests on the other architectures, and no test again."""
    if os.environ.get("VISIT_MATRIX") == "rest":
        again = [item for item in items if not on_names(item)]
        config.hook.pytest_deselected(items=again)
        items[:] = [item for item in items if item not in set(again)]


def on_names(item) -> bool:
    """Whether a test runs on every architecture: one is a parameter of it, or it goes through their NAMES itself."""
    given = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return "NAMES" in item.function.__code__.co_names or any(value in MATRIX["rest"] for value in map(str, given))


@pytest.fixture(scope="module", autouse=True)
def nothing_goes_on_from_other_files(request, tmp_path_factory):
    """No run that another file, another process or an app has kept answers here, and no thread goes on from before.

    What needs the trained model finds it where it was fetched to.
    """
    if (runs := sys.modules.get("visit.runs.worker")) is not None:
        runs.WORKER.reset()
        if runs.SLOW.runs():
            runs.SLOW.reset()
    for thread in threading.enumerate():
        if thread.name in ("measuring", "takeover"):
            thread.join(30)
    if request.path.parent.name in ("real", "golden"):
        yield
        return
    cache = tmp_path_factory.getbasetemp() / "cache-of-the-process"
    shutil.rmtree(cache / "runs", ignore_errors=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISIT_CACHE", str(cache))
        yield


@pytest.fixture(scope="session")
def smollm2():
    """The trained model of the tests in `real/`; skipped where it was not fetched, unless VISIT_REAL=required."""
    from visit import load_model
    from visit.models import wheels

    if wheels.find("smollm2") is None:
        missing = "SmolLM2 is not on this machine: python -m visit models fetch smollm2"
        pytest.fail(missing) if os.environ.get("VISIT_REAL") == "required" else pytest.skip(missing)
    return load_model("smollm2")
