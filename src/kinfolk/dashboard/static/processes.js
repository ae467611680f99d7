// The processes of one node, and what supervises them.

import { attr, h, reconcile, Table, text } from "./dom.js";
import { age, number } from "./format.js";
import { askToKill } from "./names.js";
import { empty, nodeChoice, Pager, processNumber, Refresh, search } from "./parts.js";
import { ask } from "./server.js";

const LIMIT = 50;
const NAMES = 5; // of one process; one more is told when there are more

function mount(context, params) {
  const { store, root, go, signal } = context;
  let view = "";
  let ended = new AbortController();
  let node = params.get("node") ?? "";

  const tabs = h(
    "div",
    { class: "tabs", role: "group", "aria-label": "View" },
    ...[
      ["", "List"],
      ["tree", "Supervision"],
    ].map(([key, label]) => h("a", { "data-view": key, href: "#" }, label)),
  );
  const choice = nodeChoice(store, { label: "Node", value: node, signal, onchoice: (value) => go("processes", { view, node: value }) });
  root.querySelector(".head").append(tabs);
  const place = h("div", { class: "view" });
  root.append(place);
  signal.addEventListener("abort", () => ended.abort());

  return (given) => {
    const wanted = given.get("view") === "tree" ? "tree" : "";
    const where = given.get("node") ?? "";
    for (const tab of tabs.children) {
      const key = tab.dataset.view;
      attr(tab, "aria-current", key === wanted ? "true" : null);
      attr(tab, "href", `#/processes?${new URLSearchParams({ ...(key && { view: key }), ...(where && { node: where }) })}`);
    }
    if (place.childElementCount && wanted === view && where === node) return;
    ended.abort();
    ended = new AbortController();
    view = wanted;
    node = where;
    choice.set(node || store.self);
    place.replaceChildren();
    (view === "tree" ? tree : list)({ ...context, root: place, choice, signal: ended.signal }, node);
  };
}

// --- the list ---

function list({ store, root, choice, signal, confirmed }, node) {
  let q = "";
  let order = "start";
  let skip = 0;

  const field = search({
    label: "Search functions and names",
    value: "",
    signal,
    onsearch: (value) => {
      q = value;
      skip = 0;
      refresh.now();
    },
  });
  const table = new Table(
    [
      { label: "Process", class: "narrow", sort: "start", make: ({ pid }) => processNumber(pid) },
      { label: "Runs", head: true, class: "grow runs", text: ({ runs }) => runs },
      { label: "Names", class: "grow", text: ({ names }) => (names.length > NAMES ? `${names.slice(0, NAMES).join(", ")}, …` : names.join(", ")) },
      { label: "Waiting", class: "number", sort: "waiting", text: ({ waiting }) => number(waiting) },
      { label: "Received", class: "number", sort: "received", text: ({ received }) => number(received) },
      { label: "Age", class: "number", text: (process) => age(process.age) },
      store.about.acts && {
        label: "",
        unseen: "Actions",
        class: "narrow end",
        make: (process) => h("button", { type: "button", class: "danger quiet small", "aria-label": `Kill ${process.pid}`, onclick: () => askToKill(process.pid, process.names[0] ?? process.runs, confirmed, () => refresh.now()) }, "Kill …"),
      },
    ],
    {
      caption: "Processes",
      keyOf: ({ pid }) => pid,
      order: (key) => {
        order = key;
        skip = 0;
        table.ordered(order, order !== "start");
        refresh.now();
      },
      rowClass: ({ waiting }) => ({ busy: waiting > 0 }),
    },
  );
  table.ordered(order, false);
  const pager = new Pager({
    onprevious: () => ((skip = Math.max(0, skip - LIMIT)), refresh.now()),
    onnext: () => ((skip += LIMIT), refresh.now()),
  });
  const said = h("p", { class: "error", role: "alert" });
  const nothing = empty("No process matches", "A search looks at functions and names.");
  nothing.hidden = true;
  root.append(
    h("div", { class: "toolbar" }, field, choice),
    said,
    h("div", { class: "card flush" }, table.element, nothing, pager.element),
    store.about.acts ? "" : h("p", { class: "muted note" }, "To kill processes and drain nodes from here, start the dashboard with a token: ", h("code", {}, "kinfolk dashboard --token-file FILE"), "."),
  );

  const refresh = new Refresh(
    async (asking) => {
      const page = await ask("processes", { node, q, order, skip, limit: LIMIT }, asking);
      text(said, "");
      table.show(page.processes);
      table.element.hidden = page.processes.length === 0;
      nothing.hidden = page.processes.length > 0;
      pager.show({ from: skip, rows: page.processes.length, count: page.count, more: page.more, one: "process", many: "processes" });
    },
    { failed: (error) => text(said, error.message), signal },
  );
  store.addEventListener("pulse", () => refresh.soon(), { signal });
  refresh.now();
}

// --- the tree ---

const STATES = { running: "ok", waiting: "warn", starting: "warn", standby: "quiet", stopping: "warn", done: "quiet", absent: "quiet" };

function tree({ store, root, choice, signal }, node) {
  const said = h("p", { class: "error", role: "alert" });
  const roots = h("ul", { class: "tree" });
  const nothing = empty("Nothing is supervised here", "node.supervise([Child(...), ...]) starts a supervisor and its children.");
  nothing.hidden = true;
  const more = h("p", { class: "muted" }, "There is more than is shown here: kinfolk tree tells all.");
  more.hidden = true;
  root.append(h("div", { class: "toolbar" }, choice), said, h("div", { class: "card" }, roots, more, nothing));

  const refresh = new Refresh(
    async (asking) => {
      const found = await ask("tree", { node }, asking);
      text(said, "");
      branch(roots, found.roots);
      more.hidden = !found.more;
      nothing.hidden = found.roots.length > 0;
    },
    { failed: (error) => text(said, error.message), signal },
  );
  store.addEventListener("pulse", () => refresh.soon(), { signal });
  refresh.now();
}

/** The children of one supervisor, kept up to date. */
function branch(list, children) {
  reconcile(
    list,
    children,
    (child) => `${child.id}${child.strategy ? " supervisor" : ""}${child.pid && child.strategy ? child.pid : ""}`,
    (child) => {
      const line = h("div", { class: "tree-line" }, h("span", { class: "badge" }), h("strong", { class: "tree-id" }), h("span", { class: "muted tree-runs" }), h("span", { class: "tree-pid" }), h("span", { class: "muted tree-restarts" }));
      if (!child.strategy) return h("li", {}, line);
      return h("li", {}, h("details", { open: true }, h("summary", {}, line), h("ul", { class: "tree" }), h("p", { class: "muted tree-more" })));
    },
    (item, child) => {
      const [badge, id, runs, pid, restarts] = item.querySelector(".tree-line").children;
      const state = child.state ?? "running";
      text(badge, state);
      attr(badge, "class", `badge ${STATES[state] ?? "bad"}`);
      text(id, child.name ?? child.id);
      text(runs, child.strategy ? `${child.runs} · ${child.strategy}` : child.runs);
      text(pid, child.pid ? `#${child.pid.split("/")[2]}` : child.on ? `on ${child.on}` : "");
      attr(pid, "title", child.pid);
      text(restarts, child.restarts ? `restarted ${number(child.restarts)} ×` : "");
      const below = item.querySelector(":scope > details > ul");
      if (below === null) return;
      branch(below, child.children ?? []);
      text(item.querySelector(":scope > details > .tree-more"), child.left_out ? `and ${number(child.left_out)} more` : "");
    },
  );
}

export default { title: "Processes", mount };
