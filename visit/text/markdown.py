"""Text that comes from outside (an address, a prompt, a vocabulary, a folder's name) in Markdown of ours.

Everything of a page that is Markdown (notes, alerts, captions, headings, labels of buttons) takes such a text through
one of these two. Unescaped, a model's name in a link makes the browser of whoever opens it fetch a foreign picture.
"""

from __future__ import annotations

import re

_MARKDOWN = "\\`*_{}[]()<>#+-.!|~:$^=&@"  # links, addresses, tables; Streamlit's colours and icons
_COMMAND = re.compile(r"(`[^`\n]{1,200}`)")


# A bare address becomes a link even when its signs are escaped: it is looked for in what the reader has made of them.
# A word joiner, which nobody sees, parts it.
_ADDRESS = re.compile(r"(?<=:)(?=//)|(?i:(?<=www))(?=\.)|(?=@[-\w]+\.)")


def plain(text: str) -> str:
    """Text as it is, where Markdown's signs would be read as such."""
    return "".join(f"\\{c}" if c in _MARKDOWN else c for c in _ADDRESS.sub("\u2060", text))


def escaped(sentence: str) -> str:
    """A sentence of the program's with texts from outside in it, as an error has them: all plain but `commands`.

    What stands between two backticks is code, in which Markdown reads no link and no picture.
    """
    parts = _COMMAND.split(sentence)
    return "".join(part if n % 2 else plain(part) for n, part in enumerate(parts))
