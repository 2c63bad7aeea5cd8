"""`visit lesson`: mistakes line by line, expected answers, and the handout of the same file."""

from __future__ import annotations

import re

import pytest

from visit.__main__ import main
from visit.lessons.shipped import shipped_text


def test_a_lesson_without_mistakes_says_what_it_expects(capsys):
    assert main(["lesson", "check", "3-recall"]) == 0
    printed = capsys.readouterr().out
    assert "no mistakes" in printed and "expected L4 H1" in printed and "expected “Japan” (position 3)" in printed


def test_mistakes_are_said_by_line_and_the_status_is_2(capsys, tmp_path):
    file = tmp_path / "mine.md"
    file.write_text(shipped_text("3-recall").replace("kind: node", "kind: nod").replace("minutes: 20", "minutes: x"))
    assert main(["lesson", "check", str(file)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("visit: Line 3: minutes is a whole number") and "the kinds are choice, token" in said
    assert len(re.findall(r"Line \d+:", said)) >= 3


@pytest.mark.parametrize("name", ["none.md", "/"])
def test_a_file_that_is_none_is_said(name, capsys):
    assert main(["lesson", "check", name]) == 2
    assert "3-recall" in capsys.readouterr().err


def test_the_handout_asks_and_does_not_answer_and_the_teachers_does(tmp_path, capsys):
    for extra, answered in (([], False), (["--teacher"], True)):
        out = tmp_path / f"{len(extra)}.html"
        assert main(["lesson", "handout", "7-causes", "--out", str(out), *extra]) == 0
        page = out.read_text(encoding="utf-8")
        assert "Reading is not causing" in page and "☐" in page and "http:" not in page and "https:" not in page
        assert ("Expected:" in page) is answered and ("show of hands" in page) is answered
        assert "{head}" not in page and "{target}" not in page


def test_what_a_lesson_says_is_escaped_on_paper(tmp_path):
    file, out = tmp_path / "mine.md", tmp_path / "mine.html"
    text = shipped_text("3-recall").replace("title: A head recalls", "title: <script>alert(1)</script>")
    file.write_text(text.replace("mark: prompt\n\n", "mark: prompt\n\n<img src=x onerror=y> **bold** ", 1))
    assert main(["lesson", "handout", str(file), "--out", str(out)]) == 0
    page = out.read_text(encoding="utf-8")
    assert "<script>" not in page and "<img" not in page and "<b>bold</b>" in page
