// Time that a comparison was visible, without breaks and hidden tabs.

export class Clock {
  #before = 0;
  #since = null;
  #pauses = new Set();

  constructor(seconds = 0) {
    this.#before = seconds;
    this.#pauses = new Set(document.hidden ? ["hidden"] : []);
    this.#since = this.#pauses.size ? null : performance.now();
  }

  get seconds() {
    const running = this.#since === null ? 0 : (performance.now() - this.#since) / 1000;
    return this.#before + running;
  }

  pause(reason) {
    this.#before = this.seconds;
    this.#since = null;
    this.#pauses.add(reason);
  }

  resume(reason) {
    this.#pauses.delete(reason);
    if (!this.#pauses.size && this.#since === null) this.#since = performance.now();
  }
}
