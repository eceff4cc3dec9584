"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 244, HEIGHT = 180, LEFT = 32, RIGHT = 16, TOP = 8, BOTTOM = 32;
const number = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

const chosen = {};                          // of every filter, the set of values that are shown
let earlyOnly = false;
let order = { column: 0, descending: false };
const opened = new Set();                   // the cells whose runs are shown below their row

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

const swatch = cell => {
  const line = element("span", { class: "swatch" });
  line.style.borderTopColor = cell.color;
  return line;
};
const badge = cell => cell.caveat ? element("span", { class: "badge" }, cell.caveat) : null;
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
    `Shown: ${cells.length} of ${data.cells.length} settings, ${runs} run${runs === 1 ? "" : "s"}.`;
  curves(cells);
  collapseTable(cells);
}

/* Learning curves */

function curves(cells) {
  const place = document.getElementById("curves");
  place.replaceChildren();
  for (const dataset of unique(cells.map(cell => cell.dataset))) {
    const alike = cells.filter(cell => cell.dataset === dataset);
    const panels = element("div", { class: "panels" });
    for (const replay of unique(alike.map(cell => cell.replay))) {
      const members = alike.filter(cell => cell.replay === replay);
      panels.append(element("figure", {}, panel(members), element("figcaption", {}, `replay: ${replay}`)));
    }
    place.append(element("h3", {}, dataset, " ", badge(alike[0])), panels);
  }
  if (!cells.length) place.append(element("p", {}, "Nothing is chosen."));
}

