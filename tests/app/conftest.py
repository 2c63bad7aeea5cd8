"""In these tests a page is the model's from the beginning; `test_first_picture.py` tells what stands there before."""

import pytest

from visit.app import stand_in


@pytest.fixture(autouse=True)
def model_from_the_beginning(monkeypatch):
    monkeypatch.setattr(stand_in, "STAND_IN_PAGES", ())
