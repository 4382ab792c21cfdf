// The page where people rank. The next comparisons are fetched and leased while this one is read, so that Enter shows
// one at once, without a connection too; the submit goes out behind it, and is kept until the server has answered.

import { remember } from "./app.js";
import { setMathematics } from "./math.js";
import { Clock } from "./rank/clock.js";
import { isAsWritten, showTexts, toggleAsWritten } from "./rank/as_written.js";
import { toggleDifferences } from "./rank/differences.js";
import { makeDraggable } from "./rank/drag.js";
import { draftName, Drafts, outboxOf } from "./rank/drafts.js";
import { chooseStrength, extrasOf, restoreExtras, startRating, toggleFlag } from "./rank/extras.js";
import { foldLongOnes, toggleFolds } from "./rank/folding.js";
import { handleKeys } from "./rank/keys.js";
import { get, isSignedOut, Outbox, post } from "./rank/outbox.js";
import { CHOICES, Ranking } from "./rank/ranking.js";
import { Spans } from "./rank/spans.js";
import { openAtLastTurn } from "./rank/turns.js";
import { duration, number, say } from "./rank/words.js";
import { Writing } from "./rank/writing.js";

const page = document.getElementById("rank");
const stage = document.getElementById("stage");
const state = document.getElementById("state");
const urls = page.dataset;
const drafts = new Drafts(urls.user, leave);
const LOOK_AGAIN = 15_000; // ms, while there is nothing to rank
const UNREAD = 300; // ms, within which nobody has read a pair
const DONE_SHOWN = 6_000; // ms
const TRY_AGAIN = 3_000; // ms, while the next one cannot be fetched
const AHEAD = Number(urls.ahead); // comparisons to fetch ahead
const shortWindow = matchMedia("(max-height: 32rem)"); // as in app.css
const RENEW_EVERY = Math.min(60, 20 * urls.leaseMinutes) * 1000; // ms; a third of a short lease

let ranking = null; // what is on screen, or null
let spans = null; // what is marked in it
let clock = new Clock();
let shownAt = 0; // when it came on screen
let undrag = () => {};
let ahead = []; // forms of the next comparisons, in order
let fetching = null;
let parked = []; // forms left behind by undo, to come back to
const paces = [];

// ---- on screen ----

function clear(element) {
  writing.close();
  undrag();
  undrag = () => {};
  spans?.leave();
  ranking = spans = null;
  stage.replaceChildren(element);
  showTold();
}

function show(element) {
  clear(element);
  if (!element.matches("form.comparison")) return lookAgainLater();
  const draft = drafts.of(draftName(element));
  clock = new Clock(draft?.seconds ?? Number(element.dataset.seconds ?? 0));
  const keepDraft = () => drafts.keep(draftName(element), { ranks: ranking.byPlace, extras: said(), seconds: clock.seconds });
  ranking = new Ranking(element, keepDraft);
  const isBegun = draft !== null || element.querySelector(".chips :checked") !== null;
  if ("archived" in element.dataset && !isBegun) closeRanking(element);
  else spans = new Spans(element, document.getElementById("marker"), keepDraft);
  if (draft) {
    ranking.byPlace = draft.ranks;
    restoreExtras(element, draft.extras);
    spans.fields = draft.extras;
  }
  element.addEventListener("input", keepDraft);
  if (!ranking.isReadOnly) undrag = makeDraggable(ranking);
  openAtLastTurn(element);
  showTexts(element);
  foldLongOnes(ranking);
  setMathematics(element).then((isSet) => {
    if (!isSet || ranking?.form !== element) return;
    foldLongOnes(ranking);
    spans?.show();
  });
  // On a short window without the page's head: everything there is for reading.
  if (shortWindow.matches) element.scrollIntoView({ block: "start", behavior: "instant" });
  else scrollTo({ top: 0, behavior: "instant" });
  ranking.focus(ranking.missing[0] ?? ranking.cards[0]);
  shownAt = performance.now();
  fetchAhead();
}

/** In an archived project nothing new is ranked; what its person had begun is theirs to submit. */
function closeRanking(form) {
  ranking.close();
  form.classList.add("is-read-only");
  form.querySelector("[data-begun]").hidden = true;
  form.querySelector("[data-unbegun]").hidden = false;
}

const canRank = () => ranking !== null && !ranking.isReadOnly;

