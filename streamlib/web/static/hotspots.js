import { h } from "./dom.js";
import { meter } from "./overview.js";
import * as f from "./format.js";

export function hotspots({ app }) {
  return [nodes(app), keys(app)];
}

function nodes(app) {
  const busy = Object.entries(app.nodes).filter(([, seen]) => seen.busy > 0).sort((a, b) => b[1].busy - a[1].busy).slice(0, 15);
  const most = busy[0]?.[1].busy ?? 1;
  const row = ([name, seen]) => h("li", { "data-key": name }, h("div", { class: "line" }, h("strong", {}, name), h("span", { class: "right" }, `${f.percent(seen.busy)}${seen.rate === null ? "" : ` \u00b7 ${f.rate(seen.rate)} /s`}`)), meter(seen.busy / most, `${name}: ${f.percent(seen.busy)} of a worker's time`));
  return h("section", {}, h("h2", {}, "Where the time goes"), h("p", { class: "hint" }, "Which part of its time a worker was seen at each node, twenty looks a second in the last half minute; 100 % is one worker that does nothing else."), busy.length ? h("ul", { class: "plain bars" }, busy.map(row)) : h("p", { class: "empty" }, "No worker was seen at a node: there is next to nothing to do."));
}

function keys(app) {
  const topics = Map.groupBy ? Map.groupBy(app.hot_keys, (each) => each.topic) : group(app.hot_keys);
  const row = (each) => {
    const part = each.of ? each.count / each.of : 0;
    return h("li", { "data-key": each.key }, h("div", { class: "line" }, h("code", {}, each.key), h("span", { class: "right" }, `${f.percent(part)} \u00b7 about ${f.count(each.count)}`)), meter(part, `${each.key}: ${f.percent(part)} of the records`));
  };
  const card = ([topic, seen]) => h("article", { class: "card", "data-key": topic }, h("h3", {}, topic), h("ul", { class: "plain bars" }, seen.map(row)));
  return h("section", {}, h("h2", {}, "Hot keys"), h("p", { class: "hint" }, "Keys that come most often, and their part of the topic's records in the last half minute to minute, estimated from samples."), topics.size ? h("div", { class: "cards wide" }, [...topics].map(card)) : h("p", { class: "empty" }, "No key has come more than once of late."));
}

function group(all) {
  const found = new Map();
  for (const each of all) found.set(each.topic, [...(found.get(each.topic) ?? []), each]);
  return found;
}
