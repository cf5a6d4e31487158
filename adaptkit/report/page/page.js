"use strict";
// The data, what is chosen of it, the controls and the table; charts.js draws the rest.

const D = JSON.parse(document.getElementById("data").textContent);
const $ = (query) => document.querySelector(query);
const HUES = [
  "#3b7dd8", "#e0803a", "#2f9e6e", "#c2458a", "#8a63d2", "#b58a12",
  "#1d9fb3", "#d1495b", "#6f8f2f", "#8c6a56", "#5b6ee1", "#7d8894",
];
const SAID = {
  "▼": ["bad", "worse"], "▲": ["good", "better"], "•": ["best", "reference"], "": ["", "not told apart"],
};
const COSTS = {
  trained: (c) => c.trained, "extract s": (c) => c.extract, "fit s": (c) => c.fit, "predict s": (c) => c.predict,
};

const labels = D.methods.map((m) => m.label);
const name = (label) => D.methods[labels.indexOf(label)].name;
const hue = (label) => HUES[labels.indexOf(label) % HUES.length];
const sets = Object.keys(D.datasets);
const state = {
  metric: D.metric, dataset: sets[0], shots: 0, method: "", against: "",
  cost: "fit + predict", hidden: new Set(), sort: null, differences: false,
};

const metric = () => D.metrics[state.metric];
const cells = (dataset = state.dataset) => metric().cells.filter((c) => c.dataset === dataset);
const cell = (method, k = state.shots, dataset = state.dataset) =>
  cells(dataset).find((c) => c.method === method && c.shots === k);
const ascending = (values) => [...new Set(values)].sort((a, b) => a - b);
const shots = () => ascending(cells().map((c) => c.shots));
const there = () => labels.filter((m) => cells().some((c) => c.method === m));
const shown = () => there().filter((m) => !state.hidden.has(m));
const better = (a, b) => (metric().falling ? a.mean - b.mean : b.mean - a.mean); // the best first

const signed = (text) => (text.startsWith("-") ? text : "+" + text);
const show = (v) => (metric().percent ? (100 * v).toFixed(1) : v.toFixed(3));
const ALL_SHOTS = 2 ** 31 - 1;
const told = (k) => (k === ALL_SHOTS ? "all" : String(k));
const shot = (k) => (k ? `${told(k)} shot${k === 1 ? "" : "s"}` : metric().unit);
const spread = (c) => (c.half == null ? "" : ` ± ${show(c.half)}`);

/** A new element at the end of another. Texts become text nodes: nothing that a name says is markup. */
function add(parent, tag, attributes = {}, ...texts) {
  const svg = tag === "svg" || parent.namespaceURI.endsWith("svg");
  const made = document.createElementNS(svg ? "http://www.w3.org/2000/svg" : parent.namespaceURI, tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value != null) made.setAttribute(key, value);
  }
  made.append(...texts);
  parent.append(made);
  return made;
}

function clear(node) {
  node.replaceChildren();
  return node;
}

function swatch(parent, label) {
  add(parent, "span", { class: "swatch", style: `background:${hue(label)}` });
}

/** Buttons that are pressed or not; pressing one keeps the focus on it. */
function chips(section, options, pressed, press) {
  const bar = clear($(`${section} .chips`));
  options.forEach((option, i) => {
    const click = () => {
      press(option);
      bar.children[i].focus();
    };
    const button = add(bar, "button", { "aria-pressed": pressed(option), title: option, click });
    if (labels.includes(option)) swatch(button, option);
    button.append(labels.includes(option) ? name(option) : option);
  });
}

function controls() {
  const bar = clear($("#controls"));
  const choose = (key, options, text) => {
    if (options.length < 2) return;
    const change = (event) => {
      state[key] = options[event.target.selectedIndex];
      draw(key);
    };
    const box = add(add(bar, "label", {}, key), "select", { id: `choose-${key}`, change });
    for (const option of options) add(box, "option", { selected: option === state[key] ? "" : null }, text(option));
  };
  choose("metric", Object.keys(D.metrics), String);
  choose("dataset", sets, (d) => D.datasets[d]);
  choose("shots", shots(), told);
  choose("method", labels, name);
  choose("against", labels, name);
}

/** What a method costs, on average over some numbers of shots; null where nobody knows. */
function cost(method, ks, of) {
  const found = D.costs.filter((c) => c.dataset === state.dataset && c.method === method && ks.includes(c.shots));
  const values = found.map(of).filter((v) => v != null);
  return values.length ? values.reduce((sum, v) => sum + v, 0) / values.length : null;
}

