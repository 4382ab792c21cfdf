// Pages that change: ask for a small version, and for the content only when the version differs.
//
// An element with `data-watch`, an address of training.web.watch, gets the event `news`, its `hx-trigger`. The longer
// nobody touches the page, the longer the pauses: a tenth of the time since the last input, within limits. Those of
// contents that differ in their progress alone are `data-fastest` and `data-slowest`, in seconds. Nothing is asked while
// nobody sees the page, or while a dialog is open: the last answer may reload the page, and typed text would be lost.

const FASTEST = 2; // seconds between two questions
const SLOWEST = 25; // SLOWEST of training.web.watch
const SLOWEST_CONTENT = 300;
const CLOCK = 0.5;

const watches = new Map(); // address to { state, progress, asked, fetched }
let touched = Date.now();

for (const kind of ["pointermove", "pointerdown", "keydown", "wheel", "scroll", "focus", "visibilitychange"]) {
  addEventListener(kind, () => { touched = Date.now(); }, { capture: true, passive: true });
}

/** Return whether the pause since `then` has been long enough. */
function isTime(then, fastest, slowest) {
  const now = Date.now();
  return now - then >= 1000 * Math.min(slowest, Math.max(fastest, (now - touched) / 10_000));
}

async function ask(element) {
  const { watch: address } = element.dataset;
  if (!watches.has(address)) watches.set(address, { state: null, progress: null, asked: Date.now(), fetched: 0 });
  const watch = watches.get(address);
  if (!isTime(watch.asked, FASTEST, SLOWEST)) return;
  watch.asked = Date.now();
  const response = await fetch(address).catch(() => null);
  if (!response?.ok && response?.status !== 404) return; // later again
  // 404: the site has a new key. The content has a new address, or leads to the sign-in page.
  const { state, progress } = response.ok ? await response.json() : { state: "", progress: "" };
  const { fastest = FASTEST, slowest = SLOWEST_CONTENT } = element.dataset;
  const hasProgress = progress !== watch.progress && isTime(watch.fetched, fastest, slowest);
  if (state === watch.state && !hasProgress) return;
  Object.assign(watch, { state, progress, fetched: Date.now() });
  window.htmx.trigger(element, "news");
}

function askAll() {
  if (document.hidden || document.querySelector("dialog[open]")) return;
  for (const element of document.querySelectorAll("[data-watch]")) ask(element);
}

/** The content did not come: fetch it again with the next answer. */
function forget(event) {
  const watch = watches.get(event.target.dataset?.watch);
  if (watch) watch.state = null;
}

document.addEventListener("htmx:responseError", forget);
document.addEventListener("htmx:sendError", forget);
setInterval(askAll, 1000 * CLOCK);
