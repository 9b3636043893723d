"use strict";
// What the page does with the listing that it carries: lists that draw what is seen, light what belongs together.
const ROW = 19, SPARE = 12, LARGE = 120, SHOWN = 7, WIDE = 36, LANES = 12, MOST_LAYERS = 40, MOST_PASSING = 4000, REST = 150;
const byId = (id) => document.getElementById(id);

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text; // never markup: names come from anywhere
  return made;
}

async function unpacked(text) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

// -- what belongs together -------------------------------------------------------------------------

/** The lines of source, each with the slots of its code; and for each slot its line's key. */
function sourceOf(steps) {
  const lines = new Map(), keyOf = new Map();
  let key = null;
  for (const step of steps) {
    if (step.function) key = null;
    if (step.line) {
      key = JSON.stringify([step.line.file, step.line.line]);
      if (!lines.has(key)) lines.set(key, { ...step.line, pcs: [] });
      if (step.line.text && !lines.get(key).text) lines.get(key).text = step.line.text;
    }
    if (key !== null) { lines.get(key).pcs.push(step.pc); keyOf.set(step.pc, key); }
  }
  return { lines, keyOf };
}

function sourceRows({ lines }) {
  const files = new Map();
  for (const [key, line] of lines) {
    if (!files.has(line.file)) files.set(line.file, []);
    files.get(line.file).push({ key, ...line });
  }
  const rows = [];
  for (const [file, found] of files) {
    rows.push({ kind: "head", text: file, pcs: [] });
    found.sort((a, b) => a.line - b.line);
    let last = null;
    for (const line of found) {
      if (last !== null && line.line > last + 1) rows.push({ kind: "head", text: "      ⋯", pcs: [] });
      rows.push({ kind: "source", place: String(line.line), text: line.text || "(no text)", pcs: line.pcs, key: line.key });
      last = line.line;
    }
  }
  return rows;
}

function ebpfRows(data, tier, hasCode) {
  const rows = [];
  for (const step of data.instructions) {
    if (step.function) rows.push({ kind: "head", text: `${step.function}:`, pcs: [] });
    const note = tier === "baseline" && data.tier === "optimised" ? step.note_baseline : step.note;
    rows.push({ kind: "ebpf", place: String(step.pc), bytes: step.bytes, text: step.text, note, pcs: [step.pc], quiet: hasCode !== null && !hasCode.has(step.pc) });
  }
  return rows;
}

const SECTIONS = { shared: "entry, and what all of it uses", optimised: "optimised code", baseline: "baseline code" };

function machineRows(data, tier) {
  const rows = [];
  let before = null;
  for (const piece of data.machine) {
    if (tier !== "all" && piece.tier !== "shared" && piece.tier !== tier) continue;
    const section = SECTIONS[piece.tier] + (piece.out_of_line ? ", out of line" : "");
    if (section !== before) rows.push({ kind: "head", text: section, pcs: [] });
    before = section;
    const pcs = piece.pc === null ? [] : [piece.pc];
    for (const line of piece.lines) {
      const place = line.kind === "label" ? "" : line.offset.toString(16);
      rows.push({ kind: line.kind, place, bytes: line.kind === "address" ? "" : line.bytes, text: line.text, note: line.note, pcs });
    }
  }
  return rows;
}

// -- a list that draws the rows that are seen ------------------------------------------------------

class List {
  constructor(id, page) {
    this.page = page;
    this.pane = byId(id);
    this.scroller = this.pane.querySelector(".rows");
    this.all = this.pane.querySelector(".all");
    this.small = this.pane.querySelector("small");
    this.rows = [];
    this.drawn = new Map();
    this.scroller.addEventListener("scroll", () => this.draw(), { passive: true });
    this.all.addEventListener("mouseover", (event) => page.light(this.pcsAt(event), this));
    this.all.addEventListener("mouseleave", () => page.light([]));
    this.all.addEventListener("click", (event) => this.clicked(event));
  }

  rowAt(event) {
    const found = event.target.closest(".row");
    return found ? this.rows[Number(found.dataset.index)] : null;
  }

  pcsAt(event) { const row = this.rowAt(event); return row ? row.pcs : []; }

