// Looks into the stores of the application, whichever worker has them: this one asks the others.

import { h } from "./dom.js";
import { asked } from "./console.js";
import { cell } from "./overview.js";
import * as f from "./format.js";

const ROWS = 50, AGAIN_MS = 5_000;
const here = { list: null, error: null, askedAt: 0, name: null, mode: "all", text: "", rows: null, found: null, problem: null, busy: false, cursors: [null], next: null };

async function get(path) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(15_000), credentials: "same-origin" });
  const body = await answer.json().catch(() => ({ message: `status ${answer.status}` }));
  return { ok: answer.ok, status: answer.status, body };
}

export async function lookForStores() {
  if (Date.now() - here.askedAt < AGAIN_MS) return;
  here.askedAt = Date.now();
  try {
    const { ok, body } = await get("stores");
    here.error = ok ? null : (body.message ?? "they cannot be asked for");
    if (ok) here.list = body.stores;
  } catch {
    here.error = "this worker cannot be reached";
  }
  if (here.list?.length && !here.list.some((store) => store.name === here.name)) choose(here.list[0].name);
  asked.refresh();
}

function choose(name) {
  Object.assign(here, { name, mode: "all", text: "", cursors: [null] });
  read();
}

let number = 0;
async function read() {
  const mine = ++number;
  const path = `stores/${encodeURIComponent(here.name)}`;
  const cursor = here.cursors.at(-1);
  const parameters = new URLSearchParams({ ...(here.mode === "prefix" ? { prefix: here.text } : {}), limit: ROWS, ...(cursor ? { cursor } : {}) });
  here.busy = true;
  asked.refresh();
  try {
    const { ok, status, body } = await get(here.mode === "key" ? `${path}/keys/${encodeURIComponent(here.text)}` : `${path}?${parameters}`);
    if (mine !== number) return; // something else was asked for meanwhile
    here.problem = ok || status === 404 ? null : body.message;
    here.rows = !ok ? [] : (body.rows ?? [body]);
    here.next = body.cursor ?? null;
    here.found = ok ? (body.parts ?? [body]) : [];
  } catch {
    if (mine === number) Object.assign(here, { problem: "no answer within 15 s", rows: [], next: null, found: [] });
  }
  if (mine !== number) return;
  here.busy = false;
  asked.refresh();
}

function search(event) {
  event.preventDefault();
  const form = event.target.closest("form");
  here.text = form.elements.text.value;
  here.mode = here.text === "" ? "all" : form.elements.mode.value;
  here.cursors = [null];
  read();
}

export function stores() {
  const frame = (...content) => [h("section", {}, h("h2", {}, "Stores"), content)];
  if (here.error && here.list === null) return frame(h("div", { class: "alert bad", role: "alert" }, h("strong", {}, "The stores cannot be read: "), here.error));
  if (here.list === null) return frame(h("p", { class: "empty" }, "Asking ..."));
  if (!here.list.length) return frame(h("p", { class: "empty" }, "The topology has no stores."));
  const store = here.list.find((each) => each.name === here.name) ?? here.list[0];
  return frame(choice(store), form(store), here.problem ? h("div", { class: "alert warn", role: "alert", "data-key": "problem" }, here.problem) : h("div", { class: "gone", "data-key": "problem" }), rows());
}

function choice(chosen) {
  const button = (store) => h("button", { type: "button", "data-key": store.name, class: "choice", "aria-pressed": String(store === chosen), onclick: () => choose(store.name) }, h("strong", {}, store.name), h("small", {}, `${store.kind.replaceAll("_", " ")} \u00b7 ${store.global ? "global" : f.plural(store.partitions, "partition")}`));
  return h("div", { class: "choices", role: "group", "aria-label": "Stores" }, here.list.map(button));
}

function form(store) {
  const input = h("input", { name: "text", "aria-label": "Key", placeholder: `key: ${store.key_as}`, autocomplete: "off", spellcheck: "false" });
  return h("form", { class: "search", onsubmit: search, "data-key": store.name },
    h("select", { name: "mode", "aria-label": "How to search" }, h("option", { value: "key" }, "the key"), h("option", { value: "prefix" }, "keys that begin with")), input,
    h("button", { type: "submit" }, "Search"));
}

function rows() {
  if (here.rows === null) return h("p", { class: "empty", "data-key": "rows" }, "Reading ...");
  const worker = [...new Set((here.found ?? []).map((part) => f.short(part.worker ?? "")).filter(Boolean))].join(", ");
  const page = here.cursors.length;
  const pages = h("div", { class: "pages" },
    h("button", { type: "button", disabled: page === 1 || here.busy, onclick: () => { here.cursors.pop(); read(); } }, "Before"),
    h("span", {}, `${page > 1 ? `page ${page}, ` : ""}${f.plural(here.rows.length, "row")}${worker ? ` from ${worker}` : ""}`),
    h("button", { type: "button", disabled: here.next === null || here.busy, onclick: () => { here.cursors.push(here.next); read(); } }, "Next"));
  if (!here.rows.length) return h("div", { "data-key": "rows" }, h("p", { class: "empty" }, here.mode === "all" ? "The store is empty." : `Nothing is there for ${here.text}.`), page > 1 ? pages : null);
  const windows = here.rows.some((row) => row.window), times = here.rows.some((row) => row.timestamp !== undefined);
  const row = (each) => h("tr", {}, h("th", { scope: "row" }, h("code", {}, text(each.key))),
    windows ? cell("Window", each.window ? span(each.window) : "\u2013") : null,
    cell("Value", h("code", {}, text(each.value)), "value"),
    times ? cell("Time", each.timestamp === undefined ? "\u2013" : f.moment(each.timestamp)) : null);
  const heads = ["Key", windows ? "Window" : null, "Value", times ? "Time" : null].filter(Boolean);
  return h("div", { "data-key": "rows", class: here.busy ? "stale" : null }, h("table", { class: "stack" }, h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))), h("tbody", {}, here.rows.map(row))), pages);
}

const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
const span = (window) => `${f.moment(window.start)} to ${f.clock(window.end)}`;
