"""What pages are made of: text and tokens that can be clicked, a pager of long prompts, selections, files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from visit.app.sessions import begin_at, begins_at, is_opened, session, set_opened, state, write_url
from visit.text.glossary import anchor_of, explain, name_of, terms_in
from visit.text.markdown import plain as plain
from visit.text.numbers import MISSING, number, percent
from visit.text.visible import visible, word_list

if TYPE_CHECKING:
    import pandas as pd

    from visit.analyses.token_alignment import Pair, Pairing


# In the tab of the browser: a stream of three states, and a part that adds to it.
ICON = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'><rect width='32' height='32' rx='7' fill='#0b7a75'/>"
    "<path d='M11 26V6M11 20C17 20 21 18 22 12' fill='none' stroke='#ffffff' stroke-width='2.4'/>"
    "<g fill='#ffffff'><circle cx='11' cy='25' r='3.4'/><circle cx='11' cy='7' r='3.4'/></g>"
    "<circle cx='22' cy='11' r='4.2' fill='#ffc857'/></svg>"
)


PAGE_STYLE = Path(__file__).with_name("page.css")  # of every page


# ---- text ------------------------------------------------------------------------------------------------------------
def words_cell(tokens: Any, count: int = 5) -> str | None:
    """A list of top words for a table's cell; None where there is none."""
    return ", ".join(word_list(tokens, count, state().whole)) if isinstance(tokens, (list, tuple)) else None


def in_cells(
    table: pd.DataFrame, percents: Sequence[str] = (), counts: Sequence[str] = (), changes: Sequence[str] = ()
) -> Any:
    """The table for `st.dataframe`, these of its columns written as numbers are everywhere.

    A column still holds its values: a click on its name sorts by them, not by the text. Streamlit's own formats call
    what is small 0 %. `counts`: ranks, too; `changes` of a probability: below 1e-5 they are 0. Other numbers have the
    format of the column's configuration.
    """
    texts: dict[str, Any] = {
        **dict.fromkeys(table.select_dtypes("floating"), "{:.6g}".format),
        **dict.fromkeys(percents, lambda p: percent(p, narrow=True, fine=True)),
        **dict.fromkeys(counts, "{:,.0f}".format),
        **dict.fromkeys(changes, lambda d: number(d, sign=True) if abs(d) >= 1e-5 else "0"),
    }
    return table.reset_index(drop=True).style.format(texts, na_rep=MISSING)


def section(name: str, title: str, about: str | None = None) -> Any:
    """The head of a part: its title with a help, and in the same quiet line what is folded (controls, reading aid)."""
    line = st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"section_{name}")
    line.header(title, anchor=False, help=about, width="content")
    return line


def folded(label: str, icon: str, key: str | None = None) -> Any:
    """What a section keeps behind a quiet button of its line."""
    return st.popover(label, icon=f":material/{icon}:", type="tertiary", key=key)


FOLDED_CONTROLS = "Controls", "tune"
READING_AID = "How to read it", "help"


# ---- columns ---------------------------------------------------------------------------------------------------------
_STACKED = """<style>
@media (max-width: 1100px) {
  [class*="st-key-beside_"] [data-testid="stHorizontalBlock"]:has(> [data-testid="stColumn"]) {
    flex-direction: column; row-gap: 1rem; }
  [class*="st-key-beside_"] [data-testid="stColumn"] { width: 100%; flex: 1 1 auto; }
  [class*="st-key-beside_"] [data-testid="stColumn"]:not(:has([data-testid="stElementContainer"])) { display: none; }
}
</style>"""


def beside(name: str) -> Any:
    """A container whose columns stand beside each other on a wide page and below each other on a narrow one."""
    st.html(_STACKED)
    return st.container(key=f"beside_{name}")


# ---- what is opened by choice ----------------------------------------------------------------------------------------
@contextmanager
def unfolding(name: str, label: str, icon: str | None = None) -> Iterator[bool]:
    """A part that is opened by choice: `with ui.unfolding("pattern", "The pattern") as opened: if opened: …`.

    `name`: an identifier that no other part of any page has; it stands in the address (`opened=pattern`) while the
    part is open. Nothing inside is to be computed before `opened` is true.
    """
    key = f"w_opened_{name}"
    st.session_state[key] = is_opened(name)  # always: under a new label it is another expander to Streamlit, and folded

    def toggled() -> None:
        set_opened(name, bool(st.session_state[key]))
        write_url()  # a fragment runs without what writes the address for a page

    with st.expander(label, key=key, icon=icon, on_change=toggled) as box:
        yield bool(box.open)


