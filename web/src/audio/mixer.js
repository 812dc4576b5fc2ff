// Mixing channels to their mean. Where the channels cancel each other, the loudest one is used (affekt/audio/mono.py).

import { SILENCE_RANGE, range } from "./samples.js";

const MAX_LOSS = 100; // ratio of powers, 20 dB
const LOUDER = 4; // ratio of powers, 6 dB
const SHORTEST_COMPARISON = 0.1; // seconds

/** Return the variance of samples, which ignores a DC offset. */
function variance(samples) {
  let sum = 0;
  for (const sample of samples) sum += sample;
  const mean = sum / samples.length;
  let squares = 0;
  for (const sample of samples) squares += (sample - mean) ** 2;
  return squares / samples.length;
}

export class Mixer {
  constructor(rate) {
    this.rate = rate;
    this.channel = null;
    this.compared = false;
  }

  /** Mix channels, arrays of equal length, to one. */
  mix(planes) {
    if (planes.length === 1) return planes[0];
    const mean = new Float32Array(planes[0].length);
    for (const plane of planes) for (let i = 0; i < mean.length; i++) mean[i] += plane[i];
    for (let i = 0; i < mean.length; i++) mean[i] /= planes.length;
    if (mean.length >= SHORTEST_COMPARISON * this.rate || !this.compared) {
      this.channel = this.choose(planes, mean);
      this.compared = true;
    }
    return this.channel === null || this.channel >= planes.length ? mean : planes[this.channel];
  }

  /** Return the channel to use instead of the mean, or null. */
  choose(planes, mean) {
    const powers = planes.map(variance);
    const loudest = powers.indexOf(Math.max(...powers));
    if (powers[loudest] <= MAX_LOSS * variance(mean) || range(planes[loudest]) < SILENCE_RANGE) return null;
    const used = this.channel;
    const keep = used !== null && used < powers.length && powers[loudest] < LOUDER * powers[used];
    return keep ? used : loudest;
  }
}
