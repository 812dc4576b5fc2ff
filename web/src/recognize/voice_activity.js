// Voice activity detection: the probability of speech of each frame of 32 ms, and the regions of speech
// (affekt/inference/voice_activity.py).

import { SAMPLE_RATE, concatenate } from "../audio/samples.js";

export const FRAME = 512;
const CONTEXT = 64;
const MAX_FRAMES = 128;
export const FRAME_SECONDS = FRAME / SAMPLE_RATE;
const BEGIN = 0.5;
const END = 0.35;
const MIN_SILENCE = 0.1 / FRAME_SECONDS;
const MIN_SPEECH = 0.25 / FRAME_SECONDS;

export class VoiceActivity {
  /** @param detector A `Detector` (model.js). */
  constructor(detector) {
    this.detector = detector;
    this.samples = new Float32Array(CONTEXT);
    this.state = detector.initialState();
  }

  /** Return the probabilities of the frames that a block completes. */
  async add(block) {
    this.samples = concatenate([this.samples, block]);
    const count = Math.floor((this.samples.length - CONTEXT) / FRAME);
    const parts = [];
    for (let start = 0; start < count; start += MAX_FRAMES) {
      parts.push(await this.run(start, Math.min(MAX_FRAMES, count - start)));
    }
    this.samples = this.samples.slice(count * FRAME);
    return concatenate(parts);
  }

  /** Return the probability of the last, incomplete frame, if there is one. */
  async finish() {
    const rest = this.samples.length - CONTEXT;
    return rest ? this.add(new Float32Array(FRAME - rest)) : new Float32Array(0);
  }

  async run(first, count) {
    const size = CONTEXT + FRAME;
    const frames = new Float32Array(count * size);
    for (let i = 0; i < count; i++) {
      frames.set(this.samples.subarray((first + i) * FRAME, (first + i) * FRAME + size), i * size);
    }
    const [probabilities, state] = await this.detector.run(frames, count, this.state);
    this.state = state;
    return probabilities;
  }
}

/** The regions of speech of one waveform, whose probabilities are added frame by frame. */
export class SpeechRegions {
  constructor() {
    this.start = null;
    this.end = null; // where the region in progress ends, unless speech continues
    this.frames = 0;
  }

  /** Add a frame, and return the region that is thereby known to have ended, or null. */
  add(probability) {
    const frame = this.frames++;
    if (probability >= BEGIN) {
      this.start ??= frame;
      this.end = null;
    } else if (probability < END && this.start !== null) {
      this.end ??= frame;
      if (frame - this.end >= MIN_SILENCE) return this.close(this.end);
    }
    return null;
  }

  /** Return the region that lasts to the end of the waveform, or null. */
  finish() {
    return this.start === null ? null : this.close(this.frames);
  }

  close(end) {
    const region = { start: this.start, end };
    this.start = this.end = null;
    return end - region.start > MIN_SPEECH ? region : null;
  }

  /** The region in progress, which may still be too short, or null. */
  get open() {
    return this.start === null ? null : { start: this.start, end: this.end ?? this.frames };
  }

  /** Whether the region in progress is long enough to be speech. */
  get isConfirmed() {
    const region = this.open;
    return region !== null && region.end - region.start > MIN_SPEECH;
  }
}
