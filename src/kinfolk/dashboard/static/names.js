// Names: searched and paged at the node, kept up to date while they are looked at; and why each is where it is.

import { h, Table, text } from "./dom.js";
import { date, parts, plural } from "./format.js";
import { Detail, empty, facts, nodeChoice, nodeName, Pager, processNumber, Refresh, search } from "./parts.js";
import { act, ask } from "./server.js";

const LIMIT = 50;
const GOOD = new Set(["confirmed", "acknowledged"]);

function mount({ store, root, go, signal, confirmed }, params) {
  let q = params.get("q") ?? "";
  let node = params.get("node") ?? "";
  let chosen = "";
  let starts = [""]; // after which name each page so far begins
  let rows = [];
  let shownBefore = false;

  const moved = (given = {}) => go("names", { q, node, name: chosen, ...given }, true);
  const field = search({
    label: "Search names",
    value: q,
    signal,
    onsearch: (value) => {
      q = value;
      starts = [""];
      moved();
      refresh.now();
    },
  });
  const choice = nodeChoice(store, {
    label: "Node of the holder",
    all: "All nodes",
    value: node,
    signal,
    onchoice: (value) => {
      node = value;
      starts = [""];
      moved();
      refresh.now();
    },
  });
  const table = new Table(
    [
      { label: "Name", head: true, class: "grow", make: ([name]) => h("button", { type: "button", class: "link name", onclick: () => open(name) }, name) },
      { label: "Process", class: "narrow", make: () => h("span"), update: (cell, [, pid]) => cell.title !== pid && replace(cell, pid, processNumber(pid)) },
      { label: "Node", make: () => h("span"), update: (cell, [, pid]) => cell.title !== nodeOf(pid) && replace(cell, nodeOf(pid), nodeName(nodeOf(pid))) },
    ],
    { caption: "Names with their holders", keyOf: ([name]) => name, rowClass: ([name]) => ({ chosen: name === chosen }) },
  );
  const pager = new Pager({
    onprevious: () => turn(() => starts.pop()),
    onnext: () => turn(() => starts.push(rows.at(-1)[0])),
  });
  const nothing = empty("No name matches", "A search finds names that contain it; capitals count if you type any.");
  const none = empty("No names yet", "A process gets one by node.names.register(name, pid).");
  const said = h("p", { class: "error", role: "alert" });
  const detail = new Detail({
    label: "Why",
    signal,
    onclose: () => {
      chosen = "";
      detail.close();
      moved();
      table.show(rows);
    },
  });
  root.append(
    h("div", { class: "toolbar" }, field, choice),
    said,
    h("div", { class: "split" }, h("div", { class: "card flush" }, table.element, nothing, none, pager.element), detail.element),
  );

  function turn(step) {
    step();
    shownBefore = false;
    refresh.now();
  }

  const refresh = new Refresh(
    async (asking) => {
      const asked = [q, node, starts.at(-1)].join("\0");
      const page = await ask("names", { q, node, after: starts.at(-1), limit: LIMIT }, asking);
      text(said, "");
      rows = page.names;
      table.show(rows, { flash: shownBefore === asked });
      shownBefore = asked;
      table.element.hidden = rows.length === 0;
      nothing.hidden = rows.length > 0 || !(q || node);
      none.hidden = rows.length > 0 || Boolean(q || node);
      pager.show({ from: (starts.length - 1) * LIMIT, rows: rows.length, count: page.count, more: page.more, one: "name", many: "names" });
    },
    { failed: (error) => text(said, error.message), least: 1500, signal },
  );

  /** Whether a change could be seen on the page that is shown. */
  const concerns = ([, kind, name]) =>
    kind === "resync" || kind === "skipped" || ((kind === "added" || kind === "removed") && (!q || name.toLowerCase().includes(q.toLowerCase())));

  store.addEventListener(
    "events",
    ({ detail: told }) => {
      if (told.skipped || told.events.some(concerns)) refresh.soon();
      if (chosen && told.events.some(([, , name]) => name === chosen)) why.soon();
    },
    { signal },
  );
  store.addEventListener("anew", () => refresh.soon(), { signal });

  const why = new Refresh(
    async (asking) => {
      const name = chosen;
      const told = await ask("why", { name }, asking);
      if (name === chosen) detail.open(name, ...explained(told, store, confirmed, () => why.soon()));
    },
    { failed: (error) => detail.open(chosen, h("p", { class: "error" }, error.message)), signal },
  );

  function open(name) {
    chosen = name;
    moved();
    table.show(rows);
    why.now();
  }

  nothing.hidden = none.hidden = true;
  refresh.now();

  return (given) => {
    const wanted = { q: given.get("q") ?? "", node: given.get("node") ?? "", name: given.get("name") ?? "" };
    if (wanted.q !== q || wanted.node !== node) {
      ({ q, node } = wanted);
      field.value = q;
      choice.set(node);
      starts = [""];
      refresh.now();
    }
    if (wanted.name !== chosen) {
      chosen = wanted.name;
      if (chosen) why.now();
      else detail.close();
      table.show(rows);
    }
  };
}

