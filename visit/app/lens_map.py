"""The lens map on a page: rows that say nothing are folded, the names of columns and rows stay in sight."""

from __future__ import annotations

from functools import cache
from typing import Any

import streamlit as st

from visit.app.cache import st_lens_map
from visit.app.prompt_bar import Subject, plain
from visit.app.state import change, state, whole_words
from visit.text.glossary import explain
from visit.text.visible import as_word, visible

COLUMNS = 14  # positions of the lens map on screen at once; a longer prompt is paged

_JS = """
const mounted = new WeakMap(); // root -> what stays between reruns: which folds are open, where the cursor is

function make(tag, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
}

/** Light or dark, by how bright the page's background is. */
function theme(root, probe) {
  const [r, g, b] = (getComputedStyle(probe).color.match(/[\\d.]+/g) || [255, 255, 255]).map(Number);
  root.classList.toggle("dark", 0.299 * r + 0.587 * g + 0.114 * b < 128);
  root.classList.toggle("light", !root.classList.contains("dark"));
}

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".lensmap");
  let view = mounted.get(root);
  if (!view) {
    view = { open: new Set(), frame: make("div", "sheet"), notes: make("div", "fine"), probe: make("i", "probe") };
    mounted.set(root, view);
    root.replaceChildren(view.frame, view.notes, view.probe);
    view.frame.addEventListener("scroll", () => edges(view), { passive: true });
    new ResizeObserver(() => edges(view)).observe(view.frame);
    view.probe.addEventListener("transitionend", () => theme(root, view.probe));
    view.frame.addEventListener("keydown", (event) => key(view, event));
  }
  view.data = data;
  view.pick = (n, row) => setTriggerValue("cell", { pos: data.positions[n], depth: row.depth, state: row.state });
  if (view.of !== data.of) { view.of = data.of; view.open.clear(); }
  theme(root, view.probe);
  draw(view);
  if (view.looked !== data.of + data.chosen) { // the column looked at is in sight where not all have room
    view.looked = data.of + data.chosen;
    const name = view.frame.querySelector("thead .chosen"), { frame } = view;
    const right = name ? name.offsetLeft + name.offsetWidth - frame.clientWidth + 2 : 0;
    if (name && (frame.scrollLeft < right || frame.scrollLeft > name.offsetLeft - 110)) frame.scrollLeft = right;
  }
}

function draw(view) {
  const { data } = view, table = make("table"), head = make("thead"), body = make("tbody");
  const names = make("tr"), corner = make("th", "corner", "after");
  names.append(corner);
  data.heads.forEach((name, n) => {
    const cell = make("th", n === data.chosen ? "chosen" : "", name);
    cell.scope = "col";
    cell.title = `${name} (position ${data.positions[n]})`;
    names.append(cell);
  });
  head.append(names);
  const inside = (depth) => data.folds.find((fold) => fold.first <= depth && depth <= fold.last);
  for (const row of data.rows) {
    const fold = inside(row.depth);
    if (fold && row.depth === fold.last) body.append(folded(view, fold));
    if (!fold || view.open.has(fold.first)) body.append(whole(view, row, fold));
  }
  table.append(head, body);
  table.style.setProperty("--columns", data.heads.length);
  view.frame.replaceChildren(table);
  const cells = view.frame.querySelectorAll("button");
  if (cells.length) (view.frame.querySelector("td.at button") || cells[0]).tabIndex = 0;
  notes(view);
  edges(view);
}

/** One row for several that say nothing; its words are the most frequent ones, in grey. */
function folded(view, fold) {
  const open = view.open.has(fold.first), line = make("tr", "fold"), name = make("th");
  const toggle = make("button", "", `${open ? "▾" : "▸"} ${fold.name}`);
  toggle.tabIndex = -1;
  toggle.title = `${fold.name} read ${fold.reads}. ${open ? "Fold them" : "Show them all"}`;
  toggle.setAttribute("aria-expanded", open);
  toggle.onclick = () => {
    if (open) view.open.delete(fold.first); else view.open.add(fold.first);
    draw(view);
    view.frame.querySelector(`[data-fold="${fold.first}"]`).focus({ preventScroll: true });
  };
  toggle.dataset.fold = fold.first;
  name.append(toggle);
  name.scope = "row";
  line.append(name);
  const cell = make("td", "reads", `${open ? "open" : "folded"}: ${fold.reads}`);
  cell.colSpan = view.data.heads.length;
  cell.onclick = toggle.onclick;
  line.append(cell);
  return line;
}

function whole(view, row, fold) {
  const line = make("tr", fold ? "inside" : ""), name = make("th", "", row.name);
  name.scope = "row";
  line.append(name);
  row.cells.forEach((cell, n) => {
    const at = row.state === view.data.node && n === view.data.chosen;
    const box = make("td", (n === view.data.chosen ? "chosen" : "") + (at ? " at" : ""));
    const button = make("button", `${cell.c}${cell.q ? " q" : ""}`);
    button.append(make("bdi", "", cell.w));
    button.tabIndex = -1;
    button.title = cell.t;
    button.setAttribute("aria-label", cell.t);
    button.onclick = () => view.pick(n, row);
    box.append(button);
    line.append(box);
  });
  return line;
}

function notes(view) {
  const { data } = view, line = make("div", "fills");
  line.append(make("span", "", data.title));
  for (const [look, text] of data.fill) line.append(make("span", "chip " + look, text));
  const words = data.words.map(([sign, meaning]) => `${sign} ${meaning}`).join(" · ");
  view.notes.replaceChildren(line, make("div", "", words));
}

/** An edge beyond which the map goes on fades. */
function edges(view) {
  const { scrollLeft, scrollTop, scrollWidth, scrollHeight, clientWidth, clientHeight, classList } = view.frame;
  classList.toggle("right", scrollLeft < scrollWidth - clientWidth - 4);
  classList.toggle("below", scrollTop < scrollHeight - clientHeight - 4);
}

/** Arrows go from cell to cell; one cell at a time can be reached by Tab. */
function key(view, event) {
  const now = event.target.closest("button"), row = now && now.closest("tr");
  const ways = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
  if (!row || !ways[event.key]) return;
  const [down, right] = ways[event.key], rows = [...row.parentElement.children];
  const of = (line) => [...line.querySelectorAll("button")];
  const line = rows[rows.indexOf(row) + down], place = of(row).indexOf(now) + right;
  const next = line && of(line)[Math.min(place, of(line).length - 1)];
  event.preventDefault();
  if (!next) return;
  now.tabIndex = -1;
  next.tabIndex = 0;
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest", inline: "nearest" });
}
"""
_CSS = """
.lensmap { position: relative; color: var(--ink); font: 13px/1.3 var(--st-font, Arial, sans-serif); }
.probe { position: absolute; width: 0; height: 0; color: var(--st-background-color, Canvas); transition: color 1ms; }
.sheet { overflow: auto; max-height: 84vh; border-radius: 6px; overscroll-behavior-x: contain; }
.sheet.right { mask-image: linear-gradient(to left, #0004, #000 28px); }
.sheet.below { mask-image: linear-gradient(to top, #0004, #000 28px); }
.sheet.right.below { mask-image: linear-gradient(to left, #0004, #000 28px), linear-gradient(to top, #0004, #000 28px); mask-composite: intersect; }
table { border-collapse: separate; border-spacing: 0; table-layout: fixed; width: 100%; min-width: calc(104px + var(--columns) * 66px); }
th, td { padding: 1px; text-align: left; font-weight: 400; overflow: hidden; }
thead th { position: sticky; top: 0; z-index: 2; background: var(--page); padding: 5px 8px 6px; font-weight: 600; white-space: nowrap; text-overflow: ellipsis; border-bottom: 1px solid var(--line); text-align: center; }
thead th.chosen { box-shadow: inset 0 -3px 0 var(--focus); }
tbody th, th.corner { position: sticky; left: 0; z-index: 1; width: 104px; background: var(--page); color: var(--quiet); white-space: nowrap; padding-right: 8px; text-align: right; }
th.corner { z-index: 3; font-weight: 400; }
button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; }
td button { display: block; width: 100%; height: 24px; padding: 0 5px; border-radius: 3px; border: 1px solid transparent; background: var(--f); color: var(--w); overflow: hidden; text-overflow: ellipsis; white-space: nowrap; text-align: center; }
td button.g { background: none; color: var(--ink); }
td button.q, td button.g.q { color: var(--tag); }
td.chosen { background: linear-gradient(var(--quiet), var(--quiet)) left / 1px 100% no-repeat, linear-gradient(var(--quiet), var(--quiet)) right / 1px 100% no-repeat; padding: 1px 4px; }
td.at button { border: 2px solid var(--ink); padding: 0 4px; }
td button:hover { border-color: var(--ink); }
button:focus-visible { outline: 2px solid var(--focus); outline-offset: -2px; }
tr.fold th button { color: var(--ink); padding: 4px 0; }
tr.fold th button:hover { text-decoration: underline; }
td.reads { color: var(--tag); background: var(--panel); border-radius: 3px; padding: 5px 10px; cursor: pointer; position: static; }
tr.inside th { border-right: 2px solid var(--line); }
@media (max-width: 700px) { tbody th, th.corner { width: 88px; padding-left: 0; font-size: 12px; } }
.fine { color: var(--quiet); font-size: 12px; margin-top: 8px; }
.fills { display: flex; flex-wrap: wrap; gap: 3px; align-items: center; margin-bottom: 4px; }
.fills span:first-child { margin-right: 6px; }
.chip { font-size: 11px; line-height: 16px; padding: 0 6px; border-radius: 5px; background: var(--f); border: 1px solid var(--b); color: var(--w); white-space: nowrap; }
"""  # noqa: E501


