// What is asked in front of the page. The browser's own dialog keeps the focus, and closes by Escape.

import { h } from "./dom.js";

function opened(dialog) {
  document.body.append(dialog);
  dialog.addEventListener("close", () => dialog.remove());
  dialog.showModal();
  return dialog;
}

/**
 * Ask whether something is to be done; then do it. What goes wrong is shown, and it can be tried again.
 *
 * `does` is what happens, in a sentence or two; `verb` stands on the button.
 */
export function confirmed({ title, does, verb, act }) {
  const said = h("p", { class: "error", role: "alert" });
  const doing = h("button", { type: "button", class: "danger" }, verb);
  const dialog = h(
    "dialog",
    { "aria-labelledby": "dialog-title", class: "dialog" },
    h("h2", { id: "dialog-title" }, title),
    h("p", {}, does),
    said,
    h("div", { class: "buttons" }, h("button", { type: "button", autofocus: true, onclick: () => dialog.close() }, "Cancel"), doing),
  );
  doing.addEventListener("click", async () => {
    doing.disabled = true;
    try {
      await act();
      dialog.close();
    } catch (error) {
      said.textContent = error.message;
      doing.disabled = false;
    }
  });
  return opened(dialog);
}

const KEYS = [
  ["1 – 6", "the six pages"],
  ["/", "to the search"],
  ["t", "colours: system, light, dark"],
  ["?", "this help"],
  ["Esc", "close what is open"],
];

/** What keys do, and that they may be turned off. */
export function help({ shortcuts, choose }) {
  const box = h("input", { type: "checkbox", id: "shortcuts", checked: shortcuts, onchange: () => choose(box.checked) });
  const dialog = h(
    "dialog",
    { "aria-labelledby": "dialog-title", class: "dialog" },
    h("h2", { id: "dialog-title" }, "Keys"),
    h("dl", { class: "keys" }, KEYS.flatMap(([key, does]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, does)])),
    h("p", {}, box, " ", h("label", { for: "shortcuts" }, "Single keys do something")),
    h("p", { class: "muted" }, "Everything is what one node knows: the one named at the top. Nodes differ while a change is under way."),
    h("div", { class: "buttons" }, h("button", { type: "button", autofocus: true, onclick: () => dialog.close() }, "Close")),
  );
  opened(dialog);
}
