// What happens, as it happens: names that come and go, nodes that come, stall and go.

import { h, reconcile, text } from "./dom.js";
import { number, time } from "./format.js";
import { empty, nodeName, processNumber, search } from "./parts.js";

const SHOWN = 300;
export const KINDS = {
  added: { label: "name added", tone: "ok", of: "names" },
  removed: { label: "name removed", tone: "quiet", of: "names" },
  up: { label: "node up", tone: "ok", of: "nodes" },
  down: { label: "node down", tone: "bad", of: "nodes" },
  stalled: { label: "node stalled", tone: "warn", of: "nodes" },
  resumed: { label: "node resumed", tone: "ok", of: "nodes" },
  skipped: { label: "left out", tone: "warn", of: "names" },
  resync: { label: "missing", tone: "warn" },
  missed: { label: "missing", tone: "warn" },
};

const numbers = new WeakMap();
let counted = 0;

function keyOf(event) {
  if (!numbers.has(event)) numbers.set(event, (counted += 1));
  return numbers.get(event);
}

function told([, kind, subject, more]) {
  switch (kind) {
    case "added":
    case "removed":
      return [h("span", { class: "name" }, subject), h("span", { class: "muted event-more" }, processNumber(more), " ", nodeName(more.split("/")[0]))];
    case "up":
      return [nodeName(subject)];
    case "down":
      return [nodeName(subject), h("span", { class: "muted event-more" }, more)];
    case "stalled":
      return [nodeName(subject), h("span", { class: "muted event-more" }, `its event loop has stood still for ${more.toFixed(1)} s`)];
    case "resumed":
      return [nodeName(subject), h("span", { class: "muted event-more" }, `after ${more.toFixed(1)} s`)];
    case "skipped":
      return [h("span", {}, `${number(subject)} changes of names: more than anybody could read`)];
    case "resync":
      return [h("span", {}, "the node had more to tell than was taken from it: changes are missing here")];
    default:
      return [h("span", {}, "this page was not connected, or too slow: events are missing here")];
  }
}

function mount({ store, root, signal }) {
  let paused = null; // the events as they were then
  let q = "";
  const wanted = { names: true, nodes: true };

  const field = search({ label: "Filter events", value: "", signal, onsearch: (value) => ((q = value.toLowerCase()), draw()) });
  const pause = h("button", {
    type: "button",
    "aria-pressed": "false",
    onclick: () => {
      paused = paused === null ? [...store.events] : null;
      pause.setAttribute("aria-pressed", String(paused !== null));
      draw();
    },
  });
  const boxes = Object.keys(wanted).map((of) =>
    h("label", { class: "check" }, h("input", { type: "checkbox", checked: true, onchange: ({ target }) => ((wanted[of] = target.checked), draw()) }), of),
  );
  const list = h("ol", { class: "events" });
  const quiet = empty("Nothing has happened yet", "Names that come and go, and nodes that come, stall and go, appear here as they do.");
  root.append(
    h("div", { class: "toolbar" }, field, h("div", { class: "checks", role: "group", "aria-label": "Events of" }, boxes), pause),
    h("div", { class: "card flush" }, h("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Events" }, list), quiet),
  );

  function draw() {
    const shown = (paused ?? store.events)
      .filter((event) => {
        const { of } = KINDS[event[1]];
        return (!of || wanted[of]) && (!q || String(event[2] ?? "").toLowerCase().includes(q));
      })
      .slice(-SHOWN)
      .reverse();
    reconcile(list, shown, keyOf, (event) => {
      const { label, tone } = KINDS[event[1]];
      return h("li", { class: "event" }, h("time", { class: "muted tabular" }, time(event[0])), h("span", { class: `badge ${tone}` }, label), h("span", { class: "event-what" }, told(event)));
    });
    quiet.hidden = shown.length > 0;
    list.parentElement.hidden = shown.length === 0;
    const waiting = paused === null ? 0 : store.events.filter((event) => !paused.includes(event)).length;
    text(pause, paused === null ? "Pause" : waiting ? `Go on (${number(waiting)} new)` : "Go on");
  }

  let drawn = 0;
  const soon = () => {
    cancelAnimationFrame(drawn);
    drawn = requestAnimationFrame(draw);
  };
  store.addEventListener("events", soon, { signal });
  store.addEventListener("anew", soon, { signal });
  draw();
}

export default { title: "Events", mount };
