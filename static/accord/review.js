// One comparison under review: rank it as on the ranking page, go to the next, return or discard, all by keyboard.

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
const marked = ranking ?? new Marked(form);

if (ranking) makeDraggable(ranking);
showTexts(page);
foldLongOnes(marked);
document.addEventListener("as-written", () => foldLongOnes(marked));

/** Of a settled comparison nothing is ranked, but completions are still marked, folded and compared. */
function Marked(shown) {
  this.form = shown;
  this.cards = [...shown.querySelectorAll(".completion")];
  this.marked = this.cards[0];
  for (const card of this.cards) {
    card.addEventListener("focusin", () => {
      this.marked = card;
      for (const each of this.cards) each.classList.toggle("is-focused", each === card);
    });
  }
  this.move = (key) => {
    const by = key === "ArrowRight" || key === "ArrowDown" ? 1 : -1;
    this.cards[this.cards.indexOf(this.marked) + by]?.focus();
  };
}

function go(where) {
  page.querySelector(`[data-go=${where}]`)?.click();
}

function differences() {
  const isTooLong = toggleDifferences(marked);
  document.getElementById("state").textContent = isTooLong ? say("too-long-to-compare") : "";
  foldLongOnes(marked);
}

function settle() {
  if (!ranking) return;
  if (!ranking.isComplete) {
    document.getElementById("state").textContent = ranking.whatIsMissing;
    return ranking.mark(ranking.missing[0]);
  }
  form.elements.seconds.value = clock.seconds.toFixed(2);
  form.submit();
}

/** @param {"return"|"discard"} act @param {string=} chosen whose ranking */
function decide(act, chosen) {
  const dialog = document.getElementById(act);
  const whose = [...dialog.querySelectorAll("[name=ranking]")];
  if (!whose.length) return;
  for (const each of whose) each.checked = chosen ? each.value === chosen : whose.length === 1;
  dialog.showModal();
  if (chosen) dialog.querySelector("textarea").focus();
}

const acts = {
  n: () => go("next"),
  j: () => go("next"),
  p: () => go("previous"),
  k: () => go("previous"),
  r: () => decide("return"),
  x: () => decide("discard"),
  c: () => form.elements.reason?.focus(),
  d: () => differences(),
  i: toggleAsWritten,
  e: () => toggleFolds(marked),
  l: () => remember("layout", document.documentElement.dataset.layout === "list" ? "columns" : "list"),
  "?": () => document.getElementById("help").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (isForOthers(event) || document.querySelector("dialog[open]")) return;
  if (event.key === "Escape" && event.target.matches("textarea")) return marked.marked.focus();
  if (event.target.matches("input:not([type=radio]), textarea, select, summary")) return;
  if (handled(event)) event.preventDefault();
});

function handled(event) {
  const digit = digitOf(event);
  const act = acts[isQuestionMark(event) ? "?" : letterOf(event)];
  if (digit && ranking && !event.shiftKey) ranking.rankMarked(Number(digit));
  else if (["Backspace", "Delete"].includes(event.key) && ranking) ranking.rankMarked(0);
  else if (event.key.startsWith("Arrow") && !event.target.closest(".prompt, .scroll, input")) marked.move(event.key);
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
  else acts[{ layout: "l", help: "?", unfold: "e" }[act]]();
});

(ranking ?? marked).cards[0].focus({ preventScroll: true });
page.dataset.ready = "true";
