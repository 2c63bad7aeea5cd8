"""What a reader sees of a text that a page escapes."""

from __future__ import annotations

import re
from typing import Any

_CODE = re.compile(r"\\.|(`+)(?!`)[^\n]*?(?<!`)\1(?!`)|`+")  # or what is none: an escape, a run that nothing closes
# written as a link or a picture, or an address that becomes a link by itself, when its signs are escaped, too
_LINKS = re.compile(r"\]\([^)]*|(?i:https?://|\bwww\.)\S*|[\w.+-]+@[\w-]+\.\w+")


ADDRESSES = " http://elsewhere.invalid/x www.elsewhere.invalid me@elsewhere.invalid ![t](//elsewhere.invalid/t.png)"


def with_addresses(lesson: str) -> str:
    """A lesson's file with addresses of others in every text of it."""
    added = re.sub(
        r"(?m)^(title:|about:|# Step: |- |\? |hint:|explain:|wrong:|The |Here ).*", rf"\g<0>{ADDRESSES}", lesson
    )
    return re.sub(r"(?m)^(- \[.\].*?)( -> )", rf"\1{ADDRESSES}\2", added)


def as_read(text: str) -> str:
    """Markdown's escapes taken away."""
    return re.sub(r"\\(.)", r"\1", text).replace("\u2060", "")


def links(text: str) -> list[str]:
    """What a reader of Markdown makes a link or a picture of: of all outside of code, with the escapes taken away."""
    outside = _CODE.sub(lambda found: " " if found[1] else found[0], text)
    shut = re.sub(r"\\([\[\]()!])", " ", outside)  # escaped brackets are none
    return _LINKS.findall(re.sub(r"\\(.)", r"\1", shut))


def markdown_of(app: Any) -> list[str]:
    """Every text that a page hands to Streamlit as Markdown: bodies, labels, hints, options to choose from."""
    found: list[str] = []

    def texts(proto: Any) -> None:
        for field, value in proto.ListFields():
            many = [value] if isinstance(value, str) or hasattr(value, "ListFields") else value
            if field.name in ("body", "label", "help", "text", "content"):
                found.extend(one for one in many if isinstance(one, str))
            elif hasattr(value, "ListFields"):
                texts(value)

    def look(block: Any) -> None:
        for child in block.children.values():
            if hasattr(child, "children"):
                look(child)
            proto, kind = getattr(child, "proto", None), getattr(child, "type", "")
            if proto is None or kind in ("text", "code", "html", "dataframe", "bidi_component"):
                continue
            texts(proto)
            if kind in ("radio", "button_group"):
                found.extend(getattr(one, "content", one) for one in proto.options)

    look(app.main)
    look(app.sidebar)
    return found
