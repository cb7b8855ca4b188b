import { h } from "./dom.js";
import { cell } from "./overview.js";
import * as f from "./format.js";

export function tasks({ app }) {
  if (!app.tasks.length) return [h("section", {}, h("h2", {}, "Tasks"), h("p", { class: "empty" }, "No worker has a task yet: the group is still forming."))];
  return [where(app), table(app)];
}

function where(app) {
  const chip = (task, role, title) => h("li", { "data-key": `${task}${role}`, class: `chip ${role}`, title }, task);
  const column = (worker) => {
    const own = app.tasks.filter((task) => task.worker === worker.name);
    const standbys = app.tasks.filter((task) => task.standbys.some(([name]) => name === worker.name));
    const behind = (task) => task.standbys.find(([name]) => name === worker.name)[1];
    return h("article", { class: `card${worker.silent_ms ? " stale" : ""}`, "data-key": worker.address }, h("h3", {}, worker.name),
      h("p", { class: "detail" }, worker.silent_ms ? `no answer since ${f.seconds(worker.silent_ms / 1_000)}: as it was` : `${f.plural(own.length, "task")}, ${f.rate(worker.rate_in)} records/s`),
      h("ul", { class: "chips" }, own.map((task) => chip(task.task, task.role, `${task.task} ${task.role}, lag ${f.count(task.lag)}`)), standbys.map((task) => chip(task.task, "standby", `${task.task} standby, ${f.count(behind(task))} offsets behind`))));
  };
  return h("section", {}, h("h2", {}, "Where tasks are"), h("p", { class: "legend" }, ["active", "restoring", "standby"].map((role) => h("span", {}, h("i", { class: `chip ${role}` }), role))), h("div", { class: "cards" }, app.workers.map(column)));
}

function table(app) {
  const row = (task) => h("tr", { "data-key": task.task, class: task.stale ? "stale" : null },
    h("th", { scope: "row" }, h("span", {}, task.task), h("small", {}, task.partitions.map((each) => `${each.topic}-${each.partition}`).join(", "))),
    cell("Role", h("span", { class: `tag ${task.role}` }, task.role)),
    cell("Worker", task.worker || "nobody"),
    cell("Lag", f.count(task.lag), "number"),
    cell("Age of records", f.ms(task.latency_ms), "number"),
    cell("Part of the work", f.percent(task.share), "number"),
    cell("Standbys", task.standbys.map(([name, behind]) => `${name}${behind ? ` (${f.count(behind)} behind)` : ""}`).join(", ") || "\u2013"),
    cell("Calls", f.count(task.calls), "number"),
    cell("Dropped", f.count(task.dropped), "number"));
  const heads = [["Task"], ["Role"], ["Worker"], ["Lag", 1], ["Age of records", 1], ["Part of the work", 1], ["Standbys"], ["Calls", 1], ["Dropped", 1]];
  return h("section", {}, h("h2", {}, "Tasks"), h("table", { class: "stack" }, h("thead", {}, h("tr", {}, heads.map(([head, number]) => h("th", { scope: "col", class: number ? "number" : null }, head)))), h("tbody", {}, app.tasks.map(row))));
}
