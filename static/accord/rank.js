// The ranking page. The next comparisons are leased and fetched while the current one is read, so that Enter shows one
// at once, even without a connection. The submit is sent in the background and kept until the server has answered.

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
const POLL_INTERVAL = 15_000; // ms, while there is nothing to rank
const MIN_READING_TIME = 300; // ms; nobody can read a pair faster
const MESSAGE_DURATION = 6_000; // ms
const RETRY_INTERVAL = 3_000; // ms, while the next comparison cannot be fetched
const AHEAD = Number(urls.ahead); // comparisons to fetch ahead
const shortWindow = matchMedia("(max-height: 32rem)"); // as in app.css
const RENEW_INTERVAL = Math.min(60, 20 * urls.leaseMinutes) * 1000; // ms; a third of a short lease

let ranking = null; // of the comparison on screen, or null
let spans = null; // marked text in it
let clock = new Clock();
let shownAt = 0; // when it came on screen
let stopDragging = () => {};
let ahead = []; // forms of the next comparisons, in order
let fetching = null;
let generation = 0; // of the project's settings: comparisons asked for under earlier ones are dropped
let parked = []; // forms left behind by undo, to come back to
const paces = [];

// ---- on screen ----

function clear(element) {
  writing.close();
  stopDragging();
  stopDragging = () => {};
  spans?.leave();
  ranking = spans = null;
  stage.replaceChildren(element);
  copyState();
}

function show(element) {
  clear(element);
  if (!element.matches("form.comparison")) return pollLater();
  const draft = drafts.of(draftName(element));
  clock = new Clock(draft?.seconds ?? Number(element.dataset.seconds ?? 0));
  const keepDraft = () => drafts.keep(draftName(element), { ranks: ranking.byPlace, extras: details(), seconds: clock.seconds });
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
  if (!ranking.isReadOnly) stopDragging = makeDraggable(ranking);
  openAtLastTurn(element);
  showTexts(element);
  foldLongOnes(ranking);
  setMathematics(element).then((isSet) => {
    if (!isSet || ranking?.form !== element) return;
    foldLongOnes(ranking);
    spans?.show();
  });
  // On a short window, scroll past the page's head: the whole height is for reading.
  if (shortWindow.matches) element.scrollIntoView({ block: "start", behavior: "instant" });
  else scrollTo({ top: 0, behavior: "instant" });
  ranking.focus(ranking.missing[0] ?? ranking.cards[0]);
  shownAt = performance.now();
  fetchAhead();
}

/** In an archived project only a ranking that was begun before can be submitted. */
function closeRanking(form) {
  ranking.close();
  form.classList.add("is-read-only");
  form.querySelector("[data-begun]").hidden = true;
  form.querySelector("[data-unbegun]").hidden = false;
}

const canRank = () => ranking !== null && !ranking.isReadOnly;

/** Return the ranking details as form fields. */
function details() {
  return [...extrasOf(ranking.form), ...spans.fields];
}

function parse(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content.firstElementChild;
}

// The server counts once, when the page is loaded; afterwards the page counts itself. So a submit costs the same in a
// project of any size.
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
 * Show a message beside Submit and in the live region. The region is outside the cards, since screen readers ignore
 * regions that have just been inserted.
 * @param {""|"done"|"warn"} kind "done" disappears after a while, "warn" stays
 */
function showMessage(sentence = "", kind = "") {
  state.textContent = sentence;
  state.dataset.kind = kind;
  copyState();
  clearTimeout(fading);
  if (kind === "done") fading = setTimeout(showMessage, MESSAGE_DURATION);
}

function copyState() {
  const submitState = stage.querySelector("[data-submit-state]");
  if (!submitState) return;
  submitState.textContent = state.textContent;
  submitState.dataset.kind = state.dataset.kind;
}

function showError(html = "") {
  document.getElementById("notices").innerHTML = html; // the server's own _error.html
}

// ---- the next comparison ----

