// Five charts as SVG: against shots, recall of a search, by dataset, by class, against cost.

const COST_AXES = {
  "fit + predict": [(c) => (c.fit == null ? null : c.fit + c.predict), "s"],
  extract: [(c) => c.extract, "s"],
  trained: [(c) => c.trained, "parameters"],
};

function charts() {
  curves();
  recall();
  by_dataset();
  by_class();
  scatter();
}

function canvas(section, height, said) {
  const figure = clear($(`${section} figure`)), width = Math.max(280, figure.clientWidth);
  const svg = add(figure, "svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": said });
  return { svg, width, figure };
}

/** Round values that cover an interval. */
function ticks(low, high) {
  const raw = (high - low || 1) / 5, ten = 10 ** Math.floor(Math.log10(raw));
  const step = ten * [1, 2, 5, 10].find((s) => s * ten >= raw);
  const count = Math.floor(high / step + 1e-9) - Math.ceil(low / step - 1e-9) + 1;
  return Array.from({ length: count }, (_, i) => +((Math.ceil(low / step - 1e-9) + i) * step).toPrecision(12));
}

/** Lowest and highest of scores with their intervals, and a little room; shares stay shares. */
function extent(scores) {
  const ends = scores.flatMap((c) => [c.mean - (c.half ?? 0), c.mean + (c.half ?? 0)]);
  const low = Math.min(...ends), high = Math.max(...ends), room = (high - low || Math.abs(high) || 1) / 20;
  const floor = scores.every((c) => c.mean >= 0) ? 0 : -Infinity;
  return [Math.max(floor, low - room), Math.min(metric().percent ? 1 : Infinity, high + room)];
}

/** Horizontal lines with their values; returns where a value stands. */
function scale(svg, [low, high], { left, right, top, bottom }, text = show) {
  const y = (v) => bottom - ((Math.min(high, Math.max(low, v)) - low) / (high - low)) * (bottom - top);
  for (const v of ticks(low, high)) {
    add(svg, "line", { class: "grid", x1: left, x2: right, y1: y(v), y2: y(v) });
    add(svg, "text", { x: left - 8, y: y(v) + 4, "text-anchor": "end" }, text(v).replace(/\.0+$/, ""));
  }
  return y;
}

function below(svg, x, y, text) {
  add(svg, "text", { x, y, "text-anchor": "middle" }, text);
}

/** Push names apart, and keep them inside. */
function apart(names, gap, low, high) {
  names.sort((a, b) => a.y - b.y);
  names.forEach((item, i) => (item.y = Math.max(item.y, i ? names[i - 1].y + gap : low)));
  names.reduceRight((end, item) => (item.y = Math.min(item.y, end)) - gap, high);
}

/** A box beside a point; without a title it goes. */
function tip(figure, x, y, title, lines) {
  figure.querySelector(".tip")?.remove();
  if (!title) return;
  const box = add(figure, "div", { class: "tip" });
  add(box, "b", {}, title);
  for (const [label, text] of lines) {
    const line = add(box, "div");
    if (label) swatch(line, label);
    line.append(text);
  }
  box.style.left = `${Math.max(0, Math.min(x + 14, figure.clientWidth - box.offsetWidth))}px`;
  box.style.top = `${Math.max(0, y - box.offsetHeight / 2)}px`;
}

function curves() {
  const ks = shots(), lines = shown(), scores = cells().filter((c) => lines.includes(c.method));
  $("#curves").hidden = ks.length < 2;
  if (ks.length < 2) return;
  choosing("#curves", there());
  const { svg, width, figure } = canvas("#curves", 380, `${metric().unit} against shots; the numbers are in the table`);
  if (!scores.length) return;
  const wide = width > 620, frame = { left: 44, right: width - (wide ? 150 : 12), top: 12, bottom: 340 };
  const { left, right, top, bottom } = frame, y = scale(svg, extent(scores), frame);
  const place = (k) => (k === ALL_SHOTS ? 7 : k ? Math.log2(k) : -1), [from, to] = [place(ks[0]), place(ks.at(-1))];
  const x = (k) => left + 12 + ((place(k) - from) / (to - from)) * (right - left - 24);
  for (const k of ks) below(svg, x(k), bottom + 20, told(k));
  below(svg, (left + right) / 2, bottom + 38, "labelled images per class");
  const points = (m) => ks.flatMap((k) => cell(m, k) ?? []);
  const ends = lines.map((m) => curve(svg, m, points(m), x, y, lines.length > 6 ? 0.045 : 0.09));
  named(svg, ends, frame, wide);
  pointing(svg, figure, frame, ks, x, (k) => {
    const found = lines.flatMap((m) => cell(m, k) ?? []).sort(better);
    return [shot(k), found.map((c) => [c.method, `${show(c.mean)}${spread(c)}  ${name(c.method)}`])];
  });
}

