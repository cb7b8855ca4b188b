// Asks once a second, and shows the view that the address names.

import { h, morph, morphChildren } from "./dom.js";
import { plural, seconds } from "./format.js";
import { overview } from "./overview.js";
import { topology } from "./topology.js";
import { tasks } from "./tasks.js";
import { hotspots } from "./hotspots.js";
import { deadLetters } from "./letters.js";
import { lookForStores, stores } from "./stores.js";
import { settings } from "./settings.js";

const EVERY_MS = 1_000;
const PATIENCE_MS = 4_000;
const VIEWS = { overview: ["Overview", overview], topology: ["Topology", topology], tasks: ["Tasks", tasks], hotspots: ["Hot spots", hotspots], letters: ["Dead letters", deadLetters], stores: ["Stores", stores], settings: ["Settings", settings] };

const state = { app: null, graph: null, letters: null, error: null, answeredAt: Date.now(), selected: null };
export const asked = { refresh: () => show() };

async function get(path) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(PATIENCE_MS), credentials: "same-origin" });
  if (answer.status === 401) { location.reload(); throw new Error("the login has ended"); }
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error ?? `status ${answer.status}`);
  return body;
}

const chosen = () => { const name = location.hash.replace(/^#\/?/, "").split("/")[0]; return name in VIEWS ? name : "overview"; };

async function look() {
  try {
    const wantsGraph = state.graph === null;
    const [app, graph] = await Promise.all([get("api/application"), wantsGraph ? get("api/topology") : state.graph]);
    Object.assign(state, { app, graph, error: null, answeredAt: Date.now() });
  } catch (error) {
    state.error = error.name === "TimeoutError" || error instanceof TypeError ? "it cannot be reached" : error.message;
  }
  show();
}

let lettersAskedAt = 0;
async function lookForLetters() {
  if (chosen() !== "letters" || Date.now() - lettersAskedAt < 5_000) return;
  lettersAskedAt = Date.now();
  try {
    state.letters = await fetch("api/dead-letters", { credentials: "same-origin" }).then((answer) => answer.json());
  } catch {
    state.letters = { error: "this worker cannot be reached" };
  }
  show();
}

function lookAround() {
  lookForLetters();
  if (chosen() === "stores") lookForStores();
}

async function run() {
  for (;;) {
    if (!document.hidden) { lookAround(); await look(); }
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  }
}

function show() {
  if (getSelection()?.type === "Range" && document.getElementById("content").contains(getSelection().anchorNode)) return; // somebody copies
  const head = document.getElementById("head");
  morphChildren(head, headOf());
  const content = document.getElementById("content");
  const name = chosen();
  const silent = silence();
  const view = state.app ? VIEWS[name][1](state) : [h("p", { class: "empty" }, silent ? "" : "Loading ...")];
  morphChildren(content, [silent, ...view].filter(Boolean));
  document.title = `${state.app ? state.app.application_id : "streamlib"} - ${VIEWS[name][0]}`;
}

function silence() {
  if (!state.error) return null;
  const since = (Date.now() - state.answeredAt) / 1_000;
  return h("div", { class: "alert bad", role: "alert", "data-key": "silence" }, h("strong", {}, `This worker does not answer since ${seconds(since)}`), h("span", {}, ` (${state.error}). What is below is as it was.`));
}

function headOf() {
  const app = state.app;
  const health = state.error ? "unknown" : (app?.health ?? "unknown");
  return [
    h("div", { class: "bar" },
      h("div", { class: "brand" }, h("img", { src: "static/icon.svg", alt: "", width: 28, height: 28 }), h("h1", {}, app?.application_id ?? "streamlib")),
      h("span", { class: `pill ${health}`, role: "status" }, h("i", { "aria-hidden": "true" }), { ok: "healthy", degraded: "degraded", stuck: "stuck", unknown: "no answer" }[health]),
      app && h("span", { class: "facts" }, `${plural(app.workers.length, "worker")} \u00b7 ${plural(app.tasks.length, "task")} \u00b7 ${app.guarantee.replaceAll("_", " ")}`),
      h("button", { class: "theme", type: "button", title: "Light or dark", "aria-label": "Switch between light and dark", onclick: switchTheme }, h("span", { "aria-hidden": "true" }, "\u25d0"))),
    h("nav", { "aria-label": "Views" }, Object.entries(VIEWS).map(([name, [title]]) => h("a", { href: `#/${name}`, "aria-current": name === chosen() ? "page" : null }, title))),
  ];
}

function switchTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try { localStorage.setItem("streamlib-theme", root.dataset.theme); } catch { /* it lasts until the page is left */ }
}

addEventListener("hashchange", () => { show(); lookAround(); scrollTo(0, 0); });
addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
run();
