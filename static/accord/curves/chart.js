// One chart: some metrics of a job, of one or several rounds, drawn by uPlot. Works by pointer and by keyboard.

import uPlot from "../../uplot/uPlot.esm.js";
import { Series } from "./series.js";

const HEIGHT = 176; // px
const TABLE_ROWS = 25;
const MAX_OTHERS = 5; // colours of other rounds in the style sheet
const { lang } = document.documentElement;
const plain = new Intl.NumberFormat(lang, { maximumSignificantDigits: 4 });
const scientific = new Intl.NumberFormat(lang, { maximumSignificantDigits: 2, notation: "scientific" });
/** Return a number as people read it; a tiny one would be a row of zeros. */
const shown = (value) => (value && Math.abs(value) < 1e-3 ? scientific : plain).format(value);

export class Chart {
  /** `options` are those of the page: smoothing, log, rounds. `load(round, query)` fetches curves. */
  constructor(element, options, load) {
    this.element = element;
    this.options = options;
    this.load = load;
    this.plot = element.querySelector(".plot");
    this.output = element.querySelector("output");
    this.job = element.dataset.job;
    this.metrics = element.dataset.metric.split(" ");
    this.labels = element.dataset.labels?.split("|") ?? [];
    this.series = new Map(); // key to Series, over all steps
    this.zoomed = null; // { first, last, series } while a range is shown
    this.uplot = null;
    this.level = null; // the best attainable value: { value, low, high, sentence }
    this.listen();
  }

  // ---- values

  take(round, curve) {
    if (curve.job === this.job && this.metrics.includes(curve.metric)) this.series.set(key(round, curve.metric), new Series(curve));
  }

  add(round, { job, step, values }) {
    if (job !== this.job) return;
    for (const metric of this.metrics) {
      if (!(metric in values)) continue;
      const name = key(round, metric);
      if (!this.series.has(name)) this.series.set(name, new Series());
      this.series.get(name).add(step, values[metric]);
    }
  }

  setLevel(level) {
    if (level.job !== this.job || level.metrics !== this.element.dataset.metric) return;
    const text = this.element.querySelector("[data-level]");
    text.textContent = level.sentence;
    text.hidden = false;
    if (level.value === (this.level?.value ?? null)) return;
    this.level = level;
    this.forget(); // the scale makes room for it
    this.draw();
  }

  get size() {
    return Math.max(0, ...[...this.series.values()].map((series) => series.steps.length));
  }

  /** Return the lines to draw, in order: [{ series, name, place }…], the round of the page first. */
  lines() {
    const source = this.zoomed?.series ?? this.series;
    return this.options.rounds.flatMap((round, order) => this.metrics.flatMap((metric, index) => {
      const series = source.get(key(round.number, metric));
      if (!series?.steps.length) return [];
      const label = this.labels[index] ?? "";
      const name = this.options.rounds.length > 1 ? [round.label, label].filter(Boolean).join(" · ") : label;
      return [{ series, name, place: order ? Math.min(order, MAX_OTHERS) + 1 : index, dashed: order > 0 && index > 0 }];
    }));
  }

  // ---- drawing

  draw() {
    const lines = this.lines();
    this.element.classList.toggle("is-empty", !lines.length);
    if (!lines.length) return this.forget();
    const { tables, styles } = this.traces(lines);
    const data = uPlot.join(tables);
    const shape = JSON.stringify([styles, this.options.log]);
    if (shape !== this.shape) this.forget();
    this.shape = shape;
    this.drawn = lines;
    if (this.uplot) this.uplot.setData(data);
    else this.make(data, styles);
    this.showValues(null);
    if (this.element.querySelector("details[open]")) this.fillTable();
  }

  /** Return the tables of uPlot and the style of each trace: with smoothing, a pale one of all values behind. */
  traces(lines) {
    const tables = [], styles = [];
    const steps = lines.flatMap(({ series }) => [series.steps[0], series.steps.at(-1)]);
    const constant = this.options.smoothing ** 2 * (Math.max(...steps) - Math.min(...steps)) / 4;
    const positive = (values) => (this.options.log ? values.map((value) => (value > 0 ? value : null)) : values);
    for (const { series, place, dashed } of lines) {
      tables.push([series.steps, positive(series.values)]);
      styles.push({ place, dashed, pale: constant > 0, single: series.steps.length < 3 });
      if (!constant) continue;
      const [at, means] = series.smoothed(constant);
      tables.push([at, positive(means)]);
      styles.push({ place, dashed, pale: false, single: at.length < 3 });
    }
    return { tables, styles };
  }

