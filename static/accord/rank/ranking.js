// State of one comparison on the page: the ranks of its completions and the current completion.

import { list, say } from "./words.js";

/** Ranks of A and B by key, for projects where one key ranks a pair. */
export const CHOICES = { 1: [1, 2], 2: [2, 1], 3: [1, 1] };

export class Ranking {
  /** @param {HTMLFormElement} form a rendered rank/_card.jinja.html */
  constructor(form, changed = () => {}) {
    this.form = form;
    this.changed = changed;
    this.size = Number(form.dataset.size);
    this.cards = [...form.querySelectorAll(".completion")];
    this.ranks = new Map(this.cards.map((card) => [card, this.#checked(card)]));
    this.current = this.cards[0];
    form.noValidate = true;
    for (const card of this.cards) {
      card.addEventListener("focusin", () => this.#showCurrent(card));
      card.addEventListener("pointerdown", () => this.#showCurrent(card));
      card.addEventListener("change", (event) => {
        if (event.target.closest(".chips")) this.rank(card, Number(event.target.value));
      });
    }
    this.#show();
    this.#showCurrent(this.current);
  }

  /** Make the comparison read-only: the server would not store a ranking. */
  close() {
    this.isReadOnly = true;
    for (const control of this.form.elements) control.disabled = !control.matches("[data-act=unfold], [data-as-written]");
  }

  get lease() { return this.form.dataset.lease; }
  get missing() { return this.cards.filter((card) => !this.ranks.get(card)); }
  get isComplete() { return this.missing.length === 0; }

  /** The completion ranked best. If several are, or none is ranked, the current one if it is among them. */
  get best() {
    const ranks = this.cards.map((card) => this.ranks.get(card)).filter(Boolean);
    const best = ranks.length ? this.cards.filter((card) => this.ranks.get(card) === Math.min(...ranks)) : this.cards;
    return best.includes(this.current) ? this.current : best[0];
  }

  /** Ranks by place in the order of display, as the server and the drafts use them. */
  get byPlace() {
    return Object.fromEntries(this.cards.map((card) => [card.dataset.place, this.ranks.get(card)]));
  }

  set byPlace(ranks) {
    for (const card of this.cards) this.ranks.set(card, Number(ranks[card.dataset.place] ?? 0));
    this.#show();
  }

  cardOf(letter) { return this.cards.find((card) => card.dataset.letter === letter); }

  rank(card, rank) {
    if (this.isReadOnly || rank < 0 || rank > this.size) return;
    this.ranks.set(card, rank);
    this.#show();
    this.changed(this);
  }

  /** Rank the current completion and go to the next one without a rank. */
  rankCurrent(rank) {
    if (rank > this.size) return;
    this.rank(this.current, rank);
    const from = this.cards.indexOf(this.current);
    const inTurn = [...this.cards.slice(from + 1), ...this.cards.slice(0, from)];
    const next = inTurn.find((card) => !this.ranks.get(card));
    if (next && rank) this.select(next);
  }

  shiftCurrent(by) {
    const now = this.ranks.get(this.current);
    this.rank(this.current, now ? Math.min(this.size, Math.max(1, now + by)) : by > 0 ? this.size : 1);
  }

  select(card) {
    this.focus(card);
    card.scrollIntoView({ block: "nearest" });
  }

  /** Make a completion current without scrolling. */
  focus(card) {
    this.#showCurrent(card);
    card.focus({ preventScroll: true });
  }

  /** Go to the nearest completion in that direction on screen, or else in reading order. */
  move(key) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
    const here = this.current.getBoundingClientRect();
    const near = this.cards
      .filter((card) => card !== this.current)
      .map((card) => ({ card, box: card.getBoundingClientRect() }))
      .map(({ card, box }) => ({ card, along: step[0] * (box.x - here.x) + step[1] * (box.y - here.y), across: Math.abs(step[1] * (box.x - here.x)) + Math.abs(step[0] * (box.y - here.y)) }))
      .filter(({ along }) => along > 4)
      .sort((a, b) => a.across - b.across || a.along - b.along)[0];
    if (near) return this.select(near.card);
    const index = this.cards.indexOf(this.current) + step[0] + step[1];
    if (this.cards[index]) this.select(this.cards[index]);
  }

  #checked(card) { return Number(card.querySelector(".chips input:checked")?.value ?? 0); }

  #showCurrent(card) {
    this.current = card;
    for (const other of this.cards) {
      other.classList.toggle("is-focused", other === card);
      other.tabIndex = other === card ? 0 : -1;
    }
  }

  #show() {
    for (const card of this.cards) {
      const rank = this.ranks.get(card);
      card.classList.toggle("is-ranked", rank > 0);
      for (const input of card.querySelectorAll(".chips input")) input.checked = Number(input.value) === rank;
      const { letter } = card.dataset;
      card.querySelector("h2").textContent = rank ? say("ranked", { letter, rank }) : say("unranked", { letter });
    }
    this.#showDock();
    this.form.classList.toggle("is-complete", this.isComplete);
    const [a, b] = this.ranks.values();
    const chosen = Object.keys(CHOICES).find((key) => a && b && Math.sign(CHOICES[key][0] - CHOICES[key][1]) === Math.sign(a - b));
    for (const button of this.form.querySelectorAll("[data-choice]")) button.setAttribute("aria-pressed", String(button.dataset.choice === chosen));
    const submit = this.form.querySelector("[data-act=submit]");
    submit.setAttribute("aria-disabled", String(!this.isComplete));
    submit.title = this.isComplete ? "" : this.whatIsMissing;
  }

  #showDock() {
    for (const tokens of this.form.querySelectorAll(".tokens")) {
      const here = this.cards.filter((card) => this.ranks.get(card) === Number(tokens.dataset.rank));
      tokens.replaceChildren(...here.map((card) => token(card.dataset.letter)));
    }
    this.form.querySelector("[data-says]").textContent = this.isComplete ? say("complete") : this.whatIsMissing;
  }

  get whatIsMissing() {
    return say("missing", { letters: list(this.missing.map((card) => card.dataset.letter)) });
  }
}

function token(letter) {
  const element = document.createElement("span");
  element.className = "letter";
  element.dataset.letter = letter;
  element.textContent = letter;
  return element;
}
