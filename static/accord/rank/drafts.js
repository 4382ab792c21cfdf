// Ranks given and not yet submitted, so that a reload or a crash costs nothing.

const KEPT = 20;

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

  of(form) { return this.#all()[draftName(form)] ?? null; }

  keep(form, draft) {
    const others = Object.entries(this.#all()).filter(([name]) => name !== draftName(form));
    const all = Object.fromEntries([...others, [draftName(form), draft]].slice(-KEPT));
    localStorage.setItem(this.#name, JSON.stringify(all));
  }

  drop(form) {
    const all = this.#all();
    delete all[draftName(form)];
    localStorage.setItem(this.#name, JSON.stringify(all));
  }
}

function draftName(form) {
  const { comparison, ranking } = form.dataset;
  return ranking ? `r${ranking}` : `c${comparison}`;
}
