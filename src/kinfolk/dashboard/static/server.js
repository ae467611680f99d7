// What the page hears from its server, and asks of it. All addresses are relative: the dashboard may be mounted anywhere.

const MARK = { "X-Kinfolk": "page" };
const KEPT_EVENTS = 500;
const RETRY = 1000; // milliseconds

/** The server has refused; `status` says how. */
export class Refusal extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** The answer to a request; that there is none is a refusal as well, with status 0. */
async function answered(asked) {
  let response;
  try {
    response = await asked;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("the server of this page does not answer", 0);
  }
  const isJson = response.headers.get("content-type")?.startsWith("application/json");
  const body = response.status === 204 ? null : isJson ? await response.json() : await response.text();
  if (response.ok) return body;
  throw new Refusal(isJson ? body.error : String(body).trim(), response.status);
}

/** Ask for something: a path below api/, and what belongs to it. */
export async function ask(path, given = {}, signal = undefined) {
  const query = new URLSearchParams(Object.entries(given).filter(([, value]) => value !== "" && value !== null && value !== undefined));
  return answered(fetch(`api/${path}?${query}`, { signal, cache: "no-store" }));
}

/** Have something done. */
export async function act(path, given) {
  return answered(
    fetch(path, {
      method: "POST",
      headers: { ...MARK, "Content-Type": "application/json" },
      body: JSON.stringify(given),
    }),
  );
}

/**
 * All that is known, kept up to date by the server's events. Says `pulse`, `mesh`, `events`, `anew` when all may be
 * another, `state` when the connection is, and `login` when a token is needed.
 */
export class Store extends EventTarget {
  about = null;
  state = "connecting"; // live; away: the node does not answer; lost: the server does not
  why = "";
  pulse = null;
  nodes = new Map();
  fields = [];
  samples = [];
  events = [];
  skipped = 0;
  #stream = null;
  #timer = null;
  #begun = false;

  /** Connect, and connect again whenever that is lost. */
  async start() {
    clearTimeout(this.#timer);
    this.#stream?.close();
    this.#stream = null;
    try {
      this.about = await ask("about");
    } catch (error) {
      if (error.status === 401) this.#say("login");
      else this.#lost(error.status ? error.message : "");
      return;
    }
    const stream = (this.#stream = new EventSource("api/feed"));
    const on = (event, take) => stream.addEventListener(event, ({ data }) => stream === this.#stream && take(JSON.parse(data)));
    on("hello", (told) => this.#hello(told));
    on("pulse", (told) => this.#pulse(told));
    on("mesh", (told) => this.#mesh(told));
    on("events", (told) => this.#happened(told));
    on("away", (told) => this.#is("away", told.why));
    stream.onerror = () => stream === this.#stream && this.#lost("");
  }

  /** A sample by the names of its numbers. */
  sample(row) {
    return Object.fromEntries(this.fields.map((field, at) => [field, row[at]]));
  }

  /** One column of all samples. */
  column(field) {
    const at = this.fields.indexOf(field);
    return this.samples.map((row) => row[at]);
  }

  get self() {
    return this.pulse?.name ?? this.about?.node ?? "";
  }

  #lost(why) {
    this.#stream?.close();
    this.#stream = null;
    this.#is("lost", why);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.start(), RETRY);
  }

  #hello(told) {
    this.fields = told.fields;
    this.samples = told.samples;
    this.nodes = new Map(told.nodes.map((node) => [node.name, node]));
    this.pulse = told.pulse;
    const missed = told.lost > 0 || this.#begun;
    this.events = [...this.events, ...newer(told.events, this.events), ...(missed && this.#begun ? [[Date.now() / 1000, "missed"]] : [])].slice(-KEPT_EVENTS);
    this.#begun = true;
    this.#is(told.away === null ? "live" : "away", told.away ?? "");
    this.#say("anew");
  }

  #pulse(told) {
    this.pulse = told;
    if (told.counts) this.samples.push(told.sample);
    if (this.samples.length > 900) this.samples.shift();
    this.#is("live", "");
    this.#say("pulse");
  }

  #mesh(told) {
    for (const name of told.gone) this.nodes.delete(name);
    for (const node of told.nodes) this.nodes.set(node.name, node);
    this.#say("mesh");
  }

  #happened(told) {
    if (told.skipped) this.events.push([Date.now() / 1000, "skipped", told.skipped]);
    this.events.push(...told.events);
    this.events.splice(0, Math.max(0, this.events.length - KEPT_EVENTS));
    this.#say("events", told);
  }

  #is(state, why) {
    if (state === this.state && why === this.why) return;
    this.state = state;
    this.why = why;
    this.#say("state");
  }

  #say(event, detail = undefined) {
    this.dispatchEvent(new CustomEvent(event, { detail }));
  }
}

/** Those events of the server that are not known yet. */
function newer(told, known) {
  const last = known.findLast((event) => event[1] !== "missed" && event[1] !== "skipped");
  return last === undefined ? told : told.filter((event) => event[0] > last[0]);
}
