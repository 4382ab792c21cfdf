// What was said and is not yet stored by the server, so that a reload, a crash or a refusal costs nothing.

const KEPT = 50;

export class Drafts {
  #name;

  constructor(name) { this.#name = name; }

  #all() {
    try {
      return JSON.parse(localStorage.getItem(this.#name)) ?? {};
    } catch {
      return {};
    }
  }

  of(name) { return this.#all()[name] ?? null; }

  keep(name, draft) {
    const others = Object.entries(this.#all()).filter(([each]) => each !== name);
    const all = Object.fromEntries([...others, [name, draft]].slice(-KEPT));
    localStorage.setItem(this.#name, JSON.stringify(all));
  }

  drop(name) {
    const all = this.#all();
    delete all[name];
    localStorage.setItem(this.#name, JSON.stringify(all));
  }
}

/** Of a comparison, or of a ranking's correction: under this name what is said on the form is kept. */
export function draftName({ dataset: { comparison, ranking } }) {
  return ranking ? `r${ranking}` : `c${comparison}`;
}
