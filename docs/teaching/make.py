"""Makes the teacher's guides of this folder from the shipped lessons, on the model that each is about.

    python docs/teaching/make.py            writes them anew
    python docs/teaching/make.py --check    says which would change, and exits with 1

A guide holds nothing that is not in the lesson's file or computed from a run, so it cannot tell other answers than the
lesson accepts. The pictures for the board lie in `board/`, drawn by hand below: few lines, as one draws them in class.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import cache
from html import escape
from pathlib import Path
from urllib.parse import urlencode

import visit
from visit.lessons.check import filled, judge, runs_of, show_me
from visit.lessons.lesson import Exercise, Lesson, address_of
from visit.lessons.queries import LearnerRun, RunAnswer, answer, spelled
from visit.lessons.shipped import shipped_lesson, shipped_lessons

FOLDER = Path(__file__).parent
load = cache(visit.load_model)
FORMS = {"less": "a smaller number", "more": "a larger one", "*": "anything else"}


# ---- the board -------------------------------------------------------------------------------------------------------
INK, GOLD, GREEN, GREY = "#1f2933", "#c98a00", "#0b7a75", "#8a94a6"


class Board:
    """A drawing of 640 × 300, as chalk would make it."""

    def __init__(self) -> None:
        self.shapes: list[str] = []

    def text(self, x: float, y: float, said: str, colour: str = INK, size: int = 17, at: str = "middle") -> None:
        self.shapes.append(
            f'<text x="{x}" y="{y}" fill="{colour}" font-size="{size}" text-anchor="{at}">{escape(said)}</text>'
        )

    def line(self, *points: tuple[float, float], colour: str = INK, width: float = 2.5, arrow: bool = False) -> None:
        path = " ".join(f"{x},{y}" for x, y in points)
        end = ' marker-end="url(#tip)"' if arrow else ""
        self.shapes.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"{end}/>')

    def columns(self, words: tuple[str, ...], left: float = 60, right: float = 580) -> list[float]:
        """Words at the bottom, and a column over each: where they stand."""
        step = (right - left) / max(1, len(words) - 1)
        places = [left + n * step for n in range(len(words))]
        for x, word in zip(places, words, strict=True):
            self.text(x, 285, word)
            self.line((x, 262), (x, 40), colour=GREY, width=1.5)
        return places

    def svg(self, title: str) -> str:
        tip = (
            '<defs><marker id="tip" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="14" markerHeight="14" '
            f'markerUnits="userSpaceOnUse" orient="auto-start-reverse">'
            f'<path d="M0 0L10 5L0 10z" fill="{INK}"/></marker></defs>'
        )
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 300" width="640" height="300" role="img" '
            f'font-family="sans-serif"><title>{escape(title)}</title><rect width="640" height="300" fill="#fff"/>{tip}'
            + "".join(self.shapes)
            + "</svg>\n"
        )


def tokens(board: Board) -> None:
    for n, (piece, width) in enumerate((("Lionel", 90), ("␣Messi", 90), ("␣plays", 90), ("␣the", 70), ("␣sport", 90))):
        x = 40 + n * 100
        board.line((x, 60), (x + width, 60), (x + width, 95), (x, 95), (x, 60))
        board.text(x + width / 2, 84, piece)
    board.text(40, 40, "a text is cut into tokens …", size=15, at="start")
    board.text(40, 150, "… and every token of the list gets a probability", size=15, at="start")
    for n, (word, share) in enumerate((("␣football", 400), ("␣tennis", 28), ("␣Amazon", 8), ("all others", 4))):
        y = 170 + n * 30
        board.text(150, y + 17, word, at="end", size=15)
        board.line((160, y + 12), (160 + share, y + 12), colour=GREEN, width=16)


def stream(board: Board) -> None:
    x = board.columns(("The", "capital", "of", "Japan", "is", "the", "city", "of"))[-1]
    for n, (word, colour) in enumerate((("?", GREY), ("?", GREY), ("Japan", GOLD), ("Tokyo", GREEN), ("Tokyo", GREEN))):
        board.text(x - 12, 240 - n * 45, word, colour, at="end")
        board.line((x - 6, 234 - n * 45), (x + 6, 234 - n * 45), colour=colour, width=5)
    board.line((620, 250), (620, 60), arrow=True)
    board.text(612, 45, "blocks", at="end", size=14)


def recall(board: Board) -> None:
    places = board.columns(("The", "capital", "of", "Japan", "is", "the", "city", "of"))
    japan, last = places[3], places[-1]
    board.line((japan, 260), (japan, 150), colour=GOLD, width=5)
    board.line((japan, 150), (last - 6, 150), colour=GOLD, width=5, arrow=True)
    board.line((last, 150), (last, 60), colour=GREEN, width=5)
    board.text((japan + last) / 2, 138, "one head carries it across", size=15)
    board.text(japan - 10, 205, "recalled here", GOLD, 15, "end")
    board.text(last, 34, "Tokyo", GREEN, 20)


def names(board: Board) -> None:
    places = board.columns(("Mary", "John", "…", "John", "gave … to"))
    mary, john, again, last = places[0], places[1], places[3], places[4]
    board.line((mary, 258), (mary, 70), (last - 6, 70), colour=GREEN, width=4, arrow=True)
    board.line((john, 258), (john, 120), (last - 6, 120), colour=GOLD, width=4, arrow=True)
    board.line((again, 258), (again, 200), (last - 6, 200), colour=INK, width=3, arrow=True)
    board.text(mary + 12, 60, "carries Mary", GREEN, 15, "start")
    board.text(john + 12, 110, "carries John", GOLD, 15, "start")
    board.text(again - 8, 196, "looks at the name that came again:", size=14, at="end")
    board.text(again - 8, 214, "without it the answer is lost", size=14, at="end")


def norms(board: Board) -> None:
    for n in range(6):
        x, length = 50 + n * 62, 26 + n * 32
        board.line((x, 250), (x, 250 - length), arrow=True, width=4)
        board.line((x + 24, 250), (x + 24, 200), colour=GREEN, arrow=True, width=4)
    board.text(50, 280, "black: the stream grows.", size=15, at="start")
    board.text(250, 280, "green: what a part reads, after the norm", GREEN, 15, "start")
    board.text(530, 70, "loud", INK, 18)
    board.text(530, 95, "≠ important", INK, 18)
    board.text(530, 140, "always on", GOLD, 18)
    board.text(530, 165, "≠ about this text", GOLD, 18)


def two(board: Board) -> None:
    places = board.columns(("The", "capital", "of", "Japan/France", "is", "the", "city", "of"))
    for x in places[:3]:
        board.text(x, 30, "=", GREY, 18)
    for n in range(4):
        board.line((places[3] - 14, 245 - n * 22), (places[3] + 14, 245 - n * 22), colour="#6b4fbb", width=14 - 3 * n)
        board.line((places[-1] - 14, 65 + n * 22), (places[-1] + 14, 65 + n * 22), colour="#6b4fbb", width=14 - 3 * n)
    board.line((places[3] + 16, 175), (places[-1] - 18, 120), arrow=True)
    board.text((places[3] + places[-1]) / 2, 130, "a head", size=15)
    board.text(places[-1], 34, "≠", "#6b4fbb", 20)


def causes(board: Board) -> None:
    rows = (("adds much", "hardly missed", GOLD), ("adds nothing", "the answer hangs on it", GREEN))
    board.text(230, 40, "what it adds", size=15)
    board.text(460, 40, "what is lost without it", size=15)
    for n, (adds, lost, colour) in enumerate(rows):
        y = 110 + n * 110
        board.text(30, y, ("this head", "that head")[n], at="start")
        board.line((170, y - 6), (170 + (130, 6)[n], y - 6), colour=colour, width=20)
        board.line((400, y - 6), (400 + (6, 170)[n], y - 6), colour=colour, width=20)
        board.text(170, y + 30, adds, size=14, at="start")
        board.text(400, y + 30, lost, size=14, at="start")
    board.text(320, 288, "“because” needs the right column", size=16)


def controls(board: Board) -> None:
    rows = (
        ("the largest of 64", "the largest for a word that is not said"),
        ("without the famous head", "without any head"),
        ("on texts about capitals", "on a text about sport"),
    )
    board.text(160, 40, "result", GREEN, 18)
    board.text(470, 40, "its control", GOLD, 18)
    for n, (result, control) in enumerate(rows):
        y = 100 + n * 65
        board.text(160, y, result, size=16)
        board.text(315, y, "?", size=22)
        board.text(470, y, control, size=16)
        board.line((30, y + 24), (610, y + 24), colour=GREY, width=1)


BOARDS: dict[str, Callable[[Board], None]] = {
    "1-tokens": tokens, "2-stream": stream, "3-recall": recall, "4-names": names, "5-norms-neurons": norms,
    "6-two-prompts": two, "7-causes": causes, "8-false-results": controls,
}  # fmt: skip


# ---- a guide ---------------------------------------------------------------------------------------------------------
def question_lines(lesson: Lesson, question: Exercise, run: LearnerRun | None) -> list[str]:
    """A question for the teacher: what is asked, what is right, what goes wrong, what to say."""

    def told(text: str) -> str:
        return filled(lesson, text, run, question) if run is not None else text

    lines = [f"**{told(question.text).strip()}**", ""]
    if question.kind in ("choice", "order"):
        lines += [f"- {'✓' if one.right else ' '} {told(one.text)}" + (f" *{told(one.why)}*" if one.why else "")
                  for one in question.options]  # fmt: skip
    elif question.answer is not None and run is not None:
        lines += [f"Expected: **{spelled(run, answer(run, question.answer))}**"]
        mistakes = [mistake(lesson, question, run, one.pattern, one.sentence) for one in question.wrong]
        lines += ["", "Usual mistakes:", *(f"- {one}" for one in mistakes if one)] if any(mistakes) else []
    if question.explain:
        shown = judge(lesson, question, show_me(lesson, question, run), run).sentence if run and question.answer else ""
        lines += ["", f"Then: {shown or told(question.explain)}"]
    if question.note:
        lines += ["", f"> {told(question.note)}"]
    return [*lines, ""]


def mistake(lesson: Lesson, question: Exercise, run: LearnerRun, pattern: str, sentence: str) -> str:
    """A wrong answer that the lesson knows, and what is said to it on this run."""
    query = next((one.query for one in question.wrong if one.pattern == pattern), None)
    yours: RunAnswer | None = answer(run, query) if query is not None else None
    if yours is None:  # whatever was chosen: its own numbers are told then
        sentence = re.sub(r"\{yours[^}]*\}", "…", sentence)
    name = spelled(run, yours) if yours is not None else FORMS.get(pattern, pattern)
    return f"{name}: {filled(lesson, sentence, run, question, yours)}"


def guide(name: str) -> str:
    """The guide of a lesson, as Markdown."""
    lesson = shipped_lesson(name)
    run_of = runs_of(lesson, load(lesson.model))
    lines = [f"# {name[0]} · {lesson.title}", "", f"{lesson.minutes} minutes, on {lesson.model}. {lesson.about}", ""]
    lines += ["What they take along:", "", *(f"- {goal}" for goal in lesson.goals), ""]
    lines += [f"![For the board](board/{name}.svg)", ""]
    if lesson.note:
        lines += [f"> {lesson.note}", ""]
    lines += ["## Before and after", "", "The same questions twice; the page shows what has changed.", ""]
    for question in lesson.twice:
        lines += question_lines(lesson, question, None)
    for number, step in enumerate(lesson.steps, 1):
        run = run_of(step)
        state = {**address_of(lesson, step), "lesson": name, "step": str(number)}
        lines += [f"## Step {number}: {step.title}", "", f"Opens `/{step.page}?{urlencode(state)}`.", ""]
        lines += [filled(lesson, step.text, run).strip(), ""]
        lines += [f"> {filled(lesson, step.note, run)}", ""] if step.note else []
        for question in step.questions:
            lines += question_lines(lesson, question, run)
    end = filled(lesson, lesson.end, run_of(lesson.steps[0]))
    return "\n".join([*lines, "## At the end", "", end.strip(), ""])


def files() -> dict[Path, str]:
    """Every file that this script makes, and what stands in it."""
    made = {}
    for name in shipped_lessons():
        board = Board()
        BOARDS[name](board)
        made[FOLDER / "board" / f"{name}.svg"] = board.svg(shipped_lesson(name).title)
        made[FOLDER / f"{name}.md"] = guide(name)
    return made


if __name__ == "__main__":
    changed = [file for file, text in files().items() if not file.exists() or file.read_text("utf-8") != text]
    if "--check" in sys.argv:
        sys.exit("\n".join(["These guides are not what the lessons say:", *map(str, changed)]) if changed else 0)
    for file in changed:
        file.write_text(files()[file], encoding="utf-8")
        print(file.relative_to(FOLDER.parent.parent))