/** Everything said beside the ranks, as form fields. */
function said() {
  return [...extrasOf(ranking.form), ...spans.fields];
}

function parse(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content.firstElementChild;
}

// The server counts when the page is loaded; from then on each answer moves the two by one, so that a submit
// costs the same in a project of any size.
const counts = { today: Number(urls.today), remaining: Number(urls.remaining) };
function count(rankings, comparisons) {
  counts.today += rankings;
  counts.remaining = Math.max(0, counts.remaining - comparisons);
  showCounts();
}
function showCounts() {
  document.getElementById("today").textContent = number(counts.today);
  document.getElementById("remaining").textContent = number(counts.remaining) + (urls.more ? "+" : "");
}

let fading = null;
/**
 * Beside Submit, and aloud by the page's one live region: cards come and go.
 * @param {""|"done"|"warn"} kind what is done is told quietly and for a while; a warning stays
 */
function tell(sentence = "", kind = "") {
  state.textContent = sentence;
  state.dataset.kind = kind;
  showTold();
  clearTimeout(fading);
  if (kind === "done") fading = setTimeout(tell, DONE_SHOWN);
}

function showTold() {
  const told = stage.querySelector("[data-told]");
  if (!told) return;
  told.textContent = state.textContent;
  told.dataset.kind = state.dataset.kind;
}

function complain(html = "") {
  document.getElementById("notices").innerHTML = html; // the server's own _error.html
}

// ---- the next one ----

/** Leases of what the page shows, keeps and has not yet handed in: the server must not offer these again. */
function heldLeases() {
  const shown = [ranking?.form, ...ahead, ...parked].map((form) => form?.dataset.lease);
  return [...shown, ...outbox.items.map((item) => item.lease)].filter(Boolean);
}

const wantsMore = () => ahead.length + parked.length < AHEAD;

/** Keep what the server sent as one of the next comparisons. Whether it is one that the page did not have. */
function keepAhead(form) {
  if (!form?.matches("form.comparison") || heldLeases().includes(form.dataset.lease)) return false;
  ahead.push(form);
  setMathematics(form);
  return true;
}

/** One request after the other, until as many comparisons are here as the project wants. */
async function fetchAhead() {
  if (fetching || (ranking && !wantsMore())) return;
  if (outbox.items.length) return; // the answer to what is on its way brings the next one
  fetching = fetchNext();
  const found = await fetching;
  fetching = null;
  const isNew = keepAhead(found);
  if (!ranking && (isNew || found)) return showNext(found);
  if (!ranking) lookAgainLater(TRY_AGAIN);
  else if (isNew) fetchAhead();
}

async function fetchNext() {
  try {
    const query = new URLSearchParams(heldLeases().map((lease) => ["held", lease]));
    const response = await get(`${urls.next}?${query}`);
    if (isSignedOut(response)) tell(say("sign-in"), "warn");
    else if (response.ok) return parse(await response.text());
  } catch {
    // Without a connection: it is asked for again.
  }
  return null;
}

/** What comes after this one: what undo left behind, or what was fetched ahead, or a place to wait for it. */
function showNext(otherwise = null) {
  const next = parked.pop() ?? ahead.shift() ?? otherwise;
  if (next) return show(next);
  clear(parse(`<div class="empty" role="status" aria-busy="true"><p></p></div>`));
  stage.querySelector("p").textContent = say("loading");
  fetchAhead();
}

let looking = null;
function lookAgainLater(wait = LOOK_AGAIN) {
  clearTimeout(looking);
  looking = setTimeout(() => {
    if (ranking) return;
    if (document.hidden || outbox.items.length) lookAgainLater(wait);
    else fetchAhead();
  }, wait);
}

// ---- what goes out ----

