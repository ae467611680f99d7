// Numbers of the asked node over time, and all that it counts.

import { Chart } from "./chart.js";
import { attr, h, Table } from "./dom.js";
import { bytes, number, percent, perSecond, short, span } from "./format.js";

const RANGES = [
  [60, "1 min"],
  [300, "5 min"],
  [900, "15 min"],
];

const CHARTS = [
  { title: "Names", hint: "in the cluster, as this node knows them", lines: [{ field: "names" }], show: short },
  { title: "Processes", hint: "living processes of this node", lines: [{ field: "processes" }], show: short },
  { title: "CPU", hint: "the part of a core that the node's program uses", lines: [{ field: "cpu" }], show: percent },
  { title: "Bytes", hint: "over all sessions, before TLS", lines: [{ field: "in", label: "in", sign: "↓" }, { field: "out", label: "out", sign: "↑" }], show: perSecond },
  { title: "Frames", hint: "over all sessions", lines: [{ field: "frames_in", label: "in", sign: "↓" }, { field: "frames_out", label: "out", sign: "↑" }], show: (value) => `${short(value)}/s` },
  { title: "Dropped messages", hint: "messages that nobody got; the table says why", lines: [{ field: "dropped" }], show: (value) => `${short(value)}/s` },
  { title: "Slowest heartbeat", hint: "the longest that a peer took to answer", lines: [{ field: "trip" }], show: span },
  { title: "Time to answer", hint: "how long the node's own service took to answer this page: its event loop is late by at most that", lines: [{ field: "took" }], show: span },
  { title: "Waiting bytes", hint: "that wait to be written to peers", lines: [{ field: "waiting" }], show: bytes },
];

function mount({ store, root, signal }) {
  let seconds = 300;
  const charts = CHARTS.map((each) => new Chart(each));
  const ranges = h(
    "div",
    { class: "tabs", role: "group", "aria-label": "How far back" },
    RANGES.map(([length, label]) =>
      h("button", { type: "button", "aria-pressed": String(length === seconds), onclick: ({ target }) => {
        seconds = length;
        for (const button of ranges.children) attr(button, "aria-pressed", String(button === target));
        draw();
      } }, label),
    ),
  );
  root.querySelector(".head").append(ranges);
  const first = { ...store.pulse?.counters };
  const table = new Table(
    [
      { label: "Counter", head: true, text: ([name]) => name.replace(/_total$/, "").replaceAll("_", " ") },
      { label: "What is counted", class: "grow muted", text: ([name]) => store.about.counters[name]?.[1] ?? "" },
      { label: "Since you look", class: "number", text: ([name, count]) => (count > (first[name] ?? 0) ? `+${number(count - (first[name] ?? 0))}` : "") },
      { label: "Total", class: "number", text: ([, count]) => number(count) },
    ],
    { caption: "Counters of the node since it started", keyOf: ([name]) => name, rowClass: ([name]) => ({ dropped: store.about.counters[name]?.[0] === "dropped" }) },
  );
  root.append(h("div", { class: "charts" }, charts.map(({ element }) => element)), h("h2", { class: "section" }, "Counted since the node started"), h("div", { class: "card flush" }, table.element));
  signal.addEventListener("abort", () => charts.forEach((chart) => chart.close()));

  function draw() {
    const times = store.column("at");
    charts.forEach((chart) => chart.show(times, chart.lines.map(({ field }) => store.column(field)), seconds));
    table.show(Object.entries(store.pulse?.counters ?? {}).filter(([, count]) => count).toSorted(([a], [b]) => (a < b ? -1 : 1)));
    table.element.parentElement.hidden = !Object.values(store.pulse?.counters ?? {}).some(Boolean);
  }
  store.addEventListener("pulse", draw, { signal });
  store.addEventListener("anew", draw, { signal });
  draw();
}

export default { title: "Metrics", mount };
