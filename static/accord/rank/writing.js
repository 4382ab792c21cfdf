// The panel for a demonstration: an answer that a person writes, from a completion or an empty page. The text is kept as
// a draft until the server has stored it; the outbox sends it.

import { differencesOf } from "./differences.js";
import { say } from "./words.js";

const PAUSE = 150; // ms without typing, after which the differences are shown again

export class Writing {
  #ranking = null;
  #draft = "";
  #begun = ""; // the text that it started from
  #timer = null;

  /** @param {(draft: string, fields: [string, string][]) => void} send sends an answer, in order with the rankings */
  constructor(dialog, drafts, send) {
    Object.assign(this, { dialog, drafts, send });
    this.field = dialog.querySelector("textarea");
    this.from = dialog.querySelector("select");
    this.differences = dialog.querySelector("[data-changes]");
    this.lastTurnNote = dialog.querySelector("[data-last-turn-note]");
    this.field.addEventListener("input", () => {
      this.#keep();
      this.#check();
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#showDifferences(), PAUSE);
    });
    this.from.addEventListener("change", () => this.#beginFrom(this.from.value));
    dialog.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      if (event.key === "Escape") dialog.close();
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        dialog.querySelector("form").requestSubmit(dialog.querySelector("[value=keep]"));
      }
    });
    // "close" comes later, as a task of its own: by then a quick W may have opened the panel again.
    dialog.addEventListener("submit", ({ submitter }) => submitter?.value === "keep" && this.#send());
    dialog.addEventListener("close", () => this.#closed());
  }

  /** Return whether the panel has text that the server has not stored. */
  get isUnsaved() {
    return this.dialog.open && this.field.value.trim() !== this.#begun.trim();
  }

  /** Open the panel with the draft of this comparison, or else the best-ranked text, or with `isEmpty` an empty page. */
  open(ranking, isEmpty = false) {
    if (this.dialog.open && this.#ranking === ranking) return isEmpty ? this.#choose("") : this.focus();
    this.#ranking = ranking;
    this.#draft = `w${ranking.form.dataset.comparison}`;
    const nothing = new Option(say("from-nothing"), "");
    this.from.replaceChildren(...ranking.cards.map(({ dataset: { letter } }) => new Option(letter, letter)), nothing);
    const draft = this.drafts.of(this.#draft);
    const { text, from } = typeof draft === "string" ? { text: draft, from: "" } : draft ?? { text: null, from: isEmpty ? "" : ranking.best.dataset.letter };
    this.from.value = from;
    this.#begun = this.#textOf(from);
    this.field.value = text ?? this.#begun;
    this.#showOrigin();
    if (!this.dialog.open) this.dialog.show();
    this.field.focus();
    this.field.setSelectionRange(0, 0);
    this.field.scrollTop = 0;
    ranking.current.scrollIntoView({ block: "nearest" });
    if (isEmpty && from) this.#choose("");
  }

  close() {
    if (this.dialog.open) this.dialog.close();
  }

  focus() { this.field.focus(); }

  /** Keep an answer that was undone as the draft of its comparison. */
  restore({ comparison, text, letter }) {
    this.drafts.keep(`w${comparison}`, { text, from: letter });
  }

  /** The server has stored an answer: drop its draft, unless it was changed since. */
  stored(draft, text) {
    if (this.drafts.of(draft)?.text === text) this.drafts.drop(draft);
  }

  #keep() { this.drafts.keep(this.#draft, { text: this.field.value, from: this.from.value }); }

  #choose(letter) {
    this.from.value = letter;
    this.#beginFrom(letter);
  }

  #beginFrom(letter) {
    if (this.isUnsaved && this.field.value.trim() && !window.confirm(say("write-over"))) {
      this.from.value = this.drafts.of(this.#draft)?.from ?? letter;
      return;
    }
    this.drafts.drop(this.#draft);
    this.field.value = this.#begun = this.#textOf(letter);
    this.#showOrigin();
    this.field.focus();
  }

  /** Return the text of a completion, of a dialogue its last turn: the user answered the turns before. */
  #textOf(letter) {
    const card = this.#ranking.cardOf(letter);
    return card?.dataset.lastTurn ?? card?.querySelector(".prose").dataset.written ?? "";
  }

  #showOrigin() {
    this.lastTurnNote.hidden = this.#ranking.cardOf(this.from.value)?.dataset.lastTurn === undefined;
    this.#check();
    this.#showDifferences();
  }

  /** Refuse a text equal to the completion: a demonstration must differ. */
  #check() {
    const isSame = this.field.value.trim() === this.#begun.trim();
    this.field.setCustomValidity(isSame && this.#begun ? say("unchanged") : "");
  }

  /** Show which words were added to the completion and removed from it. */
  #showDifferences() {
    const isEdited = this.#begun !== "" && this.field.value.trim() !== this.#begun.trim();
    this.differences.hidden = !isEdited;
    if (!isEdited) return;
    const parts = differencesOf(this.#begun, this.field.value);
    if (parts === null) return this.differences.replaceChildren(say("too-long-to-compare"));
    this.differences.replaceChildren(...parts.map(([text, tag]) => {
      if (!tag) return text;
      const element = document.createElement(tag);
      element.className = "diff";
      element.textContent = text;
      return element;
    }));
  }

  #send() {
    if (!this.field.value.trim()) return;
    this.#keep();
    const place = this.#ranking.cardOf(this.from.value)?.dataset.place;
    const origin = place === undefined ? [] : [["place", place]];
    this.send(this.#draft, [["comparison", this.#draft.slice(1)], ["text", this.field.value], ...origin]);
  }

  #closed() {
    if (this.dialog.open) return;
    clearTimeout(this.#timer);
    if (this.#ranking.form.isConnected) this.#ranking.focus(this.#ranking.current);
  }
}
