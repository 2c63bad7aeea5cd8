// The live flow graph: hover, selection, inspector, zoom, keyboard, search and tracing over a drawing made in Python.
// One file, no build step. Streamlit calls the default export with every rerun; a stand-alone page calls it once.
// Nothing is ever parsed as HTML: the drawing is parsed as XML, which runs no scripts, and texts go through textContent.

const NS = "http://www.w3.org/2000/svg";
const mounted = new WeakMap(); // root element -> its view, so that a rerun updates and never builds twice
const together = new Set(); // views that light up together, when their data name the same group
let pointer = ""; // where the pointer was last, so that what scrolls under a resting one is not taken for a move
addEventListener("pointermove", (event) => { pointer = event.clientX + " " + event.clientY; }, { passive: true });

export default function flow(component) {
  const { data, parentElement, setStateValue, setTriggerValue } = component;
  const root = parentElement.querySelector(".visit");
  if (!root || !data || !(data.svg || data.views)) return;
  let view = mounted.get(root);
  if (!view) {
    mounted.set(root, (view = build(root)));
    for (const other of together) if (!other.root.isConnected) together.delete(other);
    together.add(view);
  }
  view.report = (id) => setStateValue && setStateValue("selected", id);
  view.act = (action) => setTriggerValue && setTriggerValue("action", action);
  view.tellLook = (look) => setTriggerValue && setTriggerValue("look", look);
  update(view, data.views ? drawn(data, 0) : data);
}

function make(tag, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
}

function shape(tag, attributes) {
  const element = document.createElementNS(NS, tag);
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  return element;
}

// ---- the page around the drawing --------------------------------------------------------------------------------------

function build(root) {
  const view = { root, zoom: 1, selected: null, sticky: null, sent: [], looks: [], fromPython: undefined, svg: null, ring: shape("rect", {}) };
  const bar = make("div", "bar");
  view.search = make("input");
  view.search.type = "search";
  view.search.maxLength = 100;
  view.search.placeholder = "Find a word"; // all that fits on a phone
  view.search.title = "Find a word in any top 10";
  view.search.setAttribute("aria-label", view.search.title);
  view.found = make("span", "found");
  view.found.setAttribute("role", "status");
  const smaller = make("button", "", "−"), reset = make("button", "", "100 %"), larger = make("button", "", "+");
  smaller.setAttribute("aria-label", "zoom out");
  larger.setAttribute("aria-label", "zoom in");
  view.percent = reset;
  view.choice = make("select");
  view.choice.title = "What is unfolded";
  view.choice.setAttribute("aria-label", view.choice.title);
  view.choice.onchange = () => update(view, drawn(view.data, +view.choice.value));
  bar.append(view.search, view.found, view.choice, smaller, reset, larger);
  view.stage = make("div", "stage");
  view.frame = make("div", "frame");
  view.inspector = make("aside", "inspector");
  view.inspector.hidden = true;
  view.inspector.setAttribute("aria-live", "polite");
  view.stage.append(view.frame, view.inspector);
  view.notes = make("details", "notes");
  view.legend = make("div", "legend");
  view.caption = make("div", "caption");
  view.table = make("details", "table");
  view.table.append(make("summary", "", "The same as a table"));
  view.table.ontoggle = () => { table(view); told(view); };
  view.tip = make("div", "tip");
  const probe = make("i"); // its colour follows the page's background: the event below says that the theme has changed
  probe.style.cssText = "position:absolute;width:0;height:0;color:var(--st-background-color,Canvas);transition:color 1ms";
  view.notes.append(make("summary", "", "What colours and widths mean"), view.legend, view.caption);
  root.replaceChildren(bar, view.stage, view.notes, view.table, view.tip, probe);
  view.probe = probe;
  probe.addEventListener("transitionend", () => theme(view));
  smaller.onclick = () => zoom(view, view.zoom / 1.2);
  larger.onclick = () => zoom(view, view.zoom * 1.2);
  reset.onclick = () => zoom(view, 1);
  view.search.oninput = () => { search(view); told(view); };
  view.frame.addEventListener("scroll", () => { pin(view); if (view.leads) follow(view); }, { passive: true });
  new ResizeObserver(() => pin(view)).observe(view.frame);
  listen(view);
  return view;
}

/** Light or dark, by how bright the page's background is; transparent pages count as what the system prefers. */
function theme(view) {
  const [r, g, b, a] = (getComputedStyle(view.probe).color.match(/[\d.]+/g) || [255, 255, 255]).map(Number);
  const given = getComputedStyle(view.root).getPropertyValue("--st-background-color");
  const dark = given ? 0.299 * r + 0.587 * g + 0.114 * b < 128 : matchMedia("(prefers-color-scheme: dark)").matches;
  view.root.classList.toggle("dark", dark && a !== 0);
  view.root.classList.toggle("light", !(dark && a !== 0));
}

