"""Numbers as text: one rule per kind, and nothing uncertain rounded to a certainty."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from visit.text.numbers import band, bits, duration, number, percent, short, signed, size_text

NAN = math.nan


@pytest.mark.parametrize(
    ("p", "words", "narrow", "fine"),
    [
        (None, "", "", ""),
        (NAN, "", "", ""),
        (0.0, "0 %", "0 %", "0 %"),
        (-1e-9, "under 0.1 %", "< 0.1 %", "under 0.001 %"),  # a rest that rounding makes negative
        (1e-7, "under 0.1 %", "< 0.1 %", "under 0.001 %"),
        (0.00012, "under 0.1 %", "< 0.1 %", "0.012 %"),
        (0.0004, "under 0.1 %", "< 0.1 %", "0.040 %"),
        (0.001, "0.1 %", "0.1 %", "0.1 %"),
        (0.0123, "1.2 %", "1.2 %", "1.2 %"),
        (0.02, "2.0 %", "2.0 %", "2.0 %"),
        (0.0996, "10 %", "10 %", "10 %"),
        (0.616, "62 %", "62 %", "62 %"),
        (0.989, "99 %", "99 %", "99 %"),
        (0.9951, "99.5 %", "99.5 %", "99.5 %"),
        (0.998, "99.8 %", "99.8 %", "99.8 %"),
        (0.9996, "over 99.9 %", "> 99.9 %", "99.960 %"),
        (1 - 1e-9, "over 99.9 %", "> 99.9 %", "over 99.999 %"),
        (1.0, "100 %", "100 %", "100 %"),
        (1.0000001, "100 %", "100 %", "100 %"),
    ],
)
def test_a_probability(p, words, narrow, fine):
    assert (percent(p), percent(p, narrow=True), percent(p, fine=True)) == (words, narrow, fine)


@pytest.mark.parametrize("fine", [False, True])
def test_nothing_uncertain_reads_0_or_100_percent_and_more_never_reads_as_less(fine):
    read = []
    for p in [*np.geomspace(1e-12, 0.5, 4000), *(1 - np.geomspace(0.5, 1e-12, 4000))]:
        digits = re.sub(r"^(under|over) ", "", text := percent(float(p), fine=fine)).removesuffix(" %")
        assert float(digits) not in (0, 100), text
        read.append(float(digits) + (1e-4 if text.startswith("over") else 0))
    assert read == sorted(read)


@pytest.mark.parametrize(
    ("value", "plain", "with_sign"),
    [
        (0.0, "0", "+0"),
        (-0.0, "0", "+0"),
        (12.34, "12.3", "+12.3"),
        (-3.0, "−3.0", "−3.0"),
        (12345.6, "12,345.6", "+12,345.6"),
        (0.95, "0.95", "+0.95"),
        (0.996, "1.0", "+1.0"),
        (0.1, "0.10", "+0.10"),
        (0.043, "0.043", "+0.043"),
        (-0.000012, "−1.2·10^-5", "−1.2·10^-5"),
        (NAN, "–", "–"),
    ],
)
def test_a_number_in_a_sentence(value, plain, with_sign):
    assert (short(value), signed(value)) == (plain, with_sign)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (NAN, "–"), (0.0, "0.000"), (1.5, "1.500"), (-0.25, "-0.250"), (0.00012345, "0.000123"),
     (123456.7, "1.23e+05")],
)  # fmt: skip
def test_a_cell_of_a_table(value, text):
    assert number(value) == text


def test_bands_and_units():
    assert number(0.5, sign=True) == "+0.500"
    assert band(0.15, 0.333) == "[0.15, 0.33]" and band(-1.2, NAN) == "[−1.2, –]"
    assert bits(0.3449) == "0.34 bits" and bits(NAN) == "–"
    assert [size_text(n) for n in (6_160_000_000, 999_000_000, 548_000_000, 1_234_567)] == [
        "6.2 GB", "1.0 GB", "548 MB", "1.2 MB",
    ]  # fmt: skip
    assert [duration(s) for s in (0.2, 59, 300, 7200)] == ["1 s", "59 s", "5 min", "2.0 h"]


def test_no_other_module_writes_percentages_by_itself():
    home = Path(__file__).parents[3] / "visit"
    own = re.compile(r":[+]?\.[0-9]%\}|[:.][0-9]f\} ?%\"")
    assert not [p.name for p in home.rglob("*.py") if p.name != "numbers.py" and own.search(p.read_text("utf-8"))]
