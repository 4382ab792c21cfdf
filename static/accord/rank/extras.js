// What is said beside the ranks: strength, flags, a comment.

const NAMES = ["strength", "flags", "comment"];

/** As form fields, the empty ones left out. */
export function extrasOf(form) {
  const data = new FormData(form);
  return NAMES.flatMap((name) => data.getAll(name).filter(Boolean).map((value) => [name, value]));
}

/** Put back what `extrasOf` gave. */
export function restoreExtras(form, fields) {
  form.elements.comment.value = "";
  for (const input of boxes(form)) input.checked = false;
  for (const [name, value] of fields) {
    if (name === "comment") form.elements.comment.value = value;
    else boxes(form).filter((input) => input.name === name && input.value === value).forEach((input) => { input.checked = true; });
  }
}

export function toggleFlag(form, key) {
  form.querySelector(`.flags input[data-key="${key}"]`)?.click();
}

export function chooseStrength(form, point) {
  form.querySelector(`.strength input[value="${point}"]`)?.click();
}

function boxes(form) {
  return [...form.querySelectorAll(".extras :is([type=radio], [type=checkbox])")];
}
