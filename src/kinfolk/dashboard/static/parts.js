// Parts that several pages have: a search, pages of a table, a detail at the side, names of nodes and processes.

import { attr, debounced, h, icon, text } from "./dom.js";
import { number, parts, pid, plural } from "./format.js";
/** A node's name: the word before the @ in ink, the address quiet. */
export function nodeName(name) {
  const [word, address] = parts(name);
  return h("span", { class: "node-name", title: name }, word, h("span", { class: "address" }, address));
}

/** A process: its number, and the whole pid for whoever points at it. */
export const processNumber = (value) => h("code", { class: "pid", title: value }, `#${pid(value).local}`);

/** A labelled search field that tells what is in it, a moment after it was typed. */
export function search({ label, value, signal, onsearch }) {
  const field = h("input", { type: "search", value, placeholder: label, "aria-label": label, spellcheck: "false", autocomplete: "off" });
  field.addEventListener("input", debounced(180, () => signal.aborted || onsearch(field.value)));
  return field;
}

/** A choice among nodes, kept up to date; "" may stand for all. */
export function nodeChoice(store, { label, all, value, signal, onchoice }) {
  const choice = h("select", { "aria-label": label, onchange: () => onchoice(choice.value) });
  const fill = () => {
    const names = [...store.nodes.values()].filter((node) => node.state !== "down").map((node) => node.name).sort();
    const wanted = choice.value || value || (all ? "" : store.self);
    if (wanted && !names.includes(wanted)) names.push(wanted);
    const known = [...choice.options].map((option) => option.value).join();
    const values = all ? ["", ...names] : names;
    if (known !== values.join()) choice.replaceChildren(...values.map((name) => h("option", { value: name }, name || all)));
    choice.value = wanted;
  };
  fill();
  store.addEventListener("mesh", fill, { signal });
  store.addEventListener("anew", fill, { signal });
  choice.set = (name) => {
    value = name;
    choice.value = name;
    fill();
  };
  return choice;
}

/** What stands in place of an empty table. */
export const empty = (title, more) => h("div", { class: "empty" }, h("p", { class: "empty-title" }, title), more ? h("p", {}, more) : null);

/** Previous and next, and where one is. */
export class Pager {
  constructor({ onprevious, onnext }) {
    this.where = h("span", { class: "muted tabular", role: "status" });
    this.previous = h("button", { type: "button", onclick: onprevious }, "Previous");
    this.next = h("button", { type: "button", onclick: onnext }, "Next");
    this.element = h("div", { class: "pager" }, this.where, h("div", { class: "pager-buttons" }, this.previous, this.next));
  }

  show({ from, rows, count, more, one, many }) {
    text(this.where, rows === 0 ? `no ${many}` : count > rows ? `${number(from + 1)}–${number(from + rows)} of ${plural(count, one, many)}` : plural(count, one, many));
    this.previous.disabled = from === 0;
    this.next.disabled = !more;
    this.previous.hidden = this.next.hidden = from === 0 && !more;
  }
}

/** A panel beside the table, or over it where there is no room. Escape closes it. */
export class Detail {
  constructor({ label, onclose, signal }) {
    this.title = h("h2", { tabindex: "-1", class: "detail-title" });
    this.content = h("div", { class: "detail-content" });
    const close = h("button", { type: "button", class: "icon", "aria-label": "Close", onclick: onclose }, icon("close"));
    this.element = h("aside", { class: "detail card", "aria-label": label, hidden: true }, h("header", { class: "detail-head" }, this.title, close), this.content);
    addEventListener(
      "keydown",
      (event) => {
        if (event.key === "Escape" && !this.element.hidden && !document.querySelector("dialog[open]")) onclose();
      },
      { signal },
    );
  }

  open(title, ...content) {
    const fresh = this.element.hidden || this.title.textContent !== title;
    text(this.title, title);
    attr(this.title, "title", title);
    this.content.replaceChildren(...content.filter(Boolean));
    this.element.hidden = false;
    if (fresh) this.title.focus({ preventScroll: true });
  }

  close() {
    this.element.hidden = true;
  }
}

/** Terms with what belongs to them. */
export const facts = (rows) =>
  h("dl", { class: "facts" }, rows.filter((row) => row && row[1] !== null && row[1] !== undefined).flatMap(([term, value]) => [h("dt", {}, term), h("dd", {}, value)]));

/**
 * Asks again and again, never twice at a time, and the less often the longer an answer takes: however large the tables
 * are, an open page costs the node little.
 */
export class Refresh {
  #timer = null;
  #due = 0;
  #asking = null;
  #again = false;

  constructor(load, { failed, least = 2000, signal }) {
    this.load = load;
    this.failed = failed;
    this.least = least;
    this.signal = signal;
    signal.addEventListener("abort", () => {
      clearTimeout(this.#timer);
      this.#asking?.abort();
    });
  }

  /** Something else is wanted: ask at once, whatever is under way. */
  async now() {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#asking?.abort();
    const asking = (this.#asking = new AbortController());
    this.#again = false;
    const began = performance.now();
    try {
      await this.load(asking.signal);
    } catch (error) {
      if (error.name !== "AbortError") this.failed(error);
    } finally {
      if (asking === this.#asking) {
        this.#asking = null;
        this.#due = performance.now() + Math.max(this.least, 40 * (performance.now() - began));
        if (this.#again && !this.signal.aborted) this.soon();
      }
    }
  }

  /** Something may have changed: ask, but not too often. */
  soon() {
    if (this.signal.aborted || this.#timer !== null) return;
    if (this.#asking !== null) {
      this.#again = true;
      return;
    }
    this.#timer = setTimeout(() => this.now(), Math.max(60, this.#due - performance.now()));
  }
}
