// Practice on a sample comparison: a step is shown until it is done.

import { showTexts, toggleAsWritten } from "./rank/as_written.js";
import { makeDraggable } from "./rank/drag.js";
import { handleKeys } from "./rank/keys.js";
import { Ranking } from "./rank/ranking.js";

const isDone = {
  first: (ranking) => ranking.missing.length < ranking.size,
  all: (ranking) => ranking.isComplete,
  tie: (ranking) => ranking.isComplete && new Set(ranking.ranks.values()).size < ranking.size,
  submit: () => submitted,
};

const page = document.getElementById("tour");
const steps = [...page.querySelectorAll("[data-step]")];
let step = 0;
let submitted = false;

function advance() {
  while (isDone[steps[step].dataset.step]?.(ranking)) step += 1;
  steps.forEach((element, index) => { element.hidden = index !== step; });
}

function submit() {
  if (steps[step].dataset.step !== "submit") return;
  submitted = true;
  advance();
  page.querySelector("#stage").hidden = true;
  steps[step].querySelector("a").focus();
}

const ignore = () => {};
const actions = {
  submit,
  asWritten: toggleAsWritten,
  help: () => document.getElementById("help").showModal(),
  comment: () => ranking.form.elements.comment.focus(),
  ...Object.fromEntries(
    ["skip", "undo", "guidelines", "unfold", "differences", "layout", "break", "write", "rate", "markText", "selection", "flag", "strength", "choose"].map((name) => [name, ignore]),
  ),
};

const ranking = new Ranking(page.querySelector("form.comparison"), advance);
makeDraggable(ranking);
showTexts(page);
handleKeys(actions, () => ranking);
page.addEventListener("click", (event) => {
  const act = event.target.closest("[data-act]")?.dataset.act;
  if (!act) return;
  event.preventDefault();
  actions[act]();
});
page.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
ranking.select(ranking.cards[0]);
page.dataset.ready = "true";
