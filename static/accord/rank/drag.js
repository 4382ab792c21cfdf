// Letters dragged into places: from the foot of the page, or from a completion's own corner.

import Sortable from "../../sortable/sortable.esm.js";

const options = {
  animation: 0,
  forceFallback: true, // the same by mouse, pen and finger
  fallbackOnBody: true,
  fallbackTolerance: 3,
  draggable: ".letter",
};

/** Let the ranking's letters be dragged; returns what undoes it. */
export function makeDraggable(ranking) {
  const drop = (event) => {
    const letter = event.item.dataset.letter;
    const rank = Number(event.to.dataset.rank);
    // After Sortable has finished with its own elements: ours are drawn from the ranks alone.
    setTimeout(() => ranking.rank(ranking.cardOf(letter), rank));
  };
  const places = [...ranking.form.querySelectorAll(".tokens")].map(
    (tokens) => new Sortable(tokens, { ...options, group: "ranks", sort: false, onAdd: drop }),
  );
  const corners = ranking.cards.map(
    (card) => new Sortable(card.querySelector(".corner"), { ...options, group: { name: "ranks", pull: "clone", put: false }, sort: false }),
  );
  return () => [...places, ...corners].forEach((sortable) => sortable.destroy());
}
