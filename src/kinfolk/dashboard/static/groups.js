// Groups, and who is a member of each.

import { h, Table, text } from "./dom.js";
import { number } from "./format.js";
import { Detail, empty, nodeName, Pager, processNumber, Refresh, search } from "./parts.js";
import { ask } from "./server.js";

const LIMIT = 50;

function mount({ store, root, go, signal }, params) {
  let q = params.get("q") ?? "";
  let chosen = "";
  let starts = [""];
  let rows = [];

  const moved = () => go("groups", { q, group: chosen }, true);
  const field = search({
    label: "Search groups",
    value: q,
    signal,
    onsearch: (value) => {
      q = value;
      starts = [""];
      moved();
      refresh.now();
    },
  });
  const table = new Table(
    [
      { label: "Group", head: true, class: "grow", make: ([group]) => h("button", { type: "button", class: "link name", onclick: () => open(group) }, group) },
      { label: "Members", class: "number", text: ([, count]) => number(count) },
    ],
    { caption: "Groups with the number of their members", keyOf: ([group]) => group, rowClass: ([group]) => ({ chosen: group === chosen }) },
  );
  const pager = new Pager({
    onprevious: () => turn(() => starts.pop()),
    onnext: () => turn(() => starts.push(rows.at(-1)[0])),
  });
  const nothing = empty("No group", "A group is there while it has members: a process joins by me.groups.join(group).");
  const said = h("p", { class: "error", role: "alert" });
  const detail = new Detail({
    label: "Members",
    signal,
    onclose: () => {
      chosen = "";
      detail.close();
      moved();
      table.show(rows);
    },
  });
  root.append(h("div", { class: "toolbar" }, field), said, h("div", { class: "split" }, h("div", { class: "card flush" }, table.element, nothing, pager.element), detail.element));

  function turn(step) {
    step();
    refresh.now();
  }

  const refresh = new Refresh(
    async (asking) => {
      const page = await ask("groups", { q, after: starts.at(-1), limit: LIMIT }, asking);
      text(said, "");
      rows = page.groups;
      table.show(rows);
      table.element.hidden = rows.length === 0;
      nothing.hidden = rows.length > 0;
      pager.show({ from: (starts.length - 1) * LIMIT, rows: rows.length, count: page.count, more: page.more, one: "group", many: "groups" });
    },
    { failed: (error) => text(said, error.message), signal },
  );

  // --- the members of one ---

  let memberStarts = [""];
  let members = [];
  const memberTable = new Table(
    [
      { label: "Process", head: true, class: "narrow", make: (pid) => processNumber(pid) },
      { label: "Node", class: "grow", make: (pid) => nodeName(pid.split("/")[0]) },
    ],
    { caption: "Members", keyOf: (pid) => pid },
  );
  const memberPager = new Pager({
    onprevious: () => (memberStarts.pop(), inside.now()),
    onnext: () => (memberStarts.push(members.at(-1)), inside.now()),
  });
  const inside = new Refresh(
    async (asking) => {
      const group = chosen;
      const page = await ask("members", { group, after: memberStarts.at(-1), limit: LIMIT }, asking);
      if (group !== chosen) return;
      members = page.members;
      memberTable.show(members);
      memberPager.show({ from: (memberStarts.length - 1) * LIMIT, rows: members.length, count: page.count, more: page.more, one: "member", many: "members" });
      if (detail.element.hidden || detail.title.textContent !== group) detail.open(group, memberTable.element, memberPager.element);
    },
    { failed: (error) => detail.open(chosen, h("p", { class: "error" }, error.message)), signal },
  );

  function open(group) {
    chosen = group;
    memberStarts = [""];
    moved();
    table.show(rows);
    inside.now();
  }

  // Nothing tells of members that come and go: once in a while, and the less often the longer it takes.
  store.addEventListener(
    "pulse",
    () => {
      refresh.soon();
      if (chosen) inside.soon();
    },
    { signal },
  );

  nothing.hidden = true;
  refresh.now();

  return (given) => {
    const wanted = { q: given.get("q") ?? "", group: given.get("group") ?? "" };
    if (wanted.q !== q) {
      q = wanted.q;
      field.value = q;
      starts = [""];
      refresh.now();
    }
    if (wanted.group !== chosen) {
      chosen = wanted.group;
      memberStarts = [""];
      if (chosen) inside.now();
      else detail.close();
      table.show(rows);
    }
  };
}

export default { title: "Groups", mount };
