// View "as written": the source of the texts in a monospaced font, with visible tabs, blanks at line ends and invisible
// characters. The choice holds for all texts and for the session. The rendered text stays in the page, hidden, since
// offsets of marked spans are counted in it.

const NAME = "accord:as-written";
const MAX_SIGNS = 20_000; // a text with more of them is shown without signs
const BLANKS = /^ +| +$|[\t\r]|[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]/gmu;
// The same characters as in feedback/rendering/controls.py. A joiner after a non-ASCII character belongs to it.
const CONTROLS = /([\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff9-\ufffb\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}]|(?<![^\u0000-\u007f\u2000-\u206f\u3000])[\u200c\u200d\ufe0e\ufe0f])\1*/gu;

export function isAsWritten() {
  return sessionStorage.getItem(NAME) === "yes";
}

/** Show the texts in the element rendered or as written, as chosen. */
export function showTexts(root) {
  for (const prose of root.querySelectorAll(".prose[data-written]")) showText(prose, isAsWritten());
  for (const button of root.querySelectorAll("[data-as-written]")) button.setAttribute("aria-pressed", isAsWritten());
}

export function toggleAsWritten() {
  sessionStorage.setItem(NAME, isAsWritten() ? "no" : "yes");
  for (const form of document.querySelectorAll("[data-differences]")) delete form.dataset.differences;
  showTexts(document);
  document.dispatchEvent(new Event("as-written"));
}

/** Return the texts of a completion or message: the turns of a dialogue, else its only text. */
export function textsOf(prose) {
  const turns = turnsOf(prose);
  return (turns.length ? turns : [prose]).map(({ dataset }) => dataset.written);
}

/** @param {[number, number][][]=} added of each text, the parts that differ from another completion */
export function showText(prose, asWritten, added = []) {
  let view = prose.nextElementSibling?.matches(".written") ? prose.nextElementSibling : null;
  if (asWritten && !view) {
    view = document.createElement("div");
    view.className = prose.classList.contains("fold") ? "written fold" : "written";
    view.dir = "auto";
    prose.after(view);
  }
  if (asWritten) view.replaceChildren(...written(prose, added));
  else view?.remove();
  prose.hidden = asWritten;
}

function turnsOf(prose) {
  return [...prose.querySelectorAll(":scope > .turn")];
}

/** Return the content of the view. A turn keeps its element, which carries its label: no text can look like a turn. */
function written(prose, added) {
  const views = textsOf(prose).map((text, place) => [...pieces(text, added[place] ?? [])]);
  const turns = turnsOf(prose);
  if (!turns.length) return views[0];
  return turns.map((turn, place) => {
    const view = turn.cloneNode(false);
    view.dir = "auto";
    view.append(...views[place]);
    return view;
  });
}

function* pieces(text, added) {
  const signs = signsOf(text);
  let position = 0;
  for (const [start, end] of added) {
    yield* withSigns(text, signs, position, start);
    const mark = document.createElement("ins");
    mark.className = "diff";
    mark.append(...withSigns(text, signs, start, end, !text.slice(start, end).trim()));
    yield mark;
    position = end;
  }
  yield* withSigns(text, signs, position, text.length);
}

/** Return {start, end} of every run of invisible characters. */
function signsOf(text) {
  const signs = [];
  for (const pattern of [BLANKS, CONTROLS])
    for (const { 0: run, index } of text.matchAll(pattern)) {
      signs.push({ start: index, end: index + run.length });
      if (signs.length > MAX_SIGNS) return [];
    }
  return signs.sort((a, b) => a.start - b.start);
}

function signOf(run) {
  if (run[0] === " ") return "·".repeat(run.length);
  if (run[0] === "\t") return "→\t";
  const [character] = run;
  const count = run.length / character.length;
  return `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}${count > 1 ? `×${count}` : ""}`;
}

function* withSigns(text, signs, start, end, showsLineEnds = false) {
  let position = start;
  for (let index = firstEndingAfter(signs, start); signs[index]?.start < end; index += 1) {
    const from = Math.max(signs[index].start, start);
    const to = Math.min(signs[index].end, end);
    if (from > position) yield plain(text.slice(position, from), showsLineEnds);
    const sign = document.createElement("span");
    sign.className = "blank";
    sign.textContent = signOf(text.slice(from, to));
    yield sign;
    position = to;
  }
  if (position < end) yield plain(text.slice(position, end), showsLineEnds);
}

function firstEndingAfter(signs, start) {
  let [low, high] = [0, signs.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (signs[middle].end > start) high = middle;
    else low = middle + 1;
  }
  return low;
}

function plain(text, showsLineEnds) {
  return document.createTextNode(showsLineEnds ? text.replaceAll("\n", "↵\n") : text);
}

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-as-written]")) toggleAsWritten();
});
