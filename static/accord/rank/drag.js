// Drag letters into rank boxes, from the dock or from the corner of a completion. The target is the whole box with half
// of the gap around it; it is highlighted while the letter is over it. No element moves before the drop.

const STARTS_AFTER = 4; // px of movement; less is a click
const GAP = 4; // px around a box that still count as the box: half of the gap between two
const EDGE = 40; // px: closer to the window's edge, the page scrolls
const SCROLL_STEP = 8; // px a frame

/** Make the ranking's letters draggable; return a function that undoes it. */
export function makeDraggable(ranking) {
  const listening = new AbortController();
  let drag = null;
  ranking.form.addEventListener(
    "pointerdown",
    (event) => {
      const letter = event.target.closest(".letter[data-letter]");
      if (!letter || !event.isPrimary || event.button !== 0) return;
      drag?.end();
      drag = new Drag(ranking, letter, event);
    },
    { signal: listening.signal },
  );
  return () => {
    drag?.end();
    listening.abort();
  };
}

class Drag {
  #listening = new AbortController();
  #ghost = null;
  #box = null;

  constructor(ranking, letter, start) {
    this.ranking = ranking;
    this.letter = letter;
    this.start = this.at = start;
    this.boxes = ranking.form.querySelector(".tiers");
    const listen = (name, handle) => document.addEventListener(name, handle, { signal: this.#listening.signal, capture: true });
    const ofSamePointer = (handle) => (event) => event.pointerId === start.pointerId && handle(event);
    listen("pointermove", ofSamePointer((event) => this.#move(event)));
    listen("pointerup", ofSamePointer((event) => this.#drop(event)));
    listen("pointercancel", ofSamePointer(() => this.end()));
    listen("keydown", (event) => {
      if (event.key !== "Escape" || !this.#ghost) return;
      event.stopPropagation();
      this.end();
    });
  }

  #move(event) {
    this.at = event;
    if (!this.#ghost && Math.hypot(event.clientX - this.start.clientX, event.clientY - this.start.clientY) < STARTS_AFTER) return;
    if (!this.#ghost) this.#lift();
    this.#ghost.style.translate = `${event.clientX}px ${event.clientY}px`;
    this.#aim();
  }

  #drop(event) {
    const isDragged = this.#ghost !== null;
    if (isDragged) this.#move(event);
    const rank = this.#box?.dataset.rank;
    this.end();
    if (rank !== undefined) this.ranking.rank(this.ranking.cardOf(this.letter.dataset.letter), Number(rank));
  }

  end() {
    this.#listening.abort();
    this.#box?.classList.remove("is-target");
    this.#ghost?.remove();
    this.letter.classList.remove("is-away");
    document.documentElement.classList.remove("is-dragging");
    this.#box = this.#ghost = null;
  }

  #lift() {
    this.#ghost = this.letter.cloneNode(true);
    this.#ghost.classList.add("is-lifted");
    this.#ghost.setAttribute("aria-hidden", "true");
    document.body.append(this.#ghost);
    this.letter.classList.add("is-away");
    document.documentElement.classList.add("is-dragging");
    getSelection().removeAllRanges();
    requestAnimationFrame(() => this.#scroll());
  }

  #aim() {
    const { clientX: x, clientY: y } = this.at;
    const inView = contains(this.boxes.getBoundingClientRect(), x, y);
    const box = inView ? [...this.boxes.querySelectorAll(".tier")].find((tier) => contains(tier.getBoundingClientRect(), x, y)) : null;
    if (box === this.#box) return;
    this.#box?.classList.remove("is-target");
    box?.classList.add("is-target");
    this.#box = box ?? null;
  }

  /** Scroll boxes below the window's edge into view while the letter is at that edge. */
  #scroll() {
    if (!this.#ghost) return;
    const { clientX: x, clientY: y } = this.at;
    const view = this.boxes.getBoundingClientRect();
    if (!contains(view, x, y) && y > innerHeight - EDGE && view.bottom > innerHeight) scrollBy({ top: SCROLL_STEP, behavior: "instant" });
    this.#aim();
    requestAnimationFrame(() => this.#scroll());
  }
}

function contains(rectangle, x, y) {
  return x >= rectangle.left - GAP && x <= rectangle.right + GAP && y >= rectangle.top - GAP && y <= rectangle.bottom + GAP;
}
