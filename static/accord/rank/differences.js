// Word-level differences of the other completions from the current one. They compare the texts as written, so
// indentation, line ends, double blanks and markup count.

import { diffArrays } from "../../diff/diff/array.js";
import { isAsWritten, showText } from "./as_written.js";

const MAX_WORDS = 4000; // per text; comparing longer ones would be too slow for a key press

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

/** Return [start, end] of the runs of words that `base` lacks. */
function addedTo(base, words) {
  const runs = [];
  let index = 0;
  for (const part of diffArrays(base.map(({ word }) => word), words.map(({ word }) => word))) {
    if (part.removed) continue;
    if (part.added) runs.push([words[index].start, words[index + part.count - 1].end]);
    index += part.count;
  }
  return runs;
}

/** Return {word, start, end} of the words of a completion, and of white space other than single blanks. */
function wordsOf(card) {
  const words = [];
  for (const { segment, index } of segmenter().segment(proseOf(card).dataset.written)) {
    const end = index + segment.length;
    const last = words.at(-1);
    // Join adjacent white space: browsers segment it differently.
    if (!segment.trim() && last && !last.word.trim()) Object.assign(last, { word: last.word + segment, end });
    else words.push({ word: segment, start: index, end });
  }
  return words.filter(({ word }) => word !== " ");
}

function proseOf(card) {
  return card.querySelector(".prose");
}