function update(view, data) {
  theme(view);
  for (const name of ["safe", "paper"]) view.root.classList.toggle(name, name === (data.palette || "safe"));
  if (!view.data || view.data.svg !== data.svg) redraw(view, data);
  view.data = data;
  chooser(view);
  const folds = data.actions || (data.views || []).length > 1;
  view.names.classList.toggle("act", folds);
  if (view.group !== data.group) { // beside another drawing the legend is folded away: it would stand there twice
    view.group = data.group;
    view.notes.open = !data.group;
    view.notes.classList.toggle("fixed", !data.group);
  }
  if (folds) handles(view);
  if (data.selected !== view.fromPython) {
    view.fromPython = data.selected;
    const answered = view.sent.indexOf(data.selected); // an answer to a click, perhaps not to the last one
    view.sent = answered < 0 ? [] : view.sent.slice(answered + 1);
    if (answered < 0) {
      select(view, data.selected, false);
      // chosen in a sentence or a table of the page: bring the drawing into sight, but not when a page opens
      if (view.drawn && data.selected) view.stage.scrollIntoView({ block: "nearest", behavior: "smooth" });
    }
  } else if (view.selected) show(view);
  looked(view, data.look);
  pointAt(view, data.meant || []);
  view.drawn = true;
}

// ---- how it is looked at: zoom, the word looked for, a sum traced back, the table; Python keeps it in the address ------

function look(view) {
  const traced = view.tracedFrom ? shared(view, view.tracedFrom) : "";
  return { zoom: Math.round(100 * view.zoom), find: view.search.value, traced, table: view.table.open };
}

const asText = ({ zoom, find, traced, table }) => JSON.stringify([zoom, find, traced, table]);

/** Tell Python, when the hand has come to rest. */
function told(view) {
  if (!view.tellLook || !view.data.look) return;
  clearTimeout(view.telling);
  view.telling = setTimeout(() => {
    const now = look(view), text = asText(now);
    if (text === (view.looks.at(-1) ?? asText(view.data.look))) return;
    view.looks.push(text);
    view.tellLook(now);
  }, 400);
}

/** What Python says of it; an answer to what was told changes nothing, for the hand may have gone on. */
function looked(view, wanted) {
  const text = wanted && asText(wanted);
  if (!wanted || text === view.lookedAt) return;
  view.lookedAt = text;
  const answered = view.looks.indexOf(text);
  view.looks = answered < 0 ? [] : view.looks.slice(answered + 1);
  if (answered >= 0) return;
  const from = wanted.traced && view.twins.get(wanted.traced);
  if (look(view).zoom !== wanted.zoom) { zoom(view, wanted.zoom / 100, true); pin(view); }
  if (!wanted.traced && view.tracedFrom) showAll(view);
  if (view.search.value !== wanted.find) { view.search.value = wanted.find; search(view); }
  if (wanted.traced && look(view).traced !== wanted.traced) traceFrom(view, from === undefined ? wanted.traced : view.data.nodes[from].id);
  if (view.table.open !== wanted.table) view.table.open = wanted.table;
}

/** What a guide or a lesson points at: ringed, in sight, and all else dimmed while nothing is pointed at by hand. */
function pointAt(view, ids) {
  const nodes = new Set(ids.map((id) => view.index.get(id)).filter((i) => i !== undefined && view.groups[i]));
  const edges = new Set(view.data.links.flatMap((link, e) => (nodes.has(link[0]) || nodes.has(link[1]) ? [e] : [])));
  const before = view.said;
  view.said = [...nodes].length ? JSON.stringify([ids, view.data.legend.caption]) : "";
  if (!nodes.size && !view.meant) return;
  view.meant = nodes.size ? { nodes, edges } : null;
  light(view, view.current === null ? null : pathOf(view, view.current));
  for (const ring of view.svg.querySelectorAll(".ring.meant")) ring.remove();
  for (const i of nodes) view.lit.after(ringOf(view, i, 5, "ring meant"));
  if (view.said && view.said !== before) for (const i of [...nodes].reverse()) reveal(view, i);
}

// ---- a file with several drawings, as there is no Python that could make another -------------------------------------

/** One of a file's drawings as Python would have sent it: the entries of its nodes stand in the file once for all. */
function drawn(file, n) {
  const one = file.views[n];
  return { ...file, ...one, shown: n, nodes: one.nodes.map((i) => file.entries[i]) };
}

/** The list of a file's drawings, beside the search. */
function chooser(view) {
  const views = view.data.views || [];
  view.choice.hidden = views.length < 2;
  if (view.choice.childElementCount !== views.length)
    view.choice.replaceChildren(...views.map((one, n) => Object.assign(make("option", "", one.name), { value: n })));
  view.choice.value = view.data.shown;
}

/** The drawing with a block's next level that is most like the one on screen. */
function nextView(view, layer) {
  const levels = ["states", "words", "everything"], { views, shown } = view.data, now = views[shown].levels;
  const alike = (one) => Object.keys(now).filter((other) => one.levels[other] === now[other]).length;
  for (const turn of [1, 2]) {
    const wanted = levels[(levels.indexOf(now[layer]) + turn) % 3];
    const found = views.map((one, n) => n).filter((n) => views[n].levels[layer] === wanted);
    if (found.length) return found.reduce((best, n) => (alike(views[n]) > alike(views[best]) ? n : best));
  }
  return shown;
}

