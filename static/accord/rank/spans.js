// Mark text of completions as good or bad: by mouse or touch (select, then press a button), or by keyboard (M, arrows,
// + or −). Marks are CSS highlights, so the text's elements do not change; a list under the text can remove them.

import { placeOf, rangeOf, visibleText } from "./visible.js";
import { say } from "./words.js";

const MAX_QUOTE_LENGTH = 100; // characters sent with a mark, to check that server and browser count alike
const MAX_LISTED_LENGTH = 50; // characters of a mark in the list
const marks = { "+": "good", "=": "good", "-": "bad", "−": "bad", Backspace: null, Delete: null };

export class Spans {
  /** @param {HTMLFormElement} form @param {HTMLElement} tools the buttons shown beside a selection */
  constructor(form, tools, changed) {
    this.form = form;
    this.tools = tools;
    this.changed = changed;
    this.isMarking = false; // by keyboard
    this.cards = [...form.querySelectorAll(".completion")];
    this.byCard = new Map(this.cards.map((card) => [card, JSON.parse(card.dataset.spans || "[]").map(([start, end, mark]) => ({ start, end, mark }))]));
    this.listening = new AbortController();
    const { signal } = this.listening;
    document.addEventListener("selectionchange", () => this.#showTools(), { signal });
    tools.addEventListener("pointerdown", (event) => event.preventDefault(), { signal }); // the selection stays
    tools.addEventListener("click", (event) => this.#press(event), { signal });
    form.addEventListener("click", (event) => this.#remove(event), { signal });
    this.show();
  }

  leave() {
    this.listening.abort();
    this.tools.hidden = true;
    for (const mark of ["good", "bad"]) CSS.highlights?.delete(mark);
  }

  /** Form fields named `span`: place:start:end:mark:quote. */
  get fields() {
    return this.cards.flatMap((card) => this.byCard.get(card).map(({ start, end, mark }) => ["span", [card.dataset.place, start, end, mark, this.#quote(card, start, end)].join(":")]));
  }

  set fields(fields) {
    for (const card of this.cards) this.byCard.set(card, []);
    for (const [name, value] of fields) {
      if (name !== "span") continue;
      const [place, start, end, mark] = value.split(":");
      const card = this.cards.find((card) => card.dataset.place === place);
      if (card) this.byCard.get(card).push({ start: Number(start), end: Number(end), mark });
    }
    this.show();
  }

  /** Start marking by keyboard (M) at the first word of the completion. */
  start(card) {
    const first = rangeOf(proseOf(card), 0, 1);
    if (!first) return;
    this.isMarking = true;
    this.form.classList.add("is-marking");
    this.#selectWord(first, "forward");
    return say("marking");
  }

  stop() {
    this.isMarking = false;
    this.form.classList.remove("is-marking");
    getSelection().removeAllRanges();
  }

  /** Handle a key if it concerns the selection; return whether it did. */
  handle(event) {
    if (this.isMarking && event.key === "Escape") this.stop();
    else if (this.isMarking && event.key.startsWith("Arrow")) this.#move(event.key.slice(5).toLowerCase(), event.shiftKey);
    else if (event.key in marks && this.#selected()) this.paint(marks[event.key]);
    else return false;
    return true;
  }

  /** Mark the selection and replace marks that it overlaps; null removes marks. */
  paint(mark) {
    const selected = this.#selected();
    if (!selected) return;
    const { card, start, end } = selected;
    const around = this.byCard.get(card).flatMap((span) => [
      { ...span, end: Math.min(span.end, start) },
      { ...span, start: Math.max(span.start, end) },
    ]);
    const all = [...around, ...(mark ? [{ start, end, mark }] : [])].filter((span) => span.start < span.end);
    this.byCard.set(card, all.sort((a, b) => a.start - b.start));
    getSelection().collapseToEnd();
    if (!this.isMarking) getSelection().removeAllRanges();
    this.show();
    this.changed();
  }

  show() {
    const ranges = { good: [], bad: [] };
    for (const card of this.cards) {
      const spans = this.byCard.get(card);
      for (const { start, end, mark } of spans) ranges[mark].push(rangeOf(proseOf(card), start, end));
      card.querySelector(".marks").replaceChildren(...spans.map((span, index) => this.#item(card, span, index)));
    }
    for (const [mark, all] of Object.entries(ranges)) CSS.highlights?.set(mark, new Highlight(...all.filter(Boolean)));
  }

  #item(card, { start, end, mark }, index) {
    const text = this.#read(card, start, end);
    const button = document.createElement("button");
    button.type = "button";
    button.className = `mark ${mark}`;
    button.dataset.span = index;
    button.title = say("unmark");
    button.setAttribute("aria-label", `${say(`marked-${mark}`, { text })} ${say("unmark")}`);
    const quote = document.createElement("bdi");
    quote.textContent = text;
    button.append(mark === "good" ? "+ " : "− ", quote, " ×");
    const item = document.createElement("li");
    item.append(button);
    return item;
  }

  #remove(event) {
    const button = event.target.closest("[data-span]");
    if (!button) return;
    const card = button.closest(".completion");
    this.byCard.get(card).splice(Number(button.dataset.span), 1);
    this.show();
    card.focus({ preventScroll: true });
    this.changed();
  }

  #press(event) {
    const button = event.target.closest("[data-mark]");
    if (button) this.paint(button.dataset.mark || null);
  }

  #selected() {
    const selection = getSelection();
    if (!selection.rangeCount || selection.isCollapsed) return null;
    const card = this.cards.find((card) => proseOf(card).contains(selection.anchorNode));
    const place = card && placeOf(selection.getRangeAt(0), proseOf(card));
    return place ? { card, ...place } : null;
  }

  #showTools() {
    const selection = getSelection();
    const isOurs = !selection.isCollapsed && this.cards.some((card) => proseOf(card).contains(selection.anchorNode));
    this.tools.hidden = !isOurs;
    if (!isOurs) return;
    const box = selection.getRangeAt(0).getBoundingClientRect();
    const { offsetWidth, offsetHeight } = this.tools;
    const below = box.bottom + 8 + offsetHeight < innerHeight - 80;
    this.tools.style.left = `${Math.max(8, Math.min(innerWidth - offsetWidth - 8, box.left + box.width / 2 - offsetWidth / 2))}px`;
    this.tools.style.top = `${below ? box.bottom + 8 : Math.max(8, box.top - offsetHeight - 8)}px`;
  }

  #move(direction, extends_) {
    const selection = getSelection();
    const isLine = direction === "up" || direction === "down";
    const by = isLine ? "line" : "word";
    const towards = isLine ? { up: "backward", down: "forward" }[direction] : direction;
    const before = selection.rangeCount ? selection.getRangeAt(0).cloneRange() : null;
    if (extends_) selection.modify("extend", towards, by);
    else this.#step(selection, towards, by);
    if (!this.#selected() && before) {
      selection.removeAllRanges();
      selection.addRange(before);
    }
    selection.focusNode?.parentElement?.scrollIntoView({ block: "nearest" });
  }

  #step(selection, towards, by) {
    const goesBack = towards === "backward" || towards === "left";
    if (goesBack) selection.collapseToStart();
    else selection.collapseToEnd();
    if (goesBack || by === "line") selection.modify("move", towards, by);
    this.#selectWord(selection.getRangeAt(0), goesBack && by === "word" ? oppositeOf(towards) : by === "line" ? "forward" : towards);
  }

  #selectWord(range, towards) {
    const selection = getSelection();
    selection.collapse(range.startContainer, range.startOffset);
    // A step may cover only white space, which has no visible characters: extend to the next word.
    for (let steps = 0; steps < 3 && !visibleText(selection.getRangeAt(0).cloneContents()); steps += 1) selection.modify("extend", towards, "word");
  }

  #quote(card, start, end) {
    const range = rangeOf(proseOf(card), start, Math.min(end, start + MAX_QUOTE_LENGTH));
    return range ? visibleText(range.cloneContents()) : "";
  }

  #read(card, start, end) {
    const text = rangeOf(proseOf(card), start, Math.min(end, start + MAX_LISTED_LENGTH))?.toString().trim().replace(/\s+/g, " ") ?? "";
    return end - start > MAX_LISTED_LENGTH ? `${text}…` : text;
  }
}

function proseOf(card) {
  return card.querySelector(".prose");
}

function oppositeOf(towards) {
  return { left: "right", backward: "forward" }[towards];
}