/** Buttons that show and hide methods, in all charts that have a line or a point for each. */
function choosing(section, methods) {
  chips(section, methods, (m) => !state.hidden.has(m), (m) => {
    if (!state.hidden.delete(m)) state.hidden.add(m);
    curves();
    recall();
    scatter();
  });
}

/** The names of lines, where these end. */
function named(svg, ends, { right, top, bottom }, wide) {
  apart(ends, 15, top, bottom);
  for (const end of wide ? ends : []) {
    add(svg, "text", { x: right + 8, y: end.y + 4, style: `fill:${hue(end.m)}` }, name(end.m).slice(0, 22));
  }
}

/** A line below the pointer, at the nearest of some numbers, and a box with what is told of it. */
function pointing(svg, figure, { left, right, top, bottom }, ks, x, telling) {
  const guide = add(svg, "line", { class: "zero", y1: top, y2: bottom, visibility: "hidden" });
  const pointermove = (event) => {
    const at = event.clientX - figure.getBoundingClientRect().left;
    const k = ks.reduce((a, b) => (Math.abs(x(b) - at) < Math.abs(x(a) - at) ? b : a));
    for (const end of ["x1", "x2"]) guide.setAttribute(end, x(k));
    guide.setAttribute("visibility", "visible");
    tip(figure, x(k), (top + bottom) / 2, ...telling(k));
  };
  const pointerleave = () => {
    guide.setAttribute("visibility", "hidden");
    tip(figure);
  };
  const area = { x: left, y: top, width: right - left, height: bottom - top, fill: "transparent" };
  add(svg, "rect", { ...area, pointermove, pointerleave });
}

const MARKED = [1, 5, 10, 20, 30, 40, 50]; // numbers of items that the axis names

/** Of a search, the share of queries whose item is among the first K. */
function recall() {
  const found = D.recall[state.dataset] ?? {}, of = (m) => found[m]?.[state.shots];
  const all = there().filter(of), lines = all.filter((m) => !state.hidden.has(m));
  $("#recall").hidden = !all.length;
  if (!all.length) return;
  const bands = all.some((m) => of(m)[0][1] != null) ? "; bands: 95 % interval over seeds" : "";
  $("#recall p").textContent = `queries whose item is among the first K, %: ${D.datasets[state.dataset]}, ${shot(state.shots)}${bands}`;
  choosing("#recall", all);
  const { svg, width, figure } = canvas("#recall", 380, "recall against the number of items");
  if (!lines.length) return;
  const points = (m) => of(m).map(([mean, half], i) => ({ shots: i + 1, mean, half }));
  const high = Math.max(...lines.flatMap((m) => points(m).map((p) => p.mean + (p.half ?? 0))));
  const wide = width > 620, frame = { left: 44, right: width - (wide ? 150 : 12), top: 12, bottom: 340 };
  const { left, right, bottom } = frame, percent = (v) => (100 * v).toFixed(1);
  const y = scale(svg, [0, Math.min(1, 1.05 * high || 1)], frame, percent);
  const ks = of(lines[0]).map((_, i) => i + 1), x = (k) => left + 12 + ((k - 1) / (ks.length - 1)) * (right - left - 24);
  for (const k of MARKED.filter((k) => k <= ks.length)) below(svg, x(k), bottom + 20, String(k));
  below(svg, (left + right) / 2, bottom + 38, "K, items from the first on");
  const opacity = lines.length > 6 ? 0.045 : 0.09;
  named(svg, lines.map((m) => curve(svg, m, points(m), x, y, opacity, (k) => MARKED.includes(k))), frame, wide);
  pointing(svg, figure, frame, ks, x, (k) => {
    const here = lines.map((m) => [m, points(m)[k - 1]]).sort((a, b) => b[1].mean - a[1].mean);
    const half = (p) => (p.half == null ? "" : ` ± ${percent(p.half)}`);
    return [`first ${k}`, here.map(([m, p]) => [m, `${percent(p.mean)}${half(p)}  ${name(m)}`])];
  });
}

