// Segments of speech: regions joined across short pauses and cut where they are long, and the stretches between them
// (affekt/timeline/speech_segments.py, with its defaults).

import { SHORTEST, SILENCE_RANGE } from "../audio/samples.js";
import { FRAME, FRAME_SECONDS } from "./voice_activity.js";
import { VoiceTrack, countFrames } from "./voice_track.js";

const MIN_SPEECH = 1.0;
const MAX_LENGTH = 6.0;
const MAX_PAUSE = 0.5;
const MAX_WAIT = 1.5;
const SHORTEST_SEGMENT = 0.5;
const PADDING = 3; // frames before and after the speech of a segment
const MIN_STRETCH = 10; // frames; a shorter stretch at the start or end belongs to the segment beside it
const FORGETTING = 32; // frames without speech that are forgotten at a time
export const DESCRIPTION = `speech segments of ${MIN_SPEECH} to ${MAX_LENGTH} s`;

const MIN = countFrames(MIN_SPEECH);
const MAX = Math.floor(MAX_LENGTH / FRAME_SECONDS) - 2 * PADDING;
const PAUSE = countFrames(MAX_PAUSE);
const WAIT = countFrames(MAX_WAIT);

/** The range of the samples of a stretch without speech, of which nothing else is kept. */
class Stretch {
  constructor(known = 0) {
    this.known = known;
    this.low = Infinity;
    this.high = -Infinity;
  }

  add(samples, known = 0) {
    for (const sample of samples) {
      if (sample < this.low) this.low = sample;
      if (sample > this.high) this.high = sample;
    }
    this.known = known;
  }

  get isSilent() {
    return this.high - this.low < SILENCE_RANGE;
  }
}

export class SpeechSegmenter {
  constructor(detector) {
    this.track = new VoiceTrack(detector);
    this.done = 0; // the frame up to which pieces are returned
    this.start = null; // the frame at which the segment begins that is being built
    this.end = 0; // the frame at which the last finished region of that segment ends
    this.followsCut = false;
    this.stretch = new Stretch();
    this.pieces = [];
  }

  /** Add samples, and return the pieces that they complete. */
  async add(block) {
    await this.track.add(block, (region) => this.step(region));
    return this.takePieces();
  }

  /** Return the remaining pieces. */
  async finish() {
    await this.track.finish((region) => this.step(region));
    if (this.start !== null) this.close(true);
    const end = this.track.size;
    if (this.done * FRAME < end) {
      this.stretch.add(this.track.samples(this.stretch.known * FRAME, end));
      this.pieces.push(this.silentPiece(end));
    }
    return this.takePieces();
  }

  /** Return the segment that has begun, as far as it is known; null without one. */
  current() {
    const { track } = this;
    const { open, isConfirmed } = track.regions;
    const start = this.start ?? (isConfirmed && open ? open.start : null);
    if (start === null) return null;
    const end = open ? track.now : Math.min(track.now, this.end + PADDING);
    return track.piece(this.padded(start) * FRAME, end * FRAME, SHORTEST);
  }

  takePieces() {
    const pieces = this.pieces;
    this.pieces = [];
    return pieces;
  }

  /** Consider the frame that the track has just reached. */
  step(region) {
    const { track } = this;
    if (region) {
      this.start ??= region.start;
      this.end = region.end;
    }
    const begun = track.regions.open;
    const start = this.start ?? (begun && track.regions.isConfirmed ? begun.start : null);
    if (start === null) {
      this.forget(begun ? begun.start : track.now);
      return;
    }
    if (this.padded(start) > this.done) this.stretchBefore(this.padded(start));
    if (!begun && this.start !== null && track.now - this.end > this.limit()) {
      this.close(false);
    } else if (begun && track.now - start > MAX) {
      this.cut(start, track.leastSpeech(start + Math.floor(MAX / 3), start + MAX - MIN));
    }
  }

  /** Add the segment that ends at a frame at which another one begins. */
  cut(start, end) {
    this.take(this.padded(start), end);
    this.start = end;
    this.end = Math.max(end, this.end);
    this.followsCut = true;
  }

  /** Return the longest pause, in frames, after which the next region still belongs to the segment. */
  limit() {
    return this.track.countSpeech(this.start * FRAME, this.end * FRAME) >= MIN_SPEECH ? PAUSE : WAIT;
  }

  /** Return the frame at which a segment's audio begins, given that at which its speech begins. */
  padded(start) {
    if (this.followsCut) return start;
    const first = Math.max(this.done, start - PADDING);
    return this.done === 0 && first < MIN_STRETCH ? 0 : first;
  }

  /** Add the segment that has ended; `isLast` if the waveform ends too. */
  close(isLast) {
    const { track } = this;
    const start = this.padded(this.start);
    let end = this.end + PADDING;
    const hasSpeech = track.countSpeech(this.start * FRAME, this.end * FRAME) > 0;
    if (isLast && track.now - end < MIN_STRETCH) end = track.now;
    this.start = null;
    this.followsCut = false;
    if (hasSpeech) this.take(start, Math.min(end, track.now)); // after a cut, the rest may be too short to be speech
  }

  take(start, end) {
    this.pieces.push(this.track.piece(start * FRAME, end * FRAME, SHORTEST_SEGMENT));
    this.done = end;
    this.stretch = new Stretch(end);
    this.track.discard(end);
  }

  /** Keep of the samples without speech only their range, up to those that may belong to a segment at this frame. */
  forget(frame) {
    const known = frame - PADDING - MIN_STRETCH;
    if (known >= this.stretch.known + FORGETTING) {
      this.stretch.add(this.track.samples(this.stretch.known * FRAME, known * FRAME), known);
      this.track.discard(known);
    }
  }

  /** Add the stretch without speech that ends at a frame. */
  stretchBefore(frame) {
    if (frame > this.stretch.known) {
      this.stretch.add(this.track.samples(this.stretch.known * FRAME, frame * FRAME), frame);
    }
    this.pieces.push(this.silentPiece(frame * FRAME));
    this.done = frame;
    this.track.discard(frame);
  }

  silentPiece(end) {
    return { start: this.done * FRAME, end, speech: 0, isSilent: this.stretch.isSilent };
  }
}
