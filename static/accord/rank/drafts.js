// Drafts of rankings that the server has not stored, so that a reload, a crash or a refusal loses nothing.

const MAX_DRAFTS = 50;

const draftsOf = (user) => `accord:drafts:${user}`;
const signalOf = (user) => `accord:signed-out:${user}`;
export const outboxOf = (user) => `accord:outbox:${user}`;

export class Drafts {
  #name;

  /** @param {Function} signedOut called when this person signs out in another tab */
  constructor(user, signedOut) {
    this.#name = draftsOf(user);
    addEventListener("storage", ({ key, newValue }) => {
      if (key === signalOf(user) && newValue) signedOut();
    });
  }

  #all() { return read(this.#name) ?? {}; }

  of(name) { return this.#all()[name] ?? null; }

  keep(name, draft) {
    const others = Object.entries(this.#all()).filter(([other]) => other !== name);
    const all = Object.fromEntries([...others, [name, draft]].slice(-MAX_DRAFTS));
    store(this.#name, all);
  }

  drop(name) {
    const all = this.#all();
    delete all[name];
    store(this.#name, all);
  }
}

function store(name, drafts) {
  if (Object.keys(drafts).length) localStorage.setItem(name, JSON.stringify(drafts));
  else localStorage.removeItem(name);
}

function read(name) {
  try {
    return JSON.parse(localStorage.getItem(name));
  } catch {
    return null;
  }
}

/**
 * Remove the drafts of a user who signs out, in all tabs. Submitted rankings that the server has not stored yet stay with
 * their drafts: the server may refuse them, and they are then corrected.
 * @param {(count: number) => boolean} isAgreed asks for consent if rankings are not stored yet
 * @returns {boolean} whether to sign out
 */
export function prepareSignOut(user, isAgreed) {
  const unsent = read(outboxOf(user)) ?? [];
  if (unsent.length && !isAgreed(unsent.length)) return false;
  const wanted = unsent.map(({ draft }) => draft);
  const drafts = Object.entries(read(draftsOf(user)) ?? {}).filter(([name]) => wanted.includes(name));
  store(draftsOf(user), Object.fromEntries(drafts));
  localStorage.setItem(signalOf(user), "yes");
  localStorage.removeItem(signalOf(user));
  return true;
}

/** Return the name of the draft of the form's comparison. */
export function draftName({ dataset: { comparison } }) {
  return `c${comparison}`;
}
