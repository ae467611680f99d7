// The cluster at a glance: a few numbers, the mesh, what needs attention, and every node.

import { Spark } from "./chart.js";
import { attr, h, icon, Table, text } from "./dom.js";
import { KINDS } from "./events.js";
import { age, date, number, parts, percent, perSecond, plural, short, span, started, time } from "./format.js";
import { Mesh, WORDS } from "./mesh.js";
import { facts, nodeName } from "./parts.js";
import { act } from "./server.js";

const TONES = { up: "ok", stalled: "warn", draining: "warn", starting: "warn", silent: "warn", down: "bad" };
const RECENT = 60; // seconds of the small lines
const BRIEF = 7; // events
const TOGETHER = 150; // milliseconds
/** Counters that should stand still; a node that has some of these has something to tell. */
const GRAVE = ["registry_divergence_total", "names_lost", "leases_lost", "protocol_errors", "outbox_overflows"];

function tile(label) {
  const value = h("p", { class: "tile-value tabular" }, "–");
  const more = h("p", { class: "tile-more muted" }, "\u00a0");
  const spark = new Spark();
  return { value, more, spark, element: h("section", { class: "tile card" }, h("h2", { class: "tile-label" }, label), value, more, spark.element) };
}

const badge = (state) => h("span", { class: `badge ${TONES[state]}` }, WORDS[state]);

