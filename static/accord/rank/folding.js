// Long completions are folded at one height, all of them or none, so that length is not what the eye compares.

const HEIGHT = 26; // rem; app.css has the same in --fold

export function foldLongOnes(ranking) {
  const most = HEIGHT * parseFloat(getComputedStyle(document.documentElement).fontSize);
  for (const card of ranking.cards) {
    const isLong = card.querySelector(".fold").scrollHeight > most * 1.15;
    card.classList.toggle("is-long", isLong);
    card.classList.toggle("is-folded", isLong);
  }
}

export function toggleFolds(ranking) {
  const long = ranking.cards.filter((card) => card.classList.contains("is-long"));
  const fold = !long.some((card) => card.classList.contains("is-folded"));
  for (const card of long) card.classList.toggle("is-folded", fold);
  ranking.marked.scrollIntoView({ block: "nearest" });
}