# ---- components: `name.js` and `name.css` lie beside this file -------------------------------------------------------
@cache
def component(name: str, html: str, colours: str = "", shared: str = "") -> Any:
    """A component of ours, made once. `colours`: style sheets that are computed; `shared`: a script put before its."""
    css = _component_file(f"{name}.css")
    scripts = [_component_file(f"{one}.js") for one in (shared, name) if one]
    html = re.sub(r"(?<=\d) %", "&nbsp;%", html)  # no line begins with "%": see live.js
    return st.components.v2.component(f"visit_{name}", html=html, css=css + colours or None, js="\n".join(scripts))


def _component_file(name: str) -> str:
    """A file of this folder, or of the drawings that pages share with files; empty where there is none."""
    here = Path(__file__).with_name(name)
    file = here if here.exists() else here.parents[1] / "drawing" / name
    return file.read_text(encoding="utf-8") if file.exists() else ""


def sentences(found: list[Any], key: str, pick: Callable[[str], None]) -> None:
    """Show sentences of (text, node id or None); a click on a part with an id calls `pick` with it.

    Where a term of the glossary is said first it is dotted: its definition is told on hover, focus and tap.
    """
    spoken = list(terms_in(found))
    notes = {s.term: {"name": name_of(s.term), "note": explain(s.term), "anchor": anchor_of(s.term)} for s in spoken}
    component("story", "<div class='story'></div><div class='notes' hidden></div>")(
        key=key,
        data={
            "sentences": [[list(piece) for piece in sentence] for sentence in found],
            "terms": [list(one) for one in spoken],
            "notes": notes,
        },
        on_pick_change=lambda: pick(st.session_state[key]["pick"]),
    )


_PROMPT_FIELD = """<style>
.st-key-prompt_line [data-testid="stElementContainer"]:has(textarea) { flex: 2 1 16rem; min-width: min(100%, 16rem); }
.st-key-prompt_line > :has(> .st-key-prompt_tokens), .st-key-prompt_tokens { flex: 1 1 auto; width: auto;
  max-width: 100%; }
[class*="st-key-w_prompt"] textarea { field-sizing: content; height: auto !important; min-height: 2.4rem !important;
  max-height: 5.6rem; line-height: 1.45; padding-top: 0.5rem; padding-bottom: 0.5rem; resize: none; }
[class*="st-key-w_prompt"] [data-testid="InputInstructions"] { font-size: 0; }
[class*="st-key-w_prompt"] [data-testid="InputInstructions"]::after { content: "Enter runs it"; font-size: 0.75rem; }
</style>"""


def enter_runs() -> None:
    """In every prompt field Enter runs, Shift+Enter makes a new line. Call once a page.

    In a text area of Streamlit it is Ctrl+Enter that runs; without the script the field works as Streamlit says below.
    """
    st.html(_PROMPT_FIELD)
    component("enter", "<span></span>")(key="enter")


_KINDS = {"equal": "the same word on both sides", "replaced": "another word on the other side",
          "inserted": "only in B", "deleted": "only in A"}  # fmt: skip


def token_pairs(
    pairing: Pairing, tokens: tuple[tuple[str, ...], tuple[str, ...]], special: tuple[frozenset[int], frozenset[int]],
    chosen: tuple[int, int], fixed: bool,
    pick: Callable[[str, int], None], fix: Callable[[int | None, int | None], None], undo: Callable[[], None],
) -> None:  # fmt: skip
    """Two prompts as aligned words, each of its tokens. `pick(side, pos)`: one was chosen; `fix(a, b)`: two belong
    together.

    `special`: the positions of control tokens on each side. `fixed`: there are corrections, which `undo` takes back.
    """

    from visit.analyses.token_alignment import word_columns

    def fixing() -> None:
        found = st.session_state["pairs"]["fix"]
        if found == "undo":
            undo()
        elif isinstance(found, list) and len(found) == 2:
            fix(found[0], found[1])

    def picked() -> None:
        found = st.session_state["pairs"]["pick"]
        if isinstance(found, dict):
            pick(found["side"], int(found["pos"]))

    def cells(side: int, found: list[int | None]) -> list[list[Any]]:
        return [[at, visible(tokens[side][at]), at in special[side]] for at in found if at is not None]

    def column(pairs: tuple[Pair, ...]) -> dict[str, Any]:
        kinds = {p.kind for p in pairs}
        sides = [any(p.a is not None for p in pairs), any(p.b is not None for p in pairs)]
        kind = kinds.pop() if len(kinds) == 1 else "replaced" if all(sides) else "deleted" if sides[0] else "inserted"
        return {"a": cells(0, [p.a for p in pairs]), "b": cells(1, [p.b for p in pairs]), "kind": kind,
                "what": _KINDS[kind]}  # fmt: skip

    pairs = [column(found) for found in word_columns(pairing, *tokens)]
    data = {"pairs": pairs, "chosen": {"a": chosen[0], "b": chosen[1]}, "fixed": fixed, "version": str(tokens)}
    component("pairs", "<div class='pairs'></div>")(key="pairs", data=data, on_pick_change=picked, on_fix_change=fixing)


