// Offsets in visible characters, counted as in feedback/rendering/visible.py: white space does not count; a formula or a
// control shown by code point counts as one character. So offsets do not depend on the layout.

const ATOMS = ".math, .image, .control";
const ATOM = "\ufffc";
const STEP = 4096;
const SPACES = /[ \t\n\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]/gu;

/** Return the visible characters of a node or fragment. */
export function visibleText(node) {
  if (node.nodeType === Node.TEXT_NODE) return visibleOf(node.data);
  if (node.nodeType === Node.ELEMENT_NODE && node.matches(ATOMS)) return ATOM;
  return [...node.childNodes].map(visibleText).join("");
}

/** Return the length of a text in code points, not UTF-16 units. */
export function length(text) {
  return text.length - (text.match(/[\ud800-\udbff][\udc00-\udfff]/g)?.length ?? 0);
}

/** Return {start, end, quote} of the range within the element, or null if it has no visible character. */
export function placeOf(range, element) {
  const inside = clipped(range, element);
  if (!inside) return null;
  const before = document.createRange();
  before.setStart(element, 0);
  before.setEnd(inside.startContainer, inside.startOffset);
  const start = length(visibleText(before.cloneContents()));
  const quote = visibleText(inside.cloneContents());
  return quote ? { start, end: start + length(quote), quote } : null;
}

/** Return the range of the visible characters start … end − 1. */
export function rangeOf(element, start, end) {
  const range = document.createRange();
  let seen = 0;
  for (const leaf of leaves(element)) {
    const count = length(visibleText(leaf));
    if (start >= seen && start < seen + count) setEdge(range, "Start", leaf, start - seen);
    if (end > seen && end <= seen + count) {
      setEdge(range, "End", leaf, end - seen - 1);
      return range;
    }
    seen += count;
  }
  return null;
}

/** Return the part of the range within the element, extended to whole formulas and controls. */
function clipped(range, element) {
  if (!range.intersectsNode(element)) return null;
  const inside = range.cloneRange();
  if (!element.contains(inside.startContainer)) inside.setStart(element, 0);
  if (!element.contains(inside.endContainer)) inside.setEnd(element, element.childNodes.length);
  const [first, last] = [inside.startContainer, inside.endContainer].map(atomAround);
  if (first) inside.setStartBefore(first);
  if (last) inside.setEndAfter(last);
  return inside;
}

function atomAround(node) {
  return (node.nodeType === Node.ELEMENT_NODE ? node : node.parentElement).closest(ATOMS);
}

function* leaves(node) {
  if (node.nodeType === Node.TEXT_NODE || (node.nodeType === Node.ELEMENT_NODE && node.matches(ATOMS))) yield node;
  else for (const child of node.childNodes) yield* leaves(child);
}

/** Set an edge of the range at the leaf's visible character of that index: a start before it, an end after it. */
function setEdge(range, edge, leaf, index) {
  if (leaf.nodeType !== Node.TEXT_NODE) return range[edge === "Start" ? "setStartBefore" : "setEndAfter"](leaf);
  let left = index;
  for (const [offset, step] of steps(leaf.data)) {
    const count = length(visibleOf(step));
    if (left < count) return range[`set${edge}`](leaf, offset + unitsTo(step, left, edge));
    left -= count;
  }
}

/** Yield a text in parts, since a node may have a million characters. No part ends within a surrogate pair. */
function* steps(text) {
  for (let offset = 0, end; offset < text.length; offset = end) {
    end = offset + STEP;
    if (/[\ud800-\udbff]/.test(text[end - 1])) end += 1;
    yield [offset, text.slice(offset, end)];
  }
}

/** Return the number of UTF-16 units up to the visible character of that index: before it (Start) or after it (End). */
function unitsTo(text, index, edge) {
  let left = index;
  let units = 0;
  for (const character of text) {
    if (visibleOf(character) && left-- === 0) return edge === "Start" ? units : units + character.length;
    units += character.length;
  }
  return units;
}

function visibleOf(text) {
  return text.replace(SPACES, "");
}
