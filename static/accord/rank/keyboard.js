// The letter or digit that a key means, on any keyboard layout.
//
// Letters: the typed character if it is a letter from A to Z (as on AZERTY, QWERTZ and Dvorak); otherwise the letter at
// the key's position on a Latin layout, so that Cyrillic, Greek, Hebrew, Arabic and Thai layouts work too.
// Digits: the key's position, since the digit row of AZERTY and Czech layouts types digits only with Shift.

const isLetter = (text) => /^[a-z]$/i.test(text ?? "");
const OTHER_SCRIPT = /^(?!\p{Script=Latin})[\p{L}\p{M}]+$/u; // one key of some Arabic layouts types two letters

// Map from key positions to characters of the current, or first Latin, layout. Only Chromium has it, on secure pages.
let latin = null;
const readLayout = () => navigator.keyboard?.getLayoutMap?.().then((map) => { latin = map; }, () => {});
readLayout();
addEventListener("focus", readLayout); // layouts change while another window is in front

/** Return the letter from a to z that the key means, or null. */
export function letterOf({ key, code }) {
  if (isLetter(key)) return key.toLowerCase();
  const place = /^Key([A-Z])$/.exec(code)?.[1];
  if (!place || key === "Dead") return null;
  // Also where the key types punctuation: Hebrew has ' in the place of W. Dvorak has a comma there, and means a comma.
  if (isLetter(latin?.get(code))) return latin.get(code).toLowerCase();
  return OTHER_SCRIPT.test(key) ? place.toLowerCase() : null;
}

/** Return whether the key means a question mark. Cyrillic layouts have theirs above the 7, and a comma in its place. */
export function isQuestionMark({ key, code, shiftKey }) {
  return key === "?" || (shiftKey && code === "Slash" && latin?.get("Slash") === "/");
}

/** Return the digit that the key means, as text, or null. Without Num Lock the keys of the number pad are arrows. */
export function digitOf({ key, code }) {
  const [, row, place] = /^(Digit|Numpad)([0-9])$/.exec(code) ?? [];
  if (row === "Digit" || (row && key.length === 1)) return place;
  return !row && /^[0-9]$/.test(key) ? key : null;
}

/** Return whether the key is not for the page: a browser shortcut, an AltGr symbol, part of an IME composition. */
export function isForOthers(event) {
  const isComposing = event.isComposing || event.keyCode === 229; // Safari ends a composition with the latter alone
  return event.ctrlKey || event.metaKey || event.altKey || event.getModifierState("AltGraph") || isComposing;
}
