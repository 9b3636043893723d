"use strict";
// Control flow as a picture: blocks in layers, ways between them.
const MOST_BLOCKS = 8000; // of a function that is drawn
const LARGE = 120; // blocks of a function from which on they show no instructions
const SHOWN = 7; // instructions that a block shows
const WIDE = 36; // characters of one
const LANES = 12; // ways side by side at the side of the picture
const MOST_LAYERS = 40; // that one way passes with a place in each
const MOST_PASSING = 4000; // such places

/** The ways that go back to where control came from, and the blocks in an order without these. */
function ordered(known) {
  const order = [],
    back = new Set(),
    state = new Map();
  for (const start of known.keys()) {
    // depth first, without recursion: programs are long
    if (state.has(start)) continue;
    const stack = [[start, 0]];
    state.set(start, 1);
    while (stack.length) {
      const top = stack[stack.length - 1],
        ways = known.get(top[0]).block.ways;
      if (top[1] === ways.length) {
        state.set(top[0], 2);
        order.push(top[0]);
        stack.pop();
        continue;
      }
      const way = ways[top[1]++][0];
      if (!known.has(way)) continue;
      if (state.get(way) === 1) back.add(`${top[0]} ${way}`);
      else if (!state.has(way)) {
        state.set(way, 1);
        stack.push([way, 0]);
      }
    }
  }
  return [order.reverse(), back];
}

/**
 * Places the blocks of a function in layers, by the longest way from its start. A way that passes layers has
 * a place in each of them, so that it does not run behind blocks; one that goes back, or passes many, runs at
 * the side.
 */
function layout(blocks, sizeOf) {
  const known = new Map(
    blocks.map((block) => [block.pc, { block, ...sizeOf(block), layer: 0, x: 0, y: 0, above: [] }]),
  );
  const [order, back] = ordered(known),
    layers = [],
    edges = [];
  let passing = 0;
  for (const pc of order) {
    const node = known.get(pc);
    (layers[node.layer] ||= []).push(node);
    for (const [way] of node.block.ways) {
      const next = known.get(way);
      if (next && !back.has(`${pc} ${way}`)) next.layer = Math.max(next.layer, node.layer + 1);
    }
  }
  for (const node of known.values())
    node.block.ways.forEach(([way, kind], number) => {
      const to = known.get(way);
      if (!to) return;
      const isBack = back.has(`${node.block.pc} ${way}`),
        far = to.layer - node.layer - 1;
      const edge = {
        from: node,
        to,
        kind,
        number,
        isBack,
        through: [],
        aside: isBack || far > MOST_LAYERS || passing + far > MOST_PASSING,
      };
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
  let y = 14,
    width = 0,
    left = 0;
  for (const layer of layers) {
    for (const node of layer)
      node.wish = node.above.length
        ? node.above.reduce((sum, each) => sum + each.x + each.width / 2, 0) / node.above.length
        : 0;
    layer.sort(
      (a, b) => a.wish - b.wish || (a.block ? a.block.pc : a.order) - (b.block ? b.block.pc : b.order),
    );
    let x = -Infinity;
    for (const node of layer) {
      node.x = Math.max(x, node.wish - node.width / 2);
      x = node.x + node.width + 22;
    }
    const shift = layer.reduce((sum, node) => sum + node.wish - (node.x + node.width / 2), 0) / layer.length;
    const height = Math.max(...layer.map((node) => node.height));
    for (const node of layer) {
      node.x += shift;
      node.y = y;
      node.room = height;
      left = Math.min(left, node.x);
    }
    y += height + 34;
  }
  const right = layers.map((layer) => Math.max(...layer.map((node) => (node.x += 20 - left) + node.width)));
  edges
    .filter((edge) => edge.aside)
    .forEach((edge, number) => {
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
  const x1 = from.x + from.width * spread,
    y1 = from.y + from.height,
    y2 = to.y - 5;
  const x2 = to.x + to.width / 2 + (isBack ? 12 : 0);
  let line = `M${x1},${y1}`;
  if (aside) {
    line += ` C${x1},${y1 + 20} ${side},${y1 + 20} ${side},${y1 + (isBack ? -10 : 30)}`;
    line += ` L${side},${y2 - 14} C${side},${y2 - 26} ${x2},${y2 - 24} ${x2},${y2}`;
  } else {
    let x = x1,
      y = y1;
    for (const place of through) {
      const middle = place.x + place.width / 2;
      line += ` C${x},${y + 20} ${middle},${place.y - 20} ${middle},${place.y}`;
      line += ` L${middle},${place.y + place.room}`;
      [x, y] = [middle, place.y + place.room];
    }
    line += ` C${x},${y + 20} ${x2},${y2 - 20} ${x2},${y2}`;
  }
  drawn("path", { d: line, class: kind + (isBack ? " back" : "") }, svg);
  drawn(
    "path",
    { d: `M${x2 - 4},${y2 - 2} L${x2 + 4},${y2 - 2} L${x2},${y2 + 5} Z`, class: `tip ${kind}` },
    svg,
  );
}

function picture(data, steps, page) {
  const large = data.length > LARGE;
  const sizeOf = (block) => {
    const inside = steps.get(block.pc);
    const texts = large
      ? []
      : inside
          .slice(0, SHOWN)
          .map((step) => (step.text.length > WIDE ? `${step.text.slice(0, WIDE - 1)}…` : step.text));
    if (!large && inside.length > SHOWN) texts.push(`… ${inside.length - SHOWN} more`);
    const head = inside.length > 1 ? `pc ${block.pc} to ${inside[inside.length - 1].pc}` : `pc ${block.pc}`;
    const width = Math.max(head.length, ...texts.map((text) => text.length)) * 6.7 + 18;
    return { head, texts, width, height: 22 + 14 * texts.length, pcs: inside.map((step) => step.pc) };
  };
  const { nodes, edges, width, height } = layout(data, sizeOf);
  const svg = drawn("svg", {
    width,
    height,
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": "control flow",
  });
  edges.forEach((edge) => drawnEdge(edge, svg));
  for (const node of nodes) {
    const box = drawn("g", { class: "box" }, svg);
    drawn("rect", { x: node.x, y: node.y, width: node.width, height: node.height, rx: 5 }, box);
    drawn("text", { x: node.x + 9, y: node.y + 15, class: "at" }, box).textContent = node.head;
    node.texts.forEach((text, number) => {
      drawn("text", { x: node.x + 9, y: node.y + 30 + 14 * number }, box).textContent = text;
    });
    box.addEventListener("mouseover", () => page.light(node.pcs));
    box.addEventListener("mouseleave", () => page.light([]));
    box.addEventListener("click", () => page.pick(node.pcs, null, true));
    page.boxes.push([box, node]);
  }
  return svg;
}

