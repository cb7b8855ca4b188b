import { s } from "./dom.js";

const WIDTH = 240, HEIGHT = 44, SPAN_MS = 180_000;

// A line over the last three minutes; gaps where nothing was measured.
export function sparkline(history, pick, now, label) {
  const points = history.map((at) => [at[0], pick(at)]).filter(([at]) => at > now - SPAN_MS);
  const values = points.map(([, value]) => value).filter((value) => value !== null);
  const most = Math.max(...values, 0) || 1;
  const x = (at) => ((at - (now - SPAN_MS)) / SPAN_MS) * WIDTH;
  const y = (value) => HEIGHT - 3 - (value / most) * (HEIGHT - 8);
  let line = "", areas = "", start = null, last = null;
  const close = () => { if (start !== null) areas += `L${last.toFixed(1)} ${HEIGHT}L${start.toFixed(1)} ${HEIGHT}Z`; start = null; };
  for (const [at, value] of points) {
    if (value === null) { close(); continue; }
    const step = `${start === null ? "M" : "L"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
    if (start === null) start = x(at);
    last = x(at);
    line += step;
    areas += step;
  }
  close();
  return s("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
    s("path", { class: "area", d: areas }), s("path", { class: "line", d: line }));
}