  make(data, styles) {
    const ink = colour(this.element, "--ink-3"), line = colour(this.element, "--line");
    const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    const numbers = (chart, ticks) => ticks.map((tick) => (tick === null ? "" : shown(tick)));
    this.uplot = new uPlot({
      width: this.plot.clientWidth,
      height: HEIGHT,
      scales: { x: { time: false }, y: { distr: this.options.log ? 3 : 1, ...this.range() } },
      axes: [{ ...axis, size: 28 }, { ...axis, size: 48, values: numbers }],
      legend: { show: false },
      hooks: {
        drawClear: [(chart) => this.drawLevel(chart)],
        setCursor: [(chart) => this.showValues(chart.cursor.idx ?? null)],
        setSelect: [(chart) => this.zoomToSelection(chart)],
      },
      cursor: { points: { size: 6 }, drag: { x: true, y: false, setScale: false } },
      series: [{ label: "step" }, ...styles.map(({ place, dashed, pale, single }) => ({
        stroke: faded(colour(this.element, `--series-${place}`), pale ? 0.3 : 1),
        width: pale ? 1 : 2,
        dash: dashed ? [6, 4] : undefined,
        spanGaps: true,
        points: { show: single, size: 5 },
      }))],
    }, data, this.plot);
    this.plot.removeAttribute("aria-hidden");
    Object.assign(this.plot, { role: "slider", tabIndex: 0, ariaLabel: this.element.querySelector("h3").textContent });
    this.showValues(null);
  }

  /** Return uPlot's range of values: with a level, one that shows it and the curves. */
  range() {
    const values = this.levelValues();
    if (!values.length) return {};
    const all = (low, high) => [Math.min(low ?? Infinity, ...values), Math.max(high ?? -Infinity, ...values)];
    return { range: (chart, low, high) => (this.options.log ? uPlot.rangeLog(...all(low, high), 10, true) : uPlot.rangeNum(...all(low, high), 0.1, true)) };
  }

  levelValues() {
    const { value, low, high } = this.level ?? {};
    return [value, low, high].filter((number) => Number.isFinite(number) && !(this.options.log && number <= 0));
  }

  /** Draw the best attainable value as a dashed line, and its interval as a band. */
  drawLevel(chart) {
    if (!this.levelValues().length) return;
    const { ctx, bbox } = chart, { value, low, high } = this.level;
    const at = (number) => Math.round(chart.valToPos(number, "y", true));
    const isDrawn = (number) => this.levelValues().includes(number);
    ctx.save();
    ctx.fillStyle = ctx.strokeStyle = colour(this.element, "--ink-2");
    if (isDrawn(low) && isDrawn(high)) {
      ctx.globalAlpha = 0.12;
      ctx.fillRect(bbox.left, at(high), bbox.width, Math.max(1, at(low) - at(high)));
      ctx.globalAlpha = 1;
    }
    if (isDrawn(value)) {
      ctx.lineWidth = devicePixelRatio;
      ctx.setLineDash([5 * devicePixelRatio, 4 * devicePixelRatio]);
      ctx.beginPath();
      ctx.moveTo(bbox.left, at(value));
      ctx.lineTo(bbox.left + bbox.width, at(value));
      ctx.stroke();
    }
    ctx.restore();
  }

  forget() {
    this.uplot?.destroy();
    this.uplot = null;
    this.shape = null;
  }

  /** Show the values under the pointer, or the last ones. */
  showValues(index) {
    if (!this.uplot || !this.drawn) return;
    const steps = this.uplot.data[0];
    const step = index === null ? steps.at(-1) : steps[index];
    const readings = this.drawn.map(({ series, name, place }) => ({ name, place, value: index === null ? series.last : series.at(step) }));
    this.output.replaceChildren(...readings.filter(({ value }) => value !== null).map(reading));
    const text = readings.map(({ name, value }) => `${name} ${value === null ? "–" : shown(value)}`.trim()).join(", ");
    Object.assign(this.plot, { ariaValueMin: steps[0], ariaValueMax: steps.at(-1), ariaValueNow: step, ariaValueText: `${this.options.texts.step} ${step}: ${text}` });
  }

  // ---- zoom

  zoomToSelection(chart) {
    const { left, width } = chart.select;
    if (width < 4) return;
    const [first, last] = [left, left + width].map((x) => Math.round(chart.posToVal(x, "x")));
    chart.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    this.zoom(first, last);
  }

  /** Fetch the finer values of a range of steps and show them. */
  async zoom(first, last) {
    if (last - first < 2) return;
    const query = { job: this.job, metrics: this.metrics.join(" "), from: Math.max(0, first), to: last };
    const answers = await Promise.all(this.options.rounds.map((round) => this.load(round, query)));
    const series = new Map();
    answers.forEach((curves, order) => {
      for (const curve of curves ?? []) series.set(key(this.options.rounds[order].number, curve.metric), new Series(curve));
    });
    if (!series.size) return;
    this.zoomed = { first, last, series };
    this.showZoom();
  }

  unzoom() {
    this.zoomed = null;
    this.showZoom();
  }

  showZoom() {
    this.element.querySelector("[data-unzoom]").hidden = !this.zoomed;
    this.draw();
  }

  // ---- events