function table() {
  const ks = shots();
  const columns = [
    ["method", (m) => m],
    ...ks.map((k) => [shot(k), (m) => cell(m, k)?.mean]),
    ...Object.entries(COSTS).map(([title, of]) => [title, (m) => cost(m, ks, of)]),
  ];
  state.sort ??= [ks.length, metric().falling ? 1 : -1];
  const [at, way] = state.sort;
  const rows = there().sort((a, b) => {
    const [x, y] = [a, b].map(columns[at][1]);
    if (x == null || y == null) return x == null ? 1 : -1;
    return way * (at ? x - y : x.localeCompare(y));
  });
  const node = clear($("#numbers table"));
  head(add(add(node, "thead"), "tr"), columns, ks.length);
  const body = add(node, "tbody");
  for (const m of rows) {
    const row = add(body, "tr"), first = add(row, "th", { scope: "row" });
    const [plain, options] = m.split(/\((.*)\)$/s);
    swatch(first, m);
    first.append(plain + (ks.some((k) => cell(m, k)?.oracle) ? " (oracle)" : ""));
    if (options) add(first, "small", {}, options);
    for (const k of ks) number(add(row, "td"), cell(m, k));
    for (const [title, of] of Object.entries(COSTS)) {
      const value = cost(m, ks, of);
      const text = title === "trained" ? Math.round(value).toLocaleString("en") : value?.toFixed(2);
      add(row, "td", {}, value == null ? "-" : text);
    }
  }
  around();
}

function head(row, columns, scores) {
  const [at, way] = state.sort;
  columns.forEach(([title], i) => {
    const first = i && i <= scores && !metric().falling ? -1 : 1;
    const click = () => {
      state.sort = [i, i === at ? -way : first];
      table();
      document.querySelectorAll("thead button")[i].focus();
    };
    const order = way > 0 ? "ascending" : "descending";
    add(add(row, "th", { scope: "col", "aria-sort": i === at ? order : null }), "button", { click }, title);
  });
}

function number(td, c) {
  if (!c) return td.append("-");
  td.append(show(c.mean));
  add(td, "i", {}, spread(c));
  const [look, said] = SAID[c.mark];
  const title = c.difference ? `${said}: ${c.difference} to ${name(c.reference)}` : said;
  add(td, "span", { class: `mark ${look}`, title, role: "img", "aria-label": said }, c.mark);
  if (state.differences && c.difference) add(td, "small", {}, c.difference);
  if (c.published != null) {
    add(td, "small", {}, `${signed(show(c.mean - c.published))} from ${show(c.published)} [${c.source}]`);
  }
}

/** What stands above and below the table. */
function around() {
  $("#of").textContent = `${D.datasets[state.dataset]}: ${metric().unit}`;
  const several = cells().some((c) => c.half != null);
  $("#numbers p").textContent = several ? D.spread : "";
  const tested = cells().some((c) => c.difference) ? ["differences to •"] : [];
  chips("#numbers", tested, () => state.differences, () => {
    state.differences = !state.differences;
    table();
  });
  const legend = clear($("#numbers ul"));
  if (tested.length) add(legend, "li", {}, `differences: ${metric().differences.join("; ")}`);
  for (const line of metric().legend) add(legend, "li", {}, line);
  for (const i of ascending(cells().flatMap((c) => c.source ?? []))) {
    add(legend, "li", {}, `[${i}] ${metric().sources[i - metric().first_source]}`);
  }
}

/** The sections that stand in the page already, of the chosen dataset. */
function ready(part) {
  const dataset = state.dataset === "average" ? sets.find((d) => d !== "average") : state.dataset;
  return [...document.querySelectorAll("template")].filter((t) => t.dataset.dataset === dataset && t.dataset.part === part);
}

/** What the chosen method remembers of a sequence of tasks. */
function sequence() {
  const all = ready("sequence");
  const found = all.find((t) => t.dataset.method === state.method && t.dataset.shots === String(state.shots));
  $("#sequence").hidden = !found;
  if (!found) return;
  $("#sequence p").textContent = [found.dataset.dataset, name(state.method), shot(state.shots)].join(", ");
  clear($("#sequence div")).append(found.content.cloneNode(true));
}

/** The sections about errors of the chosen method, where its predictions were kept, and the agreement of all. */
function errors() {
  const dataset = state.dataset === "average" ? sets.find((d) => d !== "average") : state.dataset;
  const all = ready(undefined);
  const here = all.filter((t) => t.dataset.shots === String(state.shots));
  $("#errors").hidden = !all.length;
  const found = ["", state.method].map((m) => here.find((t) => t.dataset.method === m)).reverse();
  const none = "not in this page; adaptkit errors tells them, where predictions were kept";
  $("#errors p").textContent = `${[dataset, name(state.method), shot(state.shots)].join(", ")}: ${found[0] ? (found[0].dataset.over ?? "over all seeds") : none}`;
  const body = clear($("#errors div"));
  for (const template of found) if (template) body.append(template.content.cloneNode(true));
}

function draw(changed) {
  if (!shots().includes(state.shots)) state.shots = shots().at(-1);
  if (changed === "metric" || changed === "dataset") state.sort = null;
  controls();
  table();
  charts();
  sequence();
  errors();
  if (changed) $(`#choose-${changed}`)?.focus();
}
