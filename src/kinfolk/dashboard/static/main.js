// The frame around the pages: which one is shown, the connection, colours, shortcuts, and the token.

import { confirmed, help } from "./dialogs.js";
import { attr, h, text } from "./dom.js";
import events from "./events.js";
import groups from "./groups.js";
import metrics from "./metrics.js";
import names from "./names.js";
import overview from "./overview.js";
import processes from "./processes.js";
import { act, Store } from "./server.js";

const PAGES = { overview, names, groups, processes, events, metrics };
const store = new Store();
const main = document.getElementById("main");
const banner = document.getElementById("banner");
let shown = null; // the page, what ends it, and what it can be told

// --- which page ---

/** The page and what belongs to it, as the address has them: #/names?q=db */
function place() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const name = Object.hasOwn(PAGES, path) ? path : "overview";
  return { name, params: new URLSearchParams(query) };
}

/** Go somewhere; `replace` leaves no trace in the history. */
function go(name, given = {}, replace = false) {
  const query = new URLSearchParams(Object.entries(given).filter(([, value]) => value !== "" && value !== null && value !== undefined));
  const hash = `#/${name}${query.size ? `?${query}` : ""}`;
  if (hash === location.hash) return;
  if (replace) {
    history.replaceState(null, "", hash);
    show();
  } else location.hash = hash;
}

function show() {
  if (store.about === null) return;
  const { name, params } = place();
  for (const link of document.querySelectorAll("#nav a")) {
    attr(link, "aria-current", link.getAttribute("href") === `#/${name}` ? "page" : null);
  }
  if (shown?.name === name) {
    shown.update?.(params);
    return;
  }
  const first = shown === null;
  shown?.ending.abort();
  const ending = new AbortController();
  const page = PAGES[name];
  const title = h("h1", { tabindex: "-1" }, page.title);
  const root = h("div", { class: `page page-${name}` }, h("header", { class: "head" }, title));
  main.replaceChildren(root);
  document.title = `${page.title} · kinfolk`;
  const context = { store, root, go, signal: ending.signal, confirmed };
  shown = { name, ending, update: page.mount(context, params) };
  shown.update?.(params);
  if (!first) {
    title.focus({ preventScroll: true }); // else it would be lost with the page that is left
    scrollTo(0, 0);
  }
}

// --- the connection ---

const STATES = { connecting: "connecting", live: "live", away: "node away", lost: "server lost" };

function state() {
  const status = document.getElementById("status");
  attr(status, "data-state", store.state);
  text(document.getElementById("status-text"), STATES[store.state]);
  const said = {
    lost: `The server of this page does not answer${store.why ? ` (${store.why})` : ""}. Trying again until it does; what you see is as it was.`,
    away: `The node does not answer: ${store.why}. Trying again until it does.`,
  }[store.state];
  banner.hidden = said === undefined;
  text(banner, said ?? "");
  attr(document.body, "data-state", store.state);
}

function asked() {
  document.getElementById("asked").hidden = !store.self;
  text(document.getElementById("asked-node"), store.self);
}

store.addEventListener("state", state);
store.addEventListener("anew", () => {
  asked();
  show();
});
store.addEventListener("login", login);
addEventListener("hashchange", show);

// --- the token ---

function login() {
  shown?.ending.abort();
  shown = null;
  store.state = "connecting";
  attr(document.body, "data-state", "login");
  const field = h("input", { type: "password", id: "token", autocomplete: "current-password", required: true, "aria-describedby": "login-said" });
  const said = h("p", { id: "login-said", class: "error", role: "alert" });
  const form = h(
    "form",
    { class: "login card" },
    h("h1", {}, "This dashboard wants its token"),
    h("p", { class: "muted" }, "It was given to the program that serves these pages. It stays in this browser as a cookie until you close it."),
    h("label", { for: "token" }, "Token"),
    field,
    said,
    h("button", { class: "primary" }, "Show the dashboard"),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await act("login", { token: field.value });
    } catch (error) {
      text(said, error.status === 401 ? "That is not the token." : error.message);
      field.select();
      return;
    }
    attr(document.body, "data-state", "connecting");
    await store.start();
  });
  main.replaceChildren(form);
  document.title = "Token · kinfolk";
  field.focus();
}

// --- colours ---

const THEMES = ["system", "light", "dark"];
const theme = document.getElementById("theme");

function themed(chosen) {
  if (chosen === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
  attr(theme, "aria-label", `Colours: ${chosen}`);
  attr(theme, "title", `Colours: ${chosen}`);
}

function nextTheme() {
  const chosen = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme ?? "system") + 1) % THEMES.length];
  themed(chosen);
  remember("theme", chosen === "system" ? null : chosen);
}

function remember(key, value) {
  try {
    if (value === null) localStorage.removeItem(`kinfolk.${key}`);
    else localStorage.setItem(`kinfolk.${key}`, value);
  } catch {
    // storage is turned off
  }
}

function recalled(key) {
  try {
    return localStorage.getItem(`kinfolk.${key}`);
  } catch {
    return null;
  }
}

themed(document.documentElement.dataset.theme ?? "system");
theme.addEventListener("click", nextTheme);

// --- shortcuts ---

const shortcuts = () => recalled("shortcuts") !== "off";
const helped = () => help({ shortcuts: shortcuts(), choose: (on) => remember("shortcuts", on ? null : "off") });
document.getElementById("help").addEventListener("click", helped);
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

addEventListener("keydown", (event) => {
  const within = event.target instanceof Element ? event.target.closest("input, select, textarea, dialog") : null;
  if (within !== null || event.ctrlKey || event.metaKey || event.altKey || !shortcuts()) return;
  const page = Object.keys(PAGES)[Number(event.key) - 1];
  if (page !== undefined) go(page);
  else if (event.key === "/") document.querySelector("main input[type=search]")?.focus();
  else if (event.key === "t") nextTheme();
  else if (event.key === "?") helped();
  else return;
  event.preventDefault();
});

state();
await store.start();
