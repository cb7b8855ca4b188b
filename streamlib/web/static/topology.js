import { h, s } from "./dom.js";
import { asked } from "./console.js";
import * as f from "./format.js";

export function topology({ app, graph, selected, ...rest }, state = arguments[0]) {
  const layout = graph.layout;
  const boxes = new Map(layout.boxes.map((box) => [box.id, box]));
  const choose = (id) => { state.selected = state.selected === id ? null : id; asked.refresh(); };
  const pad = 8;
  const picture = s("svg", { class: "graph", viewBox: `${-pad} ${-pad} ${layout.width + 2 * pad} ${layout.height + 2 * pad}`, style: { "max-width": `${layout.width + 2 * pad}px` }, role: "group", "aria-label": "The topology" },
    s("defs", {}, s("marker", { id: "tip", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" }, s("path", { d: "M0 0L8 4L0 8Z", class: "tip" }))),
    layout.groups.map((group) => s("g", { class: "sub" }, s("rect", { x: group.x, y: group.y, width: group.width, height: group.height, rx: 14 }), s("text", { x: group.x + 16, y: group.y + 24 }, group.text, s("tspan", { class: "live", dx: 8 }, groupLine(group, app))))),
    layout.arrows.map(([tail, head]) => arrow(boxes.get(tail), boxes.get(head), app)),
    layout.boxes.map((box) => shape(box, app, selected === box.id, choose)));
  return [h("section", {}, h("h2", {}, "Topology"), h("p", { class: "hint" }, "The bar below a node is its part of the workers' time, from samples. Choose a node or topic to see more."), h("div", { class: "canvas" }, picture), details(boxes.get(selected), app)),
    h("details", { class: "panel" }, h("summary", {}, "As text"), h("pre", {}, graph.text))];
}

function arrow(tail, head, app) {
  const up = head.y < tail.y;
  const from = [tail.x + tail.width / 2, up ? tail.y : tail.y + tail.height];
  const to = [head.x + head.width / 2, up ? head.y + head.height : head.y];
  const bend = Math.max(Math.abs(to[1] - from[1]) / 2, 14) * (up ? -1 : 1);
  const flows = app.topics[fullName(tail, app)]?.rate_in > 0 || app.topics[fullName(head, app)]?.rate_out > 0;
  return s("path", { class: `arrow${flows ? " flows" : ""}`, d: `M${from}C${from[0]} ${from[1] + bend} ${to[0]} ${to[1] - bend} ${to}`, "marker-end": "url(#tip)" });
}

function shape(box, app, chosen, choose) {
  const { title, number } = f.nodeName(box.text);
  const topic = box.kind === "topic";
  const seen = topic ? app.topics[fullName(box, app)] : app.nodes[box.text];
  const busy = topic ? 0 : (seen?.busy ?? 0);
  const line = topic ? (seen ? topicLine(seen) : "") : nodeLine(seen);
  const pick = () => choose(box.id);
  const cx = box.x + box.width / 2;
  return s("g", { class: `node ${box.kind}${chosen ? " chosen" : ""}`, tabindex: 0, role: "button", "aria-pressed": String(chosen), "aria-label": `${box.kind} ${box.text}: ${line}`, onclick: pick, onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pick(); } } },
    s("title", {}, box.text),
    s("rect", { class: "body", x: box.x, y: box.y, width: box.width, height: box.height, rx: topic ? box.height / 2 : 9 }),
    s("text", { class: "name", x: cx, y: box.y + (topic ? 15 : 19), "text-anchor": "middle" }, clip(topic ? box.text : title, topic ? 60 : 22), number === null ? "" : s("tspan", { class: "number", dx: 5 }, `${number}`)),
    s("text", { class: "live", x: cx, y: box.y + (topic ? 28 : 34), "text-anchor": "middle" }, line),
    box.stores.map((store, at) => s("text", { class: "store", x: cx, y: box.y + 50 + at * 18, "text-anchor": "middle" }, `\u25a4 ${clip(store, 24)}`)),
    topic ? null : s("rect", { class: `heat ${busy > 0.6 ? "hot" : busy > 0.25 ? "warm" : ""}`, x: box.x + 9, y: box.y + box.height - 5, width: Math.max(0, Math.min(1, busy)) * (box.width - 18), height: 3, rx: 1.5 }));
}

// How old records are when they get here: the latency of all that is before it.
function groupLine(group, app) {
  const tasks = app.tasks.filter((task) => `sub${task.task.split("_")[0]}` === group.id);
  const ages = tasks.map((task) => task.latency_ms).filter((age) => age !== null);
  const age = ages.length ? f.ms(ages.reduce((sum, each) => sum + each, 0) / ages.length) : null;
  return tasks.length ? `\u00b7 ${f.plural(tasks.length, "task")}${age ? `, records ${age} old` : ""}` : "";
}

const clip = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}\u2026` : text);
const fullName = (box, app) => (box.kind !== "topic" ? "" : box.text in app.topics ? box.text : `${app.application_id}-${box.text}`);

function topicLine(seen) {
  const parts = [];
  if (seen.rate_in || !seen.rate_out) parts.push(`${f.rate(seen.rate_in)} read/s`);
  if (seen.rate_out) parts.push(`${f.rate(seen.rate_out)} written/s`);
  if (seen.lag) parts.push(`lag ${f.count(seen.lag)}`);
  return parts.join(" \u00b7 ");
}

function nodeLine(seen) {
  if (!seen) return "idle";
  return [seen.rate === null ? null : `${f.rate(seen.rate)} /s`, seen.busy ? `${f.percent(seen.busy)} of time` : "idle"].filter(Boolean).join(" \u00b7 ");
}

function details(box, app) {
  if (!box) return h("div", { class: "gone" });
  const facts = [["Name", box.text], ["Kind", box.kind]];
  if (box.kind === "topic") {
    const name = fullName(box, app), seen = app.topics[name];
    facts.push(["In Kafka", name], ["Read", `${f.rate(seen?.rate_in)} offsets/s`], ["Written", `${f.rate(seen?.rate_out)} records/s`], ["Lag", f.count(seen?.lag)]);
    const parts = app.tasks.flatMap((task) => task.partitions.filter((each) => each.topic === name).map((each) => [each.partition, each.lag, task]));
    if (parts.length) facts.push(["Partitions", parts.sort((a, b) => a[0] - b[0]).map(([partition, lag, task]) => `${partition}: lag ${f.count(lag)} (${task.worker})`).join("; ")]);
  } else {
    const seen = app.nodes[box.text];
    const us = seen?.rate ? (seen.busy / seen.rate) * 1_000 : null;
    facts.push(["Time", `${f.percent(seen?.busy ?? 0)} of a worker`], ["Records", seen?.rate === null || seen === undefined ? "not counted: metrics_recording_level=DEBUG does" : `${f.rate(seen.rate)} /s`]);
    if (us !== null) facts.push(["Per record", f.ms(us)]);
    if (box.stores.length) facts.push(["Stores", box.stores.join(", ")]);
  }
  return h("dl", { class: "panel facts-of" }, facts.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}