/** Stretches of points that all have an interval: a band that narrowed to none would look the surest. */
function unbroken(points) {
  const parts = [[]];
  for (const c of points) c.half == null ? parts.push([]) : parts.at(-1).push(c);
  return parts.filter((part) => part.length);
}

/** One method's band, line and points, or some of these; returns where it ends. */
function curve(svg, m, points, x, y, opacity, marked = () => true) {
  const color = hue(m);
  const edge = (sign, of) => of.map((c) => `${x(c.shots)},${y(c.mean + sign * (c.half ?? 0))}`);
  for (const part of unbroken(points))
    add(svg, "polygon", { points: [...edge(1, part), ...edge(-1, part).reverse()].join(" "), fill: color, opacity });
  const dashes = labels.indexOf(m) < HUES.length ? null : "5 4"; // where colours come round again
  const line = { fill: "none", stroke: color, "stroke-width": 2, "stroke-dasharray": dashes };
  add(svg, "polyline", { points: edge(0, points).join(" "), ...line });
  for (const c of points) {
    if (marked(c.shots)) add(svg, "circle", { cx: x(c.shots), cy: y(c.mean), r: 3.5, fill: color });
  }
  return { m, y: y(points.at(-1).mean) };
}

/** Differences as bars, the largest first; rows are a name, a difference and what it is of. */
function bars(section, rows, text, falling) {
  rows.sort((a, b) => b[1] - a[1]);
  const said = rows.length ? `from ${text(rows[0][1])} to ${text(rows.at(-1)[1])}` : "";
  const { svg, width } = canvas(section, rows.length * 22 + 8, `${rows.length} differences ${said}`);
  const values = rows.map((row) => row[1]), low = Math.min(0, ...values), high = Math.max(1e-9, ...values);
  const names = Math.min(170, width * 0.36), left = names + (low < 0 ? 46 : 8), right = width - 46;
  const x = (v) => left + ((v - low) / (high - low)) * (right - left);
  rows.forEach(([title, value, of], i) => {
    const y = i * 22 + 4, line = add(svg, "g"), fits = Math.floor(names / 6.6);
    add(line, "title", {}, of);
    const short = title.length > fits ? `${title.slice(0, fits - 1)}…` : title;
    add(line, "text", { x: names, y: y + 12, "text-anchor": "end", class: "name" }, short);
    const fill = value > 0 !== falling ? "var(--good)" : "var(--bad)", end = Math.min(x(0), x(value));
    add(line, "rect", { x: end, y, width: Math.abs(x(value) - x(0)), height: 15, rx: 2, fill, opacity: 0.8 });
    const beside = value < 0 ? { x: x(value) - 6, "text-anchor": "end" } : { x: x(value) + 6 };
    add(line, "text", { y: y + 12, ...beside }, text(value));
  });
  add(svg, "line", { class: "zero", x1: x(0), x2: x(0), y1: 0, y2: rows.length * 22 });
}

const versus = () => `${name(state.method)} minus ${name(state.against)}, ${shot(state.shots)}`;

function by_dataset() {
  const each = sets.filter((d) => d !== "average");
  $("#datasets").hidden = each.length < 2;
  if (each.length < 2) return;
  $("#datasets p").textContent = `${metric().unit}: ${versus()}`;
  const rows = each.flatMap((d) => {
    const [one, two] = [state.method, state.against].map((m) => cell(m, state.shots, d));
    return one && two ? [[d, one.mean - two.mean, `${d}: ${show(one.mean)} and ${show(two.mean)}`]] : [];
  });
  bars("#datasets", rows, (v) => signed(show(v)), metric().falling);
}

