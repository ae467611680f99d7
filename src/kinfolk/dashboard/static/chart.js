// Small charts of numbers over time: lines and an area, a grid of three, and the value under the pointer.

import { attr, h, s, text } from "./dom.js";
import { time } from "./format.js";

const GAP = 5; // seconds without a sample: the line is broken
const HEADROOM = 1.15; // above the highest value stands what the uppermost line means
const PAD = { left: 0, right: 0, top: 6, bottom: 2 };

/** A number that is at least as large, and round. */
export function roundUp(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const step = [1, 2, 2.5, 5, 10].find((each) => each * power >= value);
  return step * power;
}

function linePath(points) {
  let path = "";
  let last = -Infinity;
  for (const [x, y, at] of points) {
    path += `${at - last > GAP ? "M" : "L"}${x.toFixed(1)} ${y.toFixed(1)}`;
    last = at;
  }
  return path;
}

/** A line without anything around it, for a number that stands beside. */
export class Spark {
  constructor() {
    this.line = s("path", { class: "line" });
    this.element = s("svg", { class: "spark", viewBox: "0 0 120 28", preserveAspectRatio: "none", "aria-hidden": "true" }, this.line);
  }

  /** Draw the last seconds. */
  show(times, values, seconds) {
    const begin = (times.at(-1) ?? 0) - seconds;
    const first = times.findIndex((at) => at >= begin);
    const shown = values.slice(first);
    const low = Math.min(...shown);
    const height = Math.max(...shown) - low;
    const points = shown.map((value, at) => [((times[first + at] - begin) / seconds) * 120, height === 0 ? 14 : 26 - ((value - low) / height) * 24, times[first + at]]);
    attr(this.line, "d", linePath(points));
  }
}

/**
 * One chart.
 *
 * `lines` are fields of the samples; where there are several, each has a label, and a sign for where there is no room.
 * `show(value)` gives a number as text.
 */
export class Chart {
  constructor({ title, hint, lines, show }) {
    this.lines = lines;
    this.say = show;
    this.now = h("p", { class: "chart-now tabular" });
    this.grid = s("g", { class: "grid" });
    this.areas = lines.map((_, at) => s("path", { class: `area area-${at}` }));
    this.paths = lines.map((_, at) => s("path", { class: `line line-${at}` }));
    this.cursor = s("line", { class: "cursor", y1: 0, visibility: "hidden" });
    this.dots = lines.map((_, at) => s("circle", { class: `dot-${at}`, r: 3, visibility: "hidden" }));
    this.svg = s("svg", { class: "chart", role: "img" }, this.grid, ...this.areas, ...this.paths, this.cursor, ...this.dots);
    this.most = h("span", { class: "chart-most tabular" });
    this.from = h("span", {});
    this.until = h("span", {}, "now");
    this.element = h(
      "section",
      { class: "card chart-card" },
      h("header", { class: "chart-head" }, h("h2", { title: hint }, title), this.now),
      h("div", { class: "chart-box" }, this.most, this.svg),
      h("footer", { class: "chart-foot muted tabular" }, this.from, this.until),
    );
    this.title = title;
    this.pointed = null;
    this.svg.addEventListener("pointermove", (event) => this.#point(event));
    this.svg.addEventListener("pointerleave", () => {
      this.pointed = null;
      this.#mark();
    });
    this.data = { times: [], columns: lines.map(() => []), seconds: 60, end: 0 };
    this.watching = new ResizeObserver(() => this.#draw());
    this.watching.observe(this.svg);
  }

  show(times, columns, seconds) {
    const end = times.at(-1) ?? 0;
    const first = times.findIndex((at) => at >= end - seconds);
    this.data = { times: times.slice(first), columns: columns.map((column) => column.slice(first)), seconds, end };
    this.#draw();
  }

  close() {
    this.watching.disconnect();
  }

  #draw() {
    const { times, columns, seconds, end } = this.data;
    const width = this.svg.clientWidth;
    const height = this.svg.clientHeight;
    if (!width || !times.length) return;
    attr(this.svg, "viewBox", `0 0 ${width} ${height}`);
    const top = roundUp(HEADROOM * Math.max(...columns.map((column) => Math.max(...column))));
    this.x = (at) => PAD.left + ((at - end + seconds) / seconds) * (width - PAD.left - PAD.right);
    this.y = (value) => height - PAD.bottom - (value / top) * (height - PAD.top - PAD.bottom);
    columns.forEach((column, at) => {
      const points = column.map((value, each) => [this.x(times[each]), this.y(value), times[each]]);
      const path = linePath(points);
      attr(this.paths[at], "d", path);
      attr(this.areas[at], "d", areaPath(points, height - PAD.bottom));
    });
    this.grid.replaceChildren(...[0, 0.5, 1].map((part) => s("line", { x1: 0, x2: width, y1: this.y(top * part), y2: this.y(top * part) })));
    attr(this.cursor, "y2", height);
    text(this.most, this.say(top));
    text(this.from, seconds >= 120 ? `${seconds / 60} min ago` : `${seconds} s ago`);
    this.#mark();
  }

  #point(event) {
    const { seconds, end, times } = this.data;
    const box = this.svg.getBoundingClientRect();
    const at = end - seconds + ((event.clientX - box.left) / box.width) * seconds;
    this.pointed = times.length ? times.reduce((best, each, index) => (Math.abs(each - at) < Math.abs(times[best] - at) ? index : best), 0) : null;
    this.#mark();
  }

  #mark() {
    const { times, columns } = this.data;
    const at = this.pointed ?? times.length - 1;
    const shown = this.pointed !== null && at < times.length;
    const values = columns.map((column) => column[Math.min(at, column.length - 1)] ?? 0);
    const told = this.lines.map(({ label }, index) => (label ? `${label} ${this.say(values[index])}` : this.say(values[index])));
    this.now.replaceChildren(
      ...(shown ? [h("span", { class: "muted" }, `${time(times[at])}  `)] : []),
      ...this.lines.flatMap(({ label, sign }, index) => [sign ? h("span", { class: `key key-${index}`, title: label }, `${sign} `) : "", h("strong", {}, this.say(values[index])), " "]),
    );
    attr(this.svg, "aria-label", `${this.title}: ${told.join(", ")}`);
    attr(this.cursor, "visibility", shown ? "visible" : "hidden");
    this.dots.forEach((dot, index) => {
      attr(dot, "visibility", shown ? "visible" : "hidden");
      if (shown) {
        attr(dot, "cx", this.x(times[at]));
        attr(dot, "cy", this.y(values[index]));
      }
    });
    if (shown) {
      attr(this.cursor, "x1", this.x(times[at]));
      attr(this.cursor, "x2", this.x(times[at]));
    }
  }
}

/** What is below a line, each unbroken part by itself. */
function areaPath(points, floor) {
  let path = "";
  let part = [];
  const close = () => {
    if (part.length > 1) path += `M${part[0][0].toFixed(1)} ${floor}${part.map(([x, y]) => `L${x.toFixed(1)} ${y.toFixed(1)}`).join("")}L${part.at(-1)[0].toFixed(1)} ${floor}Z`;
    part = [];
  };
  for (const point of points) {
    if (part.length && point[2] - part.at(-1)[2] > GAP) close();
    part.push(point);
  }
  close();
  return path;
}
