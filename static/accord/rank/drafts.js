// What was said and is not yet stored by the server, so that a reload, a crash or a refusal costs nothing.

const KEPT = 50;

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
    const others = Object.entries(this.#all()).filter(([each]) => each !== name);
    const all = Object.fromEntries([...others, [name, draft]].slice(-KEPT));
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
 * Remove what a person who signs out has said and not submitted, in all tabs. What is submitted and not yet stored by
 * the server stays, with its drafts: it may be refused, and is then corrected.
 * @param {(count: number) => boolean} isAgreed asked when something is not yet stored
 * @returns {boolean} whether to sign out
 */
export function leaveBehind(user, isAgreed) {
  const unsent = read(outboxOf(user)) ?? [];
  if (unsent.length && !isAgreed(unsent.length)) return false;
  const wanted = unsent.map(({ draft }) => draft);
  const drafts = Object.entries(read(draftsOf(user)) ?? {}).filter(([name]) => wanted.includes(name));
  store(draftsOf(user), Object.fromEntries(drafts));
  localStorage.setItem(signalOf(user), "yes");
  localStorage.removeItem(signalOf(user));
  return true;
}

/** Under this name what is said of the form's comparison is kept. */
export function draftName({ dataset: { comparison } }) {
  return `c${comparison}`;
}