/** Titles of blocks become handles that fold and open them. */
function handles(view) {
  for (const title of view.names.querySelectorAll("[data-layer]:not(:has(title))")) {
    title.textContent = (title.textContent.startsWith("block") ? "▾ " : "▸ ") + title.textContent;
    const hint = shape("title", {});
    hint.textContent = `Block ${title.dataset.layer}: states, words, everything (or press F on a node)`;
    title.append(hint);
  }
}

function redraw(view, data) {
  const parsed = new DOMParser().parseFromString(data.svg, "image/svg+xml");
  if (parsed.querySelector("parsererror")) throw new Error("visit: the drawing is not well-formed");
  const before = anchor(view);
  // another model, prompt, position or target: a place in the drawing before it means nothing here
  const fresh = !view.svg || view.data.legend.caption !== data.legend.caption;
  const open = new Set(fresh ? [] : view.data.open.map((block) => block[0]));
  const svg = document.adoptNode(parsed.documentElement);
  view.data = data;
  view.svg = svg;
  view.width = +svg.getAttribute("width");
  view.height = +svg.getAttribute("height");
  view.groups = new Array(data.nodes.length);
  view.index = new Map();
  data.nodes.forEach((node, i) => view.index.set(node.id, i));
  view.twins = new Map(data.nodes.map((node, i) => [shared(view, node.id), i]));
  for (const group of svg.querySelectorAll(".n[data-i]")) view.groups[+group.dataset.i] = group;
  view.paths = new Map();
  for (const path of svg.querySelectorAll("path[data-e]")) view.paths.set(+path.dataset.e, path);
  view.into = data.nodes.map(() => []);
  view.out = data.nodes.map(() => []);
  for (let i = 0; i < data.junctions; i++) { view.into.push([]); view.out.push([]); }
  data.links.forEach((link, e) => { view.out[link[0]].push(e); view.into[link[1]].push(e); });
  view.names = svg.querySelector(".names");
  view.columns = svg.querySelector(".columns");
  view.veil = shape("rect", { class: "veil", width: "100%", height: "100%" });
  view.lit = shape("g", { class: "lit" });
  view.names.before(view.veil, view.lit); // names stay readable over what is dimmed
  svg.setAttribute("role", "group");
  svg.setAttribute("aria-label", "Flow graph. Left and right follow edges, up and down move in a column, Enter selects" +
    (data.actions || data.views ? ", F folds or opens the block." : "."));
  view.frame.replaceChildren(svg);
  view.sticky = null;
  view.current = null;
  zoom(view, view.zoom, true);
  if (fresh) centre(view, data.open[0] || data.rise);
  else if (before && view.index.has(before.id)) view.frame.scrollLeft += place(view, view.index.get(before.id))[0] - before.x;
  const opened = data.open.find((block) => !open.has(block[0]));
  if (!fresh && opened && !seen(view, opened)) centre(view, opened);
  if (view.selected && !view.index.has(view.selected)) { view.selected = null; view.inspector.hidden = true; }
  mark(view);
  stopAt(view, view.index.get(view.selected) ?? 0);
  legend(view, data.legend);
  table(view);
  if (view.search.value) search(view);
  else if (view.tracedFrom) traceFrom(view, view.tracedFrom);
}

/** A node to hold on to while the drawing changes: the selected one, else the visible state nearest the left edge. */
function anchor(view) {
  if (!view.svg) return null;
  const at = (i) => ({ id: view.data.nodes[i].id, x: place(view, i)[0] });
  if (view.selected && view.index.has(view.selected)) return at(view.index.get(view.selected));
  let best = null;
  view.groups.forEach((group, i) => {
    if (!group || !group.classList.contains("state")) return;
    const here = at(i);
    if (here.x >= 0 && (!best || here.x < best.x)) best = here;
  });
  return best;
}

/** Scroll the frame until an open block [layer, left, right] stands in its middle, or begins at its left edge with the
 *  last whole pills before it, where there is no more room. */
function centre(view, block) {
  const frame = view.frame, room = frame.clientWidth / view.zoom;
  if (!block) { frame.scrollLeft = 0; return; }
  const [, left, right, start] = block;
  const middle = (left + right - room) / 2;
  frame.scrollLeft = view.zoom * (frame.clientWidth < 700 ? left : Math.min(middle, start));
}

/** Whether the beginning of an open block is on screen. */
function seen(view, block) {
  const x = block[1] * view.zoom - view.frame.scrollLeft;
  return x >= 0 && x < view.frame.clientWidth - 200;
}

/** Scroll the frame, never the page, until the selected node is seen, and no further. */
function reveal(view, i = view.index.get(view.selected)) {
  const frame = view.frame;
  if (i === undefined || !view.groups[i]) return;
  const [x, y] = place(view, i), right = frame.clientWidth - 160, bottom = frame.clientHeight - 40;
  if (x < 20 || x > right) frame.scrollLeft += x - (x < 20 ? 20 : right);
  if (y < 30 || y > bottom) frame.scrollTop += y - (y < 30 ? 30 : bottom);
}

