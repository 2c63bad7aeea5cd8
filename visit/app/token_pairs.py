"""Two prompts as two rows of aligned tokens; a click chooses the position, or corrects what belongs together."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import streamlit as st

from visit.text.visible import visible

if TYPE_CHECKING:
    from visit.analyses.token_alignment import Pairing

_JS = """
export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector('.pairs');
  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  if (root.version !== data.version) { root.fixing = false; root.held = null; root.version = data.version; }
  const say = make('p', 'say');
  say.setAttribute('role', 'status');
  const grid = make('div', 'grid'), names = make('div', 'col names');
  names.append(make('b', '', 'A'), make('b', '', 'B'));
  grid.append(names);
  const hint = () => {
    say.textContent = !root.fixing ? '' : root.held
      ? `Now click its partner in ${root.held.side === 'a' ? 'B' : 'A'}, or the same token again to leave it alone.`
      : 'Click a token whose partner is wrong.';
  };
  const press = (side, pos) => {
    if (!root.fixing) { setTriggerValue('pick', { side, pos }); return; }
    if (!root.held) { root.held = { side, pos }; }
    else if (root.held.side === side) {
      const alone = root.held.pos === pos;
      root.held = alone ? null : { side, pos };
      if (alone) setTriggerValue('fix', side === 'a' ? [pos, null] : [null, pos]);
    } else {
      const fix = side === 'b' ? [root.held.pos, pos] : [pos, root.held.pos];
      root.held = null;
      setTriggerValue('fix', fix);
    }
    mark();
  };
  const chips = [];
  data.pairs.forEach((pair) => {
    const column = make('div', 'col ' + pair.kind);
    for (const side of ['a', 'b']) {
      const cell = pair[side];
      if (cell === null) { column.append(make('span', 'none', '–')); continue; }
      const chip = make('button', cell[2] ? 'chip control' : 'chip'), text = make('bdi', '', cell[1]);
      if (cell[2]) {
        const sign = make('i', '', 'data_object');
        sign.setAttribute('aria-hidden', 'true');
        chip.append(sign);
      }
      chip.append(text, make('small', '', String(cell[0])));
      chip.title = `${side.toUpperCase()}, position ${cell[0]}: ${pair.what}`;
      chip.onclick = () => press(side, cell[0]);
      if (data.chosen[side] === cell[0]) { chip.classList.add('on'); chip.setAttribute('aria-pressed', 'true'); }
      chips.push([chip, side, cell[0]]);
      column.append(chip);
    }
    grid.append(column);
  });
  const bar = make('div', 'bar'), toggle = make('button', 'tool', '');
  const mark = () => {
    for (const [chip, side, pos] of chips)
      chip.classList.toggle('held', !!root.held && root.held.side === side && root.held.pos === pos);
    toggle.textContent = root.fixing ? 'Done correcting' : 'Correct the alignment';
    hint();
  };
  toggle.onclick = () => { root.fixing = !root.fixing; root.held = null; mark(); };
  bar.append(toggle);
  if (data.fixed) {
    const undo = make('button', 'tool', 'Undo my corrections');
    undo.onclick = () => setTriggerValue('fix', 'undo');
    bar.append(undo);
  }
  bar.append(say);
  const left = root.firstChild ? root.firstChild.scrollLeft : 0;
  root.replaceChildren(grid, bar);
  const on = grid.querySelector('.on'); // at first the chosen pair is in sight
  grid.scrollLeft = root.seen || !on ? left : on.parentElement.offsetLeft - grid.offsetLeft - grid.clientWidth + 90;
  root.seen = true;
  mark();
}
"""
_CSS = """
.pairs { font-family: var(--st-font); color: var(--st-text-color); font-size: 0.9rem; }
.grid { display: flex; gap: 4px; overflow-x: auto; padding: 2px 2px 8px; }
.col { display: grid; grid-template-rows: 34px 34px; gap: 6px; flex: none; }
.names b { align-self: center; padding: 0 6px 0 0; }
.none { align-self: center; justify-self: center; opacity: 0.55; }
button { font: inherit; color: inherit; cursor: pointer; }
.chip { display: flex; align-items: center; justify-content: center; gap: 5px; padding: 0 9px; border-radius: 8px;
  background: var(--st-secondary-background-color); border: 1px solid transparent; white-space: pre; }
.chip.control { background: none; border: 1px dashed color-mix(in srgb, var(--st-text-color) 55%, transparent);
  font-size: 0.84rem; }
.chip i { font-family: 'Material Symbols Rounded'; font-style: normal; opacity: 0.75; }
.chip small { font-size: 0.72rem; opacity: 0.7; }
.chip:hover { border-color: var(--st-primary-color); }
.chip:focus-visible, .tool:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: 1px; }
.replaced .chip { background: color-mix(in srgb, #7a5cc0 26%, var(--st-background-color)); border-color: #7a5cc0; }
.inserted .chip, .deleted .chip { background: none; border: 1.5px dashed #7a5cc0; }
.chip.on { box-shadow: 0 0 0 2px var(--st-primary-color); font-weight: 600; }
.chip.held { box-shadow: 0 0 0 3px #d0871e; }
.bar { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; min-height: 30px; }
.tool { background: none; border: 1px solid var(--st-border-color, #8885); border-radius: 8px; padding: 3px 10px; }
.tool:hover { border-color: var(--st-primary-color); color: var(--st-primary-color); }
.say { margin: 0; opacity: 0.8; }
"""
_WHAT = {"equal": "the same token on both sides", "replaced": "another token on the other side",
         "inserted": "only in B", "deleted": "only in A"}  # fmt: skip


@cache
def _component() -> Any:
    return st.components.v2.component("visit_pairs", html="<div class='pairs'></div>", css=_CSS, js=_JS)


def token_pairs(
    pairing: Pairing, tokens: tuple[tuple[str, ...], tuple[str, ...]], control: tuple[frozenset[int], frozenset[int]],
    chosen: tuple[int, int], fixed: bool,
    pick: Callable[[str, int], None], fix: Callable[[int | None, int | None], None], undo: Callable[[], None],
) -> None:  # fmt: skip
    """The aligned tokens of two prompts. `pick(side, pos)`: a token was chosen; `fix(a, b)`: two belong together.

    `control`: the positions of control tokens on each side.
    """

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

    def cell(side: int, at: int | None) -> list[Any] | None:
        return None if at is None else [at, visible(tokens[side][at]), at in control[side]]

    pairs = [{"a": cell(0, p.a), "b": cell(1, p.b), "kind": p.kind, "what": _WHAT[p.kind]} for p in pairing.pairs]
    data = {"pairs": pairs, "chosen": {"a": chosen[0], "b": chosen[1]}, "fixed": fixed, "version": str(tokens)}
    _component()(key="pairs", data=data, on_pick_change=picked, on_fix_change=fixing)