let isWaiting = false; // for the connection, the server or a signature
const outbox = new Outbox(outboxOf(urls.user), {
  prepare: ({ project }) => [["want", !wantsMore() || fetching || project !== urls.project ? "0" : "1"], ...heldLeases().map((lease) => ["held", lease])],
  answered(item, html) {
    if (!item.isSkip) drafts.drop(item.draft); // of a skip it comes back with the comparison
    if (!isWaiting && item.project === urls.project && state.dataset.kind !== "warn") tell(say(item.isSkip ? "skipped" : "stored"), "done");
    if (item.project !== urls.project) return; // left behind when its page was closed
    if (item.counts) count(...item.counts);
    if (html.trim() && keepAhead(parse(html)) && !ranking) showNext();
  },
  refused(item, html, { status }) {
    complain(html);
    tell(say("not-stored"), "warn");
    if (status === 423) return; // archived: what was said is kept
    if (status !== 400) drafts.drop(item.draft); // it is not wanted any more
    else if (item.project === urls.project) startOver();
  },
  waiting(count, reason) {
    page.dataset.unsent = count;
    if (count) tell(say(reason, { count: number(count) }), "warn");
    else if (isWaiting) tell();
    isWaiting = count > 0;
    if (!count) fetchAhead();
  },
});
addEventListener("beforeunload", (event) => {
  if (!navigator.onLine && outbox.items.length) event.preventDefault();
});

/** What was said does not fit what the project asks now: the page's comparisons are asked for anew, this one first. */
function startOver() {
  ahead = [];
  parked = [];
  ranking = null; // what was said of it is kept as a draft
  showNext();
}

/** Its person has signed out in another tab: nothing more is said here in their name. */
function leave() {
  ahead = [];
  parked = [];
  clear(parse(`<div class="empty" role="status"><p></p></div>`));
  stage.querySelector("p").textContent = say("sign-in");
  lookAgainLater(); // the server hears of it only now
}

// Another tab of the same person has sent what is on screen here, or fetched ahead.
addEventListener("storage", ({ key }) => {
  if (key !== outbox.name) return;
  const isSent = (form) => outbox.items.some(({ draft }) => draft === draftName(form));
  ahead = ahead.filter((form) => !isSent(form));
  parked = parked.filter((form) => !isSent(form));
  if (!ranking || !isSent(ranking.form)) return;
  ranking = null;
  showNext();
  tell(say("elsewhere"), "warn");
});

function send(form, url, fields, counts, isSkip = false) {
  complain();
  page.querySelector(".coach")?.remove(); // no longer new here
  const key = form.elements.key.value;
  const all = [["lease", form.dataset.lease], ["key", key], ["seconds", clock.seconds.toFixed(2)], ...fields];
  outbox.add({ url, fields: all, key, project: urls.project, lease: form.dataset.lease, draft: draftName(form), counts, isSkip });
  page.dataset.unsent = outbox.items.length;
}

function submit() {
  if (!canRank() || isWriting()) return;
  if (!ranking.isComplete) {
    tell(ranking.whatIsMissing, "warn");
    return ranking.mark(ranking.missing[0]);
  }
  tell();
  const ranks = Object.entries(ranking.byPlace).map(([place, rank]) => [`rank-${place}`, String(rank)]);
  const { form } = ranking;
  if (!("withdrawn" in form.dataset)) showPace(clock.seconds);
  const sent = [form, form.getAttribute("action"), [...ranks, ...said()], [1, 1]];
  ranking = null; // its lease is no longer held by the page
  send(...sent);
  showNext();
}

/** One key for a pair: rank it and submit. Whether the key is one of those. */
function choose(key, isRepeated = false) {
  if (!canRank() || !ranking.form.matches("[data-one-key]") || !CHOICES[key]) return false;
  // A key that is held down, or pressed twice by mistake, says nothing of a pair that nobody has seen yet.
  if (isRepeated || performance.now() - shownAt < UNREAD) return true;
  ranking.cards.forEach((card, index) => ranking.rank(card, CHOICES[key][index]));
  submit();
  return true;
}

function showPace(seconds) {
  paces.push(seconds);
  const recent = paces.slice(-20);
  document.getElementById("pace").textContent = duration(recent.reduce((sum, each) => sum + each, 0) / recent.length);
}

function skip() {
  if (!canRank() || isWriting()) return;
  const dialog = document.getElementById("skip");
  dialog.querySelector("input").value = "";
  dialog.returnValue = "";
  dialog.showModal();
}

document.getElementById("skip").addEventListener("close", ({ target: dialog }) => {
  if (dialog.returnValue !== "skip" || !ranking) return;
  const { form } = ranking;
  const reason = dialog.querySelector("input").value;
  ranking.changed(ranking); // a draft, the time it took included, for undo
  ranking = null;
  send(form, urls.skip, [["reason", reason]], [0, 1], true);
  showNext();
});

