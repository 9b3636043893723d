"use strict";
// The page: what is lit, selected, searched and shown at the side.
const REST = 150; // milliseconds that the pointer rests before lists come to what it is on

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
    this.lists = {
      source: new List("source", this),
      ebpf: new List("ebpf", this),
      machine: new List("machine", this),
    };
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
    this.labelRows = new Map(
      code.flatMap((row, index) => (row.kind === "label" ? [[row.text.slice(0, -1), index]] : [])),
    );
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
    if (hue !== null) {
      node.classList.add("striped");
      node.style.setProperty("--hue", hue);
    }
    if (row.quiet) {
      node.classList.add("quiet");
      node.title = "no machine code of its own";
    }
    if (row.kind === "head") {
      node.classList.add("head");
      node.textContent = row.text;
      return node;
    }
    node.append(element("span", "place", row.place));
    if (byId("bytes").checked && row.kind !== "source" && row.kind !== "label")
      node.append(
        element("span", "raw", (row.bytes || "").replace(/../g, "$& ").padEnd(row.kind === "ebpf" ? 24 : 30)),
      );
    if (row.kind === "label") {
      const label = element("span", "label", row.text);
      label.title = this.words.meaningOf(row.text.slice(0, -1));
      node.append(label);
    } else if (row.kind === "source") node.append(row.text);
    else if (row.kind === "alignment" || row.kind === "address")
      node.append(element("span", "note", row.text));
    else this.words.spans(row.text, node);
    if (row.note) {
      const kind = row.kind === "ebpf" ? (row.note.startsWith("no ") ? " free" : " checked") : "";
      node.append(this.noteNode(row.note, `note${kind}`));
    }
    for (const error of row.errors || []) node.append(this.noteNode(`refused: ${error}`, "note refused"));
    if (row.kind === "code") {
      const word = row.text.match(/\[r12(\+0x[0-9a-f]+)?\]/);
      if (word)
        node.title = `${word[0]}: ${this.words.meaning.get(word[0]) || "a word of the run's block"}`;
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
    checks.append(
      element(
        "p",
        "",
        accesses.length
          ? `Accesses to memory: ${accesses.length}, without a check of their own: ${free}.`
          : "No access to memory.",
      ),
    );
    const table = checks.appendChild(element("table"));
    for (const step of accesses) {
      const row = table.appendChild(element("tr", "go"));
      row.dataset.pc = step.pc;
      row.append(element("td", "", `pc ${step.pc}`));
      const cell = row.appendChild(element("td"));
      cell.append(
        element("code", "", step.text),
        element("br"),
        this.noteNode(step.note, step.note.startsWith("no ") ? "free" : "checked"),
      );
      row.addEventListener("mouseover", () => this.light([step.pc]));
      row.addEventListener("mouseleave", () => this.light([]));
      row.addEventListener("click", (event) =>
        this.pick([Number((event.target.closest(".link") || row).dataset.pc)], null),
      );
    }
    const list = byId("remarks").appendChild(element("ul"));
    for (const line of [data.state, ...data.remarks]) list.append(element("li", "", line));
    const { legend } = data,
      all = byId("legend");
    const registers = Object.entries(legend.registers).map(([guest, host]) => [guest, host]);
    const parts = [
      ["eBPF's registers", registers],
      ["other registers", Object.entries(legend.others)],
      ["accesses", Object.entries(legend.checks)],
      ["words of the run's block", Object.entries(legend.words)],
      ["labels", Object.entries(legend.labels)],
    ];
    for (const [title, pairs] of parts) {
      if (!pairs.length) continue;
      all.append(element("h3", "", title));
      const rows = all.appendChild(element("table"));
      for (const [name, meaning] of pairs) {
        const row = rows.appendChild(element("tr"));
        row.append(element("td", "", name), element("td", "", meaning));
      }
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
    const names = new Map(
      this.data.instructions.filter((step) => step.function).map((step) => [step.pc, step.function]),
    );
    const choice = byId("function");
    for (const [pc, blocks] of this.functions)
      choice.append(
        new Option(`${names.get(pc) || this.data.program.name || "program"} (${blocks.length} blocks)`, pc),
      );
    choice.hidden = this.functions.size < 2;
    choice.addEventListener("change", () => this.showFlow(Number(choice.value)));
  }

  showFlow(pc) {
    const blocks = this.functions.get(pc);
    this.boxes = [];
    this.flowPc = pc;
    byId("function").value = String(pc);
    if (!blocks || blocks.length > MOST_BLOCKS) {
      const many = blocks && `This function has ${blocks.length} blocks: too many for a picture.`;
      byId("picture").replaceChildren(element("p", "", many || "Control flow is not known."));
      return;
    }
    byId("picture").replaceChildren(picture(blocks, this.stepsOf, this));
    this.scale(0);
    this.paint();
  }

  scale(by) {
    const svg = byId("picture").querySelector("svg");
    if (!svg) return;
    const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
    const room = byId("picture").clientWidth - 16;
    this.isZoomed = by !== 0;
    if (by === 0) this.zoom = room > 100 ? Math.max(0.55, Math.min(1, room / width)) : 1;
    else this.zoom = Math.max(0.15, Math.min(3, this.zoom * by));
    svg.setAttribute("width", width * this.zoom);
    svg.setAttribute("height", height * this.zoom);
  }

  tab(name) {
    for (const button of document.querySelectorAll("nav button"))
      button.setAttribute("aria-selected", String(button.dataset.tab === name));
    for (const tab of document.querySelectorAll(".tab")) tab.hidden = tab.id !== name;
    if (name === "flow" && this.flowPc === undefined) this.showFlow(this.functions.keys().next().value);
  }

  /** Lights slots; where the pointer rests on them, lists that show none of their rows come to them. */
  light(pcs, from = null) {
    this.hot = new Set(pcs);
    this.paint();
    clearTimeout(this.resting);
    if (pcs.length)
      this.resting = setTimeout(() => {
        for (const list of Object.values(this.lists))
          if (list !== from && !list.shows(pcs)) list.goToPcs(pcs);
      }, REST);
  }

  /** Selects slots, and lets all lists but the one that was clicked show them. */
  pick(pcs, from, isBlock = false) {
    this.picked = new Set(pcs);
    for (const list of Object.values(this.lists)) if (list !== from) list.goToPcs(pcs);
    this.paint();
    if (!isBlock) this.showBlock(this.blockOf.get(pcs[0]));
    try {
      history.replaceState(null, "", `#pc=${pcs[0]}`);
    } catch {
      /* a frame without an address of its own */
    }
  }

  showBlock(pc) {
    const block = this.data.blocks.find((each) => each.pc === pc);
    if (!block || byId("flow").hidden) return;
    if (block.function !== this.flowPc) this.showFlow(block.function);
    const found = this.boxes.find(([, node]) => node.block.pc === pc);
    if (!found) return;
    const room = byId("picture"),
      { x, y, width } = found[1];
    room.scrollTo({
      left: (x + width / 2) * this.zoom - room.clientWidth / 2,
      top: y * this.zoom - room.clientHeight / 3,
    });
  }

  goToLabel(label) {
    if (!this.labelRows.has(label)) {
      this.setTier("all");
    }
    const index = this.labelRows.get(label);
    if (index !== undefined) {
      this.current = [this.lists.machine, index];
      this.lists.machine.goTo(index);
    }
  }

  setTier(tier) {
    this.tier = tier;
    byId("tier").value = tier;
    this.fill();
    this.find(byId("search").value);
  }

  paint() {
    for (const list of Object.values(this.lists)) list.paint();
    for (const [box, node] of this.boxes) {
      const has = (pcs) => node.pcs.some((pc) => pcs.has(pc));
      box.setAttribute("class", `box${has(this.hot) ? " hot" : ""}${has(this.picked) ? " picked" : ""}`);
    }
    for (const row of document.querySelectorAll("#checks tr"))
      row.classList.toggle("hot", this.picked.has(Number(row.dataset.pc)));
  }

  find(text) {
    this.matches = new Map();
    this.places = [];
    this.current = null;
    const wanted = text.trim().toLowerCase();
    if (wanted) {
      for (const list of Object.values(this.lists)) {
        const found = new Set();
        list.rows.forEach((row, index) => {
          if (
            `${row.text} ${row.note || ""} ${row.kind === "ebpf" ? `pc ${row.place}` : ""}`
              .toLowerCase()
              .includes(wanted)
          )
            found.add(index);
        });
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
    const at =
      this.current === null
        ? -1
        : this.places.findIndex(([list, index]) => list === this.current[0] && index === this.current[1]);
    const next =
      at < 0 ? (by > 0 ? 0 : this.places.length - 1) : (at + by + this.places.length) % this.places.length;
    this.current = this.places[next];
    const [list, index] = this.current;
    list.goTo(index);
    byId("found").textContent = `${next + 1} of ${this.places.length}`;
    if (list.rows[index].pcs.length) {
      this.picked = new Set(list.rows[index].pcs);
      for (const other of Object.values(this.lists)) if (other !== list) other.goToPcs(list.rows[index].pcs);
    }
    this.paint();
    return undefined;
  }

  listen() {
    byId("tier").addEventListener("change", (event) => this.setTier(event.target.value));
    byId("bytes").addEventListener("change", () => {
      for (const list of Object.values(this.lists)) list.show(list.rows);
    });
    byId("search").addEventListener("input", (event) => this.find(event.target.value));
    byId("search").addEventListener("keydown", (event) => {
      if (event.key === "Enter") {
        event.preventDefault();
        this.step(event.shiftKey ? -1 : 1);
      }
    });
    byId("in").addEventListener("click", () => this.scale(1.25));
    byId("out").addEventListener("click", () => this.scale(0.8));
    for (const button of document.querySelectorAll("nav button"))
      button.addEventListener("click", () => this.tab(button.dataset.tab));
    document.addEventListener("keydown", (event) => this.key(event));
    const sizes = new ResizeObserver(() => {
      for (const list of Object.values(this.lists)) list.draw();
      if (!this.isZoomed) this.scale(0);
    });
    for (const name of ["main", "picture"]) sizes.observe(byId(name));
    window.addEventListener("hashchange", () => this.fromHash());
  }

  key(event) {
    if (["INPUT", "SELECT"].includes(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey)
      return;
    const by = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
    if (event.key === "/") {
      event.preventDefault();
      byId("search").focus();
    }
    if (!by) return;
    event.preventDefault();
    const all = this.data.instructions,
      first = Math.min(...this.picked);
    const at = all.findIndex((step) => step.pc === first);
    const next = all[Math.max(0, Math.min(all.length - 1, at < 0 ? 0 : at + by))];
    if (next) this.pick([next.pc], null);
  }

  fromHash() {
    const wanted = new URLSearchParams(location.hash.slice(1));
    if (wanted.has("tier")) this.setTier(wanted.get("tier"));
    this.tab(wanted.get("tab") || "flow");
    if (wanted.has("search")) {
      byId("search").value = wanted.get("search");
      this.find(wanted.get("search"));
      this.step(1);
    }
    const pc = Number(wanted.get("pc"));
    if (wanted.has("pc") && this.blockOf.has(pc) && !(this.picked.size === 1 && this.picked.has(pc)))
      this.pick([pc], null);
  }
}

unpacked(byId("data").textContent).then(
  (data) => {
    new Page(data);
    document.documentElement.dataset.ready = "yes";
  },
  (error) => {
    byId("state").textContent = `This page could not be unpacked: ${error}`;
    byId("state").className = "bad";
  },
);
