// Metrics of a round as curves: polled from the server, drawn by uPlot.

import uPlot from "../uplot/uPlot.esm.js";

const POLL_INTERVAL = 1_500; // ms, while the round runs
const HEIGHT = 176; // px
const container = document.querySelector(".curves");
const { lang } = document.documentElement;
const plain = new Intl.NumberFormat(lang, { maximumSignificantDigits: 4 });
const scientific = new Intl.NumberFormat(lang, { maximumSignificantDigits: 2, notation: "scientific" });
/** Return a number as people read it; a tiny one would be a row of zeros. */
const shown = (value) => (value && Math.abs(value) < 1e-3 ? scientific : plain).format(value);

class Curve {
  constructor(element) {
    this.element = element;
    this.plot = element.querySelector(".plot");
    this.labels = element.dataset.labels?.split("|") ?? [];
    this.metrics = element.dataset.metric.split(" ");
    this.steps = [];
    this.values = this.metrics.map(() => []);
    this.chart = null;
  }

  add({ job, step, values }) {
    if (job !== this.element.dataset.job || !this.metrics.some((metric) => metric in values)) return;
    while (this.steps.length && this.steps.at(-1) >= step) this.dropLast(); // a resumed program repeats steps
    this.steps.push(step);
    this.metrics.forEach((metric, index) => this.values[index].push(values[metric] ?? null));
  }

  dropLast() {
    this.steps.pop();
    this.values.forEach((values) => values.pop());
  }

  draw() {
    if (!this.steps.length) return;
    this.chart ??= this.makeChart();
    this.chart.setData([this.steps, ...this.values]);
    this.showValues(null);
  }

  /** Show the values under the pointer, or the last ones. */
  showValues(index) {
    const numbers = this.values.map((values) => (index === null ? values.findLast(isNumber) : values[index]));
    this.element.querySelector("output").replaceChildren(...numbers.flatMap((value, series) => (isNumber(value) ? [this.reading(value, series)] : [])));
  }

  reading(value, series) {
    const span = document.createElement("span");
    span.className = `series-${series}`;
    const label = document.createElement("small");
    label.textContent = this.labels[series] ? `${this.labels[series]} ` : "";
    span.append(label, shown(value));
    return span;
  }

  makeChart() {
    const ink = colour("--ink-3"), line = colour("--line");
    const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    const colours = [colour("--accent"), colour("--warn")];
    return new uPlot({
      width: this.plot.clientWidth,
      height: HEIGHT,
      scales: { x: { time: false } },
      axes: [{ ...axis, size: 28 }, { ...axis, size: 48, values: (chart, ticks) => ticks.map(shown) }],
      legend: { show: false },
      hooks: { setCursor: [(chart) => this.showValues(chart.cursor.idx ?? null)] },
      cursor: { points: { size: 6 }, drag: { x: false, y: false } },
      series: [{ label: "step" }, ...this.metrics.map((metric, index) => ({
        label: metric, stroke: colours[index], width: 2, spanGaps: true, points: { show: this.steps.length < 3, size: 5 },
      }))],
    }, [this.steps, ...this.values], this.plot);
  }

  forgetChart() {
    this.chart?.destroy();
    this.chart = null;
  }
}

function isNumber(value) {
  return typeof value === "number";
}

// A custom property keeps light-dark() unresolved; the computed colour of an element is resolved.
function colour(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  container.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

const curves = [...container.querySelectorAll(".curve")].map((element) => new Curve(element));
let after = 0;

async function update() {
  const response = await fetch(`${container.dataset.url}?after=${after}`).catch(() => null);
  let ended = false;
  if (response?.ok) {
    const answer = await response.json();
    for (const line of answer.lines) {
      after = Math.max(after, line.id);
      for (const curve of curves) curve.add(line);
    }
    for (const curve of curves) curve.draw();
    if (answer.ended) hideEmpty();
    ended = answer.ended && !answer.lines.length;
  }
  if (!ended) setTimeout(update, POLL_INTERVAL);
}

/** Hide curves without values once the round has ended: it may have failed early, or its algorithm has no critic. */
function hideEmpty() {
  for (const curve of curves) curve.element.hidden = !curve.steps.length;
}

function redraw() {
  for (const curve of curves) curve.forgetChart();
  for (const curve of curves) curve.draw();
}
new ResizeObserver(redraw).observe(container);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ["data-theme", "data-contrast"] });
update();