/** Return the leases that the page holds or has not submitted yet: the server must not offer them again. */
function heldLeases() {
  const onPage = [ranking?.form, ...ahead, ...parked].map((form) => form?.dataset.lease);
  return [...onPage, ...outbox.items.map((item) => item.lease)].filter(Boolean);
}

const wantsMore = () => ahead.length + parked.length < AHEAD;

/** Keep a comparison from the server to show later; return whether it is new to the page. */
function keepAhead(form) {
  if (!form?.matches("form.comparison") || heldLeases().includes(form.dataset.lease)) return false;
  ahead.push(form);
  setMathematics(form);
  return true;
}

/** Fetch comparisons, one request at a time, until the page has as many as the project's setting says. */
async function fetchAhead() {
  if (fetching || (ranking && !wantsMore())) return;
  if (outbox.items.length) return; // the response to the pending submit contains the next comparison
  const askedIn = generation;
  fetching = fetchNext();
  const form = await fetching;
  fetching = null;
  if (askedIn !== generation) return fetchAhead();
  const isNew = keepAhead(form);
  if (!ranking && (isNew || form)) return showNext(form);
  if (!ranking) pollLater(RETRY_INTERVAL);
  else if (isNew) fetchAhead();
}

async function fetchNext() {
  try {
    const query = new URLSearchParams(heldLeases().map((lease) => ["held", lease]));
    const response = await get(`${urls.next}?${query}`);
    if (isSignedOut(response)) showMessage(say("sign-in"), "warn");
    else if (response.ok) return parse(await response.text());
  } catch {
    // No connection: the caller tries again.
  }
  return null;
}

/** Show the next comparison: one that undo put aside, one fetched ahead, or a placeholder while it is fetched. */
function showNext(otherwise = null) {
  const next = parked.pop() ?? ahead.shift() ?? otherwise;
  if (next) return show(next);
  clear(parse(`<div class="empty" role="status" aria-busy="true"><p></p></div>`));
  stage.querySelector("p").textContent = say("loading");
  fetchAhead();
}

let polling = null;
function pollLater(wait = POLL_INTERVAL) {
  clearTimeout(polling);
  polling = setTimeout(() => {
    if (ranking) return;
    if (document.hidden || outbox.items.length) pollLater(wait);
    else fetchAhead();
  }, wait);
}

// ---- outbox ----

let isWaiting = false; // for the connection, the server or a sign-in
const outbox = new Outbox(outboxOf(urls.user), {
  prepare: ({ project }) => [["want", !wantsMore() || fetching || project !== urls.project ? "0" : "1"], ...heldLeases().map((lease) => ["held", lease])],
  answered(item, html) {
    if (item.isAnswer) {
      writing.stored(item.draft, Object.fromEntries(item.fields).text);
      if (!isWaiting && item.project === urls.project) showMessage(say("thanks"), "done");
      return;
    }
    if (!item.isSkip) drafts.drop(item.draft); // undoing a skip restores its draft
    // Keep a message that was shown since, such as why a key did nothing.
    const isFree = !isWaiting && (state.dataset.kind === "done" || !state.textContent);
    if (isFree && item.project === urls.project) showMessage(say(item.isSkip ? "skipped" : "stored"), "done");
    if (item.project !== urls.project) return; // sent from a page of another project, which was closed before
    if (item.counts) count(...item.counts);
    if (html.trim() && keepAhead(parse(html)) && !ranking) showNext();
  },
  refused(item, html, { status }) {
    showError(html);
    showMessage(say("not-stored"), "warn");
    if (status === 423 || item.isAnswer) return; // archived, or an answer: the draft is kept
    if (status !== 400) drafts.drop(item.draft); // no ranking is needed any more
    else if (item.project === urls.project) startOver();
  },
  waiting(count, reason) {
    page.dataset.unsent = count;
    if (count) showMessage(say(reason, { count: number(count) }), "warn");
    else if (isWaiting) showMessage();
    isWaiting = count > 0;
    if (!count) fetchAhead();
  },
});
addEventListener("beforeunload", (event) => {
  if (!navigator.onLine && outbox.items.length) event.preventDefault();
});