/** Top left corner of a node's box in pixels of the frame. */
function place(view, i) {
  const box = view.groups[i].firstChild;
  const x = +box.getAttribute("x") * view.zoom - view.frame.scrollLeft;
  return [x, +box.getAttribute("y") * view.zoom - view.frame.scrollTop];
}

function zoom(view, k, quiet) {
  view.zoom = Math.min(400, Math.max(20, Math.round(100 * k))) / 100; // whole percents, which an address holds
  view.svg.style.width = view.width * view.zoom + "px";
  view.svg.style.height = view.height * view.zoom + "px";
  view.percent.textContent = Math.round(100 * view.zoom) + " %";
  if (!quiet) { pin(view); follow(view); told(view); }
}

/** Column names stay on top while the rows scroll under them; an edge beyond which the drawing goes on fades. */
function pin(view) {
  if (!view.columns) return;
  const frame = view.frame, hidden = frame.scrollWidth - frame.clientWidth;
  frame.classList.toggle("before", frame.scrollLeft > 4);
  frame.classList.toggle("after", frame.scrollLeft < hidden - 4);
  const down = Math.max(0, view.frame.scrollTop / view.zoom - (+view.columns.dataset.top - 4));
  view.columns.setAttribute("transform", `translate(0 ${down.toFixed(1)})`);
  view.columns.classList.toggle("pinned", down > 0);
}

// ---- light: hover, search, trace --------------------------------------------------------------------------------------

/** Nodes and links on the way through node i. Beyond a state of the stream only the stream itself is followed, or
 *  everything would light up. Lines that only read (multiply, norm) lead upstream to what was read, and downstream from
 *  nodes that act through nothing else. */
function pathOf(view, i) {
  const nodes = new Set([i]), edges = new Set();
  walk(view, i, view.into, 0, () => true, nodes, edges);
  walk(view, i, view.out, 1, (at, link) => at === i || link[2] === "a" || link[2] === "r" || link[4] || reads(view, at), nodes, edges);
  return { nodes, edges };
}

function walk(view, start, table, end, follow, nodes, edges) {
  const links = view.data.links, stack = [start], seen = new Set(stack);
  while (stack.length) {
    const at = stack.pop(), node = view.data.nodes[at], passing = at !== start && node && node.stream;
    for (const e of table[at]) {
      const link = links[e], next = link[end];
      if ((passing && link[2] !== "r" && !link[4]) || !follow(at, link)) continue;
      edges.add(e);
      nodes.add(next);
      if (!seen.has(next)) { seen.add(next); stack.push(next); }
    }
  }
}

/** Whether a node acts only through lines that read: a norm, a query, a key, a neuron's reading, a splitting point. */
function reads(view, i) {
  const node = view.data.nodes[i];
  return !node || node.reads;
}

function light(view, lit) {
  lit = lit || view.sticky || view.meant;
  view.svg.classList.toggle("dim", !!lit);
  if (!lit) { view.lit.replaceChildren(); return; }
  const copies = document.createDocumentFragment();
  for (const [e, path] of view.paths) if (lit.edges.has(e)) copies.append(path.cloneNode());
  const kept = view.index.get(view.selected); // a selection is never dimmed
  for (const i of kept === undefined ? lit.nodes : new Set([...lit.nodes, kept])) if (view.groups[i]) {
    const copy = view.groups[i].cloneNode(true);
    copy.removeAttribute("tabindex");
    copies.append(copy);
  }
  view.lit.replaceChildren(copies);
}

function hover(view, i) {
  if (view.current === i) return;
  view.current = i;
  light(view, i === null ? null : pathOf(view, i));
  tip(view, i);
  if (!view.data.group) return;
  const id = i === null ? null : shared(view, view.data.nodes[i].id);
  for (const other of beside(view)) {
    const same = other.twins.get(id);
    light(other, same === undefined ? null : pathOf(other, same));
  }
}

/** The other drawings of this one's group. */
function beside(view) {
  for (const other of together) if (!other.root.isConnected) together.delete(other);
  if (!view.data || !view.data.group) return [];
  return [...together].filter((other) => other !== view && other.data && other.data.group === view.data.group);
}

/** A node's name in all drawings of a group: its own id, unless Python says otherwise. */
function shared(view, id) {
  return (view.data.names || {})[id] || id;
}

/** Scrolled or zoomed here, scrolled or zoomed there. */
function follow(view) {
  for (const other of beside(view)) {
    if (other.zoom !== view.zoom) zoom(other, view.zoom, true);
    const { scrollLeft, scrollTop } = view.frame, frame = other.frame;
    if (Math.abs(frame.scrollLeft - scrollLeft) > 1) frame.scrollLeft = scrollLeft;
    if (Math.abs(frame.scrollTop - scrollTop) > 1) frame.scrollTop = scrollTop;
  }
}

function tip(view, i) {
  const node = i === null ? null : view.data.nodes[i];
  clearTimeout(view.waiting);
  view.tip.style.display = "none";
  if (node) view.waiting = setTimeout(() => showTip(view, node, i), 350);
}

