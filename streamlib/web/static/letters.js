import { h } from "./dom.js";
import * as f from "./format.js";

export function deadLetters({ letters }) {
  const frame = (...content) => [h("section", {}, h("h2", {}, "Dead letters"), content)];
  if (letters === null) return frame(h("p", { class: "empty" }, "Asking the cluster ..."));
  if (letters.error) return frame(h("div", { class: "alert bad", role: "alert" }, h("strong", {}, "Dead letters cannot be read: "), letters.error));
  if (!letters.topics.length) return frame(h("p", { class: "empty" }, "The topology has no topic for dead letters: a record that fails stops it, or is skipped, as its policies say."));
  return frame(letters.topics.map(topic));
}

function topic({ topic: name, size, newest }) {
  const told = size === null ? "The topic does not exist." : size === 0 ? "Nothing has failed." : `${f.count(size)} offsets; the newest ${newest.length} letters:`;
  return h("article", { class: "letters", "data-key": name }, h("h3", {}, name), h("p", { class: "hint" }, told), newest.map(letter));
}

function letter(each) {
  const facts = [["Source", each.source.topic === null ? "\u2013" : `${each.source.topic}-${each.source.partition} offset ${each.source.offset}`], ["Node", each.node ?? "\u2013"], ["Key", each.key ?? "none"], ["Value", each.value ?? "none"], ["Time of the record", f.moment(each.timestamp)], ["Here", `partition ${each.partition}, offset ${each.offset}`]];
  if (each.headers.length) facts.push(["Headers", each.headers.map(([name, value]) => `${name}: ${value}`).join("; ")]);
  return h("details", { class: "panel", "data-key": `${each.partition}-${each.offset}` }, h("summary", {}, h("strong", {}, each.exception?.split(".").at(-1) ?? "unknown"), h("span", {}, ` ${each.message ?? ""}`), h("time", {}, f.moment(each.timestamp))),
    h("dl", { class: "facts-of" }, facts.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])), each.stacktrace ? h("pre", {}, each.stacktrace) : null);
}