function replace(cell, title, child) {
  cell.title = title;
  cell.replaceChildren(child);
}

const nodeOf = (pid) => pid.split("/")[0];

/** An explanation, as `node.explain(name)` gives it. */
function explained(told, store, confirmed, again) {
  const holder = told.holder;
  return [
    h("p", { class: "verdict" }, holder ? ["held by ", processNumber(holder), " on ", nodeName(nodeOf(holder))] : "held by nobody"),
    facts([
      ["Rule", told.rule],
      ["Because", told.because],
      ["As seen by", nodeName(told.node)],
      ["Pid", holder && h("code", { class: "breaks" }, holder)],
    ]),
    holder ? actions(told, holder, store, confirmed, again) : null,
    h("h3", {}, told.claims.length ? plural(told.claims.length, "claim") : "No claims"),
    told.claims.length ? h("ul", { class: "claims" }, told.claims.map(claim)) : null,
    h("h3", {}, "History"),
    told.history.length
      ? h("ol", { class: "history" }, told.history.toReversed().map((event) => h("li", {}, h("span", { class: "what" }, event.what), h("time", { class: "muted tabular" }, date(event.time)), h("span", {}, event.text))))
      : h("p", { class: "muted" }, "Nothing that happened to it is remembered by this node."),
  ];
}

function claim(told) {
  return h(
    "li",
    {},
    h("p", {}, h("span", { class: `badge ${GOOD.has(told.state) ? "ok" : told.state === "dead" ? "bad" : "warn"}` }, told.state), " ", h("code", { class: "breaks" }, told.pid)),
    h("p", {}, told.text),
    h("p", { class: "muted" }, `entry ${told.position}, stamp ${date(told.time)} +${told.counter}${told.epoch === null ? "" : `, epoch ${told.epoch}`}`),
    told.missing.length ? h("p", { class: "warn-text" }, `not acknowledged by ${told.missing.map((node) => parts(node)[0]).join(", ")}`) : null,
    told.acknowledged.length ? h("p", { class: "muted" }, `acknowledged by ${told.acknowledged.map((node) => parts(node)[0]).join(", ")}`) : null,
  );
}

function actions(told, pid, store, confirmed, again) {
  if (!store.about.acts) return null;
  return h("div", { class: "buttons start" }, h("button", { type: "button", class: "danger quiet", onclick: () => askToKill(pid, told.name, confirmed, again) }, "Kill the process …"));
}

/** Ask, and kill. */
export function askToKill(pid, what, confirmed, after) {
  confirmed({
    title: `Kill ${what}?`,
    does: `The process ${pid} ends at once and cannot refuse. Its names, links and waiting messages are gone with it; its supervisor, if it has one, may start it anew.`,
    verb: "Kill the process",
    act: async () => {
      await act("api/kill", { pid });
      after?.();
    },
  });
}

export default { title: "Names", mount };
