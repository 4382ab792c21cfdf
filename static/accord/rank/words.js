// Texts of the page, translated by the server; numbers, times and lists in its language.

const sentences = JSON.parse(document.getElementById("words").textContent);
const numbers = new Intl.NumberFormat(document.documentElement.lang);

/** Return the text of that name with its {placeholders} filled. */
export function say(name, values = {}) {
  return sentences[name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
}

export function number(value) {
  return numbers.format(value);
}

/** Format seconds as minutes and seconds: 75 is 1:15. */
export function duration(seconds) {
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

/** Format a list in the page's language: "A", "A and C", "A, B, and C". */
export function list(parts) {
  return new Intl.ListFormat(document.documentElement.lang, { type: "conjunction" }).format(parts);
}
