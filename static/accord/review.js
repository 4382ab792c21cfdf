// Review of one comparison, by keyboard: rank it as on the ranking page, go to the next, return or discard.

import { remember } from "./app.js";
import { Clock } from "./rank/clock.js";
import { showTexts, toggleAsWritten } from "./rank/as_written.js";
import { toggleDifferences } from "./rank/differences.js";
import { makeDraggable } from "./rank/drag.js";
import { foldLongOnes, toggleFolds } from "./rank/folding.js";
import { digitOf, isForOthers, isQuestionMark, letterOf } from "./rank/keyboard.js";
import { Ranking } from "./rank/ranking.js";
import { say } from "./rank/words.js";

const page = document.getElementById("review");
const form = page.querySelector("form.comparison");
const isOpen = !("settled" in form.dataset);
const clock = new Clock();
const ranking = isOpen ? new Ranking(form) : null;
const comparison = ranking ?? new ReadOnlyComparison(form);

if (ranking) makeDraggable(ranking);
showTexts(page);
foldLongOnes(comparison);
document.addEventListener("as-written", () => foldLongOnes(comparison));

/** A settled comparison: it cannot be ranked, but completions can be selected, folded and compared. */
function ReadOnlyComparison(element) {
  this.form = element;
  this.cards = [...element.querySelectorAll(".completion")];
  this.current = this.cards[0];
  for (const card of this.cards) {
    card.addEventListener("focusin", () => {
      this.current = card;
      for (const other of this.cards) other.classList.toggle("is-focused", other === card);
    });
  }
  this.move = (key) => {
    const by = key === "ArrowRight" || key === "ArrowDown" ? 1 : -1;
    this.cards[this.cards.indexOf(this.current) + by]?.focus();
  };
}

function go(where) {
  page.querySelector(`[data-go=${where}]`)?.click();
}

function differences() {
  const isTooLong = toggleDifferences(comparison);
  document.getElementById("state").textContent = isTooLong ? say("too-long-to-compare") : "";
  foldLongOnes(comparison);
}

function settle() {
  if (!ranking) return;
  if (!ranking.isComplete) {
    document.getElementById("state").textContent = ranking.whatIsMissing;
    return ranking.select(ranking.missing[0]);
  }
  form.elements.seconds.value = clock.seconds.toFixed(2);
  form.submit();
}

/** @param {"return"|"discard"} act @param {string=} chosen id of the ranking */
function decide(act, chosen) {
  const dialog = document.getElementById(act);
  const inputs = [...dialog.querySelectorAll("[name=ranking]")];
  if (!inputs.length) return;
  for (const input of inputs) input.checked = chosen ? input.value === chosen : inputs.length === 1;
  dialog.showModal();
  if (chosen) dialog.querySelector("textarea").focus();
}

const actions = {
  n: () => go("next"),
  j: () => go("next"),
  p: () => go("previous"),
  k: () => go("previous"),
  r: () => decide("return"),
  x: () => decide("discard"),
  c: () => form.elements.reason?.focus(),
  d: () => differences(),
  i: toggleAsWritten,
  e: () => toggleFolds(comparison),
  l: () => remember("layout", document.documentElement.dataset.layout === "list" ? "columns" : "list"),
  "?": () => document.getElementById("help").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (isForOthers(event) || document.querySelector("dialog[open]")) return;
  if (event.key === "Escape" && event.target.matches("textarea")) return comparison.current.focus();
  if (event.target.matches("input:not([type=radio]), textarea, select, summary")) return;
  if (handleKey(event)) event.preventDefault();
});

function handleKey(event) {
  const digit = digitOf(event);
  const act = actions[isQuestionMark(event) ? "?" : letterOf(event)];
  if (digit && ranking && !event.shiftKey) ranking.rankCurrent(Number(digit));
  else if (["Backspace", "Delete"].includes(event.key) && ranking) ranking.rankCurrent(0);
  else if (event.key.startsWith("Arrow") && !event.target.closest(".prompt, .scroll, input")) comparison.move(event.key);
  else if (event.key === "Enter" && !event.target.closest("button, a")) settle();
  else if (act) act();
  else return false;
  return true;
}

page.addEventListener("click", (event) => {
  const button = event.target.closest("[data-act], [data-decide]");
  if (!button) return;
  event.preventDefault();
  const { act, decide: decision, ranking: chosen } = button.dataset;
  if (decision) decide(decision, chosen);
  else if (act === "submit") settle();
  else actions[{ layout: "l", help: "?", unfold: "e" }[act]]();
});

(ranking ?? comparison).cards[0].focus({ preventScroll: true });
page.dataset.ready = "true";
