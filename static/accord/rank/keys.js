// Keyboard commands of the ranking page. Keys for text fields, dialogs and the browser are left alone.

import { rateByKey } from "./extras.js";
import { digitOf, isForOthers, isQuestionMark, letterOf } from "./keyboard.js";

const letters = { c: "comment", w: "write", r: "rate", m: "markText", s: "skip", u: "undo", g: "guidelines", e: "unfold", d: "differences", l: "layout", i: "asWritten", p: "break" };

export function handleKeys(actions, getRanking) {
  document.addEventListener("keydown", (event) => {
    if (isForOthers(event)) return;
    const dialog = document.querySelector("dialog:modal");
    if (dialog) return closeBySameKey(event, dialog);
    if (event.key === "Escape" && event.target.matches("textarea, .rating input")) return getRanking()?.select(getRanking().current);
    if (event.target.matches("input:not([type=radio], [type=checkbox]), textarea, select")) return;
    if (event.target.matches("summary") && ["Enter", " "].includes(event.key)) return;
    const handled = actions.selection(event) || rateByKey(event, getRanking()) || strength(event, actions) || help(event, actions) || digit(event, getRanking(), actions) || arrow(event, getRanking()) || runAction(event, actions);
    if (handled) event.preventDefault();
  });
}

function closeBySameKey(event, dialog) {
  const opens = isQuestionMark(event) ? "help" : letters[letterOf(event)];
  if (opens !== dialog.id || event.target.matches("input, textarea")) return;
  dialog.close();
  event.preventDefault();
}

function strength(event, actions) {
  return event.shiftKey && /^Digit[1-9]$/.test(event.code) && actions.strength(digitOf(event));
}

function help(event, actions) {
  if (isQuestionMark(event)) actions.help();
  return isQuestionMark(event);
}

function digit(event, ranking, actions) {
  if (!ranking) return false;
  if (event.key === "Backspace" || event.key === "Delete") ranking.rankCurrent(0);
  else {
    const pressed = digitOf(event);
    if (pressed === null) return false;
    if (actions.choose(pressed, event)) return true;
    ranking.rankCurrent(Number(pressed));
  }
  return true;
}

function arrow(event, ranking) {
  if (!ranking || !event.key.startsWith("Arrow") || event.target.matches("input[type=radio]")) return false;
  if (event.target.closest(".prompt")) return false; // it scrolls
  if (!event.shiftKey) ranking.move(event.key);
  else ranking.shiftCurrent(event.key === "ArrowUp" || event.key === "ArrowLeft" ? -1 : 1);
  return true;
}

function runAction(event, actions) {
  if (event.key === "Enter") {
    if (event.target.closest("button, a")) return false; // Enter presses what has the focus
    actions.submit();
    return true;
  }
  const letter = letterOf(event);
  if (!letter) return false;
  if (!letters[letter]) return actions.flag(letter);
  if (!event.repeat) actions[letters[letter]](event);
  return true;
}
