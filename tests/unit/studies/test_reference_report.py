"""The reference report in docs/ is what the program gives now; the README says how it is made."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest

import visit
from visit.files.study_report import MARKS
from visit.runs.prompts import shipped_set
from visit.studies.captions import caption_of
from visit.studies.settings import FIGURES

REPORT = Path(__file__).parents[3] / "docs" / "report-visit-mini.html"


@pytest.fixture(scope="module")
def report() -> str:
    return unescape(REPORT.read_text(encoding="utf-8"))


def test_the_report_has_every_figure_with_its_words_of_now(report):
    for figure in FIGURES:
        if figure == "tables":
            continue
        caption = caption_of(figure)
        for text in (caption.title, caption.measured, caption.reading, caption.paper, caption.others):
            assert text in report, (figure, text)


@pytest.mark.slow
def test_the_report_answers_as_the_program_does_now(report):
    shown = re.findall(r'<p class="verdict[^"]*">(.) <b>(.*?)</b>', report, re.DOTALL)
    found = visit.study(visit.load_model("visit-mini"), shipped_set("facts"))
    now = [(MARKS[v.holds], v.sentence) for figure in FIGURES for v in found.verdicts.get(figure, ())]
    assert len(shown) == len(now)
    digits = re.compile(r"[\d.,−]+")  # the last ones are another machine's
    for (mark, sentence), (mark_now, sentence_now) in zip(shown, now, strict=True):
        assert (mark, digits.sub("#", sentence)) == (mark_now, digits.sub("#", sentence_now))
