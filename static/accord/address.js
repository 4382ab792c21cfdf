// The form of a new project proposes the address from the name until somebody edits the address.

const name = document.querySelector("[name=name]");
const address = document.querySelector("[name=slug]");
let isEdited = address.value !== "";

export function proposed(text, length) {
  const ascii = text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  const words = ascii.replace(/[^a-z0-9]+/g, "-").slice(0, length);
  return words.replace(/^-+|-+$/g, "");
}

address.addEventListener("input", () => {
  isEdited = address.value !== "";
});
name.addEventListener("input", () => {
  if (!isEdited) address.value = proposed(name.value, address.maxLength > 0 ? address.maxLength : 50);
});
