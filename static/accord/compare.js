// Two checkpoints beside each other: rendered, as written, or with the differences of the two texts marked.

import { showTexts, toggleAsWritten } from "./rank/as_written.js";
import { markDifferencesOfTwo } from "./rank/differences.js";
import { isForOthers, letterOf } from "./rank/keyboard.js";

const button = document.querySelector("[data-differences-of-two]");

/** Mark the differences of every two texts, or show the texts without marks. */
function mark(isOn) {
  button?.setAttribute("aria-pressed", isOn);
  if (!isOn) return showTexts(document);
  for (const sides of document.querySelectorAll(".sample .sides")) markDifferencesOfTwo(...sides.querySelectorAll(".side"));
}

const isMarked = () => button?.getAttribute("aria-pressed") === "true";

button?.addEventListener("click", () => mark(!isMarked()));
document.addEventListener("as-written", () => button?.setAttribute("aria-pressed", "false"));
document.addEventListener("keydown", (event) => {
  if (isForOthers(event) || event.target.matches("input, textarea, select")) return;
  const letter = letterOf(event);
  if (letter === "i") toggleAsWritten();
  else if (letter === "d" && button) mark(!isMarked());
  else return;
  event.preventDefault();
});

showTexts(document);
mark(true);
