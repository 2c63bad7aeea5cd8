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
  const token = (cell, side, what) => {
    const chip = make('button', cell[2] ? 'chip control' : 'chip'), text = make('bdi', '', cell[1]);
    if (cell[2]) {
      const sign = make('i', '', 'data_object');
      sign.setAttribute('aria-hidden', 'true');
      chip.append(sign);
    }
    chip.append(text, make('small', '', String(cell[0])));
    chip.title = `${side.toUpperCase()}, position ${cell[0]}: ${what}`;
    chip.tabIndex = -1; // one Tab stop for all: the arrow keys walk
    chip.onclick = () => press(side, cell[0]);
    if (data.chosen[side] === cell[0]) { chip.classList.add('on'); chip.setAttribute('aria-pressed', 'true'); }
    chip.place = [side, cell[0]];
    chips.push([chip, side, cell[0]]);
    return chip;
  };
  data.pairs.forEach((pair) => {
    const column = make('div', 'col ' + pair.kind);
    for (const side of ['a', 'b']) {
      const word = make('span', 'word'); // of one token, or of several pieces
      if (!pair[side].length) word.append(make('span', 'none', '–'));
      for (const cell of pair[side]) word.append(token(cell, side, pair.what));
      column.append(word);
    }
    grid.append(column);
  });
  const bar = make('div', 'bar'), toggle = make('button', 'tool', '');
  const mark = () => {
    for (const [chip, side, pos] of chips)
      chip.classList.toggle('held', !!root.held && root.held.side === side && root.held.pos === pos);
    root.classList.toggle('fixing', !!root.fixing);
    toggle.textContent = root.fixing ? 'Done correcting' : 'Correct the alignment';
    hint();
  };
  toggle.onclick = () => { root.fixing = !root.fixing; root.held = null; mark(); };
  if (data.fixed || data.pairs.some((pair) => pair.kind !== 'equal')) bar.append(toggle);
  if (data.fixed) {
    const undo = make('button', 'tool', 'Undo my corrections');
    undo.onclick = () => setTriggerValue('fix', 'undo');
    bar.append(undo);
  }
  bar.append(say);
  const left = root.firstChild ? root.firstChild.scrollLeft : 0;
  const now = root.getRootNode().activeElement, held = root.contains(now) && now.place;
  root.replaceChildren(grid, bar);
  const stop = (chip) => { for (const [other] of chips) other.tabIndex = other === chip ? 0 : -1; };
  const find = ([side, pos]) => (chips.find(([, s, p]) => s === side && p === pos) || [])[0];
  const kept = held && find(held), first = kept || find(['a', data.chosen.a]) || (chips[0] || [])[0];
  if (first) stop(first);
  if (kept) kept.focus({ preventScroll: true }); // a rerun must not take the cursor away
  grid.onfocusin = (event) => { if (event.target.place) stop(event.target); };
  grid.onkeydown = (event) => {
    const chip = event.target, column = chip.place && chip.closest('.col');
    if (!column) return;
    const row = chips.filter(([, side]) => side === chip.place[0]).map(([one]) => one), at = row.indexOf(chip);
    const other = [...column.querySelectorAll('.chip')].find((one) => one.place[0] !== chip.place[0]);
    const to = { ArrowRight: row[at + 1], ArrowLeft: row[at - 1], Home: row[0], End: row[row.length - 1],
      ArrowUp: chip.place[0] === 'b' && other, ArrowDown: chip.place[0] === 'a' && other }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    if (to) to.focus();
  };
  const on = grid.querySelector('.on'); // at first the chosen pair is in sight
  grid.scrollLeft = root.seen || !on ? left : on.parentElement.offsetLeft - grid.offsetLeft - grid.clientWidth + 90;
  root.seen = true;
  mark();
}
