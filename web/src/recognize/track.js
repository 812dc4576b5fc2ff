// From the samples of one channel to the rows of its segments (affekt/timeline/track.py), and of a whole clip.

import { AudioError, SAMPLE_RATE, SHORTEST, SILENCE_RANGE, range } from "../audio/samples.js";
import { SteadyEmotion, mostProbable } from "./hysteresis.js";
import { SpeechSegmenter } from "./speech_segments.js";
import { round } from "./voice_track.js";

const MIN_SPEECH = 0.1; // seconds of speech below which a segment has none
export const LONGEST = 8 * SAMPLE_RATE; // samples of a recording that is recognized as a whole

/** Return a row (affekt/inference/row.py). */
function makeRow(model, file, start, end, { values = null, status = "silence", error = null } = {}) {
  const probabilities = values
    ? Object.fromEntries(model.settings.emotions.map((emotion, i) => [emotion, round(values[i], 6)]))
    : null;
  return {
    schema: 1,
    file,
    start: round(start / SAMPLE_RATE, 4),
    end: round(end / SAMPLE_RATE, 4),
    duration: round((end - start) / SAMPLE_RATE, 4),
    status: error ? "error" : probabilities ? "ok" : status,
    emotion: probabilities && mostProbable(probabilities),
    probabilities,
    model: model.settings.model,
    error: error && { code: error.code, message: error.message },
  };
}

/** Return the row of a recording of at most 8 s, recognized as a whole: that of `affekt recognize`. */
export async function recognizeClip(model, waveform, file) {
  if (waveform.length < SHORTEST * SAMPLE_RATE) {
    throw new AudioError("too_short", `The recording is shorter than ${SHORTEST} s.`);
  }
  if (range(waveform) < SILENCE_RANGE) return makeRow(model, file, 0, waveform.length);
  const values = await model.graph.run(waveform);
  return makeRow(model, file, 0, waveform.length, { values, status: "no_speech" });
}

export class Track {
  /** @param {?number} channel The number of the channel, from 1; null for the mean of all. */
  constructor(model, file, channel = null) {
    this.model = model;
    this.file = file;
    this.channel = channel;
    this.segmenter = new SpeechSegmenter(model.detector);
    this.steady = new SteadyEmotion();
  }

  /** Add samples at 16 kHz, and return the rows of the segments that they complete. */
  async add(block) {
    return this.recognizeAll(await this.segmenter.add(block));
  }

  /** Return the rows of the remaining segments. */
  async finish() {
    return this.recognizeAll(await this.segmenter.finish());
  }

  /** Return the row of the segment that has begun, as far as it is known; null without an emotion so far. */
  async current() {
    const piece = this.segmenter.current();
    const row = piece && (await this.recognize(piece));
    return row?.probabilities ? row : null;
  }

  async recognizeAll(pieces) {
    const rows = [];
    for (const piece of pieces) {
      const row = await this.recognize(piece);
      const emotion = this.steady.add(row);
      if (emotion) row.steady_emotion = emotion;
      rows.push(row);
    }
    return rows;
  }

  async recognize(piece) {
    const row = makeRow(this.model, this.file, piece.start, piece.end, await this.infer(piece));
    row.speech = ["silence", "no_speech"].includes(row.status) ? 0 : round(piece.speech, 3);
    if (this.channel !== null) row.channel = this.channel;
    return row;
  }

  async infer(piece) {
    if (piece.error) return { error: piece.error };
    if (piece.isSilent) return { status: "silence" };
    if (!piece.waveform || piece.speech < MIN_SPEECH) return { status: "no_speech" };
    return { values: await this.model.graph.run(piece.waveform), status: "no_speech" };
  }
}
