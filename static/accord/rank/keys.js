// One key for everything on the page. A key that a field, a dialog or the browser wants stays theirs.

const letters = { s: "skip", u: "undo", g: "guidelines", e: "unfold", d: "differences", l: "layout", p: "break", "?": "help" };

export function handleKeys(acts, current) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const dialog = document.querySelector("dialog[open]");
    if (dialog) return closeBySameKey(event, dialog);
    if (event.target.matches("input:not([type=radio]), textarea, select, summary")) return;
    const handled = digit(event, current()) || arrow(event, current()) || act(event, acts);
    if (handled) event.preventDefault();
  });
}

function closeBySameKey(event, dialog) {
  const opens = letters[event.key.toLowerCase()];
  if (opens !== dialog.id || event.target.matches("input")) return;
  dialog.close();
  event.preventDefault();
}

function digit(event, ranking) {
  if (!ranking) return false;
  if (event.key === "Backspace" || event.key === "Delete") ranking.rankMarked(0);
  else if (/^[0-9]$/.test(event.key)) ranking.rankMarked(Number(event.key));
  else return false;
  return true;
}

function arrow(event, ranking) {
  if (!ranking || !event.key.startsWith("Arrow") || event.target.matches("input[type=radio]")) return false;
  if (event.target.closest(".prompt")) return false; // it scrolls
  if (!event.shiftKey) ranking.move(event.key);
  else ranking.shiftMarked(event.key === "ArrowUp" || event.key === "ArrowLeft" ? -1 : 1);
  return true;
}

function act(event, acts) {
  if (event.key === "Enter") {
    if (event.target.closest("button, a")) return false; // Enter presses what has the focus
    acts.submit();
    return true;
  }
  const name = letters[event.key.toLowerCase()];
  if (name) acts[name]();
  return Boolean(name);
}
