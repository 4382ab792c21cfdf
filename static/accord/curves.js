// A round's numbers as curves: fetched as they come, drawn by uPlot.

import uPlot from "../uplot/uPlot.esm.js";

const EVERY = 1_500; // ms, while the round runs
const HEIGHT = 176; // px
const board = document.querySelector(".curves");
const format = new Intl.NumberFormat(document.documentElement.lang, { maximumSignificantDigits: 4 });

class Curve {
  constructor(element) {
    this.element = element;
    this.place = element.querySelector(".plot");
    this.labels = element.dataset.labels?.split("|") ?? [];
    this.metrics = element.dataset.metric.split(" ");
    this.steps = [];
    this.values = this.metrics.map(() => []);
    this.chart = null;
  }

  add({ job, step, values }) {
    if (job !== this.element.dataset.job || !this.metrics.some((metric) => metric in values)) return;
    while (this.steps.length && this.steps.at(-1) >= step) this.dropLast(); // after a resume, steps are told anew
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
    this.tell(null);
  }

  /** The numbers under the pointer, or the last ones. */
  tell(index) {
    const numbers = this.values.map((values) => (index === null ? values.findLast(isNumber) : values[index]));
    this.element.querySelector("output").replaceChildren(...numbers.flatMap((value, series) => (isNumber(value) ? [this.reading(value, series)] : [])));
  }

  reading(value, series) {
    const span = document.createElement("span");
    span.className = `series-${series}`;
    const label = document.createElement("small");
    label.textContent = this.labels[series] ? `${this.labels[series]} ` : "";
    span.append(label, format.format(value));
    return span;
  }

  makeChart() {
    const ink = colour("--ink-3"), line = colour("--line");
    const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    const colours = [colour("--accent"), colour("--warn")];
    return new uPlot({
      width: this.place.clientWidth,
      height: HEIGHT,
      scales: { x: { time: false } },
      axes: [{ ...axis, size: 28 }, { ...axis, size: 48 }],
      legend: { show: false },
      hooks: { setCursor: [(chart) => this.tell(chart.cursor.idx ?? null)] },
      cursor: { points: { size: 6 }, drag: { x: false, y: false } },
      series: [{ label: "step" }, ...this.metrics.map((metric, index) => ({
        label: metric, stroke: colours[index], width: 2, spanGaps: true, points: { show: this.steps.length < 3, size: 5 },
      }))],
    }, [this.steps, ...this.values], this.place);
  }

  forgetChart() {
    this.chart?.destroy();
    this.chart = null;
  }
}

function isNumber(value) {
  return typeof value === "number";
}

// light-dark() is resolved by an element's colour, not in a custom property.
function colour(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  board.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

const curves = [...board.querySelectorAll(".curve")].map((element) => new Curve(element));
let after = 0;

async function update() {
  const response = await fetch(`${board.dataset.url}?after=${after}`).catch(() => null);
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
  if (!ended) setTimeout(update, EVERY);
}

/** A round that has ended writes no more numbers: a failed one may lack all, and some algorithms have no critic. */
function hideEmpty() {
  for (const curve of curves) curve.element.hidden = !curve.steps.length;
}

function redraw() {
  for (const curve of curves) curve.forgetChart();
  for (const curve of curves) curve.draw();
}
new ResizeObserver(redraw).observe(board);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ["data-theme", "data-contrast"] });
update();
