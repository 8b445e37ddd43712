"use strict";
// The module trees of the page, drawn from JSON row by row when the user opens them, and the filters.

const STEP = 200; // most rows that one module opens at once, and most rows of a filter
const AT_FIRST = 26; // most rows that are open when the page loads
const WRAPPED = ["base_layer", "original_module"]; // PEFT's wrappers remain closed: their row describes the adapter

const element = (tag, name, text) => {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
};
const svg = (tag, attributes) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
};
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 || word === "info" ? "" : "s"}`;

/** Return the parts of a query between dots. Numbers and * match layers, every other part matches a part of a name. */
const parsed = (text) => text.trim().toLowerCase().split(".").filter(Boolean);
const isNumber = (part) => /^\d+$/.test(part);

/** Return whether one part of a query matches one segment: {name, spans, extra}. */
function stands(part, segment) {
  if (segment.spans.length && part === "*") return true;
  if (segment.spans.length && isNumber(part)) return segment.spans.some(([first, last]) => first <= +part && +part <= last);
  if (segment.name === "*" && isNumber(part)) return true;
  return segment.name.includes(part) || segment.extra.some((word) => word.includes(part));
}
/** Return whether a query matches the last segments of a path. */
function matches(parts, path) {
  if (parts.length > path.length) return false;
  return parts.every((part, index) => stands(part, path[path.length - parts.length + index]));
}
const plain = (name) => ({ name: name.toLowerCase(), spans: [], extra: [] });
/** Return whether a query matches consecutive segments of a dotted path. */
function within(parts, path) {
  const segments = path.split(".").map(plain);
  return segments.some((_, end) => matches(parts, segments.slice(0, end + 1)));
}

class Tree {
  constructor(box) {
    this.box = box;
    this.number = box.dataset.tree;
    const data = JSON.parse(document.getElementById(`tree-${this.number}`).textContent);
    this.nodes = data.nodes;
    this.causes = data.causes;
    this.keep = null; // the rows that pass the filter; null without a filter
    this.typed = "";
    box.addEventListener("keydown", (event) => this.onKey(event));
    box.addEventListener("click", (event) => this.onClick(event));
    this.reset();
  }

  /** Return a row of the tree; it has no element until it is drawn. */
  row(parent, label, spans, count, number, position, size) {
    const node = this.nodes[number];
    const segment = { name: label.toLowerCase(), spans, extra: [node.c.toLowerCase(), ...node.f.map((cause) => this.causes[cause].code.toLowerCase())] };
    const level = parent ? parent.level + 1 : 1;
    return { parent, node, label, spans, count, position, size, level, segment, open: false, rows: null, shown: 0 };
  }
  children(row) {
    row.rows ??= row.node.h.map(([label, spans, count, number], index) => this.row(row, label, spans, count, number, index + 1, row.node.h.length));
    return row.rows;
  }

  reset() {
    this.keep = null;
    this.root = this.row(null, "", [], 1, this.nodes.length - 1, 1, 1);
    this.root.open = true;
    let left = AT_FIRST - 1;
    for (let wave = [this.root]; wave.length; ) {
      const next = [];
      for (const row of wave) {
        const rows = this.children(row);
        if (!row.open || rows.length > left) { row.open = false; continue; }
        left -= rows.length;
        for (const child of rows) { child.open = child.node.h.length > 0 && !child.node.h.some(([label]) => WRAPPED.includes(label)); next.push(child); }
      }
      wave = next;
    }
    this.draw();
  }

  draw() {
    this.box.replaceChildren();
    const drawn = [];
    this.list(this.root, drawn);
    this.box.append(...drawn);
    this.current = null;
    this.setCurrent(this.root, false);
  }
  /** Append the elements of a row and of the open rows below it. */
  list(row, into) {
    if (this.keep && !this.keep.has(row)) return;
    into.push(this.element(row));
    if (!row.open) return;
    const rows = this.children(row).filter((child) => !this.keep || this.keep.has(child));
    row.shown = Math.min(Math.max(row.shown, STEP), rows.length);
    for (const child of rows.slice(0, row.shown)) this.list(child, into);
    if (rows.length > row.shown) into.push(this.more(row, rows.length - row.shown));
  }
  more(row, left) {
    const made = element("div", "row more", `${Math.min(left, STEP).toLocaleString("en")} more of ${left.toLocaleString("en")}`);
    this.itemise(made, { level: row.level + 1, more: row });
    return made;
  }
  itemise(made, row) {
    made.setAttribute("role", "treeitem");
    made.setAttribute("aria-level", row.level);
    made.style.setProperty("--level", row.level);
    made.tabIndex = -1;
    made.row = row;
    row.element = made;
  }

  element(row) {
    const { node, label } = row;
    const made = element("div", "row");
    this.itemise(made, row);
    made.setAttribute("aria-setsize", row.size);
    made.setAttribute("aria-posinset", row.position);
    const inner = node.h.length > 0;
    if (inner) made.setAttribute("aria-expanded", String(row.open));
    if (this.keep && !this.keep.get(row)) made.classList.add("missed");
    const name = element("span", "name");
    name.append(element("span", "twist", inner ? (row.open ? "▾" : "▸") : ""));
    const shown = element("span", "label", row.parent ? label : node.c);
    shown.title = this.path(row);
    name.append(shown);
    if (row.count > 1) name.append(element("span", "times", `×${row.count}`));
    if (row.parent) name.append(element("span", "class", node.c + (node.s && !inner ? ` ${node.s}` : "")));
    const stored = element("span", "stored");
    const bar = svg("svg", { width: 44, height: 10, "aria-hidden": "true" });
    let start = 0;
    for (const [kind, , share] of node.d) {
      bar.append(svg("rect", { class: kind, x: `${start}%`, width: `${share}%`, height: 10 }));
      start += share;
    }
    const words = node.d.map(([, called, share]) => (node.d.length > 1 ? `${called} ${share < 1 ? "<1" : Math.round(share) === 100 ? ">99" : Math.round(share)}%` : called)).join(" ");
    const wording = element("span", "", words);
    wording.title = words;
    if (node.d.length) stored.append(bar, wording);
    const trainable = element("span", `trainable${node.t === "frozen" ? " off" : ""}`, node.t);
    const found = element("span", "found");
    for (const cause of node.f) {
      const chip = element("a", `pill ${this.causes[cause].severity}`, this.causes[cause].code);
      chip.href = `#cause-${this.number}-${cause}`;
      chip.tabIndex = -1;
      found.append(chip);
    }
    const below = inner && !row.open ? this.below(node) : [];
    for (const [severity, count] of below) found.append(element("span", `pill ${severity}`, plural(count, severity)));
    made.append(name, stored, element("span", "number", node.n), element("span", "number", node.b), trainable, element("span", `checkpointing${node.k === "off" ? " off" : ""}`, node.k), found);
    const spoken = [
      row.parent ? label : node.c,
      row.parent ? node.c : "",
      row.count > 1 ? `${row.count} alike` : "",
      words,
      `${node.n} parameters`,
      node.b,
      node.t === "frozen" ? "frozen" : node.t && `${node.t} trainable`,
      node.k && `checkpointing ${node.k}`,
      ...node.f.map((cause) => `${this.causes[cause].severity} ${this.causes[cause].code}`),
      ...below.map(([severity, count]) => `${plural(count, severity)} below`),
    ];
    made.setAttribute("aria-label", spoken.filter(Boolean).join(", "));
    return made;
  }
  /** Return [severity, number of modules with violations] pairs for the modules below a node. */
  below(node) {
    const own = (severity) => node.f.filter((cause) => this.causes[cause].severity === severity).length;
    return node.v.map(([severity, count]) => [severity, count - own(severity)]).filter(([, count]) => count > 0);
  }
  path(row) {
    const names = [];
    for (; row.parent; row = row.parent) names.unshift(row.label);
    return names.join(".") || row.node.c;
  }

  setCurrent(row, focus = true) {
    if (this.current?.element) this.current.element.tabIndex = -1;
    this.current = row;
    row.element.tabIndex = 0;
    if (focus) {
      row.element.focus();
      row.element.scrollIntoView({ block: "nearest" });
    }
  }
  toggle(row, open = !row.open) {
    if (!row.node?.h.length || row.open === open) return;
    row.open = open;
    const old = row.element;
    for (let next = old.nextElementSibling; next && next.row.level > row.level; next = old.nextElementSibling) next.remove();
    const drawn = [];
    this.list(row, drawn);
    const hadFocus = old === document.activeElement;
    old.replaceWith(...drawn);
    if (this.current === row || !this.current.element.isConnected) this.setCurrent(row, hadFocus);
  }
  extend(more) {
    const row = more.more;
    const before = more.element.previousElementSibling;
    row.shown += STEP;
    row.open = false;
    this.setCurrent(row, true);
    this.toggle(row, true);
    this.setCurrent(before.isConnected ? before.row : row);
    this.move(1);
  }
  enter(row) {
    if (row.more) return this.extend(row);
    if (row.node.h.length) return this.toggle(row);
    if (row.node.f.length) open(`cause-${this.number}-${row.node.f[0]}`);
  }
  move(by) {
    const next = by > 0 ? this.current.element.nextElementSibling : this.current.element.previousElementSibling;
    if (next) this.setCurrent(next.row);
  }

  onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const row = this.current;
    const inner = Boolean(row.node?.h.length);
    const keys = {
      ArrowDown: () => this.move(1),
      ArrowUp: () => this.move(-1),
      ArrowRight: () => (inner && !row.open ? this.toggle(row, true) : inner && this.move(1)),
      ArrowLeft: () => (inner && row.open ? this.toggle(row, false) : (row.parent ?? row.more) && this.setCurrent(row.parent ?? row.more)),
      Home: () => this.setCurrent(this.box.firstElementChild.row),
      End: () => this.setCurrent(this.box.lastElementChild.row),
      Enter: () => this.enter(row),
      " ": () => this.enter(row),
      "*": () => row.parent && this.children(row.parent).forEach((one) => one.element?.isConnected && this.toggle(one, true)),
    };
    if (keys[event.key]) {
      event.preventDefault();
      this.typed = "";
      keys[event.key]();
    } else if (event.key.length === 1 && event.key !== "/") {
      this.type(event.key.toLowerCase());
    }
  }
  /** Move to the next row with a name that starts with the typed characters. */
  type(character) {
    clearTimeout(this.pause);
    this.pause = setTimeout(() => (this.typed = ""), 600);
    this.typed += character;
    const drawn = [...this.box.children];
    const from = drawn.indexOf(this.current.element) + (this.typed.length === 1 ? 1 : 0);
    const next = [...drawn.slice(from), ...drawn.slice(0, from)].find(({ row }) => row.label?.toLowerCase().startsWith(this.typed));
    if (next) this.setCurrent(next.row);
  }
  onClick(event) {
    const chip = event.target.closest("a");
    const made = event.target.closest(".row");
    if (chip) {
      event.preventDefault();
      return open(chip.hash.slice(1));
    }
    if (!made) return;
    this.setCurrent(made.row);
    if (made.row.more) this.extend(made.row);
    else this.toggle(made.row);
  }

  /** Show only matching modules and the modules above them; return the number of matches, null without a filter. */
  filter(parts, severity) {
    if (!parts.length && severity === "all") return this.reset(), null;
    this.root = this.row(null, "", [], 1, this.nodes.length - 1, 1, 1);
    const keep = new Map();
    let total = 0;
    let shown = 0;
    const wanted = ({ node }) => severity === "all" || node.f.some((cause) => this.causes[cause].severity === severity);
    const visit = (row, path, alike) => {
      const here = row.parent ? [...path, row.segment] : path;
      const hit = wanted(row) && (!parts.length || matches(parts, here.length ? here : [row.segment]));
      if (hit) total += alike;
      if (severity !== "all" && !row.node.v.some(([name]) => name === severity)) return false;
      const inside = hit && shown++ < STEP;
      let below = false;
      if (shown < STEP || !inside) for (const child of this.children(row)) if (visit(child, here, alike * child.count)) below = true;
      if (inside || below) keep.set(row, hit);
      row.open = below;
      return inside || below;
    };
    visit(this.root, [], 1);
    keep.set(this.root, keep.get(this.root) ?? false);
    this.keep = keep;
    this.draw();
    return total;
  }
  /** Open the tree down to a path, or to the nearest module above it. */
  reveal(path) {
    if (this.keep) this.reset();
    let row = this.root;
    const names = path.split(".");
    while (names.length) {
      const rows = this.children(row);
      let taken = 1;
      let next = rows.find(({ label, spans }) => (spans.length ? isNumber(names[0]) && spans.some(([first, last]) => first <= +names[0] && +names[0] <= last) : label === names[0]));
      for (let length = 2; !next && length <= names.length; length++) {
        next = rows.find(({ label }) => label === names.slice(0, length).join("."));
        taken = length;
      }
      if (!next) break;
      this.toggle(row, true);
      while (!next.element?.isConnected && row.shown < rows.length) { row.shown += STEP; row.open = false; this.toggle(row, true); }
      names.splice(0, taken);
      row = next;
    }
    this.setCurrent(row);
    row.element.classList.add("target-row");
    setTimeout(() => row.element?.classList.remove("target-row"), 2500);
  }
}