/** After a change of the project's settings: drop all comparisons and fetch them again, this one first. */
function startOver() {
  generation += 1;
  ahead = [];
  parked = [];
  ranking = null; // its draft is kept
  showNext();
}

/** The user has signed out in another tab: nothing more may be submitted in their name. */
function leave() {
  ahead = [];
  parked = [];
  clear(parse(`<div class="empty" role="status"><p></p></div>`));
  stage.querySelector("p").textContent = say("sign-in");
  pollLater(); // the request to sign out reaches the server only now
}

// Another tab of the same user has submitted a comparison that this page shows or has fetched ahead.
addEventListener("storage", ({ key }) => {
  if (key !== outbox.name) return;
  const isSent = (form) => outbox.items.some(({ draft }) => draft === draftName(form));
  ahead = ahead.filter((form) => !isSent(form));
  parked = parked.filter((form) => !isSent(form));
  if (!ranking || !isSent(ranking.form)) return;
  ranking = null;
  showNext();
  showMessage(say("elsewhere"), "warn");
});

function send(form, url, fields, counts, isSkip = false) {
  showError();
  page.querySelector(".coach")?.remove(); // no longer new here
  const key = form.elements.key.value;
  const all = [["lease", form.dataset.lease], ["key", key], ["seconds", clock.seconds.toFixed(2)], ...fields];
  outbox.add({ url, fields: all, key, project: urls.project, lease: form.dataset.lease, draft: draftName(form), counts, isSkip });
  page.dataset.unsent = outbox.items.length;
}

function submit() {
  if (!canRank() || isWriting()) return;
  if (!ranking.isComplete) {
    showMessage(ranking.whatIsMissing, "warn");
    return ranking.select(ranking.missing[0]);
  }
  showMessage();
  const ranks = Object.entries(ranking.byPlace).map(([place, rank]) => [`rank-${place}`, String(rank)]);
  const { form } = ranking;
  if (!("withdrawn" in form.dataset)) showPace(clock.seconds);
  const sent = [form, form.getAttribute("action"), [...ranks, ...details()], [1, 1]];
  ranking = null; // its lease is no longer held by the page
  send(...sent);
  showNext();
}

/** Rank a pair by one key and submit; return whether the key is one of those. */
function choose(key, isRepeated = false) {
  if (!canRank() || !ranking.form.matches("[data-one-key]") || !CHOICES[key]) return false;
  // Ignore a key that is held down or pressed twice by mistake: it would rank a pair that nobody has read.
  if (isRepeated || performance.now() - shownAt < MIN_READING_TIME) return true;
  ranking.cards.forEach((card, index) => ranking.rank(card, CHOICES[key][index]));
  submit();
  return true;
}

