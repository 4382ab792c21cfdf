// Curves of a round: fetched thinned from the server, followed while the round runs, compared with those of others.

import { Chart, forgetColours } from "./curves/chart.js";

const RETRY_INTERVAL = 5_000; // ms
const COLUMNS = 150; // of the thinned curves: two values each
const MAX_POINTS = 8 * COLUMNS; // with more after many live steps, the curves are fetched thinned again

const container = document.querySelector(".curves");
const controls = document.querySelector(".curve-controls");
const options = {
  smoothing: 0,
  log: false,
  rounds: [{ number: container.dataset.round, label: container.dataset.label, url: container.dataset.url }],
  texts: { step: container.dataset.step },
};
const charts = [...container.querySelectorAll(".curve")].map((element) => new Chart(element, options, load));
const after = document.getElementById("curves-after"); // id of the last line of metrics; it goes with live.js's requests

async function fetchAnswer(url, query) {
  const response = await fetch(`${url}?${new URLSearchParams(query)}`).catch(() => null);
  return response?.ok ? response.json() : null;
}

async function load(round, query = {}) {
  return (await fetchAnswer(round.url, { columns: COLUMNS, ...query }))?.curves;
}

// ---- the round of the page

async function update() {
  after.value = ""; // no lines meanwhile
  const [round] = options.rounds;
  const answer = await fetchAnswer(round.url, { columns: COLUMNS });
  if (!answer) return void setTimeout(update, RETRY_INTERVAL);
  for (const curve of answer.curves) for (const chart of charts) chart.take(round.number, curve);
  setLevels(answer.levels);
  drawUnzoomed();
  if (answer.ended) hideEmpty();
  after.value = answer.after;
}

/** Take the new lines of metrics that came with the status of the round. */
function takeNews(event) {
  const news = document.getElementById("new-lines");
  if (event.target.id !== "round-status" || !news || after.value === "") return;
  const { lines, after: last, levels } = JSON.parse(news.textContent);
  setLevels(levels);
  if (lines === null) return void update();
  after.value = last;
  for (const line of lines) for (const chart of charts) chart.add(options.rounds[0].number, line);
  if (charts.some((chart) => chart.size > MAX_POINTS)) update();
  else if (lines.length) drawUnzoomed();
}
document.addEventListener("htmx:afterSwap", takeNews);

function setLevels(levels) {
  for (const level of levels) for (const chart of charts) chart.setLevel(level);
}

function drawUnzoomed() {
  for (const chart of charts) if (!chart.zoomed) chart.draw();
}

/** Hide curves without values once the round has ended: it may have failed early, or its algorithm has no critic. */
function hideEmpty() {
  for (const chart of charts) chart.element.hidden = !chart.series.size;
}

// ---- controls

controls.querySelector("[name=smoothing]").addEventListener("input", (event) => {
  options.smoothing = Number(event.target.value);
  redraw();
});
controls.querySelector("[name=log]").addEventListener("change", (event) => {
  options.log = event.target.checked;
  redraw();
});
for (const choice of controls.querySelectorAll("[name=with]")) choice.addEventListener("change", () => compare(choice));
document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-csv]");
  if (link) link.href = csvAddress(link);
});

/** Draw another round over this one, or stop it. */
async function compare(choice) {
  const { url, label } = choice.dataset, number = choice.value;
  options.rounds = options.rounds.filter((round) => round.number !== number);
  if (choice.checked) {
    const round = { number, label, url };
    const curves = await load(round);
    if (!choice.checked) return; // unchecked meanwhile
    options.rounds = [...options.rounds, round];
    for (const curve of curves ?? []) for (const chart of charts) chart.take(number, curve);
  }
  const isFull = options.rounds.length >= Number(controls.dataset.most);
  for (const other of controls.querySelectorAll("[name=with]")) other.disabled = isFull && !other.checked;
  for (const chart of charts) chart.zoomed ? chart.zoom(chart.zoomed.first, chart.zoomed.last) : chart.draw();
}

function csvAddress(link) {
  const address = new URL(link.dataset.csv, location.href);
  for (const { number } of options.rounds.slice(1)) address.searchParams.append("with", number);
  return address.href;
}

function redraw() {
  for (const chart of charts) chart.draw();
}

function redrawAnew() {
  forgetColours();
  for (const chart of charts) chart.forget();
  redraw();
}
let width = container.clientWidth;
new ResizeObserver(() => {
  if (container.clientWidth === width) return;
  width = container.clientWidth;
  redrawAnew();
}).observe(container);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAnew);
new MutationObserver(redrawAnew).observe(document.documentElement, { attributeFilter: ["data-theme", "data-contrast"] });
update();
