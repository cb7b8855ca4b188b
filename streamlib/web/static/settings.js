import { h } from "./dom.js";
import * as f from "./format.js";

export function settings({ app, graph }) {
  const rows = Object.entries(graph.settings).map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, h("code", {}, name)), h("td", {}, h("code", {}, value === null ? "\u2013" : String(value)))));
  const versions = [...new Set(app.workers.map((worker) => worker.version).filter(Boolean))].join(", ");
  return [h("section", {}, h("h2", {}, "Settings"), h("p", { class: "hint" }, `Of this worker; streamlib ${versions}, ${f.plural(app.workers.length, "worker")}. Secrets are not shown.`), h("table", { class: "settings" }, h("tbody", {}, rows)))];
}
