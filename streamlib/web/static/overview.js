import { h } from "./dom.js";
import { sparkline } from "./chart.js";
import * as f from "./format.js";

export function overview({ app }) {
  return [reasons(app), cards(app), workers(app), restores(app), rebalances(app)].filter(Boolean);
}

function reasons(app) {
  if (!app.reasons.length) return h("div", { "data-key": "well", class: "gone" });
  return h("div", { class: `alert ${app.health === "stuck" ? "bad" : "warn"}`, role: "status", "data-key": "reasons" }, h("ul", {}, app.reasons.map((reason) => h("li", {}, reason))));
}

function cards(app) {
  const now = app.at_ms;
  const card = (title, value, unit, detail, pick) =>
    h("article", { class: "card" }, h("h3", {}, title), h("p", { class: "figure" }, value, h("small", {}, unit ? ` ${unit}` : "")), h("p", { class: "detail" }, detail), pick ? sparkline(app.history, pick, now, `${title} over the last three minutes`) : h("div", { class: "spark" }));
  const split = (text) => { const [number, unit] = text.split(" "); return [number, unit ?? ""]; };
  const latest = app.history.at(-1);
  return h("section", { class: "cards", "aria-label": "Now" },
    card("Records in", f.rate(latest ? latest[1] : app.rate_in), "/s", `${f.rate(app.rate_in)} /s in the last half minute`, (at) => at[1]),
    card("Records out", f.rate(latest ? latest[2] : app.rate_out), "/s", `${f.rate(app.rate_out)} /s in the last half minute`, (at) => at[2]),
    card("Lag", f.count(app.lag), "records", app.rate_in > 0 && app.lag > 0 ? `${f.seconds(app.lag / app.rate_in)} at this rate` : "behind the ends of the inputs", (at) => at[3]),
    card("Commit", ...split(f.ms(app.commit_ms[0])), `at most ${f.ms(app.commit_ms[1])}; open transaction ${f.ms(app.open_transaction_ms)}`, (at) => at[4]));
}

function workers(app) {
  const row = (worker) => h("tr", { "data-key": worker.address, class: worker.silent_ms ? "stale" : null },
    h("th", { scope: "row" }, h("span", { class: `dot ${worker.silent_ms ? "unknown" : worker.health}`, "aria-hidden": "true" }), h("span", {}, worker.name, worker.is_here ? h("em", { class: "tag" }, "here") : null), h("small", {}, worker.host ? `${worker.address} \u00b7 pid ${worker.pid}` : worker.address)),
    cell("State", worker.silent_ms ? `no answer since ${f.seconds(worker.silent_ms / 1_000)}` : worker.state.toLowerCase().replace("_", " ")),
    cell("Tasks", h("span", {}, `${worker.active}`, worker.restoring ? ` + ${worker.restoring} restoring` : "", worker.standby ? h("small", { class: "inline" }, ` ${f.plural(worker.standby, "standby").replace("standbys", "standbys")}`) : null), "number"),
    cell("In", `${f.rate(worker.rate_in)} /s`, "number"),
    cell("Out", `${f.rate(worker.rate_out)} /s`, "number"),
    cell("Lag", f.count(worker.lag), "number"),
    cell("Busy", meter(worker.busy, `busy ${f.percent(worker.busy)}`), "wide"),
    cell("Commit", f.ms(worker.commit_ms[0]), "number"),
    cell("Open transaction", f.ms(worker.open_transaction_ms), "number"),
    cell("Rebalances", f.count(worker.totals.rebalances), "number"));
  const heads = ["Worker", "State", "Tasks", "In", "Out", "Lag", "Busy", "Commit", "Open transaction", "Rebalances"];
  return h("section", {}, h("h2", {}, "Workers"), h("table", { class: "stack" }, h("thead", {}, h("tr", {}, heads.map((head, at) => h("th", { scope: "col", class: at > 1 && head !== "Busy" ? "number" : null }, head)))), h("tbody", {}, app.workers.map(row))));
}

export const cell = (label, content, kind) => h("td", { "data-label": label, class: kind ?? null }, content);
export const meter = (part, label) => h("span", { class: "meter", role: "img", "aria-label": label, title: label }, h("i", { style: { width: `${Math.min(100, Math.max(0, part * 100)).toFixed(1)}%` } }));

function restores(app) {
  const coming = app.tasks.filter((task) => task.coming);
  const bar = ({ task, worker, coming: how }) => {
    const done = how.stores.reduce((sum, store) => sum + store.done, 0);
    const part = done + how.remaining ? done / (done + how.remaining) : 1;
    return h("li", { "data-key": task }, h("div", { class: "line" }, h("strong", {}, task), h("span", {}, ` on ${worker}: ${how.stores.map((store) => store.store).join(", ")}`), h("span", { class: "right" }, how.eta_s === null ? "no estimate yet" : `${f.seconds(how.eta_s)} left`)),
      h("progress", { max: 1, value: part.toFixed(4), "aria-label": `restore of ${task}` }, f.percent(part)),
      h("small", {}, `${f.percent(part)}, ${f.count(how.remaining)} of ${f.count(done + how.remaining)} offsets to go, ${f.rate(how.rate)} records/s`));
  };
  return h("section", {}, h("h2", {}, "Restoring"), coming.length ? h("ul", { class: "plain restores" }, coming.map(bar)) : h("p", { class: "empty" }, "Nothing is being restored: every task has its state."));
}

const TIMELINE_MS = 30 * 60_000;

function rebalances(app) {
  const seen = app.rebalances;
  if (!seen.length) return h("section", {}, h("h2", {}, "Rebalances"), h("p", { class: "empty" }, "None so far."));
  const from = Math.min(...seen.map((each) => each.at_ms));
  const span = Math.min(Math.max(app.at_ms - from, 60_000), TIMELINE_MS);
  const left = (at) => `${((1 - (app.at_ms - at) / span) * 97 + 1).toFixed(2)}%`;
  const marks = seen.filter((each) => app.at_ms - each.at_ms <= span).map((each) => h("i", { "data-key": each.at_ms, class: each.moving ? "moving" : null, title: `${f.clock(each.at_ms)}: ${what(each)}`, style: { left: left(each.at_ms) } }));
  const item = (each) => h("li", { "data-key": each.at_ms }, h("time", { datetime: new Date(each.at_ms).toISOString() }, f.clock(each.at_ms)), h("span", {}, what(each)), h("small", {}, Object.entries(each.took_ms).map(([name, took]) => `${name} ${f.ms(took)}`).join(", ")));
  return h("section", {}, h("h2", {}, "Rebalances"),
    h("div", { class: "timeline", "aria-hidden": "true" }, marks),
    h("div", { class: "ends", "aria-hidden": "true" }, h("span", {}, `${f.seconds(span / 1_000)} ago`), h("span", {}, "now")),
    h("ol", { class: "plain events" }, seen.slice(0, 12).map(item)));
}

function what(each) {
  const people = (names, verb) => (names.length ? [`${f.plural(names.length, "worker")} ${verb}`] : []);
  return [...people(each.joined, "joined"), ...people(each.left, "left"), each.moving ? `${each.moving} of ${f.plural(each.tasks, "task")} ${each.moving === 1 ? "moves" : "move"}` : "no task moves"].join(", ");
}
