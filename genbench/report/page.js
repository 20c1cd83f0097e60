"use strict";
// Text from records is inserted only as text: through textContent here, and escaped in the charts and the HTML.
// The content security policy blocks all other scripts.

const root = document.documentElement;
const $ = (id) => document.getElementById(id);
const all = (selector, from = document) => [...from.querySelectorAll(selector)];
const data = JSON.parse($("data").textContent);
for (const part of all(".tools, .controls, #quality, #curves")) part.hidden = false; // they need this script

// ---- link targets appear below the bar ------------------------------------------------------------------------------

const bar = document.querySelector(".bar");
const measure = () => root.style.setProperty("--bar", `${bar.offsetHeight}px`);
measure();
new ResizeObserver(measure).observe(bar);

// ---- sorting leaderboards -------------------------------------------------------------------------------------------

const unsorted = (cell) => cell === "" || cell === "—";

function sort(table, column, ascending) {
  const body = table.tBodies[0]; // the baseline has its own table body and stays at the bottom
  const numeric = table.tHead.rows[0].cells[column].classList.contains("number");
  const key = (row) => row.cells[column].dataset.sort;
  const order = (a, b) => (numeric ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true }));
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (unsorted(x) || unsorted(y)) return unsorted(x) - unsorted(y); // blank cells come last in both directions
    return ascending ? order(x, y) : order(y, x);
  });
  body.append(...rows);
  [...table.tHead.rows[0].cells].forEach((cell, k) => {
    if (k === column) cell.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    else cell.removeAttribute("aria-sort");
  });
}

for (const table of all("table")) {
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    cell.firstElementChild.addEventListener("click", () => {
      const now = cell.getAttribute("aria-sort");
      const bestFirst = cell.dataset.better === "lower" || cell.classList.contains("text");
      sort(table, column, now ? now === "descending" : bestFirst);
    });
  });
}

// ---- filtering everything --------------------------------------------------------------------------------------------

let words = [];
const matches = (text) => words.every((word) => text.includes(word));

$("filter").addEventListener("input", (event) => {
  words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const element of all("[data-find]")) element.hidden = !matches(element.dataset.find);
  const rows = all("tbody tr[data-find]"); // a baseline is shown whenever its leaderboard is
  const emptied = (element, found) => (element.hidden = words.length > 0 && !element.querySelector(found));
  for (const board of all(".board")) emptied(board, "tr[data-find]:not([hidden])");
  for (const gallery of all(".gallery")) emptied(gallery, "figure:not([hidden])");
  for (const title of all(".gallery h3")) title.hidden = emptied(title.nextElementSibling, "figure:not([hidden])");
  const shown = rows.filter((row) => !row.hidden).length;
  $("count").textContent = words.length ? `${shown} of ${rows.length} rows` : "";
  redraw();
});

// ---- images: best or last checkpoint, and size -----------------------------------------------------------------------

function choose(name, value, apply) {
  apply(value);
  for (const button of all(`.gallery button[data-${name}]`)) {
    button.setAttribute("aria-pressed", String(button.dataset[name] === value));
  }
}
const choices = {
  checkpoint: (value) => (root.dataset.checkpoint = value),
  zoom: (value) => root.style.setProperty("--zoom", value),
};
for (const [name, apply] of Object.entries(choices)) {
  for (const button of all(`.gallery button[data-${name}]`)) {
    button.addEventListener("click", () => choose(name, button.dataset[name], apply));
  }
}
choose("checkpoint", "best", choices.checkpoint);
choose("zoom", "1", choices.zoom);

// ---- light and dark ------------------------------------------------------------------------------------------------

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches);
$("theme").addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  redraw();
});
prefersDark.addEventListener("change", () => redraw());

// ---- a link to a run opens it --------------------------------------------------------------------------------------

function open() {
  const target = location.hash && $(location.hash.slice(1));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView();
  }
}
addEventListener("hashchange", open);
open();

// ---- charts --------------------------------------------------------------------------------------------------------

// Charts are drawn when they come into view. Until then the library is stored as text, so that a page of many runs
// opens fast.
const charts = new Map(); // element -> function that returns its traces and layout
const visible = new Set();

function library() {
  if (!window.Plotly) {
    const script = document.createElement("script");
    script.textContent = $("plotly").textContent;
    document.head.append(script);
  }
  return window.Plotly;
}

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting && !visible.has(entry.target)) {
      visible.add(entry.target);
      draw(entry.target);
    }
  }
}, { rootMargin: "200px" });

function chart(id, make) {
  charts.set($(id), make);
  watcher.observe($(id));
}

function draw(element) {
  const [traces, layout] = charts.get(element)();
  const config = { displaylogo: false, responsive: true, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] };
  library().react(element, traces, layout, config);
}