/** Open a violation and move the focus to it. */
function open(id) {
  const cause = document.getElementById(id);
  if (!cause) return;
  cause.hidden = false;
  cause.open = true;
  cause.firstElementChild.focus();
  cause.scrollIntoView({ block: "nearest" });
}

const trees = [...document.querySelectorAll(".tree")].map((box) => new Tree(box));
for (const hidden of document.querySelectorAll(".filter, .keys, .columns")) hidden.hidden = false;

const query = document.getElementById("query");
function filter() {
  const parts = parsed(query.value);
  const text = query.value.trim().toLowerCase();
  const severity = document.querySelector("input[name=severity]:checked").value;
  let causes = 0;
  for (const section of document.querySelectorAll(".target")) {
    let left = 0;
    for (const cause of section.querySelectorAll(".cause")) {
      const said = cause.querySelector("summary").textContent.toLowerCase();
      const places = [...cause.querySelectorAll("[data-place]")].map((place) => place.dataset.place);
      const hit = (severity === "all" || cause.dataset.severity === severity) && (!text || said.includes(text) || places.some((place) => within(parts, place)));
      cause.hidden = !hit;
      left += hit;
    }
    causes += left;
    const none = section.querySelector(".none");
    if (none) none.hidden = left > 0;
  }
  const found = trees.map((tree) => tree.filter(parts, severity));
  const modules = found.some((count) => count === null) ? null : found.reduce((sum, count) => sum + count, 0);
  const filtered = text || severity !== "all";
  document.getElementById("matched").textContent = filtered ? [plural(causes, "cause"), trees.length ? plural(modules, "module") : ""].filter(Boolean).join(", ") : "";
}
if (query) {
  let pause;
  query.addEventListener("input", () => { clearTimeout(pause); pause = setTimeout(filter, 80); });
  query.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && query.value) { query.value = ""; filter(); }
    if (event.key === "ArrowDown" && trees.length) { event.preventDefault(); trees[0].setCurrent(trees[0].current); }
  });
  for (const radio of document.querySelectorAll("input[name=severity]")) radio.addEventListener("change", filter);
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && event.target !== query && !event.ctrlKey && !event.metaKey && !event.altKey) { event.preventDefault(); query.focus(); query.select(); }
  });
}
document.addEventListener("click", (event) => {
  const button = event.target.closest(".reveal");
  if (button) trees.find((tree) => tree.number === button.dataset.tree)?.reveal(button.dataset.path);
});
let closed = [];
addEventListener("beforeprint", () => { closed = [...document.querySelectorAll("details:not([open])")]; for (const one of closed) one.open = true; });
addEventListener("afterprint", () => { for (const one of closed) one.open = false; });