@cache
def _component() -> Any:
    from visit.drawing.style import style

    colours = "".join(style(theme, "safe", f".lensmap.{theme}", f".lensmap.{theme}") for theme in ("light", "dark"))
    html = "<div class='lensmap light'></div>"
    return st.components.v2.component("visit_lens_map", html=html, css=_CSS + colours, js=_JS)


def lens_map(subject: Subject) -> None:
    """Layers × positions: the top word of every state, a click picks position and block."""
    from visit.analyses.function_words import function_words, is_function_word
    from visit.figures.lens_rows import rows_of
    from visit.models.tokens import character_parts

    acts, count = subject.acts, len(subject.acts.token_ids)
    target = subject.model.vocabulary[subject.target]
    st.subheader("The stream, read after every block", anchor=False, help=explain("lens map"))
    names = {
        "target": f"probability of {as_word(target)}", "rank": f"rank of {as_word(target)}",
        "top": "probability of the top word",
    }  # fmt: skip
    color: Any = st.segmented_control(
        "Colour", list(names), format_func=lambda c: plain(names[c]), default="target", required=True, key="map_color",
        wrap=True,
    )  # fmt: skip
    first = 0
    if count > COLUMNS:
        last_start = count - COLUMNS
        if st.session_state.get("map_for") != (subject.key, subject.pos):
            st.session_state["map_for"] = (subject.key, subject.pos)
            st.session_state["map_first"] = min(last_start, max(0, subject.pos - COLUMNS + 1))
        first = st.slider(f"First of {COLUMNS} positions shown (of {count})", 0, last_start, key="map_first")
    shown = tuple(range(first, min(count, first + COLUMNS)))
    table = st_lens_map(*subject.key, subject.target, shown)
    spelled = character_parts(subject.model.tokenizer, acts.token_ids)
    heads = [f"{visible(spelled[i][0])} {spelled[i][1]}/{spelled[i][2]}" if i in spelled else visible(acts.tokens[i])
             for i in shown]  # fmt: skip
    listed = function_words()
    found = rows_of(
        table, subject.model.d_vocab, color, target, lambda t: is_function_word(t, listed), whole_words(), heads
    )
    data = found | {
        "chosen": subject.pos - first, "node": state().node, "of": repr((subject.key, shown, subject.target)),
    }  # fmt: skip
    _component()(key="lens_map", data=data, on_cell_change=lambda: _take_cell(count))
    st.caption(_caption(found, plain(as_word(target))))


def _caption(found: dict[str, Any], target: str) -> str:
    text = (
        "Each cell is the residual stream at one position (column) after one block (row, upwards), passed through the "
        "final norm and the unembedding: the word it reads, in grey below 5 % and where it is white space or bytes. "
        f"The stronger the colour, the closer the stream is to “{target}” there. Read a column upwards to see an "
        "answer form; click a cell to open its block below."
    )
    if found["folds"]:
        text += (
            " Folded blocks say nothing: at four of five positions they read a sign, white space, bytes, a function "
            f"word that is not predicted there, or nothing above 5 %, and “{target}” is below 5 % everywhere."
        )
    return text


def _take_cell(count: int) -> None:
    chosen = st.session_state["lens_map"]["cell"]
    if not isinstance(chosen, dict):
        return
    pos, depth = int(chosen["pos"]), int(chosen["depth"])
    change(pos=-1 if pos == count - 1 else pos, detail=f"{max(0, depth - 1)}w", node=str(chosen["state"]))