  clicked(event) {
    const target = event.target.closest(".link");
    if (target && target.dataset.pc) return this.page.pick([Number(target.dataset.pc)], null);
    if (target && target.dataset.label) return this.page.goToLabel(target.dataset.label);
    const row = this.rowAt(event);
    if (row && row.pcs.length) this.page.pick(row.pcs, this);
  }

  show(rows) {
    this.rows = rows;
    this.first = new Map();
    rows.forEach((row, index) => row.pcs.forEach((pc) => { if (!this.first.has(pc)) this.first.set(pc, index); }));
    this.pane.hidden = rows.length === 0;
    this.drawn.clear();
    this.all.replaceChildren();
    this.all.style.height = `${rows.length * ROW + 8}px`;
    this.draw();
  }

  draw() {
    const top = this.scroller.scrollTop, height = this.scroller.clientHeight || 600;
    const from = Math.max(0, Math.floor(top / ROW) - SPARE);
    const to = Math.min(this.rows.length, Math.ceil((top + height) / ROW) + SPARE);
    for (const [index, node] of this.drawn) {
      if (index < from || index >= to) { node.remove(); this.drawn.delete(index); }
    }
    for (let index = from; index < to; index++) {
      if (this.drawn.has(index)) continue;
      const node = this.page.rowNode(this.rows[index]);
      node.style.top = `${index * ROW}px`;
      node.dataset.index = index;
      this.drawn.set(index, node);
      this.all.append(node);
    }
    this.paint();
  }

  paint() {
    const { hot, picked, matches, current } = this.page;
    const found = matches.get(this);
    for (const [index, node] of this.drawn) {
      const pcs = this.rows[index].pcs;
      node.classList.toggle("hot", pcs.some((pc) => hot.has(pc)));
      node.classList.toggle("picked", pcs.some((pc) => picked.has(pc)));
      node.classList.toggle("match", found !== undefined && found.has(index));
      node.classList.toggle("at", current !== null && current[0] === this && current[1] === index);
    }
  }

  goTo(index) {
    const top = index * ROW, { scrollTop, clientHeight } = this.scroller;
    if (top < scrollTop + ROW || top > scrollTop + clientHeight - 2 * ROW) {
      this.scroller.scrollTop = Math.max(0, top - clientHeight / 3);
    }
    this.draw();
  }

  shows(pcs) {
    const { scrollTop, clientHeight } = this.scroller;
    const isSeen = (index) => index * ROW >= scrollTop && (index + 1) * ROW <= scrollTop + clientHeight;
    for (const index of this.drawn.keys()) if (isSeen(index) && this.rows[index].pcs.some((pc) => pcs.includes(pc))) return true;
    return false;
  }

  goToPcs(pcs) {
    const places = pcs.map((pc) => this.first.get(pc)).filter((index) => index !== undefined);
    if (places.length) this.goTo(Math.min(...places));
  }
}

// -- text of a row ---------------------------------------------------------------------------------

const TOKENS = /(0x[0-9a-f]+|-?\b\d+\b)|(\bpc \d+)|(\b(?:[rw](?:10|\d)[dwb]?|r1[0-5][dwb]?|[re]?[abcd]x|[re]?[sd]il?|[re]?[sb]pl?|[abcd]l|xmm\d+|rip)\b)|([.A-Za-z_][\w.]*)/g;

class Words {
  constructor(data) {
    this.labels = new Set();
    for (const piece of data.machine) for (const line of piece.lines) if (line.kind === "label") this.labels.add(line.text.slice(0, -1));
    this.meaning = new Map(data.legend ? Object.entries(data.legend.words) : []);
    this.kinds = new Map();
    for (const [names, text] of Object.entries(data.legend.labels)) for (const name of names.split(", ")) this.kinds.set(name, text);
  }

  meaningOf(label) { return this.kinds.get(label.replace(/_?\d+$/, (end) => (end[0] === "_" ? "_N" : "N"))) || this.kinds.get(label) || ""; }

  spans(text, into) {
    let at = 0, isFirst = true;
    for (const found of text.matchAll(TOKENS)) {
      if (found.index > at) into.append(text.slice(at, found.index));
      const [word, number, pc, register, name] = found;
      at = found.index + word.length;
      let span = null;
      if (pc) { span = element("span", "link", word); span.dataset.pc = word.slice(3); }
      else if (number) span = element("span", "num", word);
      else if (register) span = element("span", "reg", word);
      else if (this.labels.has(name)) { span = element("span", "label link", word); span.dataset.label = name; span.title = this.meaningOf(name); }
      else if (isFirst) span = element("span", "mn", word);
      into.append(span || word);
      isFirst = false;
    }
    into.append(text.slice(at));
  }
}

