// Submitted rankings that the server has not confirmed. They are kept through reloads and lost connections, and sent
// again with the same idempotency key until the server answers: it stores one ranking per key.

const FIRST_WAIT = 1_000;
const MAX_WAIT = 30_000;

export class Outbox {
  #wait = FIRST_WAIT;
  #timer = null;
  #sending = null;

  /**
   * @param {string} name the storage's key
   * @param {{prepare: Function, answered: Function, refused: Function, waiting: Function}} listener
   *   prepare(item) returns more form fields when the item is sent.
   */
  constructor(name, listener) {
    this.name = name;
    this.listener = listener;
    addEventListener("online", () => this.flush());
  }

  get items() {
    try {
      return JSON.parse(localStorage.getItem(this.name)) ?? [];
    } catch {
      return [];
    }
  }

  #keep(items) { localStorage.setItem(this.name, JSON.stringify(items)); }

  /** @param {{url: string, fields: [string, string][], key: string}} item */
  add(item) {
    this.#keep([...this.items, item]);
    return this.flush();
  }

  /** Send all items in order. The lock makes tabs take turns. Resolves when the outbox is empty or a wait begins. */
  flush() {
    clearTimeout(this.#timer);
    this.#sending ??= navigator.locks.request(this.name, () => this.#sendAll()).finally(() => { this.#sending = null; });
    return this.#sending;
  }

  async #sendAll() {
    for (let item; (item = this.items[0]); ) {
      const outcome = await this.#send(item);
      if (outcome === "kept") return;
      this.#keep(this.items.filter(({ key }) => key !== item.key));
      this.#wait = FIRST_WAIT;
    }
    this.listener.waiting(0);
  }

  async #send(item) {
    let response;
    try {
      response = await post(item.url, [...item.fields, ...this.listener.prepare(item)]);
    } catch {
      return this.#later("offline");
    }
    if (isSignedOut(response)) return this.#later("signed-out");
    if (response.status >= 500 || response.status === 429 || response.status === 408) return this.#later("server");
    const html = await response.text();
    if (response.ok) this.listener.answered(item, html, response);
    else this.listener.refused(item, html, response);
    return "sent";
  }

  #later(reason) {
    this.listener.waiting(this.items.length, reason);
    this.#timer = setTimeout(() => this.flush(), this.#wait);
    this.#wait = Math.min(this.#wait * 2, MAX_WAIT);
    return "kept";
  }
}

/** The htmx header asks for a fragment. Accord-User lets the server refuse if another user has signed in since. */
const user = document.querySelector("[data-user]")?.dataset.user;
const asked = { "HX-Request": "true", ...(user && { "Accord-User": user }) };

/** Return whether the response means that the user must sign in first. */
export function isSignedOut(response) {
  return response.redirected || response.status === 401 || response.status === 403;
}

/** POST a form's fields. */
export function post(url, fields) {
  const token = document.cookie.match(/(?:^|; )csrftoken=([^;]+)/)?.[1] ?? "";
  return fetch(url, {
    method: "POST",
    body: new URLSearchParams(fields),
    headers: { ...asked, "X-CSRFToken": token },
  });
}

export function get(url) {
  return fetch(url, { headers: asked });
}
