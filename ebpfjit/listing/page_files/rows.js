"use strict";
// The rows of the page's lists: what belongs together, and lists that draw only what is seen.
const ROW = 19; // pixels, as in page.css
const SPARE = 12; // rows that are drawn above and below those that are seen
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
  const lines = new Map(),
    keyOf = new Map();
  let key = null;
  for (const step of steps) {
    if (step.function) key = null;
    if (step.line) {
      key = JSON.stringify([step.line.file, step.line.line]);
      if (!lines.has(key)) lines.set(key, { ...step.line, pcs: [] });
      if (step.line.text && !lines.get(key).text) lines.get(key).text = step.line.text;
    }
    if (key !== null) {
      lines.get(key).pcs.push(step.pc);
      keyOf.set(step.pc, key);
    }
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
      rows.push({
        kind: "source",
        place: String(line.line),
        text: line.text || "(no text)",
        pcs: line.pcs,
        key: line.key,
      });
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
    rows.push({
      kind: "ebpf",
      place: String(step.pc),
      bytes: step.bytes,
      text: step.text,
      note,
      errors: step.errors,
      pcs: [step.pc],
      quiet: hasCode !== null && !hasCode.has(step.pc),
    });
  }
  return rows;
}

const SECTIONS = {
  shared: "entry, and what all of it uses",
  optimised: "optimised code",
  baseline: "baseline code",
};

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
      rows.push({
        kind: line.kind,
        place,
        bytes: line.kind === "address" ? "" : line.bytes,
        text: line.text,
        note: line.note,
        pcs,
      });
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

  pcsAt(event) {
    const row = this.rowAt(event);
    return row ? row.pcs : [];
  }

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
    rows.forEach((row, index) =>
      row.pcs.forEach((pc) => {
        if (!this.first.has(pc)) this.first.set(pc, index);
      }),
    );
    this.pane.hidden = rows.length === 0;
    this.drawn.clear();
    this.all.replaceChildren();
    this.all.style.height = `${rows.length * ROW + 8}px`;
    this.draw();
  }

  draw() {
    const top = this.scroller.scrollTop,
      height = this.scroller.clientHeight || 600;
    const from = Math.max(0, Math.floor(top / ROW) - SPARE);
    const to = Math.min(this.rows.length, Math.ceil((top + height) / ROW) + SPARE);
    for (const [index, node] of this.drawn) {
      if (index < from || index >= to) {
        node.remove();
        this.drawn.delete(index);
      }
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
      node.classList.toggle(
        "hot",
        pcs.some((pc) => hot.has(pc)),
      );
      node.classList.toggle(
        "picked",
        pcs.some((pc) => picked.has(pc)),
      );
      node.classList.toggle("match", found !== undefined && found.has(index));
      node.classList.toggle("at", current !== null && current[0] === this && current[1] === index);
    }
  }

  goTo(index) {
    const top = index * ROW,
      { scrollTop, clientHeight } = this.scroller;
    if (top < scrollTop + ROW || top > scrollTop + clientHeight - 2 * ROW) {
      this.scroller.scrollTop = Math.max(0, top - clientHeight / 3);
    }
    this.draw();
  }

  shows(pcs) {
    const { scrollTop, clientHeight } = this.scroller;
    const isSeen = (index) => index * ROW >= scrollTop && (index + 1) * ROW <= scrollTop + clientHeight;
    for (const index of this.drawn.keys())
      if (isSeen(index) && this.rows[index].pcs.some((pc) => pcs.includes(pc))) return true;
    return false;
  }

  goToPcs(pcs) {
    const places = pcs.map((pc) => this.first.get(pc)).filter((index) => index !== undefined);
    if (places.length) this.goTo(Math.min(...places));
  }
}

// -- text of a row ---------------------------------------------------------------------------------

const REGISTER = /[rw](?:10|\d)[dwb]?|r1[0-5][dwb]?|[re]?[abcd]x|[re]?[sd]il?|[re]?[sb]pl?|[abcd]l|xmm\d+/;
const TOKENS = new RegExp(
  `(0x[0-9a-f]+|-?\\b\\d+\\b)|(\\bpc \\d+)|(\\b(?:${REGISTER.source})\\b)|([.A-Za-z_][\\w.]*)`,
  "g",
);

class Words {
  constructor(data) {
    this.labels = new Set();
    for (const piece of data.machine)
      for (const line of piece.lines) if (line.kind === "label") this.labels.add(line.text.slice(0, -1));
    this.meaning = new Map(data.legend ? Object.entries(data.legend.words) : []);
    this.kinds = new Map();
    for (const [names, text] of Object.entries(data.legend.labels))
      for (const name of names.split(", ")) this.kinds.set(name, text);
  }

  meaningOf(label) {
    return (
      this.kinds.get(label.replace(/_?\d+$/, (end) => (end[0] === "_" ? "_N" : "N"))) ||
      this.kinds.get(label) ||
      ""
    );
  }

  spans(text, into) {
    let at = 0,
      isFirst = true;
    for (const found of text.matchAll(TOKENS)) {
      if (found.index > at) into.append(text.slice(at, found.index));
      const [word, number, pc, register, name] = found;
      at = found.index + word.length;
      let span = null;
      if (pc) {
        span = element("span", "link", word);
        span.dataset.pc = word.slice(3);
      } else if (number) span = element("span", "num", word);
      else if (register) span = element("span", "reg", word);
      else if (this.labels.has(name)) {
        span = element("span", "label link", word);
        span.dataset.label = name;
        span.title = this.meaningOf(name);
      } else if (isFirst) span = element("span", "mn", word);
      into.append(span || word);
      isFirst = false;
    }
    into.append(text.slice(at));
  }
}
