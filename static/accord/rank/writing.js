// "Write a better one": the panel for a demonstration, started from a completion. The text is kept as a draft until the
// server has stored it.

import { isSignedOut, post } from "./outbox.js";
import { say } from "./words.js";

export class Writing {
  #ranking = null;
  #draft = "";
  #begun = ""; // the text that it started from

  constructor(dialog, url, drafts, { showMessage, showError }) {
    Object.assign(this, { dialog, url, drafts, showMessage, showError });
    this.field = dialog.querySelector("textarea");
    this.from = dialog.querySelector("select");
    this.field.addEventListener("input", () => {
      drafts.keep(this.#draft, { text: this.field.value, from: this.from.value });
      this.#check();
    });
    this.from.addEventListener("change", () => this.#beginFrom(this.from.value));
    dialog.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.isComposing) dialog.close();
    });
    dialog.addEventListener("close", () => this.#close());
  }

  /** Tell whether the panel has text that the server has not stored. */
  get isUnsaved() {
    return this.dialog.open && this.field.value.trim() !== this.#begun.trim();
  }

  open(ranking) {
    this.#ranking = ranking;
    this.#draft = `w${ranking.form.dataset.comparison}`;
    const nothing = new Option(say("from-nothing"), "");
    this.from.replaceChildren(...ranking.cards.map(({ dataset: { letter } }) => new Option(letter, letter)), nothing);
    const draft = this.drafts.of(this.#draft);
    const { text, from } = typeof draft === "string" ? { text: draft, from: "" } : draft ?? { text: null, from: ranking.best.dataset.letter };
    this.from.value = from;
    this.#begun = this.#textOf(from);
    this.field.value = text ?? this.#begun;
    this.#check();
    this.dialog.returnValue = "";
    if (!this.dialog.open) this.dialog.show();
    this.field.focus();
    this.field.setSelectionRange(0, 0);
    this.field.scrollTop = 0;
    ranking.current.scrollIntoView({ block: "nearest" });
  }

  close() {
    if (this.dialog.open) this.dialog.close();
  }

  focus() { this.field.focus(); }

  #beginFrom(letter) {
    if (this.isUnsaved && this.field.value.trim() && !window.confirm(say("write-over"))) {
      this.from.value = this.drafts.of(this.#draft)?.from ?? letter;
      return;
    }
    this.drafts.drop(this.#draft);
    this.field.value = this.#begun = this.#textOf(letter);
    this.#check();
    this.field.focus();
  }

  #textOf(letter) {
    return this.#ranking.cardOf(letter)?.querySelector(".prose").dataset.written ?? "";
  }

  /** Refuse a text equal to the completion: a demonstration must differ. */
  #check() {
    const isSame = this.field.value.trim() === this.#begun.trim();
    this.field.setCustomValidity(isSame && this.#begun ? say("unchanged") : "");
  }

  #close() {
    const { returnValue } = this.dialog;
    this.dialog.returnValue = "";
    if (returnValue === "keep" && this.field.value.trim()) this.#send(this.#draft, [["comparison", this.#draft.slice(1)], ["text", this.field.value]]);
    if (this.#ranking.form.isConnected) this.#ranking.focus(this.#ranking.current);
  }

  async #send(draft, fields) {
    const response = await post(this.url, fields).catch(() => null);
    if (!response) return this.showMessage(say("write-offline"), "warn");
    if (isSignedOut(response)) return this.showMessage(say("sign-in"), "warn");
    if (!response.ok) return this.showError(await response.text());
    this.drafts.drop(draft);
    this.showMessage(say("thanks"), "done");
  }
}
