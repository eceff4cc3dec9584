"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const LEFT = 38, RIGHT = 14, TOP = 8, BOTTOM = 34, GAP = 12;
const MANY = 4;                             // with more datasets than that, only the first is unfolded
const DASHES = ["6 4", "2 3", "9 3", "6 2 1 2", "3 1"];
const narrow = matchMedia("(max-width: 700px)");
const number = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

const chosen = {};                          // of every filter, the set of values that are shown
let earlyOnly = false;
let order = { column: 0, descending: false };
const opened = new Set();                   // the cells whose runs are shown below their row
const folded = new Map();                   // whether a part of the curves is unfolded, where somebody said so

/** An element with attributes and children; text is only ever text. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter(child => child !== null));
  return made;
}

function drawn(tag, attributes, text = "") {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

/** Lets an element have a colour, which is lighter on a dark page. */
function colored(made, color) {
  made.classList.add("colored");
  made.style.setProperty("--c", color);
  return made;
}

const swatch = cell => colored(element("span", { class: "swatch" }), cell.color);
const unique = values => [...new Set(values)];

/* Filters */

const FILTERS = [["dataset", "Datasets"], ["label", "Algorithms"], ["replay", "Replay"]];

function filters() {
  const form = document.getElementById("filters");
  for (const [field, title] of FILTERS) {
    const values = unique(data.cells.map(cell => cell[field]));
    chosen[field] = new Set(values);
    const boxes = values.map(value => {
      const box = element("input", { type: "checkbox", checked: true, "data-filter": field, value });
      box.addEventListener("change", () => {
        box.checked ? chosen[field].add(value) : chosen[field].delete(value);
        show();
      });
      return [box, value];
    });
    const every = on => () => {
      boxes.forEach(([box, value]) => { box.checked = on; on ? chosen[field].add(value) : chosen[field].delete(value); });
      show();
    };
    form.append(element("fieldset", {},
      element("legend", {}, title,
        element("button", { type: "button", onclick: every(true), "aria-label": `all ${title}` }, "all"),
        element("button", { type: "button", onclick: every(false), "aria-label": `none of ${title}` }, "none")),
      element("div", { class: "choices" }, ...boxes.map(([box, value]) => element("label", {}, box,
        field === "label" ? swatch(data.cells.find(cell => cell.label === value)) : " ", value)))));
  }
  const range = element("select", { id: "range" },
    element("option", { value: "all" }, "all that was run"), element("option", { value: "early" }, "first 50 000 env steps"));
  range.addEventListener("change", () => { earlyOnly = range.value === "early"; show(); });
  form.append(element("fieldset", {}, element("legend", {}, "Range"), element("label", {}, range)));
  form.addEventListener("submit", event => event.preventDefault());
}

const shown = () => data.cells.filter(cell => FILTERS.every(([field]) => chosen[field].has(cell[field])));

function show() {
  const cells = shown();
  const runs = cells.reduce((sum, cell) => sum + cell.runs.length, 0);
  document.getElementById("shown").textContent =
    `(shown: ${cells.length} of ${data.cells.length} settings, ${runs} run${runs === 1 ? "" : "s"})`;
  curves(cells);
  collapseTable(cells);
}

/* Learning curves */

function curves(cells) {
  const place = document.getElementById("curves");
  const datasets = unique(cells.map(cell => cell.dataset));
  const height = place.offsetHeight;
  place.style.minHeight = `${height}px`;    // or the page would jump while it is empty
  place.replaceChildren(...datasets.map((dataset, i) => {
    const alike = cells.filter(cell => cell.dataset === dataset);
    const title = element("span", {}, alike[0].name);
    return fold(`dataset ${dataset}`, title, i === 0 || datasets.length <= MANY, "dataset", inside => inside.append(...ofDataset(alike, dataset)));
  }));
  place.style.minHeight = "";
  if (!cells.length) place.append(element("p", {}, "Nothing is chosen."));
}

/** A part that is drawn when it is unfolded, and stays as it was left when the page draws its curves again. */
function fold(name, title, open, kind, draw) {
  const part = element("details", { class: kind, open: folded.get(name) ?? open }, element("summary", {}, title));
  const inside = element("div", {});
  part.append(inside);
  const fill = () => { if (part.open && !inside.childNodes.length) draw(inside); };
  part.addEventListener("toggle", () => { folded.set(name, part.open); fill(); });
  fill();
  return part;
}

