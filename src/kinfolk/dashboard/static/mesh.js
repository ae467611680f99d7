// The mesh as a picture: nodes on a ring, what goes between them, and what is wrong. Many nodes stand around the asked one.

import { attr, reconcile, s, text } from "./dom.js";
import { parts, perSecond, plural } from "./format.js";

const MANY = 16; // nodes beyond which not every pair of them is joined by a line
const LABELLED = 36; // and beyond which only some have their names beside them
const SIGNS = { stalled: "‖", down: "×", silent: "?", draining: "↓", starting: "…" };
export const WORDS = {
  up: "up",
  stalled: "stalled",
  draining: "draining",
  starting: "starting",
  silent: "silent",
  down: "down",
};

export class Mesh {
  constructor({ onselect }) {
    this.onselect = onselect;
    this.links = s("g", { class: "links" });
    this.nodes = s("g", { class: "nodes" });
    this.element = s("svg", { class: "mesh", role: "group", "aria-label": "The mesh" }, this.links, this.nodes);
    this.element.addEventListener("keydown", (event) => this.#key(event));
    this.told = { rows: [], pulse: null, chosen: "" };
    this.watching = new ResizeObserver(() => this.#draw());
    this.watching.observe(this.element);
  }

  show(rows, pulse, chosen) {
    this.told = { rows: rows.toSorted((a, b) => (a.name < b.name ? -1 : 1)), pulse, chosen };
    this.#draw();
  }

  close() {
    this.watching.disconnect();
  }

  #key(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const all = [...this.nodes.children];
    const at = all.indexOf(event.target.closest(".node"));
    if (at < 0) return;
    if (step !== undefined) {
      const next = all[(at + step + all.length) % all.length];
      for (const each of all) attr(each, "tabindex", each === next ? 0 : -1);
      next.focus();
    } else if (event.key === "Enter" || event.key === " ") all[at].dispatchEvent(new Event("click"));
    else return;
    event.preventDefault();
  }

  /** Where each node stands. */
  #places(width, height) {
    const { rows } = this.told;
    const self = rows.find((row) => row.self);
    const around = rows.length > MANY ? rows.filter((row) => row !== self) : rows;
    const wide = width > 480;
    const labelled = rows.length <= LABELLED;
    const rx = Math.max(60, Math.min(width / 2 - (labelled ? (wide ? 96 : 64) : 28), 340));
    const ry = Math.max(60, height / 2 - (labelled ? 56 : 28));
    const places = new Map();
    const angles = spread(around.length, rx, ry);
    around.forEach((row, at) => {
      const angle = angles[at];
      places.set(row.name, { x: width / 2 + rx * Math.cos(angle), y: height / 2 + ry * Math.sin(angle), angle });
    });
    // A ring of few nodes is not as high above its middle as below: it stands in the middle all the same.
    const heights = [...places.values()].map((place) => place.y);
    const shift = (height - Math.max(...heights) - Math.min(...heights)) / 2;
    for (const place of places.values()) place.y += shift;
    if (rows.length === 1) places.set(rows[0].name, { x: width / 2, y: height / 2, angle: Math.PI / 2 });
    else if (around !== rows && self) places.set(self.name, { x: width / 2, y: height / 2, angle: Math.PI / 2, centre: true });
    return places;
  }