function panel(cells) {
  const last = Math.max(...cells.map(cell => data.grids[cell.grid].at(-1)));
  const end = earlyOnly ? Math.min(last, data.horizon) : last;
  const start = -Math.min(cells[0].switch, end / 4);
  const values = cells.flatMap(cell => cell.mean.map((mean, i) => mean + (cell.deviation?.[i] ?? 0)));
  const lows = cells.flatMap(cell => cell.mean.map((mean, i) => mean - (cell.deviation?.[i] ?? 0)));
  const bottom = Math.min(0, ...lows), top = Math.max(1, ...values);
  const x = step => LEFT + (step - start) / (end - start) * (WIDTH - LEFT - RIGHT);
  const y = score => TOP + (top - score) / (top - bottom) * (HEIGHT - TOP - BOTTOM);
  const path = (steps, scores) => steps.map((step, i) => [step, scores[i]]).filter(([step]) => step <= end && step >= start)
    .map(([step, score], i) => `${i ? "L" : "M"}${x(step).toFixed(1)} ${y(score).toFixed(1)}`).join("");
  const names = cells.map(cell => cell.label).join(", ");
  const view = drawn("svg", { width: WIDTH, height: HEIGHT, viewBox: `0 0 ${WIDTH} ${HEIGHT}`, tabindex: 0, role: "img",
    "aria-label": `${cells[0].dataset}, replay ${cells[0].replay}: ${names}` });
  for (const tick of ticks(bottom, top, 5)) {
    view.append(drawn("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(tick), y2: y(tick) }),
      drawn("text", { x: LEFT - 5, y: y(tick) + 4, "text-anchor": "end" }, tick));
  }
  for (const tick of ticks(cells[0].switch + start, cells[0].switch + end, 3)) {
    view.append(drawn("text", { x: x(tick - cells[0].switch), y: HEIGHT - BOTTOM + 14, "text-anchor": "middle" }, tick / 1000));
  }
  view.append(drawn("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 3, "text-anchor": "middle" }, "learner steps (thousands)"));
  view.append(drawn("line", { class: "switch", x1: x(0), x2: x(0), y1: TOP, y2: HEIGHT - BOTTOM }));
  if (cells[0].offline !== null) {
    view.append(drawn("line", { class: "offline", x1: LEFT, x2: WIDTH - RIGHT, y1: y(cells[0].offline), y2: y(cells[0].offline) }));
  }
  const before = data.pretrainings[cells[0].pretraining];
  if (before) view.append(drawn("path", { class: "before", d: path(before.steps, before.scores) }));
  const lines = cells.map(cell => {
    const steps = data.grids[cell.grid];
    if (cell.deviation) {
      const kept = steps.filter(step => step <= end).length;
      const edge = sign => steps.slice(0, kept).map((step, i) =>
        `${x(step).toFixed(1)} ${y(cell.mean[i] + sign * cell.deviation[i]).toFixed(1)}`);
      view.append(drawn("path", { class: "band", fill: cell.color, d: `M${[...edge(1), ...edge(-1).reverse()].join("L")}Z` }));
    }
    return drawn("path", { class: "mean", stroke: cell.color, d: path(steps, cell.mean) });
  });
  view.append(...lines);
  pointing(view, cells, lines, x, y, path, start, end);
  return view;
}

/** What pointing at a panel, or moving in it with the arrow keys, shows: values at a step, the seeds of one line. */
function pointing(view, cells, lines, x, y, path, start, end) {
  const cursor = drawn("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM });
  const seeds = drawn("g", {});
  const steps = data.grids[cells[0].grid].filter(step => step <= end);
  let at = 0, nearest = 0;
  const valueAt = (cell, step) => {
    const grid = data.grids[cell.grid];
    let i = grid.findIndex(own => own >= step);
    if (i < 0) i = grid.length - 1;
    return i;
  };
  function update() {
    const step = steps[at], cell = cells[nearest];
    cursor.setAttribute("x1", x(step));
    cursor.setAttribute("x2", x(step));
    seeds.replaceChildren(...cell.runs.map(run =>
      drawn("path", { class: "seed", stroke: cell.color, d: path(data.grids[run.grid], run.scores) })));
    lines.forEach((line, i) => line.classList.toggle("dimmed", i !== nearest));
    view.append(seeds, cursor);
    const rows = cells.map((own, i) => {
      const k = valueAt(own, step);
      const spread = own.deviation ? ` ± ${number.format(own.deviation[k])}` : "";
      const line = element("div", {}, swatch(own), `${own.label}: ${number.format(own.mean[k])}${spread}`);
      if (i === nearest) line.style.fontWeight = "600";
      return line;
    });
    const each = cell.runs.map(run => `${run.seed}: ${number.format(run.scores[valueAt({ grid: run.grid }, step)])}`);
    tooltip.replaceChildren(element("div", {}, `learner step ${whole.format(cell.switch + step)} (env step ${whole.format(step)})`),
      ...rows, element("div", {}, `seeds of ${cell.label}: ${each.join(", ")}`));
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
    const step = start + (event.clientX - box.left - LEFT) / (WIDTH - LEFT - RIGHT) * (end - start);
    at = steps.reduce((best, own, i) => Math.abs(own - step) < Math.abs(steps[best] - step) ? i : best, 0);
    const distance = cell => Math.abs(y(cell.mean[valueAt(cell, steps[at])]) - (event.clientY - box.top));
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
    element("td", {}, cell.dataset, " ", badge(cell)),
    element("td", { class: "label" }, swatch(cell), cell.label), element("td", { class: "label" }, cell.replay),
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

function entry([text, bold, id]) {
  const cell = data.cells.find(own => own.id === id);
  const shownText = bold ? element("strong", {}, text) : text;
  if (!cell) return element("td", {}, shownText);
  const go = event => {
    event.preventDefault();
    goToRuns(cell);
  };
  return element("td", { class: "number" }, element("a", { href: `#cell-${id}`, onclick: go }, shownText));
}

function fixed() {
  document.getElementById("summary").textContent = data.summary;
  const caveat = document.getElementById("caveat");
  caveat.textContent = data.caveat;
  caveat.hidden = !data.caveat;
  document.getElementById("collapse-notes").append(...data.collapse_notes.map(note => element("li", {}, note)));
  for (const table of data.tables) {
    const head = element("tr", {}, ...table.columns.map(title => element("th", { scope: "col" }, title)));
    const rows = table.rows.map(entries => element("tr", {}, ...entries.map(entry)));
    document.getElementById("tables").append(element("section", {}, element("h2", {}, table.title),
      element("div", { class: "scroll" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows))),
      element("ul", { class: "hint" }, ...table.notes.map(note => element("li", {}, note)))));
  }
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
filters();
fixed();
show();
