"""HTML pages from templates. Whatever a template is given is escaped, unless it was made for HTML (`Markup`)."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from visit.text.citation import bibtex
from visit.text.visible import visible


def fill_template(template: str, **values: Any) -> str:
    """A template of `visit/files/templates`, filled in. A value that it asks for and does not get is an error."""
    return _jinja().get_template(template).render(**values)


@cache
def _jinja() -> Environment:
    found = Environment(
        loader=PackageLoader("visit.files"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    found.filters["visible"] = visible
    found.globals["bibtex"] = bibtex
    return found