function mount({ store, root, go, signal, confirmed }, params) {
  let chosen = params.get("node") ?? "";
  let order = "name";
  let descending = false;

  const tiles = { nodes: tile("Nodes"), names: tile("Names"), processes: tile("Processes here"), traffic: tile("Traffic here") };
  const choose = (name) => go("overview", { node: name === chosen ? "" : name }, true);
  const mesh = new Mesh({ onselect: choose });
  const heed = h("ul", { class: "heed" });
  const legend = h("p", { class: "legend" });
  const brief = h("ol", { class: "brief" });
  const side = h("section", { class: "card side" });
  const table = new Table(
    [
      { label: "Node", head: true, class: "grow", sort: "name", make: (row) => h("button", { type: "button", class: "link name", onclick: () => choose(row.name) }, nodeName(row.name)) },
      { label: "State", sort: "state", make: () => h("span"), update: (cell, row) => (text(cell, WORDS[row.state]), attr(cell, "class", `badge ${TONES[row.state]}`), attr(cell, "title", row.why)) },
      { label: "Names held", class: "number", sort: "held", text: (row) => told(row.held, number) },
      { label: "Processes", class: "number", sort: "processes", text: (row) => told(row.processes, number) },
      { label: "CPU", class: "number", sort: "cpu", text: (row) => told(row.cpu, percent) },
      { label: "In", class: "number", sort: "in", text: (row) => told(row.in, perSecond) },
      { label: "Out", class: "number", sort: "out", text: (row) => told(row.out, perSecond) },
      { label: "Heartbeat", class: "number", text: (row) => (row.self ? "" : span(store.pulse?.peers[row.name]?.trip)) },
    ],
    {
      caption: "Nodes",
      keyOf: (row) => row.name,
      order: (key) => {
        descending = key === order ? !descending : key !== "name" && key !== "state";
        order = key;
        table.ordered(order, descending);
        draw();
      },
      rowClass: (row) => ({ chosen: row.name === chosen, faint: row.state === "down" }),
    },
  );
  table.ordered(order, descending);
  root.append(
    h("div", { class: "tiles" }, Object.values(tiles).map(({ element }) => element)),
    h("div", { class: "over" }, h("section", { class: "card flush mesh-card" }, mesh.element, legend), side),
    h("section", { class: "card flush" }, table.element),
  );
  signal.addEventListener("abort", () => mesh.close());

  function draw() {
    const { pulse } = store;
    const rows = [...store.nodes.values()];
    mesh.show(rows, pulse, chosen);
    const sorted = rows.toSorted((a, b) => {
      const [one, other] = [a[order] ?? "", b[order] ?? ""];
      return (one < other ? -1 : one > other ? 1 : a.name < b.name ? -1 : 1) * (descending ? -1 : 1);
    });
    table.show(sorted);
    text(legend, rows.length > 1 ? `Size: names held. Thickness: traffic with ${parts(store.self)[0]}.` : "");
    drawTiles(rows, pulse);
    drawSide(rows, pulse);
  }

  function drawTiles(rows, pulse) {
    if (!pulse) return;
    const up = rows.filter((row) => row.state !== "down");
    const bad = up.filter((row) => row.state !== "up");
    text(tiles.nodes.value, number(up.length));
    text(tiles.nodes.more, bad.length ? states(bad) : rows.length > up.length ? `${number(rows.length - up.length)} down` : "all up");
    text(tiles.names.value, number(pulse.names));
    text(tiles.names.more, `${number(pulse.held)} held here`);
    text(tiles.processes.value, number(pulse.processes));
    const now = store.sample(pulse.sample);
    text(tiles.processes.more, `${percent(now.cpu)} of a core`);
    text(tiles.traffic.value, perSecond(now.in + now.out));
    text(tiles.traffic.more, `↓ ${perSecond(now.in)}  ↑ ${perSecond(now.out)}`);
    const times = store.column("at");
    const out = store.column("out");
    const traffic = store.column("in").map((value, at) => value + out[at]);
    tiles.names.spark.show(times, store.column("names"), RECENT);
    tiles.processes.spark.show(times, store.column("processes"), RECENT);
    tiles.traffic.spark.show(times, traffic, RECENT);
  }

  function drawSide(rows, pulse) {
    const row = store.nodes.get(chosen);
    if (row === undefined) {
      const found = pulse ? matters(store, rows, pulse) : [];
      if (side.dataset.of !== "heed") {
        side.dataset.of = "heed";
        side.replaceChildren(h("h2", {}, "Needs attention"), heed, h("h2", {}, "Just now"), brief);
        drawBrief();
      }
      const texts = found.map(({ what }) => what).join("\n");
      if (heed.dataset.texts === texts && heed.childElementCount) return;
      heed.dataset.texts = texts;
      heed.replaceChildren(
        ...(found.length
          ? found.map(({ tone, what, node }) => h("li", {}, h("span", { class: `mark ${tone}`, "aria-hidden": "true" }), node ? h("button", { type: "button", class: "link", onclick: () => choose(node) }, what) : h("span", {}, what)))
          : [h("li", { class: "calm" }, h("span", { class: "mark ok", "aria-hidden": "true" }), h("span", {}, pulse ? "Nothing. Every node is up, sees every other, and loses no message." : "The node has not answered yet."))]),
      );
      return;
    }
    const peer = pulse?.peers[row.name];
    const state = badge(row.state);
    const drain =
      store.about.acts && (row.state === "up" || row.state === "stalled")
        ? h("button", { type: "button", class: "danger quiet", onclick: () => askToDrain(row.name, confirmed) }, "Drain …")
        : null;
    const focused = document.activeElement?.closest(".side") ? document.activeElement.dataset.key : null;
    side.dataset.of = row.name;
    side.replaceChildren(
      h("header", { class: "detail-head" }, h("h2", {}, nodeName(row.name)), h("button", { type: "button", class: "icon", "aria-label": "Close", "data-key": "close", onclick: () => choose(row.name) }, icon("close"))),
      h("p", {}, state, row.why ? h("span", { class: "muted" }, ` ${row.why}`) : ""),
      facts([
        ["Started", row.creation ? h("span", { title: date(started(row.creation)) }, `${age(Math.max(0, Date.now() / 1000 - started(row.creation)))} ago`) : null],
        ["Names held", told(row.held, number)],
        ["Processes", told(row.processes, number)],
        ["CPU", row.cpu === undefined ? null : `${percent(row.cpu)} of a core`],
        ["Traffic", row.in === undefined ? null : `${perSecond(row.in)} in, ${perSecond(row.out)} out`],
        [`With ${parts(store.self)[0]}`, peer && `${perSecond(peer.out)} in, ${perSecond(peer.in)} out`],
        ["Heartbeat", peer && span(peer.trip)],
        ["Waits to be sent", row.waiting ? `${short(row.waiting)} bytes` : null],
        ["No session with", row.missing?.length ? row.missing.map((name) => parts(name)[0]).join(", ") : null],
      ]),
      h("div", { class: "buttons start" }, h("a", { class: "button", "data-key": "processes", href: `#/processes?${new URLSearchParams({ node: row.name })}` }, "Processes"), h("a", { class: "button", "data-key": "names", href: `#/names?${new URLSearchParams({ node: row.name })}` }, "Names"), drain),
    );
    if (drain) drain.dataset.key = "drain";
    if (focused) side.querySelector(`[data-key=${focused}]`)?.focus();
  }

  /** The last things that have happened. */
  function drawBrief() {
    const last = store.events.slice(-BRIEF).reverse();
    brief.replaceChildren(
      ...(last.length
        ? last.map((event) => h("li", {}, h("time", { class: "muted tabular" }, time(event[0])), h("span", { class: "brief-what", title: event[2] ?? "" }, h("span", { class: "muted" }, `${KINDS[event[1]].label} `), typeof event[2] === "string" ? event[2] : "")))
        : [h("li", { class: "muted" }, "Nothing since you look.")]),
    );
  }

  // Several things are told in one second: they are drawn together.
  let timer = 0;
  const soon = () => {
    timer ||= setTimeout(() => {
      timer = 0;
      draw();
    }, TOGETHER);
  };
  signal.addEventListener("abort", () => clearTimeout(timer));
  store.addEventListener("events", drawBrief, { signal });
  store.addEventListener("anew", drawBrief, { signal });
  for (const event of ["pulse", "mesh", "anew"]) store.addEventListener(event, soon, { signal });

  return (given) => {
    chosen = given.get("node") ?? "";
    draw();
  };
}

