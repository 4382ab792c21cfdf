// Open a long conversation at the last user turn; earlier messages are folded. Where the prompt continues beyond its
// box, that edge fades.

const LATEST_AT = 0.6; // share of the box's height for earlier messages when they are unfolded
const MAX_HEIGHT = 0.45; // share of the window's height; a higher prompt is long, if its box does not scroll

/** Fold earlier messages that do not fit, in all prompts of `root`. It must be in the document to be measured. */
export function openAtLastTurn(root) {
  for (const prompt of root.querySelectorAll(".prompt")) {
    const earlier = earlierOf(prompt);
    if (earlier) {
      earlier.open = true;
      earlier.open = fits(prompt);
      earlier.classList.toggle("is-long", !earlier.open);
    }
    prompt.scrollTop = 0;
    watch(prompt);
  }
}

/** Return the earlier messages that E folds and unfolds, or null. */
export function longTurnsOf(root) {
  return root.querySelector(".prompt > .earlier.is-long");
}

export function setTurns(earlier, isOpen) {
  if (earlier.open === isOpen) return;
  const prompt = earlier.parentElement;
  earlier.open = isOpen;
  const latest = earlier.nextElementSibling;
  const from = prompt.getBoundingClientRect().top + prompt.clientHeight * LATEST_AT;
  prompt.scrollTop += isOpen ? latest.getBoundingClientRect().top - from : -prompt.scrollTop;
  showEnds(prompt);
}

function watch(prompt) {
  if ("isWatched" in prompt.dataset) return showEnds(prompt);
  prompt.dataset.isWatched = "";
  prompt.addEventListener("scroll", () => showEnds(prompt), { passive: true });
  prompt.addEventListener("click", (event) => {
    const summary = event.target.closest(".earlier > summary");
    if (!summary) return;
    event.preventDefault();
    setTurns(summary.parentElement, !summary.parentElement.open);
  });
  const sizes = new ResizeObserver(() => showEnds(prompt));
  for (const element of [prompt, ...prompt.children]) sizes.observe(element);
}

function showEnds(prompt) {
  const { scrollTop, clientHeight, scrollHeight } = prompt;
  prompt.classList.toggle("is-cut-above", scrollTop > 1);
  prompt.classList.toggle("is-cut-below", scrollTop + clientHeight < scrollHeight - 1);
}

function earlierOf(prompt) {
  return prompt.querySelector(":scope > .earlier");
}

function fits(prompt) {
  return prompt.scrollHeight <= prompt.clientHeight + 1 && prompt.clientHeight <= innerHeight * MAX_HEIGHT;
}