// -- control flow ----------------------------------------------------------------------------------

/** The ways of a function's blocks that go back to where it came from, and its blocks in an order without these. */
function ordered(known) {
  const order = [], back = new Set(), state = new Map();
  for (const start of known.keys()) { // depth first, without recursion: programs are long
    if (state.has(start)) continue;
    const stack = [[start, 0]];
    state.set(start, 1);
    while (stack.length) {
      const top = stack[stack.length - 1], ways = known.get(top[0]).block.ways;
      if (top[1] === ways.length) { state.set(top[0], 2); order.push(top[0]); stack.pop(); continue; }
      const way = ways[top[1]++][0];
      if (!known.has(way)) continue;
      if (state.get(way) === 1) back.add(`${top[0]} ${way}`);
      else if (!state.has(way)) { state.set(way, 1); stack.push([way, 0]); }
    }
  }
  return [order.reverse(), back];
}

/**
 * Places the blocks of a function in layers, by the longest way from its start. A way that passes layers has a place
 * in each of them, so that it does not run behind blocks; one that goes back, or passes many, runs at the side.
 */
function layout(blocks, sizeOf) {
  const known = new Map(blocks.map((block) => [block.pc, { block, ...sizeOf(block), layer: 0, x: 0, y: 0, above: [] }]));
  const [order, back] = ordered(known), layers = [], edges = [];
  let passing = 0;
  for (const pc of order) {
    const node = known.get(pc);
    (layers[node.layer] ||= []).push(node);
    for (const [way] of node.block.ways) {
      const next = known.get(way);
      if (next && !back.has(`${pc} ${way}`)) next.layer = Math.max(next.layer, node.layer + 1);
    }
  }
  for (const node of known.values()) node.block.ways.forEach(([way, kind], number) => {
    const to = known.get(way);
    if (!to) return;
    const isBack = back.has(`${node.block.pc} ${way}`), far = to.layer - node.layer - 1;
    const edge = { from: node, to, kind, number, isBack, through: [], aside: isBack || far > MOST_LAYERS || passing + far > MOST_PASSING };
    edges.push(edge);
    if (edge.aside) return;
    let last = node;
    for (let layer = node.layer + 1; layer < to.layer; layer++, passing++) {
      const place = { width: 10, height: 0, layer, x: 0, y: 0, above: [last], order: way };
      layers[layer].push(place);
      edge.through.push(place);
      last = place;
    }
    to.above.push(last);
  });
  let y = 14, width = 0, left = 0;
  for (const layer of layers) {
    for (const node of layer) node.wish = node.above.length ? node.above.reduce((sum, each) => sum + each.x + each.width / 2, 0) / node.above.length : 0;
    layer.sort((a, b) => a.wish - b.wish || (a.block ? a.block.pc : a.order) - (b.block ? b.block.pc : b.order));
    let x = -Infinity;
    for (const node of layer) { node.x = Math.max(x, node.wish - node.width / 2); x = node.x + node.width + 22; }
    const shift = layer.reduce((sum, node) => sum + node.wish - (node.x + node.width / 2), 0) / layer.length;
    const height = Math.max(...layer.map((node) => node.height));
    for (const node of layer) { node.x += shift; node.y = y; node.room = height; left = Math.min(left, node.x); }
    y += height + 34;
  }
  const right = layers.map((layer) => Math.max(...layer.map((node) => (node.x += 20 - left) + node.width)));
  edges.filter((edge) => edge.aside).forEach((edge, number) => {
    const [from, to] = [edge.from.layer, edge.to.layer].sort((a, b) => a - b);
    edge.side = Math.max(...right.slice(from, to + 1)) + 16 + 9 * (number % LANES);
    width = Math.max(width, edge.side);
  });
  return { nodes: [...known.values()], edges, width: Math.max(width, ...right) + 20, height: y };
}

const SVG = "http://www.w3.org/2000/svg";

function drawn(name, attributes, into) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (into) into.append(made);
  return made;
}

