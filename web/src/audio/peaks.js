// The outline of a waveform for its picture, in bounded memory: the largest absolute value of each stretch.

const MOST = 4096; // peaks; beyond that, pairs are joined

export class Peaks {
  constructor() {
    this.size = 64; // samples of a stretch
    this.values = [];
    this.current = 0;
    this.count = 0;
  }

  add(samples) {
    for (const sample of samples) {
      this.current = Math.max(this.current, Math.abs(sample));
      if (++this.count === this.size) this.close();
    }
  }

  close() {
    this.values.push(this.current);
    this.current = this.count = 0;
    if (this.values.length < 2 * MOST) return;
    this.values = Array.from({ length: MOST }, (_, i) => Math.max(this.values[2 * i], this.values[2 * i + 1]));
    this.size *= 2;
  }

  finish() {
    if (this.count) this.close();
    return Float32Array.from(this.values);
  }
}
