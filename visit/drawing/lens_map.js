const mounted = new WeakMap(); // root -> what stays between reruns: which folds are open, where the cursor is
const NARROW = 560; // px: below it one column is shown as a list of blocks, with what its fills stand for

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".lensmap");
  let view = mounted.get(root);
  if (!view) {
    view = { open: new Set(), sent: [], frame: make("div", "sheet"), notes: make("div", "fine"), probe: make("i", "probe") };
    mounted.set(root, view);
    root.replaceChildren(view.frame, view.notes, view.probe);
    view.frame.addEventListener("scroll", () => { edges(view.frame); earlier(view); }, { passive: true });
    new ResizeObserver(() => {
      const narrow = root.clientWidth > 0 && root.clientWidth < NARROW;
      if (narrow !== view.narrow) { view.narrow = narrow; draw(view); }
      edges(view.frame);
      earlier(view);
    }).observe(root);
    view.probe.addEventListener("transitionend", () => theme(root, view.probe));
    view.frame.addEventListener("keydown", (event) => walk(event, lines(view)));
    view.narrow = root.clientWidth > 0 && root.clientWidth < NARROW;
  }
  view.pick = (n, row) => setTriggerValue("cell", { pos: data.positions[n], depth: row.depth, state: row.state });
  view.tell = () => {
    const open = [...view.open].sort((a, b) => a - b);
    view.sent.push(open.join(","));
    setTriggerValue("unfolded", open);
  };
  if (view.of !== data.of || data.unfolded !== view.fromPython) { // an answer to a click, perhaps not to the last one
    const answered = view.of === data.of ? view.sent.indexOf(data.unfolded) : -1;
    view.sent = answered < 0 ? [] : view.sent.slice(answered + 1);
    if (answered < 0) view.open = new Set((data.unfolded || "").split(",").filter(Boolean).map(Number));
    view.of = data.of;
    view.fromPython = data.unfolded;
  }
  const looked = data.of + data.chosen, moved = view.looked !== looked;
  if (moved) { view.looked = looked; view.column = data.heads[data.chosen] === undefined ? data.heads.length - 1 : data.chosen; }
  view.data = data;
  const meant = data.rows.find((row) => data.meant.includes(row.state));
  const hides = meant && data.folds.find((fold) => fold.first <= meant.depth && meant.depth <= fold.last);
  if (hides && view.meant !== meant.state) view.open.add(hides.first);
  view.meant = meant && meant.state;
  theme(root, view.probe);
  draw(view);
  if (moved) { // the column looked at is in sight where not all have room
    const name = view.frame.querySelector("thead .chosen"), { frame } = view;
    const right = name ? name.offsetLeft + name.offsetWidth - frame.clientWidth + 2 : 0;
    if (name && (frame.scrollLeft < right || frame.scrollLeft > name.offsetLeft - 110)) frame.scrollLeft = right;
  }
}

/** The buttons of every row, as the arrow keys find them. */
function lines(view) {
  return [...view.frame.querySelectorAll("tbody tr")].map((row) => [...row.querySelectorAll("button")]);
}

function part(tag, role, look, text) {
  const element = make(tag, look, text);
  element.setAttribute("role", role);
  return element;
}

function draw(view) {
  const { data, narrow } = view;
  const table = part("table", "grid", narrow ? "list" : ""), head = make("thead"), body = make("tbody");
  table.setAttribute("aria-label", `The stream, read after every block${narrow ? "" : " at every token"}. ` +
    "Arrow keys walk, Enter opens the block.");
  const names = part("tr", "row", "");
  names.append(part("th", "columnheader", "corner", "after"));
  const columns = narrow ? [view.column] : data.heads.map((name, n) => n);
  for (const n of columns) {
    const cell = part("th", "columnheader", n === data.chosen ? "chosen" : "");
    cell.title = `${data.heads[n]} (position ${data.positions[n]})`;
    cell.append(...(narrow ? stepper(view, n) : [make("bdi", "", data.heads[n])]));
    names.append(cell);
  }
  head.append(names);
  if (narrow) { // whose numbers stand beside the words
    const units = part("tr", "row", "units"), unit = part("th", "columnheader", "");
    unit.append(make("span", "", "reads"), make("span", "", data.title.replace(/^Fill: /, "")));
    units.append(part("th", "columnheader", "corner", ""), unit);
    head.append(units);
  }
  const inside = (depth) => data.folds.find((fold) => fold.first <= depth && depth <= fold.last);
  for (const row of data.rows) {
    const fold = inside(row.depth);
    if (fold && row.depth === fold.last) body.append(folded(view, fold, columns.length));
    if (!fold || view.open.has(fold.first)) body.append(whole(view, row, fold, columns));
  }
  table.append(head, body);
  table.style.setProperty("--columns", columns.length);
  const at = view.frame.getRootNode().activeElement, held = view.frame.contains(at) ? place(at) : "";
  view.frame.replaceChildren(table);
  const cells = lines(view).flat();
  const kept = held && [...view.frame.querySelectorAll("button")].find((cell) => place(cell) === held);
  const first = (cells.includes(kept) && kept) || ["td.at", "td.chosen"].map((look) => view.frame.querySelector(`${look} button`)).find(Boolean) || cells[0];
  if (first) first.tabIndex = 0;
  if (kept) kept.focus({ preventScroll: true }); // a rerun must not take the cursor away
  notes(view);
  edges(view.frame);
  earlier(view);
}

