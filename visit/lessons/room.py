"""Rooms: a class that takes one lesson together, in the memory of one process. Any thread may call any method.

1. A teacher opens a room (`Rooms.open`) and gets its code, four letters that she may write on the board, and a key that
   only she has. Whoever has the key rules the room, in as many browsers as they like; nobody else opens a step, reveals
   an answer or sees a name.
2. A student finds the room by its code and joins. She gets a token, random and hers alone: whoever brings it is her,
   after a reload as well. The room keeps the token's digest only.
3. Answers are appended, never changed: the first to a question is a prediction, the last is where she arrived.
4. Pages that wait ask for `signal`, a number that grows when the teacher does something they must follow; the teacher's
   page asks for `version`, which grows with everything. Both cost nothing.
5. A closed room is gone, with all that was in it. One where nothing happens for IDLE_SECONDS closes itself at the next
   look of anybody at any room.
6. Where all rooms are open, a new one takes the place of the one that no page has looked at for longest, if that is
   long enough: or one visitor who opens a room after the other would keep every teacher out for hours.

All bounds are below. A guessed code lets somebody join; it shows no names, and tries are bounded: of one session
(`Tries`), and of all together by waiting (`Rooms.find`), so that sessions without end do not help.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from visit.errors import VisitError
from visit.lessons.nicknames import nickname

MAX_ROOMS = 20
MAX_MEMBERS = 100  # with those who left and whose answers are kept
MAX_STEPS = 60
LESSON_BYTES = 400_000
ANSWER_BYTES = 8_000
MEMBER_BYTES = 40_000  # of one member's answers: a full server holds 80 MB of them
MEMBER_ANSWERS = 200
IDLE_SECONDS = 6 * 3600.0
# Without a page that looks at it, after which a room makes way: one that nobody has joined, and any other. Pages look
# every two seconds, and once a minute where the browser has them in the background.
UNJOINED_SECONDS, LEFT_SECONDS = 180.0, 1800.0
LETTERS = "BCDFGHJKMNPRSTVWXZ"  # no vowel, so no words; none that looks like another or like a figure
CODE_LENGTH = 4
WRONG_CODES, WRONG_SECONDS = 8, 600.0  # tries of one session in so long
# Of all sessions of a server together so many are free in that time: a class that mistypes. After them whoever asks for
# a room she is not in takes her turn, one each PACE seconds, and waits at most LONGEST_WAIT: nobody is refused for it.
WRONG_OF_ALL, PACE, LONGEST_WAIT = 100, 0.5, 15.0
VERDICTS = ("right", "wrong", "unchecked")
QUESTION = re.compile(r"[A-Za-z0-9_.-]{1,40}")


@dataclass(frozen=True)
class Member:
    """One student. `step`: where she is; `left`: she has gone, and her answers are kept."""

    number: int
    name: str
    digest: str  # SHA-256 of her token
    step: int = 0
    left: bool = False


@dataclass(frozen=True)
class Reply:
    """One answer to a question. `hints`: how many she had seen; `time`: seconds since 1970."""

    member: int
    step: int
    question: str
    value: str
    verdict: str
    hints: int
    time: float


@dataclass(frozen=True)
class Tally:
    """How many gave an answer, and for how many of them it was right."""

    value: str
    count: int
    right: int


@dataclass(frozen=True)
class View:
    """All of a room at one moment, for the teacher."""

    version: int
    opened: int | None
    revealed: frozenset[int]
    locked: bool
    members: tuple[Member, ...]
    answers: tuple[Reply, ...]

    @property
    def present(self) -> tuple[Member, ...]:
        return tuple(m for m in self.members if not m.left)


@dataclass(frozen=True)
class Signal:
    """What students follow. `opened`: the last step that is open to them, None for all; `revealed`: steps."""

    number: int
    opened: int | None
    revealed: frozenset[int]

    def reaches(self, step: int) -> bool:
        """Whether a student may go to this step."""
        return self.opened is None or step <= self.opened


@dataclass
class Tries:
    """Codes that one session asked for in vain."""

    clock: Callable[[], float] = time.monotonic
    wrong: deque[float] = field(default_factory=lambda: deque(maxlen=WRONG_CODES))

    def check(self) -> None:
        """Refuse another try while there were too many."""
        if len(self.wrong) == WRONG_CODES and (wait := self.wrong[0] + WRONG_SECONDS - self.clock()) > 0:
            raise VisitError(
                f"{WRONG_CODES} codes that lead to no room were tried here. Ask your teacher for the code, and try "
                f"again in {max(1, round(wait / 60))} minutes."
            )

    def failed(self) -> None:
        """Count one."""
        self.wrong.append(self.clock())


class Room:
    """One room. Methods with a `key` are the teacher's, those with a `token` a member's."""

    def __init__(self, code: str, title: str, steps: Sequence[str], lesson: str, clock: Callable[[], float]) -> None:
        """`steps`: their names, in order; `lesson`: the text of the lesson's file."""
        if not 1 <= len(steps) <= MAX_STEPS:
            raise VisitError(f"A lesson in a room has 1 to {MAX_STEPS} steps; got {len(steps)}.")
        if (size := len(lesson.encode("utf-8", "replace"))) > LESSON_BYTES:
            raise VisitError(f"The file of a lesson has at most {LESSON_BYTES:,} bytes; got {size:,}.")
        self.code, self.title, self.steps, self.lesson = code, title, tuple(steps), lesson
        self.closed = False
        self._clock, self._lock = clock, threading.RLock()
        self._key = ""
        self._members: dict[str, Member] = {}  # by digest
        self._replies: list[Reply] = []
        self._sizes: Counter[int] = Counter()  # of answers by member, in bytes
        self._counts: Counter[int] = Counter()  # of answers by member
        self._opened: int | None = 0
        self._revealed: frozenset[int] = frozenset()
        self._locked = False
        self._next = 1
        self.version = 0
        self.signal = Signal(0, 0, frozenset())
        self.touched = self.looked = clock()

    # ---- what anybody may ask ----------------------------------------------------------------------------------------
    @property
    def idle(self) -> bool:
        """Nothing has happened for so long that the room closes. A page that waits is nothing that happens."""
        return self._clock() - self.touched > IDLE_SECONDS

    @property
    def makes_way(self) -> bool:
        """Whether another room may take its place where there is none: no page has looked at it for long."""
        return self._clock() - self.looked > (LEFT_SECONDS if self._members else UNJOINED_SECONDS)

    def distribution(self, step: int, question: str, last: bool = False) -> tuple[Tally, ...]:
        """How often each answer was given, most frequent first: of every member the first one, or the `last`."""
        with self._lock:
            mine = [a for a in self._replies if (a.step, a.question) == (step, question)]
        chosen = {a.member: a for a in (mine if last else reversed(mine))}
        counts = Counter(a.value for a in chosen.values())
        right = Counter(a.value for a in chosen.values() if a.verdict == "right")
        return tuple(
            Tally(value, counts[value], right[value]) for value in sorted(counts, key=lambda v: (-counts[v], v))
        )

    def shown(self, step: int, question: str) -> tuple[Tally, ...] | None:
        """`distribution` for students: None until the step is revealed."""
        return self.distribution(step, question) if step in self.signal.revealed else None

    # ---- a member ----------------------------------------------------------------------------------------------------
    def join(self, given: str = "") -> str:
        """A new member; returns the token that is hers. `given`: her nickname, or nothing."""
        with self._lock:
            self._check_open()
            if self._locked:
                raise VisitError("Your teacher has closed this room to newcomers. Ask her to open it.")
            if len(self._members) >= MAX_MEMBERS:
                raise VisitError(f"This room is full: it has {MAX_MEMBERS} members. Ask your teacher to open another.")
            token = secrets.token_urlsafe(12)
            name = nickname(given, [m.name for m in self._members.values()], self._next)
            self._members[digest(token)] = Member(self._next, name, digest(token))
            self._next += 1
            self._changed()
            return token

    def member(self, token: str) -> Member:
        """Whose token it is; who is no member (any more) is told so."""
        with self._lock:
            self._check_open()
            found = self._members.get(digest(token))
            if found is None or found.left:
                raise VisitError("You are not in this room, or no longer. Join it with the code.")
            return found

    def knows(self, token: str) -> bool:
        """Whether this is the token of somebody who is here."""
        found = self._members.get(digest(token)) if token else None
        if found is None or found.left or self.closed:
            return False
        self.looked = self._clock()
        return True

    def answer(self, token: str, step: int, question: str, value: str, verdict: str, hints: int = 0) -> None:
        """Append an answer. `question`: its name within the step."""
        self._check_step(step)
        if verdict not in VERDICTS or not QUESTION.fullmatch(question) or not 0 <= hints <= 99:
            raise VisitError(f"This is no answer to a question of this lesson: {question[:40]!r}, {verdict[:40]!r}.")
        value = (
            value if len(value) > ANSWER_BYTES else "".join(c if c.isprintable() or c == "\n" else "�" for c in value)
        )
        if (size := len(value.encode("utf-8", "replace"))) > ANSWER_BYTES:
            raise VisitError(f"An answer has at most {ANSWER_BYTES:,} bytes; got {size:,}. Write a shorter one.")
        with self._lock:
            member = self.member(token)
            if self._sizes[member.number] + size > MEMBER_BYTES or self._counts[member.number] >= MEMBER_ANSWERS:
                raise VisitError("You have given as many answers as one member can in a room; this one is not kept.")
            self._append(Reply(member.number, step, question, value, verdict, hints, self._clock()))
            self._changed()

    def answers_of(self, token: str) -> tuple[Reply, ...]:
        """A member's own answers, oldest first: her page shows them again after a reload."""
        with self._lock:
            number = self.member(token).number
            return tuple(a for a in self._replies if a.member == number)

    def go(self, token: str, step: int) -> None:
        """Say at which step a member is."""
        self._check_step(step)
        with self._lock:
            found = self.member(token)
            if found.step != step:
                self._members[found.digest] = replace(found, step=step)
                self._changed()

    def leave(self, token: str) -> None:
        """A member goes. Her answers stay; where there are none, nothing of her does."""
        with self._lock:
            found = self.member(token)
            if self._counts[found.number]:
                self._members[found.digest] = replace(found, left=True)
            else:
                del self._members[found.digest]
            self._changed()

    # ---- the teacher -------------------------------------------------------------------------------------------------
    def rules(self, key: str) -> bool:
        """Whether this is the room's key; told in the same time for every wrong one."""
        return hmac.compare_digest(digest(key), self._key)

    def look(self, key: str) -> View:
        """Everything in the room now."""
        with self._lock:
            self._check_key(key)
            self.looked = self._clock()
            members, answers = tuple(self._members.values()), tuple(self._replies)
            return View(self.version, self._opened, self._revealed, self._locked, members, answers)

    def open_step(self, key: str, step: int | None) -> None:
        """Let everybody go as far as this step; None: each at her own pace."""
        if step is not None:
            self._check_step(step)
        with self._lock:
            self._check_key(key)
            self._opened = step
            self._signalled()

    def reveal(self, key: str, step: int, shown: bool = True) -> None:
        """Show everybody what was answered at a step, and what is right; or hide it again."""
        self._check_step(step)
        with self._lock:
            self._check_key(key)
            self._revealed = self._revealed | {step} if shown else self._revealed - {step}
            self._signalled()

    def lock(self, key: str, locked: bool) -> None:
        """Let nobody else join, or let them again."""
        with self._lock:
            self._check_key(key)
            self._locked = locked
            self._changed()

    def remove(self, key: str, number: int) -> None:
        """Take a member out, with her nickname and her answers. She may join again, as somebody new."""
        with self._lock:
            self._check_key(key)
            found = next((m for m in self._members.values() if m.number == number), None)
            if found is None:
                raise VisitError(f"Nobody in this room has the number {number}, or no longer.")
            del self._members[found.digest]
            self._replies = [a for a in self._replies if a.member != number]
            del self._sizes[number], self._counts[number]
            self._signalled()

    def close(self, key: str) -> None:
        """End the room. Nothing of it is kept."""
        with self._lock:
            self._check_key(key)
            self.end()

    # ---- for those who make and end rooms ----------------------------------------------------------------------------
    def new_key(self) -> str:
        """Give the room a key; the one before is void."""
        key = secrets.token_urlsafe(18)
        with self._lock:
            self._key = digest(key)
        return key

    def fill(
        self, members: Sequence[Member], answers: Sequence[Reply], opened: int | None, revealed: frozenset[int]
    ) -> None:
        """What a saved room held, into this new one. Who calls it has checked that it keeps to the bounds."""
        with self._lock:
            self._members = {m.digest: m for m in members}
            for one in answers:
                self._append(one)
            self._next = 1 + max((m.number for m in members), default=0)
            self._opened, self._revealed = opened, revealed
            self._signalled()

    def end(self) -> None:
        """Close without a key: the room has been idle for too long."""
        with self._lock:
            self.closed = True
            self._members, self._replies = {}, []
            self._signalled()

    def _append(self, answer: Reply) -> None:
        self._replies.append(answer)
        self._sizes[answer.member] += len(answer.value.encode())
        self._counts[answer.member] += 1

    def _check_open(self) -> None:
        if self.closed:
            raise VisitError(f"The room {self.code} is closed, and nothing of it is kept.")

    def _check_key(self, key: str) -> None:
        self._check_open()
        if not self.rules(key):
            raise VisitError(
                f"Only who has the key of the room {self.code} can do this; it stands in the teacher's address."
            )

    def _check_step(self, step: int) -> None:
        if not 0 <= step < len(self.steps):
            raise VisitError(f"Steps of this lesson run from 0 to {len(self.steps) - 1}; got {step}.")

    def _changed(self) -> None:
        self.version += 1
        self.touched = self._clock()

    def _signalled(self) -> None:
        self._changed()
        self.signal = Signal(self.signal.number + 1, self._opened, self._revealed)