function ofDataset(alike, dataset) {
  const replays = unique(alike.map(cell => cell.replay));
  const [columns, width, height] = sizes(replays.length, 480, 300);
  const panels = grid(columns, replays.map(replay =>
    element("figure", {}, element("figcaption", {}, `replay: ${replay}`),
      panel(alike.filter(cell => cell.replay === replay), width, height))));
  const labels = unique(alike.map(cell => cell.label)).map(label => alike.find(cell => cell.label === label));
  const origins = pretrainingsOf(alike);
  const key = element("ul", { class: "key" }, ...labels.map(cell => element("li", {}, swatch(cell), cell.label)),
    ...origins.map((number, i) => element("li", {}, drawnKey(i), data.pretrainings[number].label)));
  const why = fold(`why ${dataset}`, "Why: what critic and policy did", false, "why", inside => inside.append(...reasons(alike)));
  return [panels, key, ...(alike.some(cell => Object.keys(cell.why).length) ? [why] : [])];
}

/** The width and height of panels, as many in a row as there is room for. */
function sizes(count, least, height) {
  const room = document.getElementById("curves").clientWidth;
  const columns = Math.max(1, Math.min(count, Math.floor((room + GAP) / (least + GAP))));
  const width = Math.min(900, Math.floor((room - GAP * (columns - 1)) / columns));
  return [columns, width, Math.min(height, Math.round(0.7 * width))];
}

function grid(columns, figures) {
  const made = element("div", { class: "panels" }, ...figures);
  made.style.setProperty("--columns", columns);
  return made;
}

const pretrainingsOf = cells => unique(cells.map(cell => cell.pretraining)).filter(number => number !== null);

function drawnKey(i) {
  const view = drawn("svg", { width: 30, height: 8, style: "display: inline; background: none" });
  view.append(drawn("line", { class: "offline", x1: 3, x2: 27, y1: 4, y2: 4, "stroke-dasharray": DASHES[i % DASHES.length] }));
  return view;
}

/** The learner step at which these settings went online; null where all are from scratch. */
const switchOf = cells => cells.some(cell => cell.pretraining !== null) ? data.switch : null;

