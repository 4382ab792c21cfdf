// The values of one metric of one round, thinned by the server, with new steps added while the round runs.

export class Series {
  constructor({ steps = [], values = [], means = [] } = {}) {
    this.steps = steps;
    this.values = values;
    this.means = means; // [step, mean, count] of columns of steps; empty if every value is in `values`
  }

  get last() {
    return this.values.at(-1) ?? null;
  }

  add(step, value) {
    while (this.steps.length && this.steps.at(-1) >= step) this.dropLast(); // a resumed program repeats steps
    this.steps.push(step);
    this.values.push(value);
    if (this.means.length) this.means.push([step, value, 1]);
  }

  dropLast() {
    const step = this.steps.pop();
    this.values.pop();
    while (this.means.length && this.means.at(-1)[0] >= step) this.means.pop();
  }

  /** Return the value at a step, or else the last one before it; null before the first. */
  at(step) {
    let low = 0, high = this.steps.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.steps[middle] <= step) low = middle + 1;
      else high = middle;
    }
    return low ? this.values[low - 1] : null;
  }

  /** Return [steps, means] with weights that fall by the factor e in `constant` steps. Every step counts once. */
  smoothed(constant) {
    const steps = [], means = [];
    let sum = 0, weight = 0;
    for (const [step, mean, count] of this.means.length ? this.means : this.steps.map((step, n) => [step, this.values[n], 1])) {
      const decay = steps.length ? Math.exp((steps.at(-1) - step) / constant) : 0;
      sum = sum * decay + mean * count;
      weight = weight * decay + count;
      steps.push(step);
      means.push(sum / weight);
    }
    return [steps, means];
  }
}