  #draw() {
    const { rows, pulse, chosen } = this.told;
    const width = this.element.clientWidth;
    const height = this.element.clientHeight;
    if (!width) return;
    attr(this.element, "viewBox", `0 0 ${width} ${height}`);
    attr(this.element, "aria-label", `The mesh of ${plural(rows.length, "node")}`);
    const places = this.#places(width, height);
    const centre = { x: width / 2, y: height / 2 };
    this.#drawLinks(links(rows, pulse, chosen), places, centre, rows.length > MANY);
    const most = Math.max(1, ...rows.map((row) => row.held ?? 0));
    const [smallest, biggest] = rows.length > 40 ? [3.5, 6] : rows.length > MANY ? [6, 11] : [7, 17];
    const at = chosen || rows.find((row) => row.self)?.name || rows[0]?.name;
    reconcile(
      this.nodes,
      rows,
      (row) => row.name,
      (row) => {
        const group = s("g", { role: "button", tabindex: -1 }, s("title"), s("circle", { class: "halo" }), s("circle", { class: "body" }), s("text", { class: "sign", "text-anchor": "middle", dy: "0.35em" }), s("text", { class: "label" }));
        group.addEventListener("click", () => this.onselect(row.name));
        return group;
      },
      (group, row) => {
        const { x, y, angle, centre: inside } = places.get(row.name);
        const radius = smallest + (biggest - smallest) * Math.sqrt((row.held ?? 0) / most);
        const [title, halo, body, sign, label] = group.children;
        const labelled = rows.length <= LABELLED || row.self || row.name === chosen || row.state !== "up";
        attr(group, "class", `node is-${row.state}${row.self ? " is-self" : ""}${row.name === chosen ? " is-chosen" : ""}${row.missing?.length ? " has-missing" : ""}`);
        attr(group, "transform", `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
        attr(group, "aria-label", `${row.name}, ${WORDS[row.state]}${row.held === undefined ? "" : `, ${plural(row.held, "name")} held`}`);
        attr(group, "aria-pressed", String(row.name === chosen));
        attr(group, "tabindex", row.name === at ? 0 : -1);
        text(title, `${row.name} · ${WORDS[row.state]}${row.why ? `: ${row.why}` : ""}`);
        attr(halo, "r", radius + 5);
        attr(body, "r", radius);
        text(sign, radius > 6.5 ? (SIGNS[row.state] ?? "") : "");
        text(label, labelled ? parts(row.name)[0] : "");
        const side = inside ? 0 : Math.cos(angle);
        attr(label, "text-anchor", side > 0.25 ? "start" : side < -0.25 ? "end" : "middle");
        const away = radius + 11;
        attr(label, "x", side > 0.25 ? away : side < -0.25 ? -away : 0);
        attr(label, "y", Math.abs(side) > 0.25 ? 4 : Math.sin(angle) < 0 ? -away - 1 : away + 9);
      },
    );
  }

  #drawLinks(found, places, centre, spokes) {
    reconcile(
      this.links,
      found.filter(({ a, b }) => places.has(a) && places.has(b)),
      ({ a, b, kind }) => `${a} ${b} ${kind}`,
      () => s("path", {}, s("title")),
      (path, { a, b, kind, rate, waiting }) => {
        const [from, to] = [places.get(a), places.get(b)];
        const bend = spokes ? 0 : 0.16;
        const middle = { x: (from.x + to.x) / 2, y: (from.y + to.y) / 2 };
        const by = { x: middle.x + (centre.x - middle.x) * bend, y: middle.y + (centre.y - middle.y) * bend };
        attr(path, "d", `M${from.x.toFixed(1)} ${from.y.toFixed(1)}Q${by.x.toFixed(1)} ${by.y.toFixed(1)} ${to.x.toFixed(1)} ${to.y.toFixed(1)}`);
        attr(path, "class", `link is-${kind}${waiting > 65536 ? " is-waiting" : ""}${spokes && kind === "other" ? " is-many" : ""}`);
        const width = Math.min(6, 1.25 + 0.9 * Math.log10(1 + (rate ?? 0) / 300)) / (spokes ? 3 : 1);
        path.style.strokeWidth = kind === "own" ? `${width.toFixed(2)}px` : "";
        text(path.firstChild, kind === "missing" ? `${parts(a)[0]} has no session with ${parts(b)[0]}` : kind === "own" ? `${parts(a)[0]} – ${parts(b)[0]}: ${perSecond(rate ?? 0)}` : "");
      },
    );
  }
}

/** Angles from the top on, so that the points at them stand equally far apart on a ring with these radii. */
function spread(count, rx, ry) {
  const steps = 720;
  const ways = [0];
  for (let step = 1; step <= steps; step += 1) {
    const middle = ((step - 0.5) / steps) * 2 * Math.PI;
    ways.push(ways[step - 1] + Math.hypot(rx * Math.cos(middle), ry * Math.sin(middle)));
  }
  const angles = [];
  for (let at = 0, step = 0; at < count; at += 1) {
    const way = (at / count) * ways[steps];
    while (ways[step + 1] <= way) step += 1;
    const part = (way - ways[step]) / (ways[step + 1] - ways[step]);
    angles.push(((step + part) / steps) * 2 * Math.PI - Math.PI / 2);
  }
  return angles;
}

/** The lines: sessions of the asked node, with what goes over them; those of others; and those that should be there. */
function links(rows, pulse, chosen) {
  const self = rows.find((row) => row.self)?.name;
  const living = rows.filter((row) => row.state !== "down");
  const found = [];
  const missing = new Set();
  for (const row of living) {
    for (const other of row.missing ?? []) missing.add([row.name, other].toSorted().join(" "));
  }
  const alone = rows.length > MANY;
  living.forEach((one, at) => {
    for (const other of living.slice(at + 1)) {
      const own = one.name === self || other.name === self;
      const lacks = missing.has([one.name, other.name].toSorted().join(" "));
      if (alone && !own && !lacks && one.name !== chosen && other.name !== chosen) continue;
      const peer = own ? pulse?.peers[one.name === self ? other.name : one.name] : undefined;
      found.push({ a: one.name, b: other.name, kind: lacks ? "missing" : own ? "own" : "other", rate: peer && peer.in + peer.out, waiting: peer?.waiting ?? 0 });
    }
  });
  return found;
}
