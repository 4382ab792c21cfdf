// Word-level differences: what each other completion says that the marked one does not. They are those of the texts as
// they are written, and shown in these: so indentation, line ends, doubled blanks and markup count as words do.

import { diffArrays } from "../../diff/diff/array.js";
import { isAsWritten, showText } from "./as_written.js";

const MOST_WORDS = 4000; // beyond, the comparison takes longer than a key press may

/** Show the differences from the marked completion, or take them away. Whether a text was too long to compare. */
export function toggleDifferences(ranking) {
  const isOn = "differences" in ranking.form.dataset;
  if (isOn) delete ranking.form.dataset.differences;
  else ranking.form.dataset.differences = "yes";
  const base = isOn ? [] : wordsOf(ranking.marked);
  let isTooLong = false;
  for (const card of ranking.cards) {
    const words = isOn || card === ranking.marked ? [] : wordsOf(card);
    const isLong = words.length > MOST_WORDS || base.length > MOST_WORDS;
    isTooLong ||= isLong && card !== ranking.marked;
    showText(proseOf(card), !isOn || isAsWritten(), isLong || !words.length ? [] : addedTo(base, words));
  }
  return isTooLong;
}

/** [start, end] of the runs of words that `base` lacks. */
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

/** {word, start, end} of every word of a completion, in any script, and of white space but single blanks. */
function wordsOf(card) {
  const segmenter = new Intl.Segmenter(undefined, { granularity: "word" });
  const words = [];
  for (const { segment, index } of segmenter.segment(proseOf(card).dataset.written)) {
    const end = index + segment.length;
    const last = words.at(-1);
    // Neighbouring white space is one word: segmenters cut it in their own ways.
    if (!segment.trim() && last && !last.word.trim()) Object.assign(last, { word: last.word + segment, end });
    else words.push({ word: segment, start: index, end });
  }
  return words.filter(({ word }) => word !== " ");
}

function proseOf(card) {
  return card.querySelector(".prose");
}