function drawnEdge({ from, to, kind, number, isBack, through, aside, side }, svg) {
  const spread = from.block.ways.length > 1 ? (number ? 0.68 : 0.32) : 0.5;
  const x1 = from.x + from.width * spread, y1 = from.y + from.height, y2 = to.y - 5;
  const x2 = to.x + to.width / 2 + (isBack ? 12 : 0);
  let line = `M${x1},${y1}`;
  if (aside) {
    line += ` C${x1},${y1 + 20} ${side},${y1 + 20} ${side},${y1 + (isBack ? -10 : 30)} L${side},${y2 - 14} C${side},${y2 - 26} ${x2},${y2 - 24} ${x2},${y2}`;
  } else {
    let x = x1, y = y1;
    for (const place of through) {
      const middle = place.x + place.width / 2;
      line += ` C${x},${y + 20} ${middle},${place.y - 20} ${middle},${place.y} L${middle},${place.y + place.room}`;
      [x, y] = [middle, place.y + place.room];
    }
    line += ` C${x},${y + 20} ${x2},${y2 - 20} ${x2},${y2}`;
  }
  drawn("path", { d: line, class: kind + (isBack ? " back" : "") }, svg);
  drawn("path", { d: `M${x2 - 4},${y2 - 2} L${x2 + 4},${y2 - 2} L${x2},${y2 + 5} Z`, class: `tip ${kind}` }, svg);
}