function showTip(view, node, i) {
  if (!view.groups[i]) return;
  view.tip.style.display = "block";
  const value = (n) => node.f[n][0] + (node.f2 ? ` → ${node.f2[n][0]}` : "");
  const numbers = view.data.facts.slice(0, 2).map((name, n) => `${name}: ${value(n)}`);
  view.tip.replaceChildren(make("div", "", node.title));
  const words = make("div");
  node.w.slice(0, 5).forEach((word, n) => words.append(n ? "  " : "", make("bdi", "", word)));
  if (node.w2) node.w2.slice(0, 4).forEach((word, n) => words.append(n ? "  " : "  →  ", make("bdi", "", word)));
  view.tip.append(words, make("div", "", numbers.join(" · ")));
  const box = view.groups[i].firstChild.getBoundingClientRect(), page = view.root.getBoundingClientRect();
  const enlarged = page.width / view.root.offsetWidth || 1; // by a style of the page around: projector mode
  const left = Math.min((box.left - page.left) / enlarged, view.root.offsetWidth - view.tip.offsetWidth - 4);
  view.tip.style.left = Math.max(0, left) + "px";
  const over = node.stream ? -box.height / enlarged - view.tip.offsetHeight - 12 : 0; // what a state is made of hangs under it
  view.tip.style.top = (box.bottom - page.top) / enlarged + 6 + over + "px";
}

/** Characters that were typed as a pill shows them: `·` for a space beside a word, `␣` for spaces alone. */
function spelled(text) {
  if (/^ +$/.test(text)) return text.length < 4 ? "␣".repeat(text.length) : "␣×" + text.length;
  return text.replace(/^ +| +$/g, (spaces) => "·".repeat(spaces.length));
}

/** Light the nodes with a word in their top 10; quotes ask for exactly these characters, spaces included. */
function search(view) {
  const typed = view.search.value;
  const quoted = typed.length > 2 && /^".*"$/.test(typed);
  const fold = (word) => word.replace(/^…|^·+|·+$/g, "").toLowerCase();
  const wanted = quoted ? spelled(typed.slice(1, -1)) : fold(typed.trim());
  const nodes = new Set();
  if (wanted) view.data.nodes.forEach((node, i) => {
    if (node.w.some((word) => (quoted ? word.replace(/^…(?=.)/, "") : fold(word)) === wanted)) nodes.add(i);
  });
  view.tracedFrom = null;
  view.found.textContent = wanted ? (nodes.size === 1 ? "1 node" : `${nodes.size} nodes`) : "";
  view.sticky = wanted ? { nodes, edges: new Set() } : null;
  light(view, null);
}

/** Where node i's sum came from: |contribution| divides every sum on the way back to what is no sum itself. Parts of a
 *  sum that this level of detail hides stay with the sum. Returns what to light, and the ends by falling share. */
function trace(view, i) {
  const links = view.data.links, share = new Map([[i, 1]]), edges = new Set(), ends = [];
  for (const at of upstream(view, i)) {
    const sums = addends(view, at), here = share.get(at) || 0;
    const given = sums.map((e) => links[e][3]), known = given.some((c) => c !== null);
    const sizes = given.map((c) => (known ? Math.abs(c || 0) : 1));
    const node = view.data.nodes[at] || { f: [] };
    const whole = node.kept === undefined ? parseFloat(node.f[5]) : node.d;
    const hidden = known && whole === whole ? Math.abs(whole - given.reduce((sum, c) => sum + (c || 0), 0)) : 0;
    const total = sizes.reduce((sum, size) => sum + size, hidden > 0.02 * Math.abs(whole) ? hidden : 0);
    let left = here;
    sums.forEach((e, n) => {
      const part = total ? here * sizes[n] / total : 0, from = links[e][0];
      left -= part;
      share.set(from, (share.get(from) || 0) + part);
      if (part >= 0.03) edges.add(e);
    });
    if (left >= 0.005 && view.data.nodes[at]) ends.push([at, left]);
  }
  const nodes = new Set([i]);
  for (const [at, part] of share) if (part >= 0.03) nodes.add(at);
  ends.sort((a, b) => b[1] - a[1]);
  return { nodes, edges, ends: ends.slice(0, 10) };
}

/** The links whose vectors add up to a node; at the model's end, the one link that leads there. */
function addends(view, at) {
  const links = view.data.links, into = view.into[at];
  const sums = into.filter((e) => links[e][2] === "a" || links[e][2] === "r");
  return sums.length ? sums : into.filter((e) => links[e][4]);
}

/** Node i and all that its sum is made of, every node before what it is made of itself. */
function upstream(view, i) {
  const order = [], seen = new Set();
  const visit = (at) => {
    if (seen.has(at)) return;
    seen.add(at);
    for (const e of addends(view, at)) visit(view.data.links[e][0]);
    order.push(at);
  };
  visit(i);
  return order.reverse();
}

// ---- selection and inspector ------------------------------------------------------------------------------------------

function select(view, id, tell) {
  id = id === undefined || id === null || !view.index.has(id) ? null : id;
  if (tell && id !== view.selected) { view.sent.push(id); view.report(id); }
  view.selected = id;
  // chosen in a sentence, a table, a link: Tab leads to it, unless the reader is in the drawing
  if (id !== null && !view.frame.matches(":focus-within")) stopAt(view, view.index.get(id));
  if (view.svg.classList.contains("dim")) light(view, view.current === null ? null : pathOf(view, view.current));
  mark(view);
  show(view);
  reveal(view); // the inspector takes room, perhaps the node's
}

