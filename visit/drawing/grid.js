const mounted = new WeakMap(); // root -> what stays between reruns: where the cursor is

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".grid");
  let view = mounted.get(root);
  if (!view) {
    view = { frame: make("div", "sheet"), tip: make("div", "tip"), scale: make("div", "scale"), probe: make("i", "probe"), at: null };
    mounted.set(root, view);
    root.replaceChildren(view.frame, view.scale, view.tip, view.probe);
    view.frame.addEventListener("scroll", () => { edges(view.frame); hide(view); }, { passive: true });
    new ResizeObserver(() => edges(view.frame)).observe(view.frame);
    view.probe.addEventListener("transitionend", () => theme(root, view.probe));
    listen(view);
  }
  view.take = (id) => setTriggerValue("cell", id);
  theme(root, view.probe);
  if (view.drawn === JSON.stringify(data)) return;
  view.drawn = JSON.stringify(data);
  const fresh = view.of !== data.of;
  if (fresh) { view.of = data.of; view.at = null; }
  view.data = data;
  draw(view, root);
  if (fresh) requestAnimationFrame(() => show(view));
}

function draw(view, root) {
  const { data } = view, longest = Math.max(0, ...data.rows.flatMap((line) => line.cells.map((cell) => cell ? cell.w.length : 0)));
  const table = make("table", data.square ? "square" : longest > 7 ? "worded" : longest < 6 ? "short" : ""), head = make("thead"), body = make("tbody");
  table.classList.toggle("many", !data.square && data.rows.length > 16);
  table.classList.toggle("slim", data.square && data.rows.every((line) => line.name.length < 4));
  table.classList.toggle("fine", table.classList.contains("slim") && data.columns.length > 9);
  table.classList.toggle("deep", data.square && data.rows.length > 16 && data.rows.length !== data.columns.length);
  table.setAttribute("role", "grid");
  table.setAttribute("aria-label", `${data.label}. Arrow keys walk, Enter chooses.`);
  table.style.setProperty("--columns", data.columns.length);
  const names = row(make("tr"));
  names.append(header(data.corner, "columnheader", "corner"));
  data.columns.forEach((name, n) => names.append(header(name, "columnheader", n === data.column ? "looked" : "")));
  head.append(names);
  view.cells = data.rows.map((line, r) => {
    const element = row(make("tr", r === data.row ? "looked" : ""));
    element.append(header(line.name, "rowheader", ""));
    const cells = line.cells.map((cell, c) => {
      const box = make("td", c === data.column ? "looked" : "");
      if (!cell) { box.setAttribute("role", "gridcell"); element.append(box); return undefined; }
      box.className += ` cell ${cell.c}${cell.f ? " framed" : ""}${cell.m ? " marked" : ""}`;
      box.setAttribute("role", "gridcell");
      box.setAttribute("aria-label", cell.t.replaceAll("\n", "; "));
      if (cell.f) box.setAttribute("aria-selected", "true");
      box.append(make("bdi", "", cell.w));
      box.tabIndex = -1;
      box.place = [r, c];
      element.append(box);
      return box;
    });
    body.append(element);
    return cells;
  });
  table.append(head, body);
  view.scale.replaceChildren(...data.scale.map(([fill, words]) => make("span", `step ${fill}`, words)));
  if (data.mark) view.scale.append(make("i", "marked"), make("span", "", data.mark));
  const held = view.frame.contains(root.getRootNode().activeElement);
  view.frame.replaceChildren(table);
  hide(view);
  const at = view.at && view.cells[view.at[0]]?.[view.at[1]];
  const stop = at || view.frame.querySelector(".framed") || view.cells.flat().find(Boolean);
  if (stop) stop.tabIndex = 0;
  if (stop && held) stop.focus({ preventScroll: true }); // a rerun must not take the cursor away
  edges(view.frame);
}

/** What is looked at is in sight where not all has room: the frame scrolls, never the page. */
function show({ frame }) {
  const cell = frame.querySelector(".framed") || frame.querySelector("td.looked") || frame.querySelector("tr.looked td");
  if (!cell) return;
  const side = frame.querySelector("tbody th").offsetWidth, top = frame.querySelector("thead").offsetHeight;
  const right = cell.offsetLeft + cell.offsetWidth + 8 - frame.clientWidth, left = cell.offsetLeft - side - 8;
  const below = cell.offsetTop + cell.offsetHeight + 8 - frame.clientHeight, above = cell.offsetTop - top - 8;
  if (frame.scrollLeft < right || frame.scrollLeft > left) frame.scrollLeft = Math.max(0, Math.min(left, right));
  if (frame.scrollTop < below || frame.scrollTop > above) frame.scrollTop = Math.max(0, Math.min(above, below));
}

function row(element) { element.setAttribute("role", "row"); return element; }

function header(text, role, look) {
  const element = make("th", look);
  element.setAttribute("role", role);
  element.append(make("bdi", "", text));
  element.title = text;
  return element;
}

function listen(view) {
  const { frame } = view, cellOf = (event) => event.target.closest(".cell");
  const choose = (cell) => {
    view.at = cell.place;
    view.take(view.data.rows[cell.place[0]].cells[cell.place[1]].id);
  };
  frame.addEventListener("click", (event) => {
    const cell = cellOf(event);
    if (!cell) return;
    const stop = frame.querySelector('[tabindex="0"]');
    if (stop) stop.tabIndex = -1;
    cell.tabIndex = 0;
    choose(cell);
  });
  frame.addEventListener("keydown", (event) => {
    const cell = cellOf(event);
    if (!cell) return;
    if (event.key === "Escape") hide(view);
    else if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(cell); }
    else walk(event, view.cells);
  });
  frame.addEventListener("focusin", (event) => {
    const cell = cellOf(event);
    if (!cell) return;
    view.at = cell.place;
    if (cell.matches(":focus-visible")) tell(view, cell);
  });
  frame.addEventListener("focusout", () => hide(view));
  // a pointer that rests while the page scrolls under it asks nothing
  frame.addEventListener("pointermove", (event) => {
    const cell = event.pointerType === "mouse" && (event.movementX || event.movementY) ? cellOf(event) : null;
    if (cell && cell !== view.told) tell(view, cell); else if (!cell) hide(view);
  });
  frame.addEventListener("pointerleave", () => hide(view));
}

/** What a cell says, under it; above where there is no room. */
function tell(view, cell) {
  view.told = cell;
  const { tip, frame } = view, { t } = view.data.rows[cell.place[0]].cells[cell.place[1]];
  tip.replaceChildren(...t.split("\n").map((line, n) => make(n ? "div" : "b", "", line)));
  tip.style.display = "block";
  const box = cell.getBoundingClientRect(), around = frame.parentElement.getBoundingClientRect();
  const left = Math.max(0, Math.min(box.left - around.left, around.width - tip.offsetWidth));
  const above = box.bottom + tip.offsetHeight + 6 > innerHeight && box.top > tip.offsetHeight + 6;
  tip.style.left = `${left}px`;
  tip.style.top = `${(above ? box.top - tip.offsetHeight - 5 : box.bottom + 5) - around.top}px`;
}

function hide(view) {
  view.told = null;
  view.tip.style.display = "none";
}
