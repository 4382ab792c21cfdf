// Word-level differences of the other completions from the current one. They compare the texts as written, so
// indentation, line ends, double blanks and markup count.

import { diffArrays } from "../../diff/diff/array.js";
import { isAsWritten, showText, textsOf } from "./as_written.js";

const MAX_WORDS = 4000; // per text; comparing longer ones would be too slow for a key press
const TURN = "\0"; // stands between the turns of a dialogue: no stored text has this character

/** Show or hide the differences from the current completion; return whether a text was too long to compare. */
export function toggleDifferences(ranking) {
  const isOn = "differences" in ranking.form.dataset;
  if (isOn) delete ranking.form.dataset.differences;
  else ranking.form.dataset.differences = "yes";
  const base = isOn ? [] : wordsOf(ranking.current);
  let isTooLong = false;
  for (const card of ranking.cards) {
    const words = isOn || card === ranking.current ? [] : wordsOf(card);
    const isLong = words.length > MAX_WORDS || base.length > MAX_WORDS;
    isTooLong ||= isLong && card !== ranking.current;
    showText(proseOf(card), !isOn || isAsWritten(), isLong || !words.length ? [] : addedTo(base, words));
  }
  return isTooLong;
}

/** Mark, in the completions of two elements, the words that the other one lacks. Texts that are too long are not marked. */
export function markDifferencesOfTwo(one, other) {
  const [words, otherWords] = [wordsOf(one), wordsOf(other)];
  const isLong = Math.max(words.length, otherWords.length) > MAX_WORDS;
  showText(proseOf(one), true, isLong ? [] : addedTo(otherWords, words));
  showText(proseOf(other), true, isLong ? [] : addedTo(words, otherWords));
}

/**
 * Return the parts of a text that was edited from `base`: [text, ""], [text, "ins"] or [text, "del"]. Null if one of the
 * two is too long.
 */
export function differencesOf(base, text) {
  const [before, after] = [base, text].map((written) => Array.from(segmenter().segment(written), ({ segment }) => segment));
  if (Math.max(before.length, after.length) > 2 * MAX_WORDS) return null;
  return diffArrays(before, after).map(({ value, added, removed }) => [value.join(""), added ? "ins" : removed ? "del" : ""]);
}

const segmenter = () => new Intl.Segmenter(undefined, { granularity: "word" });

/** Return, for each text of a completion, [start, end] of the runs of words that `base` lacks. */
function addedTo(base, words) {
  const runs = [];
  let index = 0;
  for (const part of diffArrays(base.map(({ word }) => word), words.map(({ word }) => word))) {
    if (part.removed) continue;
    if (part.added)
      for (const run of runsOf(words.slice(index, index + part.count))) (runs[run.place] ??= []).push([run.start, run.end]);
    index += part.count;
  }
  return runs;
}

/** Return {place, start, end} of adjacent words, one for each text that they are in. */
function runsOf(words) {
  const runs = [];
  for (const { word, place, start, end } of words) {
    if (word === TURN) continue;
    if (runs.at(-1)?.place === place) runs.at(-1).end = end;
    else runs.push({ place, start, end });
  }
  return runs;
}

/** Return the words of a completion, with TURN between the turns of a dialogue. */
function wordsOf(card) {
  return textsOf(proseOf(card)).flatMap((text, place) => [...(place ? [{ word: TURN }] : []), ...wordsIn(text, place)]);
}

/** Return {word, place, start, end} of the words of the text at `place`, and of white space other than single blanks. */
function wordsIn(text, place) {
  const words = [];
  for (const { segment, index } of segmenter().segment(text)) {
    const end = index + segment.length;
    const last = words.at(-1);
    // Join adjacent white space: browsers segment it differently.
    if (!segment.trim() && last && !last.word.trim()) Object.assign(last, { word: last.word + segment, end });
    else words.push({ word: segment, place, start: index, end });
  }
  return words.filter(({ word }) => word !== " ");
}

function proseOf(card) {
  return card.querySelector(".prose");
}
