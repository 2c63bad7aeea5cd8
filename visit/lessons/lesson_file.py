"""A lesson from its text file: read line by line into frozen records, with every mistake told by its line.

1. The head, between two lines `---`, says what the lesson is: `title`, `minutes`, `model`, `prompt`, `goals`, and with
   `let NAME: QUERY` what its texts may name (`visit.lessons.grammar`).
2. `# Before and after` holds questions that are asked twice, before the first step and after the last.
3. `# Step: TITLE` is a page to open (`open`), parts of it to point at (`mark`) and to hold back until the first
   question is answered (`hide`), a text, and questions.
4. `# End` is what was learned.

A question begins with `?`; below it stand, one a line, `kind`, `answer`, `tolerance`, `hint`, `show`, `wrong`,
`explain`, `note`. A line that is indented goes on with the one above.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from visit.errors import VisitError
from visit.lessons.grammar import Query, parse_query
from visit.lessons.lesson import Exercise, Lesson, LessonError, LessonStep, Mistake, Option, Wrong
from visit.lessons.words import STANDARD, placeholders
from visit.models.catalog import MINI, REAL
from visit.text.visible import visible

MOST_CHARACTERS = 100_000
MOST_STEPS, MOST_QUESTIONS, MOST_OPTIONS, MOST_HINTS, MOST_WRONG = 30, 8, 8, 2, 12
MODELS = (MINI, REAL)
QUESTION_KINDS = ("choice", "token", "node", "position", "number", "order", "free")
ASKED_TWICE = ("choice", "number", "order", "free")  # no run stands on screen before the first step
HEAD_KEYS = ("title", "minutes", "model", "prompt", "target", "distractor", "goals", "about")
STEP_KEYS = ("open", "mark", "hide", "note")
QUESTION_KEYS = ("kind", "answer", "tolerance", "hint", "show", "wrong", "explain", "note")
# page -> the parts of it that a step can point at, and hold back (`visit.app.marks`)
PAGE_PARTS: Mapping[str, tuple[str, ...]] = {
    "flow": ("prompt", "next", "reading", "causes", "map", "graph"),
    "compare": ("prompts", "reading", "apart", "graphs"),
    "whatif": ("prompt", "next", "changes", "units", "roles", "believed"),
    "trace": ("prompt", "next", "subject", "reading", "maps"),
    "memory": ("prompt", "next", "reading", "heads", "sources", "picture", "pattern", "life", "paper"),
    "layernorm": ("prompt", "next", "norm", "set"),
    "neurons": ("prompt", "next", "active", "card", "set", "search"),
    "study": ("asked", "run", "found"),
    "glossary": (),
}
# without them nothing is run, or others have nothing to show
NEVER_HIDDEN = ("prompt", "prompts", "asked", "run", "found", "card", "set")


def parse_lesson(text: str, name: str = "own") -> Lesson:
    """Read a lesson file. Raises `LessonError` with all its mistakes, line by line; `VisitError` for one too long."""
    if len(text) > MOST_CHARACTERS:
        raise VisitError(
            f"A lesson has at most {MOST_CHARACTERS:,} characters; this file has {len(text):,}. Make two lessons of it."
        )
    reader = _Reader(name)
    lesson = reader.read(text)
    if reader.mistakes:
        raise LessonError(reader.mistakes)
    return replace(lesson, edition=hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12])


_KEY = re.compile(r"([a-z]+(?: [a-z][a-z_]*)?): ?(.*)")
_OPTION = re.compile(r"- \[([ xX])\] (.*?)(?:\s+->\s+(.*))?")
_NUMBERED = re.compile(r"\d+\. (.*)")


@dataclass
class _Block:
    """A section as its lines: keys with their line, paragraphs, and questions of the same form."""

    title: str
    line: int
    keys: list[tuple[int, str, str]] = field(default_factory=list)
    items: list[tuple[int, str]] = field(default_factory=list)  # options, goals
    text: list[str] = field(default_factory=list)
    questions: list[_Block] = field(default_factory=list)


class _Reader:
    """One reading of one file, which gathers mistakes."""

    def __init__(self, name: str) -> None:
        self.name, self.mistakes = name, list[Mistake]()
        self.let: dict[str, Query] = {}

    def wrong(self, line: int, what: str) -> None:
        self.mistakes.append(Mistake(line, what))

    def read(self, text: str) -> Lesson:
        lines = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
        head, sections = self._sections(lines)
        lesson = self._head(head)
        twice: tuple[Exercise, ...] = ()
        steps: list[LessonStep] = []
        end, note = "", ""
        for section in sections:
            if section.title == "Before and after":
                self._no_keys(section)
                twice = self._questions(section, "before", ASKED_TWICE)
            elif section.title == "End":
                note = "".join(value for _, key, value in section.keys if key == "note")
                self._no_keys(section, ("note",))
                end = "\n".join(section.text).strip()
                if "{" in end:
                    self.wrong(section.line, "“# End” stands on no page, so that nothing can be filled in: say it "
                                             "without {…}.")  # fmt: skip
            elif section.title.startswith("Step:"):
                steps.append(self._step(section, len(steps) + 1))
            else:
                self.wrong(
                    section.line,
                    f"“# {visible(section.title)[:60]}” is no part of a lesson; the parts are “# Before and after”, "
                    "“# Step: a title” and “# End”.",
                )
        if not steps:
            self.wrong(len(lines), "a lesson has at least one step; begin it with a line “# Step: a title”.")
        if len(steps) > MOST_STEPS:
            self.wrong(sections[-1].line, f"a lesson has at most {MOST_STEPS} steps; got {len(steps)}.")
        return replace(lesson, twice=twice, steps=tuple(steps), end=end, note=note, let=dict(self.let))

    # -- lines into sections -------------------------------------------------------------------------------------------
    def _sections(self, lines: list[str]) -> tuple[_Block, list[_Block]]:
        head, sections = _Block("head", 1), list[_Block]()
        start = 0
        if lines and lines[0].strip() == "---":
            end = next((n for n, line in enumerate(lines[1:], 1) if line.strip() == "---"), None)
            if end is None:
                self.wrong(1, "the head begins with --- and has no second line --- that ends it.")
                end = len(lines) - 1
            self._fill(head, lines[1:end], 2, None)
            start = end + 1
        else:
            self.wrong(1, "a lesson begins with its head: a line ---, then title, minutes, model and prompt, and ---.")
        section: _Block | None = None
        begun = start
        for n in range(start, len(lines) + 1):
            if n == len(lines) or lines[n].startswith("# "):
                if section is not None:
                    self._fill(section, lines[begun:n], begun + 1, section)
                elif "".join(lines[begun:n]).strip():
                    self.wrong(begun + 1, "text before the first part; begin one with “# Step: a title”.")
                if n < len(lines):
                    section = _Block(lines[n][2:].strip(), n + 1)
                    sections.append(section)
                    begun = n + 1
        return head, sections

    def _fill(self, block: _Block, lines: list[str], first: int, section: _Block | None) -> None:
        """Sort the lines of a block; a question opens a block of its own."""
        allowed = HEAD_KEYS if section is None else STEP_KEYS
        last: tuple[list[Any], int] | None = None  # where an indented line goes on
        for number, line in enumerate(lines, first):
            key = _KEY.fullmatch(line)
            if line.startswith("? ") and section is not None:
                block = _Block("?", number, text=[line[2:].strip()])
                section.questions.append(block)
                allowed, last = QUESTION_KEYS, None
            elif line.startswith("   ") or line.startswith("\t") or (line.startswith("  ") and last):
                if last is None:
                    block.text.append(line.strip())
                else:
                    places, n = last
                    places[n] = (*places[n][:-1], f"{places[n][-1]} {line.strip()}")
            elif key and (key[1] in allowed or (section is None and key[1].startswith("let "))):
                block.keys.append((number, key[1], key[2].strip()))
                last = (block.keys, len(block.keys) - 1)
            elif key and " " not in key[1]:
                where = "the head" if section is None else "a question" if block.title == "?" else "a step"
                names = ", ".join(allowed) + (", let NAME" if section is None else "")
                self.wrong(number, f"“{key[1]}” is no key of {where}; its keys are {names}.")
            elif (block.title == "?" or section is None) and re.match(r"- |\d+\. ", line):
                block.items.append((number, line.strip()))
                last = (block.items, len(block.items) - 1)
            else:
                last = None
                if section is None and line.strip():
                    self.wrong(number, f"“{visible(line)[:60]}” is no line of a head; write key: value.")
                block.text.append(line.rstrip())

    # -- sections into records -----------------------------------------------------------------------------------------
    def _head(self, head: _Block) -> Lesson:
        found: dict[str, Any] = {}
        for line, key, value in head.keys:
            if key.startswith("let "):
                self._let(line, key[4:], value)
            elif key in found:
                self.wrong(line, f"“{key}” stands twice in the head.")
            elif key == "minutes":
                found[key] = int(value) if re.fullmatch(r"\d{1,3}", value, re.ASCII) else 10
                if not 1 <= found[key] <= 180 or not value.isdecimal():
                    self.wrong(line, f"minutes is a whole number from 1 to 180; got “{visible(value)[:30]}”.")
            elif key == "model":
                found[key] = value
                if value not in MODELS:
                    self.wrong(line, f"a lesson's model is one of {', '.join(MODELS)}; got “{visible(value)[:40]}”.")
            elif key == "goals":
                found[key] = tuple(part.strip() for part in value.split(";") if part.strip())
            else:
                found[key] = _unquoted(value)
        for line, item in head.items:
            found["goals"] = (*found.get("goals", ()), item.removeprefix("- "))
            if not item.startswith("- "):
                self.wrong(line, "a goal is a line “- …” below goals:")
        for key in ("title", "prompt"):
            if not found.get(key):
                self.wrong(1, f"the head has no {key}.")
        if len(found.get("title", "")) > 120:
            self.wrong(1, f"a title has at most 120 characters; got {len(found['title'])}.")
        return Lesson(self.name, "", **found)

    def _let(self, line: int, name: str, text: str) -> None:
        if name in STANDARD or name in self.let:
            self.wrong(line, f"“{name}” has its meaning already; choose another name.")
        query = self._query(line, text)
        if query is not None:
            self.let[name] = query

    def _query(self, line: int, text: str) -> Query | None:
        try:
            return parse_query(text, self.let)
        except VisitError as problem:
            self.wrong(line, str(problem))
            return None

    def _step(self, section: _Block, number: int) -> LessonStep:
        step = LessonStep(section.title.removeprefix("Step:").strip(), section.line)
        if not step.title:
            self.wrong(section.line, "a step has a title: “# Step: a title”.")
        given = [key for _, key, _ in section.keys]
        for line, key, value in section.keys:
            if key != "note" and given.count(key) > 1:
                self.wrong(line, f"“{key}” stands {given.count(key)} times in this step; once is enough.")
            if key == "open":
                step = self._opened(step, line, value)
            elif key == "note":
                step = replace(step, note=f"{step.note} {value}".strip())
        for line, key, value in section.keys:
            if key in ("mark", "hide"):
                names = tuple(part.strip() for part in value.split(",") if part.strip())
                for one in names:
                    self._part(line, key, one, step.page)
                step = replace(step, mark=names) if key == "mark" else replace(step, hide=names)
        questions = self._questions(section, f"step{number}", QUESTION_KINDS)
        for asked in questions:
            if asked.answer is not None and asked.answer.side and "prompt_b" not in dict(step.params):
                self.wrong(asked.line, "“in B” needs two texts: a step that opens /compare?prompt_b=….")
        if step.hide and not questions:
            self.wrong(section.line, "“hide” holds parts back until a question is answered; this step asks none.")
        text = self._filled("\n".join(section.text).strip(), section.line)
        return replace(step, text=text, questions=questions)

    def _opened(self, step: LessonStep, line: int, value: str) -> LessonStep:
        parts = urlsplit(value)
        page = parts.path.removeprefix("/")
        if page not in PAGE_PARTS or parts.netloc or parts.scheme:
            pages = ", ".join(f"/{name}" for name in PAGE_PARTS)
            self.wrong(line, f"“{visible(value)[:60]}” is no page; the pages are {pages}, each with what its address "
                       "holds behind a question mark.")  # fmt: skip
            return step
        params = tuple(parse_qsl(parts.query, keep_blank_values=True))
        for name in ("lesson", "step", "model"):
            if name in dict(params):
                self.wrong(line, f"“{name}” is not said in a link of a lesson; the lesson says it itself.")
        return replace(step, page=page, params=params)

    def _part(self, line: int, key: str, name: str, page: str) -> None:
        """A part of the page that can be pointed at, or held back."""
        allowed = [part for part in PAGE_PARTS[page] if part not in (NEVER_HIDDEN if key == "hide" else ("next",))]
        if name not in allowed:
            parts = ", ".join(allowed) or "none"
            self.wrong(line, f"“{visible(name)[:40]}” is no part of /{page} for “{key}”; its parts are {parts}.")

    def _questions(self, section: _Block, prefix: str, kinds: tuple[str, ...]) -> tuple[Exercise, ...]:
        if len(section.questions) > MOST_QUESTIONS:
            self.wrong(section.line, f"at most {MOST_QUESTIONS} questions; got {len(section.questions)}.")
        return tuple(self._question(block, f"{prefix}.{n}", kinds) for n, block in enumerate(section.questions, 1))

    def _question(self, block: _Block, key: str, kinds: tuple[str, ...]) -> Exercise:
        many: dict[str, list[tuple[int, str]]] = {}
        for line, name, value in block.keys:
            many.setdefault(name, []).append((line, value))
        for name, values in many.items():
            if len(values) > 1 and name not in ("hint", "wrong", "note"):
                self.wrong(values[1][0], f"“{name}” stands {len(values)} times in this question; once is enough.")
        one = {name: values[0] for name, values in many.items()}
        kind_line, kind = one.get("kind", (block.line, ""))
        if kind not in kinds:
            asked = f"“{visible(kind)[:30]}” is no kind of question here" if kind else "a question has a line kind:"
            self.wrong(kind_line, f"{asked}; the kinds are {', '.join(kinds)}.")
            kind = "free"
        options = self._options(block, kind)
        answer = self._answer(block, kind, one.get("answer"))
        known: dict[str, str] = {} if answer is None else {"answer": answer.kind}
        found = Exercise(
            key, block.line, self._filled("\n".join(block.text).strip(), block.line), kind, answer,
            self._tolerance(kind, one.get("tolerance")), options,
            tuple(self._filled(value, line, known) for line, value in many.get("hint", ())),
            one.get("show", (0, ""))[1],
            tuple(self._wrong(line, value, kind, known) for line, value in many.get("wrong", ())),
            self._filled(one.get("explain", (0, ""))[1], one.get("explain", (0, ""))[0], known),
            " ".join(value for _, value in many.get("note", ())),
        )  # fmt: skip
        for name, most, more in (
            ("hint", MOST_HINTS, ": the third, “show me”, VISIT makes itself"),
            ("wrong", MOST_WRONG, ""),
        ):
            if len(many.get(name, ())) > most:
                self.wrong(many[name][most][0], f"a question has at most {most} lines “{name}”{more}.")
        return found

    def _options(self, block: _Block, kind: str) -> tuple[Option, ...]:
        found = []
        for line, item in block.items:
            if kind == "choice" and (match := _OPTION.fullmatch(item)):
                found.append(Option(self._filled(match[2], line), match[1] != " ", self._filled(match[3] or "", line)))
                if not match[3]:
                    self.wrong(line, "every option says what its choice means: “- [ ] an option -> why it is not so”.")
            elif kind == "order" and (match := _NUMBERED.fullmatch(item)):
                found.append(Option(match[1], True, ""))
            else:
                self.wrong(line, "options are written “- [x] the right one -> why” and “- [ ] another -> why” for a "
                           "choice, “1. the first” for an order; other kinds have none.")  # fmt: skip
        if kind in ("choice", "order") and not 2 <= len(found) <= MOST_OPTIONS:
            self.wrong(block.line, f"a question of kind {kind} has 2 to {MOST_OPTIONS} options; got {len(found)}.")
        if kind == "choice" and found and sum(option.right for option in found) != 1:
            self.wrong(block.line, "exactly one option of a choice is marked [x] as the right one.")
        return tuple(found)

    def _answer(self, block: _Block, kind: str, given: tuple[int, str] | None) -> Query | None:
        if kind in ("choice", "order", "free"):
            if given:
                self.wrong(given[0], f"a question of kind {kind} has no line answer:.")
            return None
        if given is None:
            self.wrong(block.line, f"a question of kind {kind} has a line answer: with what is asked of the run.")
            return None
        query = self._query(*given)
        if query is not None and query.kind != kind:
            self.wrong(given[0], f"“{query.text}” gives a {query.kind}; this question asks for a {kind}.")
            return None
        return query

    def _tolerance(self, kind: str, given: tuple[int, str] | None) -> float | None:
        if given is None:
            return None
        line, text = given
        if kind != "number" or not re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text, re.ASCII):
            self.wrong(
                line, f"tolerance is a number such as 5 or 0.1, of a question of kind number; got “{text[:30]}”."
            )
            return None
        return float(text)

    def _wrong(self, line: int, value: str, kind: str, known: dict[str, str]) -> Wrong:
        pattern, arrow, sentence = (part.strip() for part in value.partition("->"))
        if not (pattern and arrow and sentence):
            self.wrong(line, "a wrong answer is written “wrong: L7* -> what is said to it”.")
            return Wrong(pattern, sentence)
        if kind in ("choice", "order", "free"):
            self.wrong(line, f"a question of kind {kind} has no lines wrong:.")
            return Wrong(pattern, sentence)
        query = None
        if " " in pattern or pattern in self.let:
            query = self._query(line, pattern)
            if query is not None and query.kind != kind:
                self.wrong(line, f"“{pattern}” gives a {query.kind}; this question asks for a {kind}.")
        elif pattern in ("less", "more") and kind not in ("number", "position"):
            self.wrong(line, f"“{pattern}” is said of numbers and positions; this question asks for a {kind}.")
        return Wrong(pattern, self._filled(sentence, line, {**known, "yours": kind}), query)

    def _filled(self, text: str, line: int, more: Mapping[str, str] | None = None) -> str:
        """A text whose placeholders are known; the first that is not is a mistake of its line."""
        names = {**STANDARD, **{name: query.kind for name, query in self.let.items()}, **(more or {})}
        for problem in placeholders(text, names):
            self.wrong(line, problem)
        return text

    def _no_keys(self, section: _Block, allowed: tuple[str, ...] = ()) -> None:
        for line, key, _ in section.keys:
            if key not in allowed:
                self.wrong(line, f"“{key}” has no meaning in “# {section.title}”.")


def _unquoted(text: str) -> str:
    """A word in quotation marks keeps its leading space: target: " Mary"."""
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] == '"' else text
