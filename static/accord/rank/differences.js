// Word-level differences: what each other completion says that the marked one does not.

import { diffArrays } from "../../diff/diff/array.js";

const MOST_WORDS = 4000; // beyond, the comparison takes longer than a key press may

/** Show the differences from the marked completion, or take them away. */
export function toggleDifferences(ranking) {
  const shown = ranking.form.querySelectorAll("ins.diff");
  for (const card of ranking.cards) clear(card);
  if (shown.length) return;
  const base = wordsOf(ranking.marked).map(({ word }) => word);
  for (const card of ranking.cards) if (card !== ranking.marked) show(card, base);
}

function clear(card) {
  for (const mark of card.querySelectorAll("ins.diff")) mark.replaceWith(...mark.childNodes);
  card.querySelector(".prose").normalize();
}

function show(card, base) {
  const words = wordsOf(card);
  if (base.length > MOST_WORDS || words.length > MOST_WORDS) return;
  let index = 0;
  const added = [];
  for (const part of diffArrays(base, words.map(({ word }) => word))) {
    if (part.removed) continue;
    if (part.added) added.push(...words.slice(index, index + part.count));
    index += part.count;
  }
  for (const run of runsOf(added).reverse()) wrap(run); // from the end, so that earlier offsets stay right
}

/** Every word of a completion, in any script, with the text node that it stands in. */
function wordsOf(card) {
  const segmenter = new Intl.Segmenter(undefined, { granularity: "word" });
  const walker = document.createTreeWalker(card.querySelector(".prose"), NodeFilter.SHOW_TEXT);
  const words = [];
  while (walker.nextNode()) {
    const node = walker.currentNode;
    for (const { segment, index, isWordLike } of segmenter.segment(node.data)) {
      if (isWordLike || segment.trim()) words.push({ node, word: segment, start: index, end: index + segment.length });
    }
  }
  return words;
}

/** Neighbouring words of one text node, joined with the space between them. */
function runsOf(words) {
  const runs = [];
  for (const word of words) {
    const last = runs.at(-1);
    if (last?.node === word.node && !word.node.data.slice(last.end, word.start).trim()) last.end = word.end;
    else runs.push({ ...word });
  }
  return runs;
}

function wrap({ node, start, end }) {
  const range = document.createRange();
  range.setStart(node, start);
  range.setEnd(node, end);
  const mark = document.createElement("ins");
  mark.className = "diff";
  range.surroundContents(mark);
}