  listen() {
    this.plot.addEventListener("keydown", (event) => this.press(event));
    this.plot.addEventListener("dblclick", () => this.unzoom());
    this.plot.addEventListener("blur", () => this.showValues(null));
    this.element.querySelector("[data-unzoom]").addEventListener("click", () => {
      this.unzoom();
      this.plot.focus();
    });
    this.element.querySelector("[data-png]").addEventListener("click", () => this.savePicture());
    this.element.querySelector("details").addEventListener("toggle", () => this.fillTable());
  }

  press(event) {
    if (!this.uplot || event.ctrlKey || event.metaKey || event.altKey) return;
    const steps = this.uplot.data[0], end = steps.length - 1;
    const here = this.uplot.cursor.idx ?? end, stride = event.shiftKey ? 10 : 1;
    const places = { ArrowLeft: here - stride, ArrowDown: here - stride, ArrowRight: here + stride, ArrowUp: here + stride, Home: 0, End: end };
    if (event.key in places) this.moveTo(Math.min(end, Math.max(0, places[event.key])));
    else if (event.key === "+" || event.key === "=") this.zoomAround(steps[here], (steps[end] - steps[0]) / 4);
    else if (event.key === "-" && this.zoomed) this.zoomAround(steps[here], this.zoomed.last - this.zoomed.first);
    else if ((event.key === "0" || event.key === "Escape") && this.zoomed) this.unzoom();
    else return;
    event.preventDefault();
  }

  moveTo(index) {
    const left = this.uplot.valToPos(this.uplot.data[0][index], "x");
    this.uplot.setCursor({ left, top: this.uplot.over.clientHeight / 2 });
  }

  zoomAround(step, half) {
    const ends = [...this.series.values()].flatMap(({ steps }) => [steps[0], steps.at(-1)]);
    const first = Math.max(Math.min(...ends), Math.round(step - half)), last = Math.min(Math.max(...ends), Math.round(step + half));
    if (first === Math.min(...ends) && last === Math.max(...ends)) this.unzoom();
    else this.zoom(first, last);
  }

  // ---- table and files

  fillTable() {
    const table = this.element.querySelector("table");
    if (!this.element.querySelector("details").open || !this.drawn || !this.uplot) return;
    const steps = this.uplot.data[0], count = Math.min(TABLE_ROWS, steps.length);
    const chosen = Array.from({ length: count }, (_, n) => steps[count === 1 ? 0 : Math.round(n * (steps.length - 1) / (count - 1))]);
    const title = this.element.querySelector("h3").textContent;
    const head = row("th", [this.options.texts.step, ...this.drawn.map(({ name }) => name || title)], "col");
    const rows = chosen.map((step) => row("td", [plain.format(step), ...this.drawn.map(({ series }) => format(series.at(step)))]));
    table.querySelector("thead").replaceChildren(head);
    table.querySelector("tbody").replaceChildren(...rows);
  }

  /** Save the chart with its title and the last values as a picture. */
  savePicture() {
    const drawn = this.plot.querySelector("canvas");
    if (!drawn) return;
    const ratio = devicePixelRatio, head = 48 * ratio, edge = 12 * ratio;
    const canvas = document.createElement("canvas");
    canvas.width = drawn.width + 2 * edge;
    canvas.height = drawn.height + head + edge;
    const context = canvas.getContext("2d");
    context.fillStyle = getComputedStyle(this.element).backgroundColor;
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(drawn, edge, head);
    context.font = `600 ${14 * ratio}px system-ui`;
    context.fillStyle = colour(this.element, "--ink");
    context.fillText(this.element.querySelector("h3").textContent, edge, 20 * ratio);
    context.font = `${12 * ratio}px system-ui`;
    let left = edge;
    for (const span of this.output.children) {
      context.fillStyle = getComputedStyle(span).color;
      context.fillText(span.textContent, left, 38 * ratio);
      left += context.measureText(`${span.textContent}   `).width;
    }
    canvas.toBlob((blob) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = `${this.job}-${this.metrics.join("-")}.png`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    });
  }
}

function key(round, metric) {
  return `${round}/${metric}`;
}

function format(value) {
  return value === null ? "–" : shown(value);
}

function reading({ name, place, value }) {
  const span = document.createElement("span");
  span.className = `series-${place}`;
  const label = document.createElement("small");
  label.textContent = name ? `${name} ` : "";
  span.append(label, shown(value));
  return span;
}

function row(tag, texts, scope) {
  const line = document.createElement("tr");
  for (const text of texts) {
    const cell = document.createElement(tag);
    cell.textContent = text;
    if (scope) cell.scope = scope;
    line.append(cell);
  }
  return line;
}

// A custom property keeps light-dark() unresolved; the computed colour of an element is resolved.
const colours = new Map();
export function forgetColours() {
  colours.clear();
}
function colour(element, name) {
  if (!colours.has(name)) {
    const probe = document.createElement("span");
    probe.style.color = `var(${name})`;
    element.append(probe);
    colours.set(name, getComputedStyle(probe).color);
    probe.remove();
  }
  return colours.get(name);
}

function faded(rgb, alpha) {
  return alpha === 1 ? rgb : rgb.replace("rgb(", "rgba(").replace(")", `, ${alpha})`);
}