/** How many tokens lie to the left, out of sight: said above the names of the rows, and a click goes there. */
function earlier(view) {
  const { frame } = view, corner = frame.querySelector("thead .corner");
  if (!corner || view.narrow) return;
  const edge = frame.scrollLeft + corner.offsetWidth;
  const heads = [...frame.querySelectorAll("thead tr:first-child th:not(.corner)")];
  const hidden = heads.filter((head) => head.offsetLeft + head.offsetWidth / 2 < edge).length;
  if (corner.textContent === (hidden ? `◂ ${hidden} more` : "after")) return;
  corner.replaceChildren(hidden ? make("button", "", `◂ ${hidden} more`) : "after");
  if (!hidden) return;
  corner.firstChild.tabIndex = -1; // the arrow keys go there, too
  corner.firstChild.title = "Earlier tokens";
  corner.firstChild.onclick = () => { frame.scrollLeft = 0; };
}

/** The name of the one column, between what leads to its neighbours. */
function stepper(view, n) {
  const { heads, positions } = view.data, said = make("bdi", "", `${heads[n]} (${positions[n]})`);
  const step = (sign, by, what) => {
    const button = make("button", "step", sign);
    button.setAttribute("aria-label", what);
    button.disabled = heads[n + by] === undefined;
    button.onclick = () => { view.column += by; draw(view); };
    return button;
  };
  return [step("◂", -1, "the token before"), said, step("▸", 1, "the next token")];
}

/** Which cell a button stands in: the name of its row, and its number there. */
function place(button) {
  const row = button.closest("tr");
  return row ? `${row.querySelector("th").textContent}|${[...row.querySelectorAll("button")].indexOf(button)}` : "";
}

/** One row for several that say nothing; its words are the most frequent ones, in grey. */
function folded(view, fold, columns) {
  const open = view.open.has(fold.first), line = part("tr", "row", "fold"), name = part("th", "rowheader", "");
  const toggle = make("button", "", `${open ? "▾" : "▸"} ${fold.name}`);
  toggle.tabIndex = -1;
  toggle.title = `${fold.name} read ${fold.reads}. ${open ? "Fold them" : "Show them all"}`;
  toggle.setAttribute("aria-expanded", open);
  toggle.onclick = () => {
    if (open) view.open.delete(fold.first); else view.open.add(fold.first);
    view.tell();
    draw(view);
    view.frame.querySelector(`[data-fold="${fold.first}"]`).focus({ preventScroll: true });
  };
  toggle.dataset.fold = fold.first;
  name.append(toggle);
  line.append(name);
  const cell = part("td", "gridcell", "reads");
  cell.append(make("span", "", `${open ? "open" : "folded"}: ${fold.reads}`)); // in sight however the map is scrolled
  cell.colSpan = columns;
  cell.onclick = toggle.onclick;
  line.append(cell);
  return line;
}

function whole(view, row, fold, columns) {
  const { data, narrow } = view;
  const line = part("tr", "row", (fold ? "inside" : "") + (row.habit ? " habit" : ""));
  line.append(part("th", "rowheader", "", row.name));
  for (const n of columns) {
    const cell = row.cells[n], at = row.state === data.node && n === data.chosen;
    const box = part("td", "gridcell", (n === data.chosen ? "chosen" : "") + (at ? " at" : "") + (n === data.chosen && row.state === view.meant ? " meant" : ""));
    const button = make("button", `${cell.c}${cell.q ? " q" : ""}`);
    button.append(make("bdi", "", cell.w));
    if (narrow) button.append(make("span", "", cell.v));
    button.tabIndex = -1;
    button.title = cell.t;
    button.setAttribute("aria-label", cell.t);
    button.onclick = () => view.pick(n, row);
    box.append(button);
    line.append(box);
  }
  return line;
}

function notes(view) {
  const { data } = view, line = make("div", "fills");
  line.append(make("span", "", data.title));
  for (const [look, text] of data.fill) line.append(make("span", "chip " + look, text));
  const words = data.words.map(([sign, meaning]) => `${sign} ${meaning}`).join(" · ");
  view.notes.replaceChildren(line, make("div", "", words));
}