const writing = new Writing(document.getElementById("write"), urls.demonstrate, drafts, { tell, complain });

/** Whether an answer is being written that would be out of sight: said, and nothing else is done. */
function isWriting() {
  if (!writing.isUnsaved) return false;
  tell(say("keep-first"), "warn");
  writing.focus();
  return true;
}

let undone = Promise.resolve();
/** As often as it was asked, one after the other. */
function undo() {
  if (isWriting()) return;
  undone = undone.catch(() => {}).then(undoLast);
}

async function undoLast() {
  await outbox.flush();
  if (outbox.items.length) return;
  const response = await post(urls.undo, []).catch(() => null);
  if (!response) return tell(say("undo-offline"), "warn");
  if (isSignedOut(response)) return tell(say("sign-in"), "warn");
  if (response.status === 404) return tell(say("nothing-to-undo"));
  const html = await response.text();
  if (!response.ok) return complain(html);
  if (ranking) parked.push(ranking.form);
  const form = parse(html);
  show(form);
  count("withdrawn" in form.dataset ? -1 : 0, -1);
  tell(say("undone"), "done");
}

// ---- while the page is open ----

/** Hidden or not, the page is open; on a break nobody knows for how long. */
async function renew() {
  for (const lease of heldLeases()) {
    if (onBreak.open) return;
    const response = await post(urls.renew, [["lease", lease]]).catch(() => null);
    if (response?.status === 404 || response?.status === 409) drop(lease);
  }
}
setInterval(renew, RENEW_EVERY);

/** The lease ran out and could not be had again. What is on screen may still be submitted, if it is still wanted. */
function drop(lease) {
  ahead = ahead.filter((form) => form.dataset.lease !== lease);
  parked = parked.filter((form) => form.dataset.lease !== lease);
  if (ranking?.lease === lease) tell(say("lost"), "warn");
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return clock.pause("hidden");
  clock.resume("hidden");
  renew(); // a computer that slept has missed some
});

const onBreak = document.getElementById("break");
function takeBreak() {
  clock.pause("break");
  onBreak.showModal();
}
onBreak.addEventListener("close", () => {
  clock.resume("break");
  renew();
});

// ---- keys and buttons ----

/** Which key shows the rendered text, where text can be marked; "" where that is shown. */
function cannotMark() {
  if (isAsWritten()) return say("not-as-written");
  return "differences" in ranking.form.dataset ? say("not-in-differences") : "";
}

const acts = {
  submit,
  choose: (key, event) => choose(key, event.repeat),
  skip,
  undo,
  guidelines: () => document.getElementById("guidelines").showModal(),
  help: () => document.getElementById("help").showModal(),
  break: takeBreak,
  layout: () => remember("layout", document.documentElement.dataset.layout === "list" ? "columns" : "list"),
  unfold: () => ranking && toggleFolds(ranking),
  write: () => canRank() && writing.open(ranking),
  comment: () => ranking?.form.elements.comment.focus(),
  rate: () => ranking && startRating(ranking.marked),
  markText: () => canRank() && tell(cannotMark() || spans.start(ranking.marked)),
  selection(event) {
    const handled = spans?.handle(event) ?? false;
    if (handled && event.key === "Escape") tell();
    return handled;
  },
  flag: (key) => ranking !== null && toggleFlag(ranking.form, key),
  strength: (point) => ranking !== null && chooseStrength(ranking.form, point),
  differences() {
    if (!ranking) return;
    tell(toggleDifferences(ranking) ? say("too-long-to-compare") : "");
    foldLongOnes(ranking);
  },
  asWritten: toggleAsWritten,
};
document.addEventListener("as-written", () => ranking && foldLongOnes(ranking));

page.addEventListener("click", (event) => {
  // Rated by hand: the digits go on ranking. (A key's click has no detail.)
  if (event.detail && event.target.closest(".rating")) ranking.focus(event.target.closest(".completion"));
  const { act, choice } = event.target.closest("[data-act]")?.dataset ?? {};
  if (!act) return;
  event.preventDefault();
  if (choice) choose(choice);
  else acts[act]();
});
page.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
handleKeys(acts, () => ranking);

const first = stage.firstElementChild;
if (outbox.items.some((item) => item.lease && item.lease === first.dataset.lease)) showNext();
else show(first);
showCounts();
outbox.flush();
page.dataset.ready = "true";