class Rooms:
    """The rooms of one process."""

    def __init__(self, clock: Callable[[], float] = time.time, sleep: Callable[[float], None] = time.sleep) -> None:
        self._clock, self._sleep, self._lock = clock, sleep, threading.Lock()
        self._rooms: dict[str, Room] = {}
        self._wrong: deque[float] = deque(maxlen=WRONG_OF_ALL)
        self._turn = 0.0  # the last that was given

    def open(self, title: str, steps: Sequence[str], lesson: str, code: str = "") -> tuple[Room, str]:
        """A new room and its key. `code`: the one that it had before, which it gets again where that is free."""
        with self._lock:
            self._sweep()
            if len(self._rooms) >= MAX_ROOMS:
                left = min(self._rooms.values(), key=lambda room: (not room.makes_way, room.looked))
                if not left.makes_way:
                    raise VisitError(
                        f"This server holds {MAX_ROOMS} rooms, all are in use. One that nobody has joined makes way "
                        f"{UNJOINED_SECONDS / 60:.0f} minutes after its page was closed, any other after "
                        f"{LEFT_SECONDS / 60:.0f}: try again then, or run VISIT on a computer of your own."
                    )
                left.end()
                del self._rooms[left.code]
            while not is_code(code) or code in self._rooms:
                code = "".join(secrets.choice(LETTERS) for _ in range(CODE_LENGTH))
            room = self._rooms[code] = Room(code, title, steps, lesson, self._clock)
        return room, room.new_key()

    def find(self, code: str, tries: Tries, key: str = "") -> Room:
        """The room of this code, however it is written. Counts what is asked for in vain.

        `key`: of the teacher, who never waits for her turn.
        """
        tries.check()
        code = code.strip().upper() if len(code) < 100 else ""
        with self._lock:
            self._sweep()
            room = self._rooms.get(code)
        if room is None or not room.rules(key):
            self._wait_for_turn()  # before a right answer, too: else its speed would tell which code is right
        if room is None:
            tries.failed()
            self._wrong.append(self._clock())
            raise VisitError(
                f"There is no room {code!r} here, or no longer. " if is_code(code) else
                f"A code is {CODE_LENGTH} letters, without vowels, such as {LETTERS[:CODE_LENGTH]}. "
                "Look at it again, or ask your teacher."
            )  # fmt: skip
        return room

    def of_member(self, code: str, token: str) -> Room | None:
        """The room of this code in which this token is somebody's; None, without a word why not."""
        with self._lock:
            self._sweep()
            room = self._rooms.get(code)
        return room if room is not None and room.knows(token) else None

    def _wait_for_turn(self) -> None:
        """Nothing, unless too many codes were tried in vain on this server of late."""
        with self._lock:
            now = self._clock()
            if len(self._wrong) < WRONG_OF_ALL or self._wrong[0] < now - WRONG_SECONDS:
                return
            self._turn = min(max(now, self._turn + PACE), now + LONGEST_WAIT)
            wait = self._turn - now
        self._sleep(wait)

    def count(self) -> int:
        """How many are open."""
        with self._lock:
            self._sweep()
            return len(self._rooms)

    def _sweep(self) -> None:
        for room in list(self._rooms.values()):
            if room.idle and not room.closed:
                room.end()
            if room.closed:
                del self._rooms[room.code]


def digest(secret: str) -> str:
    """What is kept of a token or key."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def is_code(text: str) -> bool:
    """Whether a text could be a room's code."""
    return len(text) == CODE_LENGTH and set(text) <= set(LETTERS)
