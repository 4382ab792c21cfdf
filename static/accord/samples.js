// Samples of a round: rendered, or as written.

import { showTexts, toggleAsWritten } from "./rank/as_written.js";
import { isForOthers, letterOf } from "./rank/keyboard.js";

showTexts(document);
document.addEventListener("keydown", (event) => {
  if (isForOthers(event) || event.target.matches("input, textarea, select") || letterOf(event) !== "i") return;
  toggleAsWritten();
  event.preventDefault();
});
