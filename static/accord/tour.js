// Practice on a sample comparison: each step waits for its deed.

import { showTexts, toggleAsWritten } from "./rank/as_written.js";
import { makeDraggable } from "./rank/drag.js";
import { handleKeys } from "./rank/keys.js";
import { Ranking } from "./rank/ranking.js";

const deeds = {
  first: (ranking) => ranking.missing.length < ranking.size,
  all: (ranking) => ranking.isComplete,
  tie: (ranking) => ranking.isComplete && new Set(ranking.ranks.values()).size < ranking.size,
  submit: () => submitted,
};

const page = document.getElementById("tour");
const steps = [...page.querySelectorAll("[data-step]")];
let current = 0;
let submitted = false;

function goOn() {
  while (deeds[steps[current].dataset.step]?.(ranking)) current += 1;
  steps.forEach((step, index) => { step.hidden = index !== current; });
}

function submit() {
  if (steps[current].dataset.step !== "submit") return;
  submitted = true;
  goOn();
  page.querySelector("#stage").hidden = true;
  steps[current].querySelector("a").focus();
}

const nothing = () => {};
const acts = {
  submit,
  asWritten: toggleAsWritten,
  help: () => document.getElementById("help").showModal(),
  comment: () => ranking.form.elements.comment.focus(),
  ...Object.fromEntries(
    ["skip", "undo", "guidelines", "unfold", "differences", "layout", "break", "write", "rate", "markText", "selection", "flag", "strength", "choose"].map((name) => [name, nothing]),
  ),
};

const ranking = new Ranking(page.querySelector("form.comparison"), goOn);
makeDraggable(ranking);
showTexts(page);
handleKeys(acts, () => ranking);
page.addEventListener("click", (event) => {
  const act = event.target.closest("[data-act]")?.dataset.act;
  if (!act) return;
  event.preventDefault();
  acts[act]();
});
page.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
ranking.mark(ranking.cards[0]);
page.dataset.ready = "true";
