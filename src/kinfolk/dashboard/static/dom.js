// Elements, made and kept up to date. Text goes in as text nodes only: whatever a name contains stays text.

const SVG = "http://www.w3.org/2000/svg";

function build(element, props, children) {
  for (const [key, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "value" || key === "checked") element[key] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An element: its tag, attributes (`onclick` and the like are listeners), and children, which are nodes or texts. */
export const h = (tag, props, ...children) => build(document.createElement(tag), props, children);

/** The same for drawings. */
export const s = (tag, props, ...children) => build(document.createElementNS(SVG, tag), props, children);

/** One of the pictures that stand in the page. */
export const icon = (name) => s("svg", { class: "i", "aria-hidden": "true" }, s("use", { href: `#i-${name}` }));

/** Set a text, if it is another one: what a person has marked stays marked. */
export function text(node, value) {
  const wanted = String(value);
  if (node.textContent !== wanted) node.textContent = wanted;
}

/** Set or remove an attribute, if it is another. */
export function attr(node, name, value) {
  if (value === null || value === undefined || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

const keys = new WeakMap();

/** Make the children of an element those of a list: who stays is kept, so that focus and selection stay as well. */
export function reconcile(parent, items, keyOf, make, update = () => {}) {
  const old = new Map();
  for (const child of [...parent.children]) old.set(keys.get(child), child);
  let at = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let child = old.get(key);
    if (child === undefined) {
      child = make(item);
      keys.set(child, key);
    }
    old.delete(key);
    update(child, item);
    if (child === at) at = at.nextElementSibling;
    else parent.insertBefore(child, at);
  }
  for (const child of old.values()) child.remove();
}

/**
 * A table whose rows are kept up to date.
 *
 * Columns have a `label`, and `text(item)`; or `make(item)` for a node that is made once and `update(node, item)`.
 * With `sort` they can be ordered by: `order(key)` is told which. Roles are said, since on a phone the style makes cards of
 * the rows, and browsers then forget that they were a table.
 */
export class Table {
  constructor(columns, { caption, keyOf, order, rowClass }) {
    this.columns = columns.filter(Boolean);
    this.keyOf = keyOf;
    this.rowClass = rowClass;
    this.body = h("tbody", { role: "rowgroup" });
    this.heads = this.columns.map((column) =>
      h(
        "th",
        { scope: "col", role: "columnheader", class: column.class },
        column.sort ? h("button", { type: "button", class: "sort", onclick: () => order(column.sort) }, column.label) : column.label || h("span", { class: "unseen" }, column.unseen ?? ""),
      ),
    );
    this.element = h(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
      h("table", { role: "table" }, h("caption", { class: "unseen" }, caption), h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...this.heads)), this.body),
    );
  }

  /** Say by which column the rows are ordered. */
  ordered(key, descending) {
    this.columns.forEach((column, at) => {
      const chosen = column.sort !== undefined && column.sort === key;
      attr(this.heads[at], "aria-sort", chosen ? (descending ? "descending" : "ascending") : null);
    });
  }

  show(items, { flash = false } = {}) {
    reconcile(
      this.body,
      items,
      this.keyOf,
      (item) => {
        const row = h("tr", { role: "row", class: flash ? "new" : null });
        for (const column of this.columns) {
          row.append(h(column.head ? "th" : "td", { role: column.head ? "rowheader" : "cell", class: column.class, scope: column.head ? "row" : null, "data-label": column.label }, column.make?.(item)));
        }
        return row;
      },
      (row, item) => {
        this.columns.forEach((column, at) => {
          const cell = row.children[at];
          if (column.make === undefined) text(cell, column.text(item));
          else column.update?.(cell.firstChild, item, cell);
        });
        if (this.rowClass) {
          for (const [name, on] of Object.entries(this.rowClass(item))) row.classList.toggle(name, on);
        }
      },
    );
  }
}

/** Call a function a while after the last time it was asked for. */
export function debounced(milliseconds, call) {
  let timer;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...given), milliseconds);
  };
}
