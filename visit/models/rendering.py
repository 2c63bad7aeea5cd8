"""Jinja templates of other people's models, rendered in a process of their own: a thread could not be stopped.

This file is also that process: it runs without the package, needs Jinja alone, and starts in a tenth of a second.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

SECONDS = 2.0  # for one template; the start of the process does not count
_MAX_MEMORY = 1 << 30  # of memory
_CHARACTERS = 1_000_000  # of what it gives
_OUT_OF_TIME = 14  # exit status; of a signal its negative


def render(template: str, chats: list[list[dict[str, str]]], variables: dict[str, Any]) -> list[str | None] | str:
    """Every chat as the template writes it, with the beginning of an answer; None for one that it refuses.

    A string says why the first of them could not be had, to be read after "The chat template".
    """
    found = [importlib.util.find_spec(name) for name in ("jinja2", "markupsafe")]
    folders = [str(Path(spec.origin).parent.parent) for spec in found if spec is not None and spec.origin]
    asked = json.dumps({"template": template, "chats": chats, "variables": variables, "seconds": SECONDS})
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", __file__, *folders], input=asked.encode(), capture_output=True, timeout=60,
            check=False,
        )  # fmt: skip
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return "cannot be run: no process of its own could be started"
    if done.returncode in (_OUT_OF_TIME, -_OUT_OF_TIME):
        return f"did not end within {SECONDS:g} seconds"
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        return "ended its process (it may need more memory than it is given)"
    return answer["texts"] if answer["error"] is None else answer["error"]


def _environment() -> Any:
    """The sandbox that transformers renders chat templates in (`transformers.utils.chat_template_utils`), rebuilt."""
    from datetime import datetime

    import jinja2
    import jinja2.ext
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        """`{% generation %}…{% endgeneration %}` marks what the assistant said; here it is written like any text."""

        tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

        def _body(self, caller: Any) -> str:
            return caller()

    def raise_exception(message: str) -> None:
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None,
               sort_keys: bool = False) -> str:  # fmt: skip
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    made.filters["tojson"] = tojson
    made.globals |= {
        "raise_exception": raise_exception, "strftime_now": lambda form: datetime.now().strftime(form),
        "dict": _Dict(), "namespace": _namespace(jinja2),
    }  # fmt: skip
    return made


class _Dict:
    """`dict(…)` without the class, whose attributes a template has no business with."""

    def __call__(self, *args: Any, **options: Any) -> dict[Any, Any]:
        return dict(*args, **options)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


def _namespace(jinja2: Any) -> Any:
    class Namespace(jinja2.utils.Namespace):
        """Jinja's own, without names that begin with an underscore: they reach into Python."""

        def __init__(*args: Any, **options: Any) -> None:  # as Jinja: `self` may be a name in it
            own, values = args[0], dict(*args[1:], **options)
            for name in values:
                Namespace.check(name)
            jinja2.utils.Namespace.__init__(own, values)

        def __setitem__(self, name: str, value: Any) -> None:
            Namespace.check(name)
            super().__setitem__(name, value)

        @staticmethod
        def check(name: Any) -> None:
            if isinstance(name, str) and name.startswith("_"):
                raise jinja2.exceptions.SecurityError(f"a namespace holds no name such as {name!r}")

    return Namespace


def _bounded(seconds: float) -> None:
    """End this process after `seconds`, and bound its memory, whatever the template does."""
    watch = threading.Timer(seconds, os._exit, [_OUT_OF_TIME])
    watch.daemon = True
    watch.start()
    try:
        import resource
        import signal

        signal.setitimer(signal.ITIMER_REAL, seconds)  # ends also a loop inside C, where no thread gets a turn
        resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
    except (ImportError, AttributeError, ValueError, OSError):  # Windows; a system without this limit
        pass


def main() -> None:
    """Read a template and chats from standard input; write their texts, and why the first has none, as JSON."""
    sys.path += sys.argv[1:]
    environment, asked = _environment(), json.load(sys.stdin)
    _bounded(asked["seconds"])
    texts: list[str | None] = []
    problem: str | None = None
    try:
        template = environment.from_string(asked["template"])
    except Exception as error:
        template, problem = None, f"cannot be read: {_said(error)}"
    for number, chat in enumerate(asked["chats"] if template is not None else []):
        try:
            text = template.render(
                messages=chat, tools=None, documents=None, add_generation_prompt=True, **asked["variables"]
            )
            texts.append(text if len(text) <= _CHARACTERS else None)
            why = f"writes more than {_CHARACTERS:,} characters"
        except Exception as error:  # whatever the template does is its own
            texts.append(None)
            why = f"fails on this message: {_said(error)}"
        if number == 0 and texts[0] is None:
            problem = why
    print(json.dumps({"texts": texts, "error": problem}))


def _said(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"it needs more than {_MAX_MEMORY >> 30} GB of memory"
    return " ".join(str(error).split())[:300] or type(error).__name__


if __name__ == "__main__":
    main()
