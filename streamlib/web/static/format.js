// Numbers for people. What is not known is a dash.

const NONE = "\u2013";
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

export const count = (value) => (value === null || value === undefined ? NONE : value < 100_000 ? whole.format(value) : compact.format(value));

export function rate(value) {
  if (value === null || value === undefined) return NONE;
  if (value > 0 && value < 10) return value.toFixed(1);
  return count(value);
}

export function ms(value) {
  if (value === null || value === undefined) return NONE;
  if (value < 10) return `${value.toFixed(1)} ms`;
  if (value < 1_000) return `${Math.round(value)} ms`;
  return seconds(value / 1_000);
}

export function seconds(value) {
  if (value === null || value === undefined) return NONE;
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 120) return `${Math.round(value)} s`;
  if (value < 7_200) return `${Math.floor(value / 60)} min`;
  if (value < 172_800) return `${Math.floor(value / 3_600)} h`;
  return `${Math.floor(value / 86_400)} days`;
}

export const percent = (part) => (part === null || part === undefined ? NONE : part > 0 && part < 0.1 ? `${(part * 100).toFixed(1)} %` : `${Math.round(part * 100)} %`);
// Ids that are made up are known by their beginning, as in the list of workers.
export const short = (id) => (/^[0-9a-f]{32}$/.test(id) ? id.slice(0, 8) : id);
export const clock = (at) => new Date(at).toLocaleTimeString("en-GB");
export const moment = (at) => new Date(at).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });
export const plural = (number, word) => `${whole.format(number)} ${word}${number === 1 ? "" : "s"}`;

// KSTREAM-AGGREGATE-0000000003 -> aggregate, 3; other names stay as they are.
export function nodeName(name) {
  const made = /^K(?:STREAM|TABLE)-([A-Z-]+?)-(\d{10})$/.exec(name);
  return made ? { title: made[1].toLowerCase().replaceAll("-", " "), number: Number(made[2]) } : { title: name, number: null };
}
