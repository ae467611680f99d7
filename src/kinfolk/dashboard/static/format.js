// Numbers and names as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const few = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const moment = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

export const number = (value) => whole.format(value);

/** A number that is short: 1,234 and 12.3k. */
export function short(value) {
  if (Math.abs(value) < 10000) return Math.abs(value) < 10 && !Number.isInteger(value) ? few.format(value) : whole.format(value);
  if (Math.abs(value) < 1e6) return `${few.format(value / 1e3)}k`;
  return `${few.format(value / 1e6)}M`;
}

const UNITS = ["B", "kB", "MB", "GB", "TB"];

export function bytes(value) {
  let at = 0;
  while (value >= 1000 && at < UNITS.length - 1) {
    value /= 1000;
    at += 1;
  }
  return `${at === 0 ? whole.format(value) : few.format(value)} ${UNITS[at]}`;
}

export const perSecond = (value) => `${bytes(value)}/s`;

export const percent = (value) => `${value < 0.1 ? few.format(value * 100) : whole.format(value * 100)} %`;

/** A short time: 320 µs, 12 ms, 1.5 s. */
export function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds === 0) return "0 ms";
  if (seconds < 0.001) return `${whole.format(seconds * 1e6)} µs`;
  if (seconds < 1) return `${few.format(seconds * 1e3)} ms`;
  return `${few.format(seconds)} s`;
}

/** A long time: 12 s, 3 min, 4 h 5 min, 2 d 3 h. */
export function age(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export const time = (seconds) => clock.format(new Date(seconds * 1000));

/** A time with its date; a number, if no calendar has it. */
export function date(seconds) {
  const when = new Date(seconds * 1000);
  return Number.isNaN(when.getTime()) ? String(seconds) : moment.format(when);
}

/** When a node started: its creation is that time in nanoseconds. */
export const started = (creation) => Number(BigInt(`0x${creation}`) / 1000000n) / 1000;

/** The part of a node's name before the @, and the rest. */
export function parts(node) {
  const at = node.indexOf("@");
  return at < 0 ? [node, ""] : [node.slice(0, at), node.slice(at)];
}

/** The node of a pid, and its number there. */
export function pid(value) {
  const [node, , local] = value.split("/");
  return { node, local };
}

export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;
