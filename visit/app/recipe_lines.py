"""What recipes are made of: cells, words of a command line, arguments of a call."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

from visit.app.link_values import amount
from visit.app.state import State
from visit.models.catalog import LISTED, MINI


@dataclass(frozen=True)
class Looked:
    """What a page looks at where its address leaves it open. `fitted`: states are read through the fitted lens;
    `revision`: of a hub model, what was loaded; `paths`: paths between heads were run."""

    layer: int | None = None
    head: int | None = None
    norm: str = "ln1"
    subject: tuple[int, ...] = ()
    fitted: bool = False
    revision: str = ""
    paths: bool = False


@dataclass(frozen=True)
class Lines:
    """One cell of a notebook: what it is for, its lines, and the names of what it shows (the last one as a drawing)."""

    why: str
    lines: tuple[str, ...]
    shows: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """`command`: one line for a shell, empty where the command line cannot say it (`missing`: why, a sentence)."""

    question: str
    command: str
    steps: tuple[Lines, ...]
    missing: str = ""

    @property
    def script(self) -> str:
        """All steps as one script, which prints what a notebook shows."""
        lines = []
        for step in self.steps:
            lines += [*step.lines, *(f"print({printed(name)})" for name in step.shows)]
        return "\n".join(lines) + "\n"


def printed(name: str) -> str:
    """What a script prints of a result that a notebook draws."""
    return {"graph": "graph.nodes", "found": "found.tables['changes']"}.get(name, name)


# ---- words of a command, lines of Python -----------------------------------------------------------------------------
def shell_line(name: str, *options: tuple[str, Any]) -> str:
    """One line for a shell: options that are None, False or empty are left out."""
    words = ["python", "-m", "visit", name]
    for option, value in options:
        if value is None or value is False or value == "":
            continue
        # a value that begins with a dash stands behind an equals sign
        words += [f"--{option}"] if value is True else [f"--{option}={value}"] if str(value).startswith("-") else [
            f"--{option}", str(value)
        ]  # fmt: skip
    return shlex.join(words)


def model_words(now: State, looked: Looked) -> list[tuple[str, Any]]:
    revision = looked.revision if now.model not in LISTED or now.model == "" else ""
    return [("model", None if now.model == MINI else now.model), ("revision", revision)]


def prompt_words(now: State) -> list[tuple[str, Any]]:
    system = now.system if now.chat else ""
    return [("prompt", now.prompt), ("chat", now.chat), ("system", system), ("pos", None if now.pos == -1 else now.pos),
            ("target", now.target), ("distractor", now.distractor)]  # fmt: skip


def load_step(now: State, looked: Looked) -> Lines:
    revision = f", revision={looked.revision!r}" if looked.revision and now.model not in LISTED else ""
    return Lines("The model.", ("import visit", "", f"model = visit.load_model({now.model!r}{revision})"))


def capture_line(now: State, prompt: str, name: str = "acts", model: str = "model") -> str:
    text = repr(prompt)
    if now.chat:
        text = f"visit.chat_prompt({model}, {text}{f', system={now.system!r}' if now.system else ''})"
    return f"{name} = visit.capture({model}, {text})"


def arguments(now: State, side: str = "") -> dict[str, Any]:
    """Position and words as arguments; what has its default is left out."""
    values = {
        "pos": now.compare.pos_b if side else now.pos,
        "target": now.compare.target_b if side else now.target,
        "distractor": now.compare.distractor_b if side else now.distractor,
    }
    return {name: value for name, value in values.items() if value not in ("", -1)}


def call(name: str, *first: str, **named: Any) -> str:
    return f"{name}({', '.join([*first, *(f'{key}={value}' for key, value in named.items())])})"


def reprs(named: dict[str, Any]) -> dict[str, str]:
    return {key: repr(value) for key, value in named.items()}


def not_default(defaults: dict[str, Any], **values: Any) -> dict[str, Any]:
    """What differs from its default."""
    return {name: value for name, value in values.items() if value != defaults[name]}


_KEEP_FIELDS = {
    "heads": ("heads", None),
    "values": ("values", 2),
    "rows": ("attn_neurons", 12),
    "neurons": ("mlp_neurons", 12),
}


def keep_call(now: State) -> str:
    """`visit.Keep(…)` with what differs from its defaults; empty where nothing does."""
    graph = now.graph
    chosen = {name: amount(getattr(graph, field)) for field, (name, _) in _KEEP_FIELDS.items()}
    named = {name: chosen[name] for name, default in _KEEP_FIELDS.values() if chosen[name] != default}
    if graph.by != "norm":
        named["by"] = graph.by
    if graph.pins:
        named["pin"] = graph.pins
    return call("visit.Keep", **reprs(named)) if named else ""


def keep_words(now: State) -> list[tuple[str, Any]]:
    graph, found = now.graph, []
    for name, option in (("heads", "heads"), ("values", "values"), ("rows", "attn-neurons"), ("neurons", "neurons")):
        value, default = amount(getattr(graph, name)), _KEEP_FIELDS[name][1]
        if value != default:
            text = "all" if value is None else ",".join(map(str, value)) if isinstance(value, tuple) else value
            found.append((option, text))
    return [*found, ("by", None if graph.by == "norm" else graph.by), *(("pin", pin) for pin in graph.pins)]


def layers_asked(now: State) -> tuple[str, str]:
    """The blocks asked for: as an option, and as an argument."""
    text = now.graph.layers.strip()
    if text.lower() in ("", "all"):
        return "", ""
    return ",".join(part.strip() for part in text.split(",")), repr(layer_list(text))


def layer_list(ranges: str) -> list[int]:
    """`"0,3-5"` as numbers."""
    ends = [part.strip().split("-") for part in ranges.split(",")]
    return [n for first, *last in ends for n in range(int(first), int(last[0] if last else first) + 1)]


def lens_lines(looked: Looked) -> list[str]:
    return ["from visit.lenses.linear import fitted_lens", "lens = fitted_lens(model)"] if looked.fitted else []


OWN_SET = "These prompts are your own: save them as a file, and name it behind --prompts."
