// Resampling to 16 kHz with a windowed sinc, so that all browsers agree with Python, whose resampler (soxr, quality HQ) has
// the same passband, stopband and length of the output. Chunks may have any size; the result does not depend on them.

const TARGET = 16000;
const PASSBAND = 0.91364; // of the lower Nyquist frequency, as soxr's; the stopband begins at that frequency
const ATTENUATION = 130; // dB

/** Return the modified Bessel function of the first kind of order 0. */
function bessel0(x) {
  let term = 1;
  let sum = 1;
  for (let k = 1; term > sum * 1e-17; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

const gcd = (a, b) => (b ? gcd(b, a % b) : a);

export class Resampler {
  /** @param {number} rate Hz of the input. */
  constructor(rate) {
    const divisor = gcd(rate, TARGET);
    this.rate = rate;
    this.up = TARGET / divisor;
    this.down = rate / divisor;
    const lower = Math.min(1, TARGET / rate);
    this.cutoff = ((1 + PASSBAND) / 2) * lower; // of the input's Nyquist frequency
    const transition = Math.PI * (1 - PASSBAND) * lower;
    this.half = Math.ceil((ATTENUATION - 7.95) / (2.285 * transition) / 2);
    this.beta = 0.1102 * (ATTENUATION - 8.7);
    this.filters = new Map();
    this.read = 0; // input samples so far
    this.written = 0; // output samples so far
    this.samples = new Float32Array(this.half); // silence before the first sample
    this.first = -this.half; // the input sample at which `samples` begins
    this.offset = null; // the first sample: the filter assumes zeros before it, so a DC offset would cause a click
  }

  /** Add samples, and return the samples at 16 kHz that they complete. */
  add(block) {
    if (this.rate === TARGET) return block;
    if (!block.length) return new Float32Array(0);
    this.offset ??= block[0];
    this.read += block.length;
    this.append(block, this.offset);
    const complete = Math.floor(((this.read - this.half) * this.up - 1) / this.down) + 1;
    return this.produce(Math.max(complete, this.written));
  }

  /** Return the remaining samples. */
  finish() {
    if (this.rate === TARGET || this.offset === null) return new Float32Array(0);
    this.append(new Float32Array(this.half + 1).fill(this.offset), this.offset);
    return this.produce(Math.floor((this.read * this.up) / this.down + 0.5));
  }

  append(block, offset) {
    const joined = new Float32Array(this.samples.length + block.length);
    joined.set(this.samples);
    for (let i = 0, j = this.samples.length; i < block.length; i++, j++) joined[j] = block[i] - offset;
    this.samples = joined;
  }

  produce(end) {
    const output = new Float32Array(end - this.written);
    for (let n = this.written; n < end; n++) {
      const position = n * this.down;
      const filter = this.filter(position % this.up);
      const start = Math.floor(position / this.up) - this.half + 1 - this.first;
      let sum = 0;
      for (let k = 0; k < filter.length; k++) sum += filter[k] * this.samples[start + k];
      output[n - this.written] = sum + this.offset;
    }
    this.written = end;
    const needed = Math.floor((end * this.down) / this.up) - this.half + 1;
    if (needed > this.first) {
      this.samples = this.samples.slice(needed - this.first);
      this.first = needed;
    }
    return output;
  }

  /** Return the coefficients for an output between two input samples, phase / up after the first of them. */
  filter(phase) {
    let filter = this.filters.get(phase);
    if (!filter) {
      filter = this.makeFilter(phase / this.up);
      this.filters.set(phase, filter);
    }
    return filter;
  }

  makeFilter(fraction) {
    const { half, cutoff, beta } = this;
    const filter = new Float64Array(2 * half);
    let sum = 0;
    for (let k = 0; k < filter.length; k++) {
      const time = k - half + 1 - fraction;
      const inside = Math.max(0, 1 - (time / half) ** 2);
      const angle = Math.PI * cutoff * time;
      filter[k] = (angle ? Math.sin(angle) / angle : 1) * bessel0(beta * Math.sqrt(inside));
      sum += filter[k];
    }
    return filter.map((value) => value / sum);
  }
}