function mark(view) {
  for (const group of view.svg.querySelectorAll(".sel")) group.classList.remove("sel");
  const i = view.index.get(view.selected);
  view.ring.remove();
  if (!view.groups[i]) return;
  for (const group of view.svg.querySelectorAll(`[data-i="${i}"]`)) group.classList.add("sel");
  view.ring = ringOf(view, i, 3, "ring");
  view.lit.after(view.ring);
}

/** A ring around a node's box, so many pixels from it. */
function ringOf(view, i, away, name) {
  const box = view.groups[i].firstChild, at = (side, more) => +box.getAttribute(side) + more;
  return shape("rect", { class: name, x: at("x", -away), y: at("y", -away), width: at("width", 2 * away), height: at("height", 2 * away), rx: at("rx", away) });
}

function show(view) {
  const node = view.data.nodes[view.index.get(view.selected)];
  view.inspector.hidden = !node;
  if (!node) return;
  const close = make("button", "close", "×");
  close.setAttribute("aria-label", "close the inspector");
  close.onclick = () => { showAll(view); select(view, null, true); told(view); };
  const acts = make("div", "acts");
  const start = make("button", "start", "Start here: trace back");
  start.onclick = () => { traceFrom(view); told(view); };
  acts.append(start);
  if (view.data.actions && node.pin) for (const name of ["keep", "hide"]) {
    const button = make("button", "", name === "keep" ? "Always show" : "Hide");
    button.onclick = () => view.act({ do: name, id: node.id });
    acts.append(button);
  }
  if (view.data.actions && node.recall && !/^held:/.test(node.id)) {
    const button = make("button", "", "Open in attention memory");
    button.onclick = () => view.act({ do: "memory", id: node.id });
    acts.append(button);
  }
  if (view.data.actions && node.part && !/^held:/.test(node.id)) {
    const button = make("button", "", "Take it out: what if?");
    button.onclick = () => view.act({ do: "without", id: node.id });
    acts.append(button);
  }
  view.traced = make("div");
  view.inspector.replaceChildren(close, make("h3", "", node.title), make("p", "", node.how + (node.lens ? view.data.lens : "")), ...(node.kept === undefined ? [words(view, node.w, node.p, node.k), facts(view, node)] : bothSides(view, node)), acts, view.traced);
  if (node.b.length && node.kept === undefined) view.inspector.append(make("h4", "", "The least probable words"), words(view, node.b, [], node.k.slice(node.w.length)));
  ends(view);
}

/** The node's numbers; of a difference, both sides' in two columns. */
function facts(view, node) {
  const list = make("dl", node.f2 ? "both" : "");
  if (node.f2) list.append(make("dt"), make("dd", "", "A"), make("dd", "", "B"));
  node.f.forEach((fact, n) => {
    const name = make("dt", "", view.data.facts[n]);
    name.title = view.data.terms[n];
    list.append(name, ...[fact, ...(node.f2 ? [node.f2[n]] : [])].map(([value, reason]) => {
      const number = make("dd", "", value.replace(/^-/, "−"));
      if (reason) { number.title = reason; if (!node.f2) number.append(" ", make("small", "", "(" + reason + ")")); }
      return number;
    }));
  });
  return list;
}

/** Both sides of a node of a difference: words beside words, numbers beside numbers, and what changed. */
function bothSides(view, node) {
  const columns = make("div", "sides");
  for (const [name, tokens, probs, kinds] of [["A", node.w, node.p, node.k], ["B", node.w2, node.p2, node.k2]]) {
    const side = make("div");
    side.append(make("h4", "", name), tokens.length ? words(view, tokens.slice(0, 6), probs, kinds) : make("p", "", "absent"));
    columns.append(side);
  }
  const parts = [make("p", "kept", node.kept), columns, facts(view, node)];
  if (node.d !== null) parts.push(make("p", "", `B − A: ${(node.d < 0 ? "−" : "+") + Math.abs(node.d).toFixed(3)} logits, each towards its own side's target`));
  return parts;
}

/** Words with their probabilities as bars; without probabilities, words alone. White space and bytes are grey; where
 *  whole words are asked for, the others are left out and counted. */
function words(view, tokens, probs, kinds) {
  const list = make("div");
  let hidden = 0;
  const top = Math.max(...probs.map((p) => p || 0), 1e-12);
  tokens.forEach((token, n) => {
    const p = probs[n], kind = kinds[n];
    if (view.data.whole && kind !== "w") { hidden++; return; }
    const line = row(token, p === null || p === undefined ? "" : percent(p), (p || 0) / top, "div");
    line.children[1].classList.toggle("q", kind === "q");
    list.append(line);
  });
  if (hidden) list.append(make("p", "", `Whole words only: ${hidden} of ${tokens.length} left out`));
  return list;
}

