"""In these tests a page is the model's from the beginning; `test_first_picture.py` tells what stands there before.

Nor does it depend on how fast the machine is: what is cheap enough to be done unasked is, and the page waits for it.
"""

import pytest

from visit.app import every_neuron, every_part, measuring, patching, stand_in, trace

LONG = 60.0  # seconds: more than anything takes here, and less than what tests call long
BY_THE_CLOCK = {
    every_neuron: ("UNASKED", "PATIENCE"), every_part: ("UNASKED",), measuring: ("UNASKED",),
    patching: ("UNASKED", "WITH_THE_PAGE"), trace: ("TRACED_UNASKED", "TRACE_PATIENCE"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def model_from_the_beginning(monkeypatch):
    monkeypatch.setattr(stand_in, "STAND_IN_PAGES", ())


@pytest.fixture(autouse=True)
def however_busy_the_machine_is(monkeypatch):
    for module, names in BY_THE_CLOCK.items():
        for name in names:
            monkeypatch.setattr(module, name, LONG)