function by_class() {
  const dataset = state.dataset === "average" ? sets.find((d) => d !== "average") : state.dataset;
  const slash = state.metric.lastIndexOf("/"), asked = slash < 0 ? "" : state.metric.slice(0, slash);
  const test = D.classes[dataset][asked] ? asked : "", found = D.classes[dataset][test];
  $("#classes").hidden = !found;
  if (!found) return;
  const [one, two] = [state.method, state.against].map((m) => found.shares[m]?.[state.shots]);
  const percent = (v) => (100 * v).toFixed(1);
  const rows = found.names.flatMap((title, i) => {
    const [a, b] = [one?.[i], two?.[i]];
    return a == null || b == null ? [] : [[title, a - b, `${title}: ${percent(a)} and ${percent(b)}`]];
  });
  const far = rows.length > 30 ? rows.toSorted((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, 30) : rows;
  const cut = far.length < rows.length ? `; the ${far.length} largest of ${rows.length} classes` : "";
  $("#classes p").textContent = `${dataset}${test && `, ${test}`}: accuracy, %: ${versus()}${cut}`;
  bars("#classes", far, (v) => signed(percent(v)), false);
}

function scatter() {
  const [of, unit] = COST_AXES[state.cost];
  const points = shown().map((m) => ({ m, c: cell(m), cost: cost(m, [state.shots], of) }));
  const known = points.filter((p) => p.c && p.cost != null);
  const bars = known.some((p) => p.c.half != null) ? "; bars: the table's ±" : "";
  $("#cost p").textContent = `${D.datasets[state.dataset]}, ${shot(state.shots)}${bars}`;
  chips("#cost", Object.keys(COST_AXES), (key) => key === state.cost, (key) => {
    state.cost = key;
    scatter();
  });
  const said = `${metric().unit} against ${state.cost}; the numbers are in the table`;
  const { svg, width, figure } = canvas("#cost", 340, said);
  if (!known.length) return;
  const frame = { left: 44, right: width - 20, top: 12, bottom: 296 }, { left, right, top, bottom } = frame;
  const y = scale(svg, extent(known.map((p) => p.c)), frame);
  const x = logarithm(svg, known.map((p) => p.cost), frame);
  below(svg, (left + right) / 2, bottom + 38, `${state.cost}, ${unit}`);
  for (const { m, c, cost } of known) {
    const here = x(cost), half = c.half ?? 0, stroke = hue(m);
    add(svg, "line", { x1: here, x2: here, y1: y(c.mean - half), y2: y(c.mean + half), stroke, opacity: 0.4 });
    const pointerenter = () =>
      tip(figure, here, y(c.mean), name(m), [["", show(c.mean) + spread(c)], ["", `${+cost.toPrecision(3)} ${unit}`]]);
    const pointerleave = () => tip(figure);
    add(svg, "circle", { cx: here, cy: y(c.mean), r: 5.5, fill: stroke, pointerenter, pointerleave });
  }
  const names = known.map((p) => ({ m: p.m, x: x(p.cost), y: y(p.c.mean), outer: x(p.cost) > width * 0.66 }));
  const sides = width > 620 ? [names.filter((p) => p.outer), names.filter((p) => !p.outer)] : [names];
  for (const side of sides) apart(side, 14, top, bottom);
  for (const p of names) {
    const beside = p.outer ? { x: p.x - 10, "text-anchor": "end" } : { x: p.x + 10 };
    add(svg, "text", { y: p.y + 4, style: `fill:${hue(p.m)}`, ...beside }, name(p.m).slice(0, 26));
  }
}

/** A logarithmic axis, on which zero has a place of its own at the left; returns where a value stands. */
function logarithm(svg, values, { left, right, bottom }) {
  const some = values.filter((v) => v > 0), none = some.length < values.length;
  const low = Math.floor(Math.log10(Math.min(...some, 1e12))), high = Math.ceil(Math.log10(Math.max(...some, 1e-12)));
  const start = some.length ? low - none : 0, end = some.length ? Math.max(high, low + 1) : 1;
  const x = (v) => left + 14 + (((v > 0 ? Math.log10(v) : start) - start) / (end - start)) * (right - left - 28);
  for (let e = low; some.length && e <= end; e++) {
    const format = { maximumFractionDigits: 6, notation: e > 3 ? "compact" : "standard" };
    below(svg, x(10 ** e), bottom + 20, (10 ** e).toLocaleString("en", format));
  }
  if (none) below(svg, x(0), bottom + 20, "0");
  return x;
}

{
  state.shots = shots().at(-1);
  const [best, second] = cells().filter((c) => c.shots === state.shots).sort(better);
  state.method = best.method;
  state.against = D.against || labels.find((m) => m !== best.method && cell(m)) || second?.method || best.method;
  $("#protocol").textContent = D.protocol.join(" · ");
  draw();
  let width = innerWidth; // a phone's bars come and go, which changes the height alone
  addEventListener("resize", () => {
    if (innerWidth !== width) charts();
    width = innerWidth;
  });
}
