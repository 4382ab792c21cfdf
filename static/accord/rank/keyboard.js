// Which letter or digit a key means, on any layout.
//
// Letters: what the key types, where that is a letter from A to Z (so AZERTY, QWERTZ and Dvorak keep theirs); else what
// the place of the key types on a Latin keyboard, so that Cyrillic, Greek, Hebrew, Arabic or Thai layouts work as well.
// Digits: the place of the key, since the digit row of AZERTY or Czech layouts types digits with Shift alone.

const isLetter = (text) => /^[a-z]$/i.test(text ?? "");
const OTHER_SCRIPT = /^(?!\p{Script=Latin})[\p{L}\p{M}]+$/u; // one key of some Arabic layouts types two letters

// What each key types on the layout in use, or on the first Latin one of the system. Chromium tells on secure pages.
let latin = null;
const readLayout = () => navigator.keyboard?.getLayoutMap?.().then((map) => { latin = map; }, () => {});
readLayout();
addEventListener("focus", readLayout); // layouts change while another window is in front

/** The lower-case letter from a to z that the key means, or null. */
export function letterOf({ key, code }) {
  if (isLetter(key)) return key.toLowerCase();
  const place = /^Key([A-Z])$/.exec(code)?.[1];
  if (!place || key === "Dead") return null;
  // Also where the key types punctuation: Hebrew has ' in the place of W. Dvorak has a comma there, and means a comma.
  if (isLetter(latin?.get(code))) return latin.get(code).toLowerCase();
  return OTHER_SCRIPT.test(key) ? place.toLowerCase() : null;
}

/** Whether the key means a question mark; Cyrillic layouts have theirs above the 7, and a comma in its place. */
export function isQuestionMark({ key, code, shiftKey }) {
  return key === "?" || (shiftKey && code === "Slash" && latin?.get("Slash") === "/");
}

/** The digit that the key means, as text, or null. Without Num Lock the number pad's keys are arrows. */
export function digitOf({ key, code }) {
  const [, row, place] = /^(Digit|Numpad)([0-9])$/.exec(code) ?? [];
  if (row === "Digit" || (row && key.length === 1)) return place;
  return !row && /^[0-9]$/.test(key) ? key : null;
}

/** Whether the key is no command of ours: a browser's shortcut, a symbol typed with AltGr, a part of a composition. */
export function isForOthers(event) {
  const isComposing = event.isComposing || event.keyCode === 229; // Safari ends a composition with the latter alone
  return event.ctrlKey || event.metaKey || event.altKey || event.getModifierState("AltGraph") || isComposing;
}