/** Axes, ticks and the switch, where there is one; returns the drawing and its scales. */
function axes(width, height, [start, end], [bottom, top], log, label, switched) {
  const view = drawn("svg", { width, height, viewBox: `0 0 ${width} ${height}` });
  const scale = log ? Math.log10 : value => value;
  const x = step => LEFT + (step - start) / (end - start) * (width - LEFT - RIGHT);
  const y = value => TOP + (scale(top) - scale(value)) / (scale(top) - scale(bottom) || 1) * (height - TOP - BOTTOM);
  const path = (steps, values) => {
    const points = [];
    steps.forEach((step, i) => {
      const cut = edge => [edge, values[i - 1] + (edge - steps[i - 1]) / (step - steps[i - 1]) * (values[i] - values[i - 1])];
      if (i && steps[i - 1] < start && step > start) points.push(cut(start));
      if (step >= start && step <= end) points.push([step, values[i]]);
      if (i && steps[i - 1] < end && step > end) points.push(cut(end));
    });
    return points.map(([step, value], i) => `${i ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  };
  for (const tick of log ? decades(bottom, top) : ticks(bottom, top, height < 200 ? 4 : 6)) {
    view.append(drawn("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick) }),
      drawn("text", { x: LEFT - 5, y: y(tick) + 4, "text-anchor": "end" }, short(tick)));
  }
  for (const tick of ticks(switched + start, switched + end, width < 300 ? 3 : 6)) {
    view.append(drawn("text", { x: x(tick - switched), y: height - BOTTOM + 14, "text-anchor": "middle" }, short(tick / 1000)));
  }
  view.append(drawn("text", { x: (LEFT + width) / 2, y: height - 4, "text-anchor": "middle" },
    width < 300 ? label.replace(" since the switch", "") : label));
  if (switched !== null) view.append(drawn("line", { class: "switch", x1: x(0), x2: x(0), y1: TOP, y2: height - BOTTOM }));
  return { view, x, y, path };
}

const short = value => {
  const rounded = Number(value.toPrecision(4));
  const written = rounded && Math.abs(rounded) < 0.001 ? rounded.toExponential() : String(rounded);
  return written.replaceAll("-", "−").replace(/^(−?)0\./, "$1.");
};

function decades(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const factor of [1, 2, 5]) {
      const tick = factor * 10 ** power;
      if (tick >= low && tick <= high) found.push(tick);
    }
  }
  return found.length > 7 ? found.filter(tick => Number.isInteger(Math.log10(tick) + 1e-12) || Math.abs(Math.log10(tick) % 1) < 1e-9) : found;
}

function panel(cells, width, height) {
  const last = Math.max(...cells.map(cell => data.grids[cell.grid].at(-1)));
  const end = earlyOnly ? Math.min(last, data.horizon) : last;
  const origins = pretrainingsOf(cells);
  const start = -Math.min(Math.max(...cells.map(cell => cell.pretraining === null ? 0 : cell.switch)), end / 4);
  const levels = origins.map(number => data.pretrainings[number].offline);
  const high = cells.flatMap(cell => cell.mean.map((mean, i) => mean + (cell.deviation?.[i] ?? 0)));
  const low = cells.flatMap(cell => cell.mean.map((mean, i) => mean - (cell.deviation?.[i] ?? 0)));
  const range = [Math.min(0, ...low), Math.max(1, ...high, ...levels)];
  const { view, x, y, path } = axes(width, height, [start, end], range, false, data.axis, switchOf(cells));
  const names = cells.map(cell => cell.label).join(", ");
  for (const [name, value] of Object.entries({ tabindex: 0, role: "img",
    "aria-label": `${cells[0].dataset}, replay ${cells[0].replay}: ${names}` })) view.setAttribute(name, value);
  const known = pretrainingsOf(data.cells.filter(cell => cell.dataset === cells[0].dataset));
  for (const number of origins) {
    const own = data.pretrainings[number], dashes = DASHES[known.indexOf(number) % DASHES.length];
    view.append(drawn("line", { class: "offline", x1: LEFT, x2: width - RIGHT, y1: y(own.offline), y2: y(own.offline),
      "stroke-dasharray": dashes }), drawn("path", { class: "before", d: path(own.steps, own.scores) }));
  }
  for (const cell of cells.filter(own => own.deviation)) {
    const steps = data.grids[cell.grid], kept = steps.filter(step => step <= end).length;
    const edge = sign => steps.slice(0, kept).map((step, i) =>
      `${x(step).toFixed(1)} ${y(cell.mean[i] + sign * cell.deviation[i]).toFixed(1)}`);
    view.append(colored(drawn("path", { class: cells.length > 4 ? "band faint" : "band", d: `M${[...edge(1), ...edge(-1).reverse()].join("L")}Z` }), cell.color));
  }
  const lines = cells.map(cell => colored(drawn("path", { class: "mean", d: path(data.grids[cell.grid], cell.mean) }), cell.color));
  view.append(...lines);
  pointing(view, cells, lines, x, y, path, start, end, width, height);
  return view;
}

/** Small panels, a row for each replay: overestimation, TD errors, distances, TD3-C's constraint. */
function reasons(alike) {
  const parts = data.reasons.filter(({ metrics }) => alike.some(cell => metrics.some(metric => cell.why[metric])));
  const [columns, width, height] = sizes(parts.length, 230, 190);
  return unique(alike.map(cell => cell.replay)).map(replay => {
    const own = alike.filter(cell => cell.replay === replay);
    const shown = parts.filter(({ metrics }) => own.some(cell => metrics.some(metric => cell.why[metric])));
    return element("div", {}, element("figcaption", {}, `replay: ${replay}`),
      grid(columns, shown.map(part => reason(part, own, alike, width, height))));
  });
}

function reason({ title, metrics, log }, cells, alike, width, height) {
  const values = alike.flatMap(cell => metrics.flatMap(metric => cell.why[metric]?.values ?? []));
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const logarithmic = log && low > 0 && high > 5 * low;
  const end = Math.min(data.horizon, Math.max(...alike.map(cell => data.grids[cell.grid].at(-1))));
  const range = low === high ? [low - 1, high + 1] : [low, high];
  const { view, path } = axes(width, height, [-0.04 * end, end], range, logarithmic, data.axis, switchOf(alike));
  metrics.forEach((metric, i) => cells.filter(cell => cell.why[metric]).forEach(cell => {
    const { grid, values } = cell.why[metric];
    const line = drawn("path", { class: i ? "mean second" : "mean", d: path(data.grids[grid], values) });
    line.append(drawn("title", {}, cell.label));
    view.append(colored(line, cell.color));
  }));
  return element("figure", {}, element("figcaption", {}, title), view);
}

/** What pointing at a panel, or moving in it with the arrow keys, shows: values at a step, the seeds of one line. */
function pointing(view, cells, lines, x, y, path, start, end, width, height) {
  const cursor = drawn("line", { class: "cursor", y1: TOP, y2: height - BOTTOM });
  const seeds = drawn("g", {});
  const steps = unique(cells.flatMap(cell => data.grids[cell.grid])).filter(step => step <= end).sort((a, b) => a - b);
  let at = 0, nearest = 0;
  /** The place of a grid's last evaluation up to a step; -1 where it had ended before. */
  const placeAt = (grid, step) =>
    step > data.grids[grid].at(-1) ? -1 : data.grids[grid].findLastIndex(own => own <= step);
  function update() {
    const step = steps[at], cell = cells[nearest];
    cursor.setAttribute("x1", x(step));
    cursor.setAttribute("x2", x(step));
    seeds.replaceChildren(...cell.runs.map(run =>
      colored(drawn("path", { class: "seed", d: path(data.grids[run.grid], run.scores) }), cell.color)));
    lines.forEach((line, i) => line.classList.toggle("dimmed", i !== nearest));
    view.append(seeds, cursor);
    const rows = cells.map((own, i) => {
      const k = placeAt(own.grid, step);
      const spread = own.deviation && k >= 0 ? ` ± ${number.format(own.deviation[k])}` : "";
      const told = k >= 0 ? number.format(own.mean[k]) : `ended at ${whole.format(data.grids[own.grid].at(-1))}`;
      const line = element("div", {}, swatch(own), `${own.label}: ${told}${spread}`);
      if (i === nearest) line.style.fontWeight = "600";
      return line;
    });
    const each = cell.runs.map(run => [run.seed, run.scores[placeAt(run.grid, step)]])
      .filter(([, score]) => score !== undefined).map(([seed, score]) => `${seed}: ${number.format(score)}`);
    tooltip.replaceChildren(element("div", {}, switchOf(cells)
        ? `learner step ${whole.format(switchOf(cells) + step)} (env step ${whole.format(step)})` : `env step ${whole.format(step)}`),
      ...rows, ...(each.length ? [element("div", {}, `seeds of ${cell.label}: ${each.join(", ")}`)] : []));
    tooltip.hidden = false;
    const box = view.getBoundingClientRect();
    const room = document.documentElement.clientWidth - tooltip.offsetWidth - 8;
    tooltip.style.left = `${Math.max(0, Math.min(box.left + x(step) + 14, room)) + window.scrollX}px`;
    tooltip.style.top = `${box.bottom + window.scrollY + 4}px`;
  }
  function leave() {
    tooltip.hidden = true;
    cursor.remove();
    seeds.remove();
    lines.forEach(line => line.classList.remove("dimmed"));
  }
  view.addEventListener("pointermove", event => {
    const box = view.getBoundingClientRect();
    const step = start + (event.clientX - box.left - LEFT) / (width - LEFT - RIGHT) * (end - start);
    at = steps.reduce((best, own, i) => Math.abs(own - step) < Math.abs(steps[best] - step) ? i : best, 0);
    const distance = cell => {
      const k = placeAt(cell.grid, steps[at]);
      return k < 0 ? Infinity : Math.abs(y(cell.mean[k]) - (event.clientY - box.top));
    };
    nearest = cells.reduce((best, cell, i) => distance(cell) < distance(cells[best]) ? i : best, 0);
    update();
  });
  view.addEventListener("pointerleave", leave);
  view.addEventListener("blur", leave);
  view.addEventListener("focus", update);
  view.addEventListener("click", () => goToRuns(cells[nearest]));
  view.addEventListener("keydown", event => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === "Escape") return leave();
    if (event.key === "Enter") return goToRuns(cells[nearest]);
    if (!moves[event.key]) return;
    event.preventDefault();
    at = Math.min(Math.max(at + moves[event.key][0], 0), steps.length - 1);
    nearest = (nearest + moves[event.key][1] + cells.length) % cells.length;
    update();
  });
}

function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map(factor => factor * power).find(size => size >= rough);
  const found = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + 1e-9; tick += step) found.push(Number(tick.toFixed(6)));
  return found;
}

/* The collapse table */

const WORDS = 3;                            // dataset, algorithm, replay; then come numbers

function collapseTable(cells) {
  const { column, descending } = order;
  const sign = descending ? -1 : 1;
  const sorted = [...cells].sort((one, other) => {
    const [a, b] = [one.row[column], other.row[column]];
    if (column < WORDS) return sign * a[0].localeCompare(b[0], "en", { numeric: true });
    return a[1] === null || b[1] === null ? (a[1] === null) - (b[1] === null) : sign * (a[1] - b[1]);
  });
  const heads = data.columns.map((title, i) => element("th", {
    scope: "col", class: i < WORDS ? "" : "number",
    "aria-sort": i !== column ? "none" : descending ? "descending" : "ascending",
  }, element("button", { type: "button", onclick: () => {
    order = { column: i, descending: i === column ? !descending : i >= WORDS };
    collapseTable(shown());
    document.querySelectorAll("#collapse thead button")[i].focus();
  } }, title + (i === column ? (descending ? " ↓" : " ↑") : ""))));
  document.getElementById("collapse").replaceChildren(element("thead", {}, element("tr", {}, ...heads)),
    element("tbody", {}, ...sorted.flatMap(cell => opened.has(cell.id) ? [row(cell), runsRow(cell)] : [row(cell)])));
  stick(document.getElementById("collapse"), WORDS);
}

/** Keeps the first columns in sight, of the `count` that name a row those that leave room; on a phone its algorithm. */
function stick(table, count) {
  const room = table.parentElement.clientWidth;
  const heads = [...table.tHead.rows[0].cells];
  const own = Math.max(0, heads.findIndex(head => /^(algorithm|finetuning|method|claim)/.test(head.textContent)));
  let left = 0;
  const places = new Map();
  heads.slice(0, count).forEach((head, i) => {
    if (narrow.matches ? i !== own : left + head.offsetWidth > 0.5 * room) return;
    places.set(i, left);
    left += head.offsetWidth;
  });
  const last = Math.max(...places.keys());
  for (const row of [table.tHead.rows[0], ...table.tBodies[0].rows]) {
    if (row.className === "runs") continue;
    [...row.cells].slice(0, count).forEach((cell, i) => {
      cell.classList.toggle("stuck", places.has(i));
      cell.classList.toggle("edge", i === last);
      cell.style.left = places.has(i) ? `${places.get(i)}px` : "";
    });
  }
}

function row(cell) {
  const toggle = event => {
    event.preventDefault();
    opened.has(cell.id) ? opened.delete(cell.id) : opened.add(cell.id);
    collapseTable(shown());
    document.querySelector(`#cell-${cell.id} a`).focus();
  };
  const link = text => text === "–" ? text
    : element("a", { href: `#cell-${cell.id}`, onclick: toggle, "aria-expanded": String(opened.has(cell.id)) }, text);
  return element("tr", { id: `cell-${cell.id}` },
    element("td", { class: "label" }, cell.name),
    element("td", { class: "label" }, swatch(cell), cell.label), element("td", {}, cell.replay),
    ...cell.row.slice(WORDS).map(([text]) => element("td", { class: "number" }, link(text))));
}

function runsRow(cell) {
  const rows = cell.runs.map(run => element("tr", {},
    element("td", {}, element("a", { href: run.href }, run.path)),
    element("td", {}, element("a", { href: `${run.href}/config.yaml` }, "config")),
    element("td", { class: "number" }, String(run.seed)),
    ...run.texts.map(text => element("td", { class: "number" }, element("a", { href: `${run.href}/eval.jsonl` }, text)))));
  const head = ["run directory", "", "seed", ...data.run_columns];
  return element("tr", { class: "runs" }, element("td", { colspan: data.columns.length },
    element("table", {}, element("thead", {}, element("tr", {}, ...head.map(title => element("th", { scope: "col" }, title)))),
      element("tbody", {}, ...rows))));
}

function goToRuns(cell) {
  opened.add(cell.id);
  if (!shown().includes(cell)) {            // a filter hides it: show everything
    document.querySelectorAll("#filters input").forEach(box => {
      box.checked = true;
      chosen[box.dataset.filter].add(box.value);
    });
    show();
  }
  collapseTable(shown());
  const link = document.querySelector(`#cell-${cell.id} a`);
  link.scrollIntoView({ block: "center" });
  link.focus();
}

/* All that does not change */

function entry([text, bold, id, numeric]) {
  const cell = data.cells.find(own => own.id === id);
  const shownText = bold ? element("strong", {}, text) : text;
  if (!cell) return element("td", { class: numeric ? "number" : "label" }, shownText);
  const go = event => {
    event.preventDefault();
    goToRuns(cell);
  };
  return element("td", { class: "number" }, element("a", { href: `#cell-${id}`, onclick: go }, shownText));
}

const list = sentences => element("ul", {}, ...sentences.map(sentence => element("li", {}, sentence)));

/** A table in a fold; the rows that rest on no runs are in a fold of their own. */
function section(table) {
  const first = table.columns.findIndex((_, i) => table.rows.some(row => row[i][2] !== null));
  const count = Math.max(1, Math.min(4, first));
  const body = rows => {
    const made = element("table", {},
      element("thead", {}, element("tr", {}, ...table.columns.map(title => element("th", { scope: "col" }, title)))),
      element("tbody", {}, ...rows.map(entries => element("tr", {}, ...entries.map(entry)))));
    return [made, element("div", { class: "scroll" }, made)];
  };
  const part = (title, open, rows, ...more) => {
    const [made, scroll] = body(rows);
    const fold = element("details", { open }, element("summary", {}, title), scroll, ...more);
    fold.addEventListener("toggle", () => { if (fold.open) stick(made, count); });
    return fold;
  };
  const idle = table.idle.length ? [part(`without runs: ${table.idle.length}`, false, table.idle)] : [];
  const notes = table.notes.length ? [element("ul", { class: "hint" }, ...table.notes.map(note => element("li", {}, note)))] : [];
  return part(`${table.title} (${table.rows.length})`, table.name === "methods", table.rows, ...idle, ...notes);
}

function fixed() {
  document.getElementById("summary").textContent = data.summary;
  const caveat = document.getElementById("caveat");
  caveat.textContent = data.caveats.map(([mark, text]) => `${mark} ${text}`).join("; ");
  caveat.hidden = !data.caveats.length;
  const told = ([dataset, sentences]) => [element("h2", {}, dataset), list(sentences)];
  const first = data.headline.length > MANY ? 1 : data.headline.length;  // which then sums them up
  document.getElementById("headline").append(...data.headline.slice(0, first).flatMap(told));
  if (first < data.headline.length) {
    document.getElementById("headline").append(element("details", {}, element("summary", {}, "each of them"),
      ...data.headline.slice(first).flatMap(told)));
  }
  document.getElementById("collapse-notes").append(...data.collapse_notes.map(note => element("li", {}, note)));
  document.getElementById("tables").append(...data.tables.map(section));
  for (const figure of data.figures) {
    const links = figure.png ? [": ", element("a", { href: figure.png }, "PNG"), ", ", element("a", { href: figure.pdf }, "PDF")] : [];
    const notes = figure.notes.length ? [element("span", { class: "hint" }, ` ${figure.png ? "" : "not drawn: "}${figure.notes.join("; ")}`)] : [];
    document.getElementById("figures").append(element("li", {}, figure.title, ...links, ...notes));
  }
  const notes = data.notes.length ? data.notes : ["Nothing was left out."];
  document.getElementById("notes").append(...notes.map(note => element("li", {}, note)));
  const button = document.getElementById("theme");
  const themes = ["system", "light", "dark"];
  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(document.documentElement.dataset.theme ?? "system") + 1) % 3];
    document.documentElement.dataset.theme = next;
    button.textContent = `theme: ${next}`;
  });
}

const tooltip = document.getElementById("tooltip");
document.getElementById("choice").open = !narrow.matches && data.cells.length > 1;
filters();
fixed();
show();
let drawnFor = document.getElementById("curves").clientWidth;
new ResizeObserver(([{ contentRect }]) => {
  if (Math.abs(contentRect.width - drawnFor) < 20) return;  // a scroll bar came or went
  drawnFor = contentRect.width;
  show();
}).observe(document.getElementById("curves"));