function picture(data, steps, page) {
  const large = data.length > LARGE;
  const sizeOf = (block) => {
    const inside = steps.get(block.pc);
    const texts = large ? [] : inside.slice(0, SHOWN).map((step) => (step.text.length > WIDE ? `${step.text.slice(0, WIDE - 1)}…` : step.text));
    if (!large && inside.length > SHOWN) texts.push(`… ${inside.length - SHOWN} more`);
    const head = inside.length > 1 ? `pc ${block.pc} to ${inside[inside.length - 1].pc}` : `pc ${block.pc}`;
    const width = Math.max(head.length, ...texts.map((text) => text.length)) * 6.7 + 18;
    return { head, texts, width, height: 22 + 14 * texts.length, pcs: inside.map((step) => step.pc) };
  };
  const { nodes, edges, width, height } = layout(data, sizeOf);
  const svg = drawn("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "control flow" });
  edges.forEach((edge) => drawnEdge(edge, svg));
  for (const node of nodes) {
    const box = drawn("g", { class: "box" }, svg);
    drawn("rect", { x: node.x, y: node.y, width: node.width, height: node.height, rx: 5 }, box);
    drawn("text", { x: node.x + 9, y: node.y + 15, class: "at" }, box).textContent = node.head;
    node.texts.forEach((text, number) => { drawn("text", { x: node.x + 9, y: node.y + 30 + 14 * number }, box).textContent = text; });
    box.addEventListener("mouseover", () => page.light(node.pcs));
    box.addEventListener("mouseleave", () => page.light([]));
    box.addEventListener("click", () => page.pick(node.pcs, null, true));
    page.boxes.push([box, node]);
  }
  return svg;
}

// -- the page --------------------------------------------------------------------------------------

class Page {
  constructor(data) {
    this.data = data;
    this.hot = new Set();
    this.picked = new Set();
    this.matches = new Map();
    this.current = null;
    this.boxes = [];
    this.zoom = 1;
    this.words = new Words(data);
    this.sources = sourceOf(data.instructions);
    this.tier = data.tier || "all";
    this.lists = { source: new List("source", this), ebpf: new List("ebpf", this), machine: new List("machine", this) };
    this.blockOf = new Map(data.instructions.map((step) => [step.pc, step.block]));
    this.heading();
    this.fill();
    this.sideOf();
    this.listen();
    this.fromHash();
  }

  heading() {
    const { program, state, refusal, tier } = this.data;
    byId("name").textContent = program.name || "<unnamed>";
    const about = [program.type || "no type", `${program.slots} slots`];
    if (program.section) about.push(`section ${program.section}`);
    byId("about").textContent = about.join(" · ");
    byId("state").textContent = state;
    byId("state").classList.toggle("bad", Boolean(refusal));
    byId("tiers").hidden = tier !== "optimised";
    byId("with-bytes").hidden = false;
    for (const name of ["optimised", "baseline", "all"]) byId("tier").append(new Option(name, name));
    byId("tier").value = this.tier;
  }

  fill() {
    const code = machineRows(this.data, this.tier);
    const hasCode = code.length ? new Set(code.flatMap((row) => row.pcs)) : null;
    this.lists.source.show(sourceRows(this.sources));
    this.lists.ebpf.show(ebpfRows(this.data, this.tier, hasCode));
    this.lists.machine.show(code);
    const size = code.reduce((sum, row) => sum + (row.bytes ? row.bytes.length / 2 : 0), 0);
    this.lists.source.small.textContent = `${this.sources.lines.size} lines`;
    this.lists.ebpf.small.textContent = `${this.data.instructions.length} instructions`;
    this.lists.machine.small.textContent = `${size} bytes`;
    this.labelRows = new Map(code.flatMap((row, index) => (row.kind === "label" ? [[row.text.slice(0, -1), index]] : [])));
  }

  hue(pcs) {
    if (!pcs.length) return null;
    const key = this.sources.keyOf.get(pcs[0]);
    const number = key === undefined ? this.blockOf.get(pcs[0]) : this.sources.lines.get(key).line;
    return (number * 67) % 360;
  }

  rowNode(row) {
    const node = element("div", "row");
    const hue = this.hue(row.pcs);
    if (hue !== null) { node.classList.add("striped"); node.style.setProperty("--hue", hue); }
    if (row.quiet) { node.classList.add("quiet"); node.title = "no machine code of its own"; }
    if (row.kind === "head") { node.classList.add("head"); node.textContent = row.text; return node; }
    node.append(element("span", "place", row.place));
    if (byId("bytes").checked && row.kind !== "source" && row.kind !== "label") node.append(element("span", "raw", (row.bytes || "").replace(/../g, "$& ").padEnd(row.kind === "ebpf" ? 24 : 30)));
    if (row.kind === "label") { const label = element("span", "label", row.text); label.title = this.words.meaningOf(row.text.slice(0, -1)); node.append(label); }
    else if (row.kind === "source") node.append(row.text);
    else if (row.kind === "alignment" || row.kind === "address") node.append(element("span", "note", row.text));
    else this.words.spans(row.text, node);
    if (row.note) {
      const kind = row.kind === "ebpf" ? (row.note.startsWith("no ") ? " free" : " checked") : "";
      node.append(this.noteNode(row.note, `note${kind}`));
    }
    if (row.kind === "code") {
      const word = row.text.match(/\[r12(\+0x[0-9a-f]+)?\]/);
      if (word) node.title = `${word[0]}: ${this.words.meaning.get(word[0]) || this.words.meaning.get(word[0].replace("]", "+0x0]")) || "a word of the run's block"}`;
    }
    return node;
  }

  /** What is said of a row, the slots in it as links. */
  noteNode(text, className) {
    const node = element("span", className);
    node.title = text;
    for (const part of text.split(/(\bpc \d+)/)) {
      const link = /^pc \d+$/.test(part) ? element("span", "link", part) : null;
      if (link) link.dataset.pc = part.slice(3);
      node.append(link || part);
    }
    return node;
  }

  sideOf() {
    const { data } = this;
    const accesses = data.instructions.filter((step) => step.note);
    const checks = byId("checks");
    const free = accesses.filter((step) => step.note.startsWith("no ")).length;
    checks.append(element("p", "", accesses.length ? `Accesses to memory: ${accesses.length}, without a check of their own: ${free}.` : "No access to memory."));
    const table = checks.appendChild(element("table"));
    for (const step of accesses) {
      const row = table.appendChild(element("tr", "go"));
      row.dataset.pc = step.pc;
      row.append(element("td", "", `pc ${step.pc}`));
      const cell = row.appendChild(element("td"));
      cell.append(element("code", "", step.text), element("br"), this.noteNode(step.note, step.note.startsWith("no ") ? "free" : "checked"));
      row.addEventListener("mouseover", () => this.light([step.pc]));
      row.addEventListener("mouseleave", () => this.light([]));
      row.addEventListener("click", (event) => this.pick([Number((event.target.closest(".link") || row).dataset.pc)], null));
    }
    const list = byId("remarks").appendChild(element("ul"));
    for (const line of [data.state, ...data.remarks]) list.append(element("li", "", line));
    const { legend } = data, all = byId("legend");
    const registers = Object.entries(legend.registers).map(([guest, host]) => [guest, host]);
    const parts = [["eBPF's registers", registers], ["other registers", Object.entries(legend.others)], ["words of the run's block", Object.entries(legend.words)], ["labels", Object.entries(legend.labels)]];
    for (const [title, pairs] of parts) {
      if (!pairs.length) continue;
      all.append(element("h3", "", title));
      const rows = all.appendChild(element("table"));
      for (const [name, meaning] of pairs) { const row = rows.appendChild(element("tr")); row.append(element("td", "", name), element("td", "", meaning)); }
    }
    if (!all.childNodes.length) all.append(element("p", "", "There is no machine code to explain."));
    this.flowOf();
  }

  flowOf() {
    this.stepsOf = new Map();
    for (const step of this.data.instructions) {
      if (!this.stepsOf.has(step.block)) this.stepsOf.set(step.block, []);
      this.stepsOf.get(step.block).push(step);
    }
    this.functions = new Map();
    for (const block of this.data.blocks) {
      if (!this.functions.has(block.function)) this.functions.set(block.function, []);
      this.functions.get(block.function).push(block);
    }
    const names = new Map(this.data.instructions.filter((step) => step.function).map((step) => [step.pc, step.function]));
    const choice = byId("function");
    for (const [pc, blocks] of this.functions) choice.append(new Option(`${names.get(pc) || this.data.program.name || "program"} (${blocks.length} blocks)`, pc));
    choice.hidden = this.functions.size < 2;
    choice.addEventListener("change", () => this.showFlow(Number(choice.value)));
  }

  showFlow(pc) {
    const blocks = this.functions.get(pc);
    this.boxes = [];
    this.flowPc = pc;
    byId("function").value = String(pc);
    if (!blocks) { byId("picture").replaceChildren(element("p", "", "Control flow is not known.")); return; }
    byId("picture").replaceChildren(picture(blocks, this.stepsOf, this));
    this.scale(0);
    this.paint();
  }

  scale(by) {
    const svg = byId("picture").querySelector("svg");
    if (!svg) return;
    const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
    const room = byId("picture").clientWidth - 16;
    if (by === 0) this.zoom = room > 100 ? Math.max(0.55, Math.min(1, room / width)) : 1;
    else this.zoom = Math.max(0.15, Math.min(3, this.zoom * by));
    svg.setAttribute("width", width * this.zoom);
    svg.setAttribute("height", height * this.zoom);
  }

  tab(name) {
    for (const button of document.querySelectorAll("nav button")) button.setAttribute("aria-selected", String(button.dataset.tab === name));
    for (const tab of document.querySelectorAll(".tab")) tab.hidden = tab.id !== name;
    if (name === "flow" && this.flowPc === undefined) this.showFlow(this.functions.keys().next().value);
  }

  /** Lights slots; where the pointer rests on them, lists that show none of their rows come to them. */
  light(pcs, from = null) {
    this.hot = new Set(pcs);
    this.paint();
    clearTimeout(this.resting);
    if (pcs.length) this.resting = setTimeout(() => { for (const list of Object.values(this.lists)) if (list !== from && !list.shows(pcs)) list.goToPcs(pcs); }, REST);
  }

  /** Selects slots, and lets all lists but the one that was clicked show them. */
  pick(pcs, from, isBlock = false) {
    this.picked = new Set(pcs);
    for (const list of Object.values(this.lists)) if (list !== from) list.goToPcs(pcs);
    this.paint();
    if (!isBlock) this.showBlock(this.blockOf.get(pcs[0]));
    try { history.replaceState(null, "", `#pc=${pcs[0]}`); } catch { /* a frame without an address of its own */ }
  }

  showBlock(pc) {
    const block = this.data.blocks.find((each) => each.pc === pc);
    if (!block || byId("flow").hidden) return;
    if (block.function !== this.flowPc) this.showFlow(block.function);
    const found = this.boxes.find(([, node]) => node.block.pc === pc);
    if (!found) return;
    const room = byId("picture"), { x, y, width } = found[1];
    room.scrollTo({ left: (x + width / 2) * this.zoom - room.clientWidth / 2, top: y * this.zoom - room.clientHeight / 3 });
  }

  goToLabel(label) {
    if (!this.labelRows.has(label)) { this.setTier("all"); }
    const index = this.labelRows.get(label);
    if (index !== undefined) { this.current = [this.lists.machine, index]; this.lists.machine.goTo(index); }
  }

  setTier(tier) { this.tier = tier; byId("tier").value = tier; this.fill(); this.find(byId("search").value); }

  paint() {
    for (const list of Object.values(this.lists)) list.paint();
    for (const [box, node] of this.boxes) {
      box.setAttribute("class", `box${node.pcs.some((pc) => this.hot.has(pc)) ? " hot" : ""}${node.pcs.some((pc) => this.picked.has(pc)) ? " picked" : ""}`);
    }
    for (const row of document.querySelectorAll("#checks tr")) row.classList.toggle("hot", this.picked.has(Number(row.dataset.pc)));
  }

  find(text) {
    this.matches = new Map();
    this.places = [];
    this.current = null;
    const wanted = text.trim().toLowerCase();
    if (wanted) {
      for (const list of Object.values(this.lists)) {
        const found = new Set();
        list.rows.forEach((row, index) => { if (`${row.text} ${row.note || ""} ${row.kind === "ebpf" ? `pc ${row.place}` : ""}`.toLowerCase().includes(wanted)) found.add(index); });
        this.matches.set(list, found);
        for (const index of found) this.places.push([list, index]);
      }
    }
    byId("found").textContent = wanted ? `${this.places.length} found` : "";
    this.paint();
  }

  step(by) {
    const text = byId("search").value.trim();
    const pc = /^(?:pc )?(\d+)$/.exec(text);
    if (pc && this.blockOf.has(Number(pc[1]))) return this.pick([Number(pc[1])], null);
    if (!this.places || !this.places.length) return undefined;
    const at = this.current === null ? -1 : this.places.findIndex(([list, index]) => list === this.current[0] && index === this.current[1]);
    const next = at < 0 ? (by > 0 ? 0 : this.places.length - 1) : (at + by + this.places.length) % this.places.length;
    this.current = this.places[next];
    const [list, index] = this.current;
    list.goTo(index);
    byId("found").textContent = `${next + 1} of ${this.places.length}`;
    if (list.rows[index].pcs.length) { this.picked = new Set(list.rows[index].pcs); for (const other of Object.values(this.lists)) if (other !== list) other.goToPcs(list.rows[index].pcs); }
    this.paint();
    return undefined;
  }

  listen() {
    byId("tier").addEventListener("change", (event) => this.setTier(event.target.value));
    byId("bytes").addEventListener("change", () => { for (const list of Object.values(this.lists)) list.show(list.rows); });
    byId("search").addEventListener("input", (event) => this.find(event.target.value));
    byId("search").addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); this.step(event.shiftKey ? -1 : 1); } });
    byId("in").addEventListener("click", () => this.scale(1.25));
    byId("out").addEventListener("click", () => this.scale(0.8));
    for (const button of document.querySelectorAll("nav button")) button.addEventListener("click", () => this.tab(button.dataset.tab));
    document.addEventListener("keydown", (event) => this.key(event));
    window.addEventListener("resize", () => { for (const list of Object.values(this.lists)) list.draw(); });
    window.addEventListener("hashchange", () => this.fromHash());
  }

  key(event) {
    if (["INPUT", "SELECT"].includes(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
    const by = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
    if (event.key === "/") { event.preventDefault(); byId("search").focus(); }
    if (!by) return;
    event.preventDefault();
    const all = this.data.instructions, first = Math.min(...this.picked);
    const at = all.findIndex((step) => step.pc === first);
    const next = all[Math.max(0, Math.min(all.length - 1, at < 0 ? 0 : at + by))];
    if (next) this.pick([next.pc], null);
  }

  fromHash() {
    const wanted = new URLSearchParams(location.hash.slice(1));
    if (wanted.has("tier")) this.setTier(wanted.get("tier"));
    this.tab(wanted.get("tab") || "flow");
    if (wanted.has("search")) { byId("search").value = wanted.get("search"); this.find(wanted.get("search")); this.step(1); }
    const pc = Number(wanted.get("pc"));
    if (wanted.has("pc") && this.blockOf.has(pc) && !(this.picked.size === 1 && this.picked.has(pc))) this.pick([pc], null);
  }
}

unpacked(byId("data").textContent).then(
  (data) => { new Page(data); document.documentElement.dataset.ready = "yes"; },
  (error) => { byId("state").textContent = `This page could not be unpacked: ${error}`; byId("state").className = "bad"; },
);
