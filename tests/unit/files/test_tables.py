"""CSV: texts come back, and none is a formula in a spreadsheet."""

from __future__ import annotations

import csv
import io
import zipfile

import pandas as pd
import pytest

from visit.files.tables import FORMULA, meta_table, to_csv, to_zip

TEXTS = [
    "=1+1",
    "+1",
    "-2",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\uff1d1",
    "'=1",
    "''-",
    "'s",
    "it's",
    " =1",
    "",
    "=",
    "-",
    "a=b",
    None,
]


def cells(text: str) -> list[str]:
    return [row[0] for row in csv.reader(io.StringIO(text, newline=""))][1:]


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r"])
def test_no_text_begins_a_formula(sign):
    table = pd.DataFrame({"token": [f"{sign}cmd|' /C calc'!A0"], "n": [-1.5]})
    assert not cells(to_csv(table))[0].startswith(sign)
    assert to_csv(table).rstrip().endswith(",-1.5"), "a number stays a number"
    archive = zipfile.ZipFile(io.BytesIO(to_zip({"prompt": f"{sign}1"}, {"nodes": table})))
    for name in archive.namelist():
        for row in csv.reader(io.StringIO(archive.read(name).decode(), newline="")):
            assert not any(cell.startswith(sign) and cell != "-1.5" for cell in row)


def test_taking_one_apostrophe_away_gives_every_text_back():
    back = [cell[1:] if FORMULA.match(cell) else cell for cell in cells(to_csv(pd.DataFrame({"token": TEXTS})))]
    assert back == [text or "" for text in TEXTS]
    assert to_csv(meta_table({"prompt": "=1"})).splitlines()[1] == '"prompt","\'=1"'
