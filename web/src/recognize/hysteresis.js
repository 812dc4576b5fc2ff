// The steady emotion of a track, which a single doubtful segment does not change (affekt/timeline/hysteresis.py).

const SECONDS = 1.0; // time constant of the average, in seconds of speech
const MARGIN = 0.2;
const RESET = 30.0; // seconds without speech after which the average begins anew

export class SteadyEmotion {
  constructor() {
    this.average = null;
    this.emotion = null;
    this.end = 0;
  }

  /** Add a segment, and return the steady emotion; null for a segment without an emotion. */
  add(row) {
    if (!row.probabilities) return null;
    if (row.start - this.end >= RESET) {
      this.average = null;
      this.emotion = null;
    }
    this.end = row.end;
    const keep = this.average ? Math.exp(-row.speech / SECONDS) : 0;
    this.average = Object.fromEntries(
      Object.entries(row.probabilities).map(([emotion, probability]) => [
        emotion,
        keep * (this.average?.[emotion] ?? 0) + (1 - keep) * probability,
      ]),
    );
    const best = mostProbable(this.average);
    if (this.emotion === null || this.average[best] > this.average[this.emotion] + MARGIN) this.emotion = best;
    return this.emotion;
  }
}

/** Return the emotion with the largest value. */
export function mostProbable(values) {
  return Object.keys(values).reduce((best, emotion) => (values[emotion] > values[best] ? emotion : best));
}
