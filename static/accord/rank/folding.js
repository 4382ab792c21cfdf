// Long completions are folded at one height, so that length is not what the eye compares. Folding and unfolding
// takes the earlier messages of a long conversation along.

import { longTurnsOf, setTurns } from "./turns.js";

const HEIGHT = 26; // rem; app.css has the same in --fold

export function foldLongOnes(ranking) {
  const most = HEIGHT * parseFloat(getComputedStyle(document.documentElement).fontSize);
  for (const card of ranking.cards) {
    const isLong = heightOf(card.querySelector(".fold:not([hidden])")) > most * 1.15;
    card.classList.toggle("is-long", isLong);
    card.classList.toggle("is-folded", isLong);
  }
}

/** Of what is in it: the element itself is as high as its neighbours, where they stand side by side. */
function heightOf(element) {
  const content = document.createRange();
  content.selectNodeContents(element);
  return content.getBoundingClientRect().height;
}

export function toggleFolds(ranking) {
  const long = ranking.cards.filter((card) => card.classList.contains("is-long"));
  const turns = longTurnsOf(ranking.form);
  const fold = !long.some((card) => card.classList.contains("is-folded")) && turns?.open !== false;
  for (const card of long) card.classList.toggle("is-folded", fold);
  if (turns) setTurns(turns, !fold);
  if (long.length) ranking.marked.scrollIntoView({ block: "nearest" });
}
