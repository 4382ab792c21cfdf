// Fold long completions to the same height, so that annotators do not compare lengths. Folding includes the earlier
// messages of a long conversation.

import { longTurnsOf, setTurns } from "./turns.js";

const MAX_HEIGHT = 26; // rem; app.css has the same in --fold

export function foldLongOnes(ranking) {
  const limit = MAX_HEIGHT * parseFloat(getComputedStyle(document.documentElement).fontSize);
  for (const card of ranking.cards) {
    const isLong = heightOf(card.querySelector(".fold:not([hidden])")) > limit * 1.15;
    card.classList.toggle("is-long", isLong);
    card.classList.toggle("is-folded", isLong);
  }
}

/** Return the height of the content: in columns the element itself is as high as its neighbours. */
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
  if (long.length) ranking.current.scrollIntoView({ block: "nearest" });
}
