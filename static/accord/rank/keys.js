// One key for everything on the page. A key that a field, a dialog or the browser wants stays theirs.

import { rateByKey } from "./extras.js";
import { digitOf, isForOthers, isQuestionMark, letterOf } from "./keyboard.js";

const letters = { c: "comment", w: "write", r: "rate", m: "markText", s: "skip", u: "undo", g: "guidelines", e: "unfold", d: "differences", l: "layout", i: "asWritten", p: "break" };

export function handleKeys(acts, current) {
  document.addEventListener("keydown", (event) => {
    if (isForOthers(event)) return;
    const dialog = document.querySelector("dialog:modal");
    if (dialog) return closeBySameKey(event, dialog);
    if (event.key === "Escape" && event.target.matches("textarea, .rating input")) return current()?.mark(current().marked);
    if (event.target.matches("input:not([type=radio], [type=checkbox]), textarea, select")) return;
    if (event.target.matches("summary") && ["Enter", " "].includes(event.key)) return;
    const handled = acts.selection(event) || rateByKey(event, current()) || strength(event, acts) || help(event, acts) || digit(event, current(), acts) || arrow(event, current()) || act(event, acts);
    if (handled) event.preventDefault();
  });
}

function closeBySameKey(event, dialog) {
  const opens = isQuestionMark(event) ? "help" : letters[letterOf(event)];
  if (opens !== dialog.id || event.target.matches("input, textarea")) return;
  dialog.close();
  event.preventDefault();
}

function strength(event, acts) {
  return event.shiftKey && /^Digit[1-9]$/.test(event.code) && acts.strength(digitOf(event));
}

function help(event, acts) {
  if (isQuestionMark(event)) acts.help();
  return isQuestionMark(event);
}

function digit(event, ranking, acts) {
  if (!ranking) return false;
  if (event.key === "Backspace" || event.key === "Delete") ranking.rankMarked(0);
  else {
    const pressed = digitOf(event);
    if (pressed === null) return false;
    if (acts.choose(pressed, event)) return true;
    ranking.rankMarked(Number(pressed));
  }
  return true;
}

function arrow(event, ranking) {
  if (!ranking || !event.key.startsWith("Arrow") || event.target.matches("input[type=radio]")) return false;
  if (event.target.closest(".prompt")) return false; // it scrolls
  if (!event.shiftKey) ranking.move(event.key);
  else ranking.shiftMarked(event.key === "ArrowUp" || event.key === "ArrowLeft" ? -1 : 1);
  return true;
}

function act(event, acts) {
  if (event.key === "Enter") {
    if (event.target.closest("button, a")) return false; // Enter presses what has the focus
    acts.submit();
    return true;
  }
  const letter = letterOf(event);
  if (!letter) return false;
  if (!letters[letter]) return acts.flag(letter);
  if (!event.repeat) acts[letters[letter]]();
  return true;
}