function row(text, number, part, tag) {
  const line = make(tag, "row"), bar = make("i");
  bar.style.width = 100 * part + "%";
  line.append(bar, make("bdi", "", text), make("span", "", number));
  return line;
}

/** As `visit.text.numbers.percent`, and finer below 0.1 %. */
function percent(p) {
  const x = 100 * p;
  if (p > 0 && x < 0.001) return "< 0.001 %";
  if (p < 1 && x > 99.9) return "> 99.9 %";
  return (x < 0.1 && x > 0 ? x.toPrecision(1) : x.toFixed(x < 9.95 || (x >= 99 && x < 100) ? 1 : 0)) + " %";
}

/** Light what node `id`'s sum came from. What is not in this drawing is lit when it is. */
function traceFrom(view, id = view.selected) {
  const i = view.index.get(id);
  view.tracedFrom = id;
  view.search.value = view.found.textContent = "";
  view.sticky = i === undefined ? null : trace(view, i);
  light(view, null);
  ends(view);
}

/** The list of where a traced sum came from, in the inspector of its node. */
function ends(view) {
  if (!view.traced || view.tracedFrom !== view.selected || !view.sticky || !view.sticky.ends) return;
  const found = view.sticky;
  view.traced.replaceChildren(make("h4", "", "Came from (share of the |contributions|)"));
  for (const [i, part] of found.ends) {
    const node = view.data.nodes[i];
    const whole = addends(view, i).length ? node.title + ", parts not drawn" : node.title;
    const line = row(whole, percent(part), part / (found.ends[0][1] || 1), "a");
    line.onclick = () => select(view, node.id, true);
    view.traced.append(line);
  }
  const clear = make("button", "", "Show all again");
  clear.onclick = () => { showAll(view); told(view); };
  view.traced.append(clear);
}

/** Nothing is traced or looked for. */
function showAll(view) {
  view.tracedFrom = view.sticky = null;
  view.search.value = view.found.textContent = "";
  if (view.traced) view.traced.replaceChildren();
  light(view, null);
}

// ---- listeners: on the frame, which lives as long as the view ---------------------------------------------------------

function indexAt(event) {
  const group = event.target.closest ? event.target.closest(".nodes .n") : null;
  return group ? +group.dataset.i : null;
}

function listen(view) {
  const frame = view.frame;
  let drag = null;
  // of two drawings the one that is used leads; the other's own scroll events, which answer to it, lead nowhere
  const lead = () => { for (const other of together) other.leads = other === view; };
  for (const name of ["pointerenter", "pointerdown", "wheel", "focusin"]) frame.addEventListener(name, lead, { passive: true });
  frame.addEventListener("pointerleave", () => { if (!drag) hover(view, null); });
  frame.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse" && event.button === 0)
      drag = { x: event.clientX, y: event.clientY, left: frame.scrollLeft, top: frame.scrollTop, moved: false };
  });
  frame.addEventListener("pointermove", (event) => {
    // not "pointerover": that also comes when the page scrolls, or is drawn anew, under a pointer that rests
    if (!drag && event.pointerType !== "touch" && pointer !== event.clientX + " " + event.clientY) hover(view, indexAt(event));
    if (!drag) return;
    const dx = event.clientX - drag.x, dy = event.clientY - drag.y;
    if (!drag.moved && Math.hypot(dx, dy) > 4) {
      drag.moved = true;
      frame.setPointerCapture(event.pointerId);
      frame.classList.add("drag");
    }
    if (drag.moved) { frame.scrollLeft = drag.left - dx; frame.scrollTop = drag.top - dy; }
  });
  const drop = () => { view.dragged = drag && drag.moved; drag = null; frame.classList.remove("drag"); };
  frame.addEventListener("pointerup", drop);
  frame.addEventListener("pointercancel", drop);
  frame.addEventListener("click", (event) => {
    if (view.dragged) { view.dragged = false; return; }
    const i = indexAt(event);
    if (i !== null) {
      focusOn(view, i, false);
      if (event.pointerType === "touch") hover(view, i);
      select(view, view.data.nodes[i].id, true);
      return;
    }
    if (event.pointerType === "touch") hover(view, null);
    const title = event.target.closest && event.target.closest("[data-layer]");
    if (title) unfold(view, +title.dataset.layer);
  });
  frame.addEventListener("dblclick", () => zoom(view, 1));
  frame.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey && !event.altKey) return;
    event.preventDefault();
    const box = frame.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top, k = view.zoom;
    zoom(view, k * (event.deltaY < 0 ? 1.15 : 1 / 1.15));
    frame.scrollLeft = (frame.scrollLeft + x) * view.zoom / k - x;
    frame.scrollTop = (frame.scrollTop + y) * view.zoom / k - y;
  }, { passive: false });
  frame.addEventListener("focusin", (event) => {
    const i = indexAt(event);
    if (i === null || !event.target.matches(":focus-visible")) return;
    hover(view, i);
    view.lit.after(ringOf(view, i, 3, "ring focus")); // above what dims the others
  });
  frame.addEventListener("focusout", () => {
    hover(view, null);
    for (const ring of view.svg.querySelectorAll(".ring.focus")) ring.remove();
  });
  frame.addEventListener("keydown", (event) => key(view, event));
}

