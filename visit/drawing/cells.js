// What maps of cells share: elements, the theme, fading edges, and the arrow keys. Put before a component's own script.

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

/** An edge beyond which a map goes on fades; at the left, where the names of the rows stay, they cast a shadow. */
function edges(frame) {
  const { scrollLeft, scrollTop, scrollWidth, scrollHeight, clientWidth, clientHeight, classList } = frame;
  classList.toggle("left", scrollLeft > 4);
  classList.toggle("right", scrollLeft < scrollWidth - clientWidth - 4);
  classList.toggle("below", scrollTop < scrollHeight - clientHeight - 4);
}

/** Arrows go from cell to cell, Home and End to the ends of a row (with Ctrl: of the map); one cell at a time can be
 *  reached by Tab. `rows`: the cells of every row, undefined where a place is empty. True where the key was one. */
function walk(event, rows) {
  const down = rows.findIndex((cells) => cells.includes(event.target));
  if (down < 0 || event.altKey || event.metaKey) return false;
  const right = rows[down].indexOf(event.target);
  const last = (cells) => cells.filter(Boolean).at(-1), first = (cells) => cells.find(Boolean);
  const beside = (cells, place) => cells && (cells[place] || last(cells.slice(0, place)) || first(cells));
  const next = {
    ArrowRight: () => first(rows[down].slice(right + 1)),
    ArrowLeft: () => last(rows[down].slice(0, right)),
    ArrowDown: () => beside(rows[down + 1], right),
    ArrowUp: () => beside(rows[down - 1], right),
    Home: () => first(event.ctrlKey ? rows[0] : rows[down]),
    End: () => last(event.ctrlKey ? rows.at(-1) : rows[down]),
  }[event.key];
  if (!next) return false;
  event.preventDefault();
  const cell = next();
  if (cell && cell !== event.target) reach(event.target, cell);
  return true;
}

/** The one Tab stop moves from a cell to another, with the focus, and into sight. */
function reach(before, cell) {
  before.tabIndex = -1;
  cell.tabIndex = 0;
  cell.focus({ preventScroll: true });
  cell.scrollIntoView({ block: "nearest", inline: "nearest" });
}
