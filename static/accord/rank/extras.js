// Ranking details: strength, flags, ratings and the comment.

import { digitOf } from "./keyboard.js";

const isExtra = (name) => ["strength", "flags", "comment"].includes(name) || name.startsWith("rating-");

/** Return the details as form fields, without empty ones. */
export function extrasOf(form) {
  return [...new FormData(form)].filter(([name, value]) => isExtra(name) && value);
}

/** Restore details that `extrasOf` returned. */
export function restoreExtras(form, fields) {
  form.elements.comment.value = "";
  for (const input of boxes(form)) input.checked = false;
  for (const [name, value] of fields) {
    if (name === "comment") form.elements.comment.value = value;
    else boxes(form).filter((input) => input.name === name && input.value === value).forEach((input) => { input.checked = true; });
  }
}

/** Toggle the flag of that key; return whether there is one. */
export function toggleFlag(form, key) {
  const flag = form.querySelector(`.flags input[data-key="${CSS.escape(key.toUpperCase())}"]`);
  flag?.click();
  return Boolean(flag);
}

/** Focus the first attribute of the completion that is not rated yet, or the first one (R). */
export function startRating(card) {
  const [first] = card.querySelectorAll(".rating");
  focusRating(nextUnrated(card) ?? first);
}

/** Handle a digit while a rating has the focus: rate and go to the next; 0 removes it. Return whether it was handled. */
export function rateByKey(event, ranking) {
  const group = event.target.closest?.(".rating");
  const value = event.key === "Backspace" || event.key === "Delete" ? "0" : digitOf(event);
  if (!group || value === null || event.shiftKey) return false;
  const inputs = [...group.querySelectorAll("input")];
  if (value !== "0" && !inputs[Number(value) - 1]) return true;
  for (const input of inputs) input.checked = input.value === value;
  group.dispatchEvent(new Event("input", { bubbles: true }));
  if (value !== "0") goToNextRating(group.closest(".completion"), ranking);
  return true;
}

function goToNextRating(card, ranking) {
  const inTurn = [card, ...ranking.cards.slice(ranking.cards.indexOf(card) + 1), ...ranking.cards];
  const next = inTurn.find(nextUnrated);
  if (!next) return ranking.select(card);
  focusRating(nextUnrated(next));
  next.querySelector(".ratings").scrollIntoView({ block: "nearest" });
}

function nextUnrated(card) {
  return [...card.querySelectorAll(".rating")].find((group) => !group.querySelector(":checked"));
}

function focusRating(group) {
  (group?.querySelector(":checked") ?? group?.querySelector("input"))?.focus();
}

/** Choose a point of the strength scale; return whether the project's scale has it. */
export function chooseStrength(form, point) {
  const input = form.querySelector(`.strength input[value="${point}"]`);
  input?.click();
  return Boolean(input);
}

function boxes(form) {
  return [...form.querySelectorAll(":is(.extras, .ratings) :is([type=radio], [type=checkbox])")];
}