# ---- a long prompt, so many positions at a time ----------------------------------------------------------------------
def shown_window(name: str, of: Any, count: int, here: int, size: int) -> range:
    """Which of `count` positions the pager `name` shows: all, or `size` of them.

    They begin where the address says, unless the pager is `of` something else now, or `here` is another: then they end
    with `here`.
    """
    if count <= size:
        return range(count)
    windows, now = session().windows, (of, count, here)
    if windows.setdefault(name, now) != now:
        windows[name] = now
        begin_at(name, None)
        write_url()
    first = begins_at(name)
    first = here - size + 1 if first is None else first
    first = min(count - size, max(0, first))
    return range(first, first + size)


def pager(name: str, of: Any, count: int, here: int, size: int, what: str = "positions") -> range:
    """The same, with the slider that moves it where there are more than `size`."""
    shown = shown_window(name, of, count, here, size)
    if count > size:
        key = f"{name}_first"
        st.session_state[key] = shown.start
        st.slider(f"First of {size} {what} shown (of {count})", 0, count - size, key=key,
                  on_change=lambda: begin_at(name, int(st.session_state[key])))  # fmt: skip
    return shown


def turned_page(name: str, of: Any, pages: int, size: int) -> int:
    """Which page of a long table is shown, from 1, with the field that turns it; the first of what is new."""
    if pages <= 1:
        return 1
    windows = session().windows
    if windows.setdefault(name, of) != of:
        windows[name] = of
        begin_at(name, None)
        write_url()
    key, page = f"{name}_page", min(pages, max(1, begins_at(name) or 1))
    st.session_state[key] = page
    st.number_input(f"Page (of {pages}, {size} positions each)", 1, pages, key=key,
                    on_change=lambda: begin_at(name, int(st.session_state[key])))  # fmt: skip
    return page


# ---- selections ------------------------------------------------------------------------------------------------------
def on_point(key: str, name: str, take: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Arguments of a chart with a selection called `name`: `take` gets the fields of the mark that is clicked."""

    def chosen() -> None:
        found = st.session_state[key]["selection"].get(name) or []
        if found:
            take(found[0])

    return {"key": key, "selection_mode": name, "on_select": chosen}


def on_row(key: str, items: Sequence[Any], take: Callable[[Any], None]) -> dict[str, Any]:
    """Arguments of a table with one item a row: `take` gets that of the row that is chosen."""

    def chosen() -> None:
        rows = st.session_state[key]["selection"]["rows"]
        if rows and rows[0] < len(items):
            take(items[rows[0]])

    return {"key": key, "selection_mode": "single-row", "on_select": chosen}


# ---- files -----------------------------------------------------------------------------------------------------------
Tables = tuple[dict[str, Any], "dict[str, pd.DataFrame]"]  # what they are of, and they
_PICTURES = {"html": "a page that works offline", "svg": "a drawing", "png": "a picture"}
_TABLES = {"zip": "nodes and edges as CSV", "json": "nodes, edges, provenance"}


def downloads(
    name: str, tables: Callable[[], Tables], picture: Callable[[str], bytes | str] | None = None, flat: bool = False
) -> None:
    """What is on screen as files, made when they are asked for: its tables, and `picture(kind)` where it is drawn."""

    def make(kind: str) -> bytes | str:
        from visit.files.tables import to_json, to_zip

        if picture is not None and kind in _PICTURES:
            return picture(kind)
        meta, found = tables()
        return to_zip(meta, found) if kind == "zip" else to_json(meta, found, flat=flat)

    with folded("Download", "download"):
        for kind, what in {**(_PICTURES if picture else {}), **_TABLES}.items():
            st.download_button(
                f"{kind.upper()}: {what}", partial(make, kind), f"visit-{name}.{kind}", on_click="ignore",
                key=f"download_{name}_{kind}", width="stretch",
            )  # fmt: skip