function redraw() {
  for (const element of visible) draw(element);
}

// The library interprets some tags and entities in text as markup
const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

const COLORS = ["#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#d4a72c", "#9d755d", "#ff9da6", "#8f8f8f"];
const DASHES = ["solid", "dash", "dot", "dashdot"];
const color = (model) => COLORS[data.models.indexOf(model) % COLORS.length];
const dash = (model) => DASHES[Math.floor(data.models.indexOf(model) / COLORS.length) % DASHES.length];
const ARROW = { lower: " ↓", higher: " ↑" };

function layout(x, y, more = {}) {
  const style = getComputedStyle(root);
  const [ink, soft, line] = ["--ink", "--soft", "--line"].map((name) => style.getPropertyValue(name).trim());
  const axis = { gridcolor: line, linecolor: soft, zeroline: false, ticks: "outside", tickcolor: line, automargin: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: soft },
    hoverlabel: { bgcolor: style.getPropertyValue("--paper").trim(), bordercolor: line, font: { color: ink }, align: "left" },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: line, activecolor: soft },
    margin: { l: 60, r: 12, t: 12, b: 44 },
    legend: { orientation: "h", x: 0, y: 0, yref: "container", yanchor: "bottom", font: { color: ink } },
    xaxis: { ...axis, ...x }, yaxis: { ...axis, ...y }, ...more,
  };
}

const named = (models) => models <= (innerWidth < 640 ? 6 : 15); // whether a legend is shown; with more models, hover text names them
const short = (name) => plain(name.length > 24 ? `${name.slice(0, 23)}…` : name);
const title = (text) => ({ text: plain(text), standoff: 8 });
const logarithmic = (values) => values.length > 1 && Math.min(...values) > 0 && Math.max(...values) > 20 * Math.min(...values);

const compact = (value) => value.toLocaleString("en", { maximumFractionDigits: 1 });

function fill(select, options, chosen) {
  select.replaceChildren(...options.map(([value, text]) => {
    const option = new Option(text, value);
    option.selected = value === chosen;
    return option;
  }));
  select.closest("label").hidden = options.length < 2;
}

// Axis range that covers all means and deviations, with a margin, within the bounds of the score
function around(scores, [low, high]) {
  const [from, to] = [Math.min(...scores.map(([m, d]) => m - d)), Math.max(...scores.map(([m, d]) => m + d))];
  const room = (to - from) * 0.08 || Math.abs(to) * 0.2 || 1;
  return [Math.max(from - room, low ?? -Infinity), Math.min(to + room, high ?? Infinity)];
}

function scatter(field, name) {
  const board = data.boards[$("quality-board").value];
  const metric = $("quality-metric").value;
  const points = board.points.filter((p) => p[field] > 0 && p.scores[metric] && matches(p.find));
  const sampling = field === "seconds"; // rows of a checkpoint that differ in the number of steps are joined
  const log = $("quality-log").checked || (sampling && logarithmic(points.map((p) => p.scores[metric][0])));
  const group = (p) => (sampling ? p.line : p.model);
  const known = new Set();
  const traces = [...new Set(points.map(group))].map((line) => {
    const own = points.filter((p) => group(p) === line).sort((a, b) => a.evaluations - b.evaluations || a[field] - b[field]);
    const model = own[0].model;
    const first = !known.has(model);
    known.add(model);
    const [means, deviations] = [0, 1].map((k) => own.map((p) => p.scores[metric][k]));
    return {
      type: "scatter", mode: `markers${sampling ? "+text" : ""}${sampling && own.length > 1 ? "+lines" : ""}`,
      name: short(model), legendgroup: model, showlegend: first, x: own.map((p) => p[field]), y: means,
      text: own.map((p) => (sampling && p.evaluations ? compact(p.evaluations) : "")), textposition: "top center", textfont: { size: 10 },
      line: { color: color(model), width: 1.5, dash: dash(model) },
      error_y: { type: "data", array: deviations.map((d) => d ?? 0), visible: deviations.some((d) => d), thickness: 1, width: 3 },
      cliponaxis: false, // a mark at the edge of the plot is not cut off
      marker: { color: color(model), size: 10, line: { width: 1.5, color: color(model) },
        symbol: own.map((p) => (p.checkpoint === "last" ? "circle-open" : "circle")) },
      hovertext: own.map((p, k) => plain(`${p.label}${p.checkpoint ? `, ${p.checkpoint}` : ""}: ${metric} ${means[k].toPrecision(4)}`
        + (deviations[k] ? ` ± ${deviations[k].toPrecision(2)}` : "")
        + (sampling ? `, ${p.seconds.toPrecision(3)} s per image${p.evaluations ? `, NFE ${compact(p.evaluations)}` : ""}` : ""))), hoverinfo: "text",
    };
  });
  const baseline = board.points.find((p) => p.kind === "baseline" && p.scores[metric]);
  const level = baseline && baseline.scores[metric][0];
  const shapes = baseline && points.length && !(log && level <= 0) ? [{
    type: "line", xref: "paper", x0: 0, x1: 1, y0: level, y1: level, line: { width: 1, dash: "dot", color: getComputedStyle(root).getPropertyValue("--soft").trim() },
    label: { text: "baseline", textposition: "end", yanchor: "bottom" },
  }] : [];
  const xs = points.map((p) => p[field]);
  const shown = [...points, ...(baseline ? [baseline] : [])].map((p) => p.scores[metric]);
  const decades = { type: "log", dtick: logarithmic(xs) ? 1 : "D2", tickformat: "~g" };
  return [traces, layout(
    sampling ? { title: title(name), ...decades } : { title: title(name), type: logarithmic(xs) ? "log" : "linear", ...(logarithmic(xs) ? { dtick: "D2" } : { rangemode: "tozero" }), tickformat: field === "hours" ? "~g" : "~s" },
    { title: title(metric + (ARROW[board.metrics[metric]] ?? "")), type: log ? "log" : "linear", ...(sampling && log ? { dtick: "D2" } : {}),
      ...(log || !shown.length ? {} : { range: around(shown, board.ranges[metric]) }) },
    { shapes, showlegend: named(known.size) || (sampling && known.size <= 15) },
  )];
}

