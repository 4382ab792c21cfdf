// Behaviour of every page: menus, appearance, dialogs, mathematics, copy buttons, confirmations.

import "./live.js";
import { setMathematics } from "./math.js";
import { prepareSignOut } from "./rank/drafts.js";
import { openAtLastTurn } from "./rank/turns.js";

openAtLastTurn(document);
setMathematics(document);
document.addEventListener("htmx:load", (event) => setMathematics(event.target));

// On a narrow screen the navigation and tabs scroll: show the entry of this page.
for (const entry of document.querySelectorAll(":is(.bar nav, .tabs) [aria-current]")) {
  entry.scrollIntoView({ inline: "center", block: "nearest" });
}

for (const menu of document.querySelectorAll("details.menu")) {
  document.addEventListener("click", (event) => {
    if (!menu.contains(event.target)) menu.open = false;
  });
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !menu.open) return;
    menu.open = false;
    menu.querySelector("summary").focus();
    event.stopPropagation();
  });
}

// The server reads these cookies, so that the first paint is already right.
export function remember(name, value) {
  document.documentElement.dataset[name] = value;
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `${name}=${value}; Path=/; Max-Age=31536000; SameSite=Lax${secure}`;
}

document.addEventListener("click", (event) => {
  const choice = event.target.closest("[data-cookie]");
  if (choice) {
    const { cookie, value, other } = choice.dataset;
    remember(cookie, other && document.documentElement.dataset[cookie] === value ? other : value);
  }
  const opener = event.target.closest("[data-opens]");
  if (opener) document.getElementById(opener.dataset.opens)?.showModal();
  if (event.target.closest("[data-closes]")) event.target.closest("dialog").close();
  if (event.target.matches("dialog")) event.target.close(); // the backdrop
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copies]");
  if (!button) return;
  await navigator.clipboard.writeText(document.getElementById(button.dataset.copies).textContent);
  button.textContent = button.dataset.done;
});

document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.confirm ?? event.target.dataset.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
});

document.addEventListener("submit", (event) => {
  const { signsOut, unsent } = event.target.dataset;
  if (!signsOut || event.defaultPrevented) return;
  const isLeaving = prepareSignOut(signsOut, (count) => window.confirm(unsent.replace("{count}", count)));
  if (!isLeaving) event.preventDefault();
});

// A slow submit changes the text of its button. A page restored from the back-forward cache would keep that text.
document.addEventListener("submit", (event) => {
  const { busy } = event.target.dataset;
  if (!busy || event.defaultPrevented || !event.submitter) return;
  event.submitter.textContent = busy;
  event.submitter.ariaBusy = "true";
});
window.addEventListener("pageshow", (event) => {
  if (event.persisted && document.querySelector("button[aria-busy]")) location.reload();
});

// The dialog of a refused form opens again.
document.querySelector("dialog[data-shown]")?.showModal();