function showPace(seconds) {
  paces.push(seconds);
  const recent = paces.slice(-20);
  const pace = document.getElementById("pace");
  pace.textContent = duration(recent.reduce((sum, one) => sum + one, 0) / recent.length);
  pace.parentElement.hidden = false;
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

const writing = new Writing(document.getElementById("write"), drafts, (draft, fields) => {
  showError();
  outbox.add({ url: urls.demonstrate, fields, key: `${draft}:${Date.now()}`, project: urls.project, draft, isAnswer: true });
  page.dataset.unsent = outbox.items.length;
});

/** Return whether the writing panel has unsaved text; if so, focus it and warn. */
function isWriting() {
  if (!writing.isUnsaved) return false;
  showMessage(say("keep-first"), "warn");
  writing.focus();
  return true;
}

let undone = Promise.resolve();
/** Queue one undo per key press; they run one after the other. */
function undo() {
  if (isWriting()) return;
  undone = undone.catch(() => {}).then(undoLast);
}

async function undoLast() {
  await outbox.flush();
  if (outbox.items.length) return;
  const response = await post(urls.undo, []).catch(() => null);
  if (!response) return showMessage(say("undo-offline"), "warn");
  if (isSignedOut(response)) return showMessage(say("sign-in"), "warn");
  if (response.status === 404) return showMessage(say("nothing-to-undo"));
  if (response.headers.get("Content-Type")?.startsWith("application/json")) return reopenAnswer(await response.json());
  const html = await response.text();
  if (!response.ok) return showError(html);
  if (ranking) parked.push(ranking.form);
  const form = parse(html);
  show(form);
  count("withdrawn" in form.dataset ? -1 : 0, -1);
  showMessage(say("undone"), "done");
}

/** An answer was undone: keep it as a draft, and show it if its comparison is on screen. */
function reopenAnswer(answer) {
  writing.restore(answer);
  if (ranking?.form.dataset.comparison === String(answer.comparison)) writing.open(ranking);
  showMessage(say("answer-undone"), "done");
}

// ---- while the page is open ----

/** Renew the leases while the page is open, hidden or not, but not during a break, whose length nobody knows. */
async function renew() {
  for (const lease of heldLeases()) {
    if (onBreak.open) return;
    const response = await post(urls.renew, [["lease", lease]]).catch(() => null);
    if (response?.status === 404 || response?.status === 409) drop(lease);
  }
}
setInterval(renew, RENEW_INTERVAL);

/** Forget a lease that ran out. The comparison on screen can still be submitted if a ranking is still needed. */
function drop(lease) {
  ahead = ahead.filter((form) => form.dataset.lease !== lease);
  parked = parked.filter((form) => form.dataset.lease !== lease);
  if (ranking?.lease === lease) showMessage(say("lost"), "warn");
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

/** Return why text cannot be marked now, or "". Text can be marked only in the rendered view. */
function cannotMark() {
  if (isAsWritten()) return say("not-as-written");
  return "differences" in ranking.form.dataset ? say("not-in-differences") : "";
}

const actions = {
  submit,
  choose: (key, event) => choose(key, event.repeat),
  skip,
  undo,
  guidelines: () => document.getElementById("guidelines").showModal(),
  help: () => document.getElementById("help").showModal(),
  break: takeBreak,
  layout: () => remember("layout", document.documentElement.dataset.layout === "list" ? "columns" : "list"),
  unfold: () => ranking && toggleFolds(ranking),
  write: (event) => canRank() && writing.open(ranking, event?.shiftKey),
  comment: () => ranking?.form.elements.comment.focus(),
  rate: () => ranking && startRating(ranking.current),
  markText: () => canRank() && showMessage(cannotMark() || spans.start(ranking.current)),
  selection(event) {
    const handled = spans?.handle(event) ?? false;
    if (handled && event.key === "Escape") showMessage();
    return handled;
  },
  flag: (key) => ranking !== null && toggleFlag(ranking.form, key),
  strength: (point) => ranking !== null && chooseStrength(ranking.form, point),
  differences() {
    if (!ranking) return;
    showMessage(toggleDifferences(ranking) ? say("too-long-to-compare") : "");
    foldLongOnes(ranking);
  },
  asWritten: toggleAsWritten,
};
document.addEventListener("as-written", () => ranking && foldLongOnes(ranking));

page.addEventListener("click", (event) => {
  // After a rating by mouse, digits rank again. A click caused by a key has detail 0.
  if (event.detail && event.target.closest(".rating")) ranking.focus(event.target.closest(".completion"));
  const { act, choice } = event.target.closest("[data-act]")?.dataset ?? {};
  if (!act) return;
  event.preventDefault();
  if (choice) choose(choice);
  else actions[act]();
});
page.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
handleKeys(actions, () => ranking);

const first = stage.firstElementChild;
if (outbox.items.some((item) => item.lease && item.lease === first.dataset.lease)) showNext();
else show(first);
showCounts();
outbox.flush();
page.dataset.ready = "true";
