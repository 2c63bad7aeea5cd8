const mounted = new WeakMap(); // root -> what stays between reruns: which folds are open, where the cursor is

function make(tag, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
}

/** Light or dark, by how bright the page's background is. */
function theme(root, probe) {
  const [r, g, b] = (getComputedStyle(probe).color.match(/[\d.]+/g) || [255, 255, 255]).map(Number);
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
  const at = view.frame.getRootNode().activeElement, held = view.frame.contains(at) ? place(at) : "";
  view.frame.replaceChildren(table);
  const cells = [...view.frame.querySelectorAll("button")];
  const kept = held && cells.find((cell) => place(cell) === held); // a rerun must not take the cursor away
  const first = kept || view.frame.querySelector("td.at button") || cells[0];
  if (first) first.tabIndex = 0;
  if (kept) kept.focus({ preventScroll: true });
  notes(view);
  edges(view);
}

/** Which cell a button stands in: the name of its row, and its number there. */
function place(button) {
  const row = button.closest("tr");
  return row ? `${row.querySelector("th").textContent}|${[...row.querySelectorAll("button")].indexOf(button)}` : "";
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
  const cell = make("td", "reads");
  cell.append(make("span", "", `${open ? "open" : "folded"}: ${fold.reads}`)); // in sight however the map is scrolled
  cell.colSpan = view.data.heads.length;
  cell.onclick = toggle.onclick;
  line.append(cell);
  return line;
}

function whole(view, row, fold) {
  const line = make("tr", (fold ? "inside" : "") + (row.habit ? " habit" : "")), name = make("th", "", row.name);
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
