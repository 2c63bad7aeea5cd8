"""A study read from a file that somebody saved: checked piece by piece, bounded, and never trusted.

Only numbers per layer and a few words about them are taken; verdicts are not, as nobody can compute them again here.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd

from visit.errors import VisitError
from visit.studies.record import TABLE_COLUMNS, Study
from visit.studies.settings import ALIGNED, EARLY, MAX_BYTES
from visit.text.strict_json import strict_json

MAX_FIGURE_ROWS = 200_000  # of one figure
MAX_TEXT = 300  # characters of a name
MAX_WHOLE = 1_000_000  # of a layer, head, rank or number of prompts
_TEXTS = ("figure", "series", "group", "measure")
_WHOLES = ("layer", "head", "rank", "prompts")
_FLOAT_COLUMNS = ("mean", "low", "high")
_MAY_MISS = ("head", "rank", "low", "high")
_OF_THE_PASS = ("layer",)  # may miss, too, where a number is of the whole pass
_TEXT_META = ("model", "revision", "dtype")
_NOT = "This is no saved study: {}. Choose study.json or figure-….json as VISIT writes them."


def without_words(study: Study) -> Study:
    """The study with the figures of numbers per layer alone, which is what can be laid over another one."""
    return replace(study, tables={f: t for f, t in study.tables.items() if f in ALIGNED})


def read_study(content: bytes) -> Study:
    """A study from the bytes of `study.json`, or of one figure's JSON. Raises `VisitError` for anything else."""
    if len(content) > MAX_BYTES:
        raise VisitError(_NOT.format(f"it is larger than {MAX_BYTES >> 20} MB"))
    try:
        whole = strict_json(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise VisitError(_NOT.format("it is not strict JSON")) from error
    if not isinstance(whole, dict) or not all(isinstance(whole.get(name), dict) for name in ("meta", "tables")):
        raise VisitError(_NOT.format('it has no "meta" and "tables"'))
    found = {f: _figure_table(f, whole["tables"][f]) for f in ALIGNED if f in whole["tables"]}
    if not found:
        raise VisitError(_NOT.format(f"it holds none of the figures {', '.join(ALIGNED)}"))
    return Study(tables=found, verdicts={}, meta=_meta(whole["meta"]))


def _meta(given: dict[str, Any]) -> dict[str, Any]:
    """What names the study: model, precision, prompt set and how many of its prompts ran."""
    found: dict[str, Any] = {name: given[name][:MAX_TEXT] for name in _TEXT_META if isinstance(given.get(name), str)}
    own = given.get("prompt_set")
    own = own if isinstance(own, dict) else {}
    found["prompt_set"] = {n: own[n][:MAX_TEXT] for n in ("name", "hash") if isinstance(own.get(n), str)}
    found["prompts"] = given["prompts"] if _is_whole(given.get("prompts")) else None
    return found


def _figure_table(figure: str, rows: Any) -> pd.DataFrame:
    if not isinstance(rows, list) or len(rows) > MAX_FIGURE_ROWS or not all(isinstance(row, dict) for row in rows):
        raise VisitError(_NOT.format(f"figure {figure} is no list of at most {MAX_FIGURE_ROWS:,} rows"))
    table = pd.DataFrame(
        [[row.get(name) for name in TABLE_COLUMNS] for row in rows], columns=list(TABLE_COLUMNS), dtype=object
    )
    most, missing = (MAX_WHOLE, _MAY_MISS + _OF_THE_PASS) if figure == EARLY else (1, _MAY_MISS)
    for name in TABLE_COLUMNS:
        fits = _is_text if name in _TEXTS else _is_whole if name in _WHOLES else partial(_is_number, most)
        if not all(fits(value) or (value is None and name in missing) for value in table[name]):
            raise VisitError(_NOT.format(f"a row of figure {figure} has another {name} than a study writes"))
    return table.astype({**dict.fromkeys(_WHOLES, "Int64"), **dict.fromkeys(_FLOAT_COLUMNS, float)})


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_WHOLE


def _is_number(most: float, value: Any) -> bool:
    """A share; of "early" also bits, ranks and numbers of blocks."""
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return known and 0 <= value <= most