/** A block's next level of detail: from Python, or among the drawings of a file. */
function unfold(view, layer) {
  if (!Number.isInteger(layer)) return;
  if (view.data.actions) view.act({ do: "detail", layer });
  else if (view.data.views) update(view, drawn(view.data, nextView(view, layer)));
}

function key(view, event) {
  const i = indexAt(event);
  if (i === null || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "f") unfold(view, parseInt(view.data.nodes[i].id.slice(1)));
  else if (event.key === "Enter" || event.key === " ") select(view, view.data.nodes[i].id, true);
  else if (event.key === "Escape") { showAll(view); select(view, null, true); hover(view, null); told(view); }
  else {
    const next = step(view, i, event.key);
    if (next === undefined) return;
    if (next !== null) focusOn(view, next, true);
  }
  event.preventDefault();
}

/** Where an arrow leads: along the widest edge that goes that way, or to the neighbour in the same column. */
function step(view, i, name) {
  const forward = name === "ArrowRight";
  if (forward || name === "ArrowLeft") {
    const table = forward ? view.out : view.into, end = forward ? 1 : 0;
    let at = i, best = null;
    for (let hops = 0; hops < 3; hops++) {
      const edges = [...table[at]].sort((a, b) => width(view, b) - width(view, a));
      best = edges.length ? view.data.links[edges[0]][end] : null;
      if (best === null || view.groups[best]) return best;
      at = best; // a point where a line splits is no node
    }
    return null;
  }
  if (name !== "ArrowUp" && name !== "ArrowDown") return undefined;
  const down = name === "ArrowDown" ? 1 : -1, [x, y] = place(view, i);
  let best = null, nearest = Infinity;
  view.groups.forEach((group, j) => {
    const [left, top] = place(view, j), away = (top - y) * down;
    if (away > 0.5 && away + 8 * Math.abs(left - x) < nearest && Math.abs(left - x) < 60 * view.zoom) {
      nearest = away + 8 * Math.abs(left - x);
      best = j;
    }
  });
  return best;
}

function width(view, e) {
  const path = view.paths.get(e);
  return path ? +path.getAttribute("stroke-width") : 0;
}

/** The drawing's one stop of the Tab key. */
function stopAt(view, i) {
  const before = view.groups[view.cursor], group = view.groups[i], node = view.data.nodes[i];
  if (!group) return;
  if (before) before.removeAttribute("tabindex");
  view.cursor = i;
  group.setAttribute("tabindex", "0");
  group.setAttribute("role", "button");
  group.setAttribute("aria-label", `${node.title}: ${node.w[0] || ""}`);
}

function focusOn(view, i, go) {
  stopAt(view, i);
  const group = view.groups[i];
  group.focus({ preventScroll: true }); // after a click too: the arrows go on from there
  if (go) group.scrollIntoView({ block: "nearest", inline: "nearest" });
}

// ---- legend -----------------------------------------------------------------------------------------------------------

function legend(view, data) {
  const fill = make("span", "set");
  fill.append(make("b", "", data.fill_title));
  for (const [look, text] of data.fill) fill.append(make("span", "chip " + look, text));
  const widths = make("span", "set");
  widths.append(make("b", "", data.width_title));
  for (const [px, text] of data.widths) widths.append(labelled(sample("s", px, false), text));
  const signs = make("span", "set");
  for (const [look, dashed, text] of data.signs) signs.append(labelled(sample(look, 4, dashed), text));
  signs.append(labelled(make("span", "chip rest", "rest"), data.rest));
  signs.append(make("span", "word", data.sources));
  if (data.words) signs.append(make("span", "word", data.words));
  view.legend.replaceChildren(fill, widths, signs);
  view.caption.replaceChildren(...[data.caption, ...data.provenance].map((line) => make("div", "", line)));
}

/** The drawing's text alternative, made when it is opened. */
function table(view) {
  while (view.table.children.length > 1) view.table.lastChild.remove();
  if (!view.table.open) return;
  const rows = make("table"), line = (cells, tag) => {
    const row = make("tr");
    row.append(...cells.map((text) => make(tag, "", text)));
    return row;
  };
  rows.append(line(["node", "id", "top words", ...view.data.facts], "th"));
  const both = (one, two) => (two === undefined ? one : `${one} → ${two}`);
  for (const node of view.data.nodes)
    rows.append(line([node.title, node.id, both(node.w.slice(0, 3).join("  "), node.w2 && node.w2.slice(0, 3).join("  ")),
      ...node.f.map((fact, n) => both(fact[0], node.f2 && node.f2[n][0]))], "td"));
  view.table.append(rows);
}

/** A sample and its label, which stay on one line. */
function labelled(element, text) {
  const word = make("span", "word");
  word.append(element, " ", text);
  return word;
}

function sample(look, px, dashed) {
  const svg = shape("svg", { width: 26, height: 16, class: "key" });
  const path = shape("path", { d: "M0 8h26", class: look, "stroke-width": px });
  if (dashed) path.setAttribute("stroke-dasharray", "6 4");
  svg.append(path);
  return svg;
}