const told = (value, say) => (value === undefined ? "–" : say(value));

/** How many are in which state. */
function states(rows) {
  const counts = new Map();
  for (const { state } of rows) counts.set(state, (counts.get(state) ?? 0) + 1);
  return [...counts].map(([state, count]) => `${count} ${WORDS[state]}`).join(", ");
}

/** What a person should look at, the worst first. */
function matters(store, rows, pulse) {
  const found = [];
  for (const row of rows) {
    const word = parts(row.name)[0];
    if (row.state === "down") found.push({ tone: "bad", node: row.name, what: `${word} is down${row.why ? `: ${row.why}` : ""}` });
    else if (row.state === "stalled") found.push({ tone: "warn", node: row.name, what: `${word} is stalled: ${row.why}` });
    else if (row.state === "silent") found.push({ tone: "warn", node: row.name, what: `${word} does not answer: ${row.why}` });
    else if (row.state === "draining") found.push({ tone: "warn", node: row.name, what: `${word} drains${row.why ? `: ${row.why}` : ""}` });
    const missing = row.missing?.filter((name) => name > row.name || !store.nodes.get(name)?.missing?.includes(row.name)); // both may tell of it
    if (missing?.length) found.push({ tone: "bad", node: row.name, what: `${word} has no session with ${missing.map((name) => parts(name)[0]).join(", ")}` });
    if (row.waiting > 1e6) found.push({ tone: "warn", node: row.name, what: `${short(row.waiting)} bytes wait at ${word} to be sent` });
  }
  const dropped = store.column("dropped").slice(-60);
  const lost = dropped.reduce((sum, each) => sum + each, 0);
  if (lost >= 1) found.push({ tone: "warn", what: `${plural(Math.round(lost), "message")} dropped here in the last minute: the metrics say why` });
  for (const name of GRAVE) {
    if (pulse.counters[name]) found.push({ tone: "warn", what: `${number(pulse.counters[name])} × ${store.about.counters[name]?.[1] ?? name}` });
  }
  return found.toSorted((a, b) => (a.tone === b.tone ? 0 : a.tone === "bad" ? -1 : 1));
}

function askToDrain(node, confirmed) {
  confirmed({
    title: `Drain ${parts(node)[0]}?`,
    does: `${node} takes no new work, hands its singletons over, finishes what it has, leaves the cluster and closes. It does not come back by itself.`,
    verb: "Drain the node",
    act: () => act("api/drain", { node }),
  });
}

export default { title: "Overview", mount };
