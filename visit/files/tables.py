"""Tables as strict JSON, CSV, or text in a terminal."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd

from visit.errors import VisitError
from visit.text.citation import bibtex
from visit.text.numbers import number
from visit.text.visible import as_word, visible


def to_json(meta: dict[str, Any], tables: dict[str, pd.DataFrame], flat: bool = False) -> str:
    """`{"meta": …, "tables": {name: [records]}}` as strict JSON, missing numbers null. `flat`: tables at the top."""
    records = {name: _json_value(table.to_dict("records")) for name, table in tables.items()}
    about = {**_json_value(meta), "cite": bibtex()}
    whole = {"meta": about, **records} if flat else {"meta": about, "tables": records}
    return json.dumps(whole, ensure_ascii=False, allow_nan=False)


def _json_value(value: Any) -> Any:
    """Only what JSON has: numpy scalars unpacked, NaN and NA null, tuples lists, lone surrogates escaped."""
    if isinstance(value, dict):
        return {str(k): _json_value(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(v) for v in value]
    if value is None or value is pd.NA:
        return None
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_csv(path: Path, tables: dict[str, pd.DataFrame]) -> list[Path]:
    """One table to `x.csv`; several to `x-<table>.csv` each. Returns the files."""
    single = len(tables) == 1
    files = []
    for name, table in tables.items():
        file = path if single else path.with_name(f"{path.stem}-{name}{path.suffix}")
        write_bytes(file, to_csv(table).encode())
        files.append(file)
    return files


def meta_table(meta: dict[str, Any]) -> pd.DataFrame:
    """What a set of tables is of, as a table itself (`property`, `value`): CSV has no other place for it."""
    about = {**meta, "cite": bibtex()}
    values = [v if isinstance(v, str) else json.dumps(_json_value(v), ensure_ascii=False) for v in about.values()]
    return pd.DataFrame({"property": list(about), "value": values})


def to_zip(meta: dict[str, Any], tables: dict[str, pd.DataFrame]) -> bytes:
    """All tables as CSV in one archive, with `meta.csv`, which says what they are of."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as files:
        for name, table in {**tables, "meta": meta_table(meta)}.items():
            files.writestr(f"{name}.csv", to_csv(table))
    return archive.getvalue()


# how a formula begins in a spreadsheet; with apostrophes in front, so that one more can be taken away again
FORMULA = re.compile(r"'*[=+\-@\t\r\uff1d\uff0b\uff0d\uff20]")


def to_csv(table: pd.DataFrame) -> str:
    """One table as CSV: texts in quotes (a token may be a line break), lists of words as JSON, missing cells empty.

    A text that a spreadsheet would take for a formula has an apostrophe in front: `'=1+1`. Taking one apostrophe away
    from every text that matches `FORMULA` gives the texts back.
    """
    flat = table.copy()
    for column in flat.columns:
        if flat[column].map(lambda v: isinstance(v, (list, dict))).any():
            lists = [isinstance(v, (list, tuple, dict)) for v in flat[column]]
            flat[column] = [
                json.dumps(_json_value(v), ensure_ascii=False) if is_list else None
                for v, is_list in zip(flat[column], lists, strict=True)
            ]
        elif flat[column].map(lambda v: isinstance(v, str) and FORMULA.match(v) is not None).any():
            flat[column] = [f"'{v}" if isinstance(v, str) and FORMULA.match(v) else v for v in flat[column]]
    return flat.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC).encode("utf-8", "backslashreplace").decode()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file; a folder that is not there or not writable gives a `VisitError`."""
    try:
        path.write_bytes(content)
    except OSError as error:
        raise VisitError(
            f"{str(path)!r} cannot be written ({error.strerror or error}). Choose another --out."
        ) from error


def to_text(table: pd.DataFrame, columns: list[str] | None = None) -> str:
    """A table for a terminal: numbers short, missing as –, words with their spaces visible."""
    shown = table if columns is None else table[columns]
    cells = [[_cell(value) for value in row] for row in shown.itertuples(index=False)]
    widths = [max(map(len, column)) for column in zip(list(shown.columns), *cells, strict=True)]
    right = [pd.api.types.is_numeric_dtype(shown[c]) and shown[c].dtype != bool for c in shown.columns]
    lines = []
    for row in [list(shown.columns), *cells]:
        padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(as_word(v) if isinstance(v, str) else _cell(v) for v in value[:5])
    if value is None or value is pd.NA or isinstance(value, float):
        return number(None if value is pd.NA else value)
    return visible(value) if isinstance(value, str) else str(value)
