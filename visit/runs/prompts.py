"""Prompt sets: files of many prompts, read line by line. What cannot be used is listed with its line, the rest runs."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from visit.errors import VisitError
from visit.models.catalog import MINI

MAX_SET_BYTES = 8 << 20
MAX_PROMPTS = 20_000
MAX_CHARACTERS = 16_384  # of one prompt
MAX_RESTARTS = 100  # after a broken quote the rest of the file is searched for the next good row
NOTES_SHOWN = 100
MAX_LEFT_OUT = 100_000  # rows; after them the rest of a file is not read
SHIPPED_MINI = Path(__file__).parents[1] / "data" / "visit-mini" / "prompts"  # of its own world, which it alone knows
WORLD = Path(__file__).parents[1] / "data" / "prompts" / "world.csv"  # of ours, for every other model
IOI = WORLD.with_name("ioi.csv")  # two names, each line with a partner of three other names
TWO_NAMES = "two names"  # how the relation of its two-name sentences begins; all others are facts
ABOUT_SETS = {  # what a shipped set asks
    "facts": "true sentences whose last word, the target, is left out; a distractor is another word of its kind.",
    "names": "two people are named, and then one of them again. The one named once is the answer (the target), the one "
    "named twice is not (the distractor).",
    "ioi": "who gets it? (“Indirect object identification”, the question of Wang et al. 2022.) Two people are named, "
    "and then one of them again: the one named once is the answer (the target), the one named twice is not (the "
    "distractor). The partner of each line is the same sentence with three other names, each named once: with values "
    "from there a head knows nothing of who was named twice.",
    "world": "the facts and the two names together.",
    "plain": "plain sentences that end before a word which their form decides.",
    "repeats": "lists of words that are said twice. The target is what came next the first time.",
}
ROW_COLUMNS = ("prompt", "target", "distractor", "relation", "pos", "abc")
ENDINGS = (".txt", ".csv", ".jsonl")


@dataclass(frozen=True)
class Row:
    """One prompt, as it stands in the file: nothing is trimmed. `line` counts from 1.

    `relation`: what kind of question it is ("capital of a country"), for those who count by kind. `pos`: the position
    that is looked at, where the line names its own. `abc`: its partner, a text of the same form with other words, whose
    values are put in (Wang et al. 2023 call the one with three names ABC). `others`: the file's other columns as name
    and text, lower case, where the line has them: by such a column a position or a partner can be named.
    """

    prompt: str
    target: str | None = None
    distractor: str | None = None
    line: int = 0
    relation: str | None = None
    pos: int | None = None
    abc: str | None = None
    others: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Note:
    """Why a row (or what is in it) is left out. `line` 0: the note is about the whole file."""

    line: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}" if self.line else self.reason


@dataclass(frozen=True)
class PromptSet:
    """Prompts that can be used, and notes about the rows that cannot."""

    name: str
    rows: tuple[Row, ...]
    notes: tuple[Note, ...] = ()

    @cached_property
    def hash(self) -> str:
        """A fingerprint of prompts, targets and distractors in their order; name, lines and relations do not count.

        Positions and partners count where a line has them.
        """
        more = [[] if r.pos is None and r.abc is None else [r.pos, r.abc] for r in self.rows]
        rows = [[r.prompt, r.target, r.distractor, *own] for r, own in zip(self.rows, more, strict=True)]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]

    @cached_property
    def identity(self) -> str:
        """A fingerprint of all that the set holds, names, lines and notes too."""
        rows = [[r.prompt, r.target, r.distractor, r.line, r.relation, r.pos, r.abc, r.others] for r in self.rows]
        notes = [[note.line, note.reason] for note in self.notes]
        return hashlib.sha256(json.dumps([self.name, rows, notes]).encode()).hexdigest()

    @property
    def prompts(self) -> tuple[str, ...]:
        return tuple(row.prompt for row in self.rows)

    def spread(self, count: int | None) -> PromptSet:
        """`count` rows evenly spread over the set, which its name then says; None or too many: the set itself."""
        have = len(self.rows)
        if count is None or count >= have:
            return self
        rows = tuple(self.rows[i * have // count] for i in range(count))
        return replace(self, rows=rows, name=f"{self.name} ({count:,} of {have:,})")

    def without(self, notes: dict[int, str]) -> PromptSet:
        """The set without the rows at these places, each with a note that says why."""
        kept = tuple(row for i, row in enumerate(self.rows) if i not in notes)
        return replace(self, rows=kept, notes=self.notes + tuple(Note(self.rows[i].line, w) for i, w in notes.items()))


def shipped(model: str = MINI) -> tuple[str, ...]:
    """The names of the sets that come with VISIT for a model: visit-mini has its own, of a world it has learned.

    Every other model is asked about ours: `facts`, `names` (who is given something: one of two names), `world`, which
    holds both, and `ioi`: two names again (indirect object identification, Wang et al. 2023), each line with a partner
    of three other names.
    """
    if model == MINI:
        return tuple(sorted(path.stem for path in SHIPPED_MINI.glob("*.csv")))
    return "facts", "names", "ioi", "world"


@lru_cache(maxsize=16)
def shipped_set(name: str, model: str = MINI) -> PromptSet:
    """A shipped set by its name. Raises `VisitError` for one that does not come with this model."""
    if name not in shipped(model):
        raise VisitError(f"The prompt sets that come with {model} are {', '.join(shipped(model))}; got {name!r}.")
    if model == MINI:
        return replace(read_prompts(SHIPPED_MINI / f"{name}.csv"), name=name)
    if name == "ioi":
        return replace(read_prompts(IOI), name=name)
    world = read_prompts(WORLD)
    wanted = {"facts": (False,), "names": (True,), "world": (False, True)}[name]
    rows = tuple(row for row in world.rows if (row.relation or "").startswith(TWO_NAMES) in wanted)
    return PromptSet(name, rows, world.notes)


@lru_cache(maxsize=4)
def all_shipped(model: str = MINI) -> PromptSet:
    """Every prompt that comes with a model, once."""
    rows = (row for name in shipped(model) for row in shipped_set(name, model).rows)
    return PromptSet("all", tuple({(row.prompt, row.target): row for row in rows}.values()))


def named_prompts(source: str | Path, model: str = MINI) -> PromptSet:
    """The prompts of a file, or of a shipped set by its name ("world"), as a command line gives them.

    A file of that name comes first. Raises `VisitError` where there is neither.
    """
    path = Path(source)
    if path.is_file() or path.suffix or path.parent != Path():
        return read_prompts(path)
    if str(source) in shipped(model):
        return shipped_set(str(source), model)
    raise VisitError(
        f"There is no file {path}, and the prompt sets that come with {model} are {', '.join(shipped(model))}. "
        "Give one of these names, or a .txt, .csv or .jsonl file."
    )


def read_prompts(source: Path | str | bytes, name: str | None = None) -> PromptSet:
    """The prompts of a file (a `Path`) or of its content (text or bytes; text is never taken for a path).

    The ending of `name` says what it is: `.txt` one prompt a line; `.csv` and `.jsonl` with `prompt` and, if wanted,
    `target`, `distractor`, `relation`, `pos` and `abc`; other columns are kept as they are (`Row.others`). Without an
    ending (pasted text) the first line says it. Raises `VisitError` for a file that cannot be read, is too large, or
    holds no usable prompt. Source: ours.
    """
    if isinstance(source, Path):
        name, source = name or source.name, _content(source)
    name = name or "pasted prompts"
    text = _decoded(source if isinstance(source, bytes) else source.encode("utf-8", "surrogatepass"), name)
    read = {".txt": _text_rows, ".csv": _csv_rows, ".jsonl": _jsonl_rows}[_ending(name, text)]
    rows: list[Row] = []
    notes: list[Note] = []
    for found in read(text, name):
        found = _usable(found) if isinstance(found, Row) else found
        if isinstance(found, Row) and len(rows) == MAX_PROMPTS:
            notes.append(
                Note(found.line, f"this row and all after it are left out: a set holds {MAX_PROMPTS:,} prompts")
            )
            break
        (rows if isinstance(found, Row) else notes).append(found)  # type: ignore[arg-type]
        if len(notes) == MAX_LEFT_OUT:
            notes.append(Note(found.line, f"after {MAX_LEFT_OUT:,} rows that cannot be used the rest is left out"))
            break
    if not rows:
        why = f" ({notes[0]})" if notes else ""
        raise VisitError(f"{name} holds no prompt that can be used{why}. Give one prompt a line.")
    if (more := len(notes) - NOTES_SHOWN) > 0:
        notes[NOTES_SHOWN:] = [Note(0, f"{more:,} more rows are left out for such reasons")]
    return PromptSet(name, tuple(rows), tuple(notes))


def _content(path: Path) -> bytes:
    try:
        if not path.is_file():  # a pipe or a device would never end
            raise VisitError(f"There is no file {path}. Give a .txt, .csv or .jsonl file.")
        with path.open("rb") as file:
            return file.read(MAX_SET_BYTES + 1)
    except (OSError, ValueError) as error:
        raise VisitError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def _decoded(content: bytes, name: str) -> str:
    """The text; bytes that are no UTF-8 stay visible as lone surrogates, so that only their rows are lost."""
    if len(content) > MAX_SET_BYTES:
        raise VisitError(f"{name} is larger than {MAX_SET_BYTES >> 20} MB, the most a prompt set may have. Split it.")
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):  # what spreadsheets call Unicode text
        try:
            return content.decode("utf-16", "surrogatepass")
        except UnicodeDecodeError as error:
            raise VisitError(f"{name} is cut off in the middle of a character. Save it as UTF-8.") from error
    return content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")


def _ending(name: str, text: str) -> str:
    ending = Path(name).suffix.lower()
    if ending in ENDINGS:
        return ending
    if ending:
        raise VisitError(f"A prompt set is a {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]} file; got {name}.")
    first = text.lstrip().split("\n", 1)[0]
    if first.startswith("{"):
        return ".jsonl"
    return ".csv" if _delimiter(first) else ".txt"


def _text_rows(text: str, name: str) -> Iterator[Row | Note]:
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if line.strip():  # blank lines part paragraphs
            yield Row(line.removesuffix("\n"), line=number)


def _jsonl_rows(text: str, name: str) -> Iterator[Row | Note]:
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            yield Note(number, "this line is not JSON")
            continue
        if not isinstance(found, dict) or "prompt" not in found:
            yield Note(number, 'an object with "prompt" is needed, such as {"prompt": "Paris is", "target": " in"}')
        elif wrong := [c for c in ROW_COLUMNS[:3] if not isinstance(found.get(c), str | None)]:
            yield Note(number, f"{wrong[0]} must be text in quotes")
        else:
            told = {str(c).lower(): v for c, v in found.items() if isinstance(v, str | int | float)}
            relation, abc = (found[c] if isinstance(found.get(c), str) else None for c in ("relation", "abc"))
            yield _row(found["prompt"] or "", found.get("target"), found.get("distractor"), number, relation,
                       found.get("pos"), abc, told)  # fmt: skip


def _delimiter(header: str) -> str | None:
    """What parts the columns of this header; None when it has no column `prompt`."""
    for sign in (",", ";", "\t"):
        with suppress(csv.Error):  # a first line longer than a cell may be is no header
            cells = next(csv.reader([header], delimiter=sign), [])
            if "prompt" in [cell.strip().lower() for cell in cells]:
                return sign
    return None


def _csv_rows(text: str, name: str) -> Iterator[Row | Note]:
    lines = list(io.StringIO(text, newline=""))
    first = next((i for i, line in enumerate(lines) if line.strip()), 0)
    sign = _delimiter(lines[first]) if lines else None
    if not sign:
        came = lines[first].strip()[:80] if lines else ""
        raise VisitError(f"{name} needs a first row with a column named prompt; its first row is {came!r}.")
    header = [cell.strip().lower() for cell in next(csv.reader([lines[first]], delimiter=sign))]
    for number, cells in _csv_records(lines, first + 1, sign):
        if isinstance(cells, str):
            yield Note(number, cells)
        elif len(cells) > len(header):
            yield Note(
                number, f"{len(cells)} cells under {len(header)} columns: a prompt with {sign!r} in it needs quotes"
            )
        elif cells:
            cells += [""] * (len(header) - len(cells))
            row = {column: cells[header.index(column)] for column in ROW_COLUMNS if column in header}
            yield _row(row["prompt"], row.get("target"), row.get("distractor"), number, row.get("relation"),
                       row.get("pos"), row.get("abc"), dict(zip(header, cells, strict=True)))  # fmt: skip


def _row(
    prompt: str, target: str | None, distractor: str | None, line: int, relation: str | None, pos: Any, abc: str | None,
    columns: dict[str, Any],
) -> Row | Note:  # fmt: skip
    """A row whose position is read as a number; a note where it is none. `columns`: all that the line has."""
    text = "" if pos is None else str(pos).strip()
    if not re.fullmatch(r"(-?\d{1,6})?", text, re.ASCII):
        return Note(line, f"pos must be a whole number, negative from the end; got {text[:20]!r}")
    others = tuple((name, str(v)) for name, v in columns.items() if name not in ROW_COLUMNS and str(v) != "")
    return Row(prompt, target, distractor, line, relation, int(text) if text else None, abc, others)


def _csv_records(lines: Sequence[str], start: int, sign: str) -> Iterator[tuple[int, list[str] | str]]:
    """(line, cells) of every record, or (line, what is wrong with it): then reading goes on at the line below."""
    for _ in range(MAX_RESTARTS):
        reader = csv.reader(lines[start:], delimiter=sign, strict=True)
        at = 0  # lines of this reader that stand before the record
        try:
            for cells in reader:
                yield start + at + 1, cells
                at = reader.line_num
            return
        except csv.Error:
            yield start + at + 1, "a quote is not closed, or text follows it; write a quote inside a prompt twice"
            start += at + 1
    yield start + 1, f"after {MAX_RESTARTS} broken rows the rest is left out"


def _usable(row: Row) -> Row | Note:
    """The row, with blank words as None; a note when it cannot be run by any model."""
    texts = (row.prompt, row.target or "", row.distractor or "", row.relation or "", row.abc or "",
             *chain.from_iterable(row.others))  # fmt: skip
    if not row.prompt.strip():
        return Note(row.line, "the prompt is empty")
    if any("\ud800" <= c <= "\udfff" for text in texts if not text.isascii() for c in text):
        return Note(row.line, "bytes that are no text; save the file as UTF-8")
    if any("\0" in text for text in texts):
        return Note(row.line, "a zero byte; this is no text")
    if max(map(len, texts)) > MAX_CHARACTERS:
        return Note(row.line, f"{max(map(len, texts)):,} characters; a prompt may have {MAX_CHARACTERS:,}")
    blank: dict[str, Any] = {n: getattr(row, n) or None for n in ("target", "distractor", "relation", "abc")}
    return replace(row, **blank)


def as_rows(prompts: Sequence[str | Sequence[int] | Row]) -> list[Row]:
    """The prompts of a library's call (texts, token ids or rows) as rows; a `VisitError` where there are none."""
    if isinstance(prompts, str) or not len(prompts):
        raise VisitError("A list of at least one prompt is needed.")
    return [p if isinstance(p, Row) else Row(p, line=n) for n, p in enumerate(prompts, start=1)]  # type: ignore[arg-type]
