// The samples that are not cut yet, with the probability of speech of each frame (affekt/timeline/voice_track.py).

import { AudioError, SAMPLE_RATE, SHORTEST, SILENCE_RANGE, concatenate, range } from "../audio/samples.js";
import { FRAME, FRAME_SECONDS, SpeechRegions, VoiceActivity } from "./voice_activity.js";

const SMOOTHING = 3;
const DISCARDED = 1 << 14;
const STEP = 1 << 19;

export const round = (value, digits) => Number(value.toFixed(digits));
/** Return the number of frames that last at least this time. */
export const countFrames = (seconds) => Math.ceil(round(seconds / FRAME_SECONDS, 6));

export class VoiceTrack {
  constructor(detector) {
    this.activity = new VoiceActivity(detector);
    this.regions = new SpeechRegions();
    this.kept = new Float32Array(0);
    this.first = 0; // the first sample of `kept`
    this.probabilities = [];
    this.firstFrame = 0;
    this.closed = [];
  }

  get size() {
    return this.first + this.kept.length;
  }

  /** The number of frames whose voice activity is known. */
  get now() {
    return this.regions.frames;
  }

  /** Add samples, and call `step` for each frame that they complete, with the region that ends by it or null. */
  async add(block, step) {
    for (let start = 0; start < block.length; start += STEP) {
      const part = block.subarray(start, start + STEP);
      this.kept = concatenate([this.kept, part]);
      this.advance(await this.activity.add(part), step);
    }
  }

  /** Call `step` for the last, incomplete frame, and for the region that lasts to the end. */
  async finish(step) {
    this.advance(await this.activity.finish(), step);
    const region = this.regions.finish();
    if (region) {
      this.closed.push(region);
      step(region);
    }
  }

  advance(probabilities, step) {
    for (const probability of probabilities) {
      this.probabilities.push(probability);
      const region = this.regions.add(probability);
      if (region) this.closed.push(region);
      step(region);
    }
  }

  /** Forget what precedes a frame. */
  discard(frame) {
    if (frame > this.firstFrame) {
      this.probabilities.splice(0, frame - this.firstFrame);
      this.firstFrame = frame;
      this.closed = this.closed.filter((region) => region.end > frame);
    }
    const start = frame * FRAME - this.first;
    if (start >= DISCARDED) {
      this.kept = this.kept.slice(start);
      this.first += start;
    }
  }

  samples(start, end) {
    return this.kept.slice(start - this.first, Math.max(0, end - this.first));
  }

  /** Return the seconds of speech between two samples, as far as it is known. */
  countSpeech(start, end) {
    const regions = this.regions.open ? [...this.closed, this.regions.open] : this.closed;
    const [low, high] = [start / FRAME, end / FRAME];
    const frames = regions.reduce(
      (sum, region) => sum + Math.max(0, Math.min(region.end, high) - Math.max(region.start, low)),
      0,
    );
    return round(frames * FRAME_SECONDS, 6);
  }

  /** Return the frame from `start` to `end` at which speech is least probable, averaged over some frames. */
  leastSpeech(start, end) {
    const from = Math.max(0, start - 1 - this.firstFrame);
    const values = this.probabilities.slice(from, Math.max(from, end + 2 - this.firstFrame));
    let best = 0;
    let least = Infinity;
    for (let i = 0; i <= end - start && i + SMOOTHING <= values.length; i++) {
      const mean = values[i] / SMOOTHING + values[i + 1] / SMOOTHING + values[i + 2] / SMOOTHING;
      if (mean < least) [best, least] = [i, mean];
    }
    return start + best;
  }

  /** Return the piece between two samples; it has an error if it is shorter than `shortest` seconds. */
  piece(start, end, shortest = SHORTEST) {
    end = Math.min(end, this.size);
    const speech = this.countSpeech(start, end);
    if (end - start < shortest * SAMPLE_RATE) return { start, end, speech, error: tooShort(start, end, shortest) };
    const waveform = this.samples(start, end);
    return { start, end, speech, waveform, isSilent: range(waveform) < SILENCE_RANGE };
  }
}

function tooShort(start, end, shortest) {
  const [from, to, length] = [start, end, end - start].map((samples) => (samples / SAMPLE_RATE).toFixed(2));
  return new AudioError(
    "too_short",
    `the segment from ${from} to ${to} s lasts ${length} s; at least ${shortest} s are needed`,
  );
}