if ($("quality")) {
  const usable = data.boards.map((board, k) => [String(k), board])
    .filter(([, board]) => board.by && board.points.some((p) => p.hours || p.parameters || p.seconds));
  fill($("quality-board"), usable.map(([k, board]) => [k, board.title]), usable.length ? usable[0][0] : "");
  const chooseBoard = () => {
    const board = data.boards[$("quality-board").value];
    fill($("quality-metric"), Object.keys(board.metrics).map((m) => [m, m]), board.by);
    $("by-sampling").parentElement.hidden = !board.points.some((p) => p.seconds > 0);
    redraw();
  };
  if (usable.length) {
    chooseBoard();
    $("quality-board").addEventListener("change", chooseBoard);
    for (const id of ["quality-metric", "quality-log"]) $(id).addEventListener("change", redraw);
    chart("by-time", () => scatter("hours", "device hours"));
    chart("by-sampling", () => scatter("seconds", "seconds of sampling per image"));
    chart("by-size", () => scatter("parameters", "parameters"));
  } else $("quality").hidden = true;
}

function learning() {
  const [set, metric] = [$("curves-data").value, $("curves-metric").value];
  const runs = data.runs.filter((run) => run.data === set && run.series[metric] && matches(run.find));
  const known = new Set();
  const traces = runs.map((run) => {
    const [at, values] = run.series[metric];
    const first = !known.has(run.model);
    known.add(run.model);
    return {
      type: "scatter", mode: values.length < 40 ? "lines+markers" : "lines", name: short(run.model), legendgroup: run.model, showlegend: first,
      x: run.at[at], y: values, line: { color: color(run.model), width: 1.5, dash: dash(run.model) }, marker: { size: 4 },
      hovertext: values.map((value, k) => plain(`${run.name}: ${value.toPrecision(4)} after ${run.at[at][k].toLocaleString("en")} images`)), hoverinfo: "text",
    };
  });
  return [traces, layout(
    { title: title("images seen"), tickformat: "~s", rangemode: "tozero" },
    { title: title(metric), type: $("curves-log").checked ? "log" : "linear" },
    { showlegend: named(known.size) },
  )];
}

if ($("curves")) {
  const sets = [...new Set(data.runs.filter((run) => Object.keys(run.series).length).map((run) => run.data))];
  fill($("curves-data"), sets.map((name) => [name, name]), sets[0]);
  const chooseData = () => {
    const names = new Set(data.runs.filter((run) => run.data === $("curves-data").value).flatMap((run) => Object.keys(run.series)));
    const sorted = [...names].sort((a, b) => b.startsWith("val/") - a.startsWith("val/")); // scores before losses
    const by = data.boards.map((board) => `val/${board.by}`).find((name) => names.has(name));
    fill($("curves-metric"), sorted.map((name) => [name, name]), by ?? sorted[0]);
    redraw();
  };
  chooseData();
  $("curves-data").addEventListener("change", chooseData);
  for (const id of ["curves-metric", "curves-log"]) $(id).addEventListener("change", redraw);
  chart("curves-chart", learning);
}
