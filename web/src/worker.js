// The worker: it decodes files and recognizes them, so that the page stays responsive. The page calls it through comlink.

import * as Comlink from "comlink";
import { openFile, openPlanes } from "./audio/decode.js";
import { Mixer } from "./audio/mixer.js";
import { Peaks } from "./audio/peaks.js";
import { Resampler } from "./audio/resampler.js";
import { AudioError, SAMPLE_RATE, SHORTEST, concatenate } from "./audio/samples.js";
import { loadModel } from "./recognize/model.js";
import { DESCRIPTION } from "./recognize/speech_segments.js";
import { LONGEST, Track, recognizeClip } from "./recognize/track.js";

const STREAM = "<stream>";
const MOST_CHANNELS = 8; // that are recognized on their own
const UPDATE = SAMPLE_RATE; // samples from one provisional result of a stream to the next

let model = null;
let stream = null;
let queue = Promise.resolve();
let waiting = 0; // samples that are not processed yet, in calls

/** One track of a recording: resampling, the outline, and, if a model recognizes, the rows. */
class Lane {
  constructor(rate, name, channel, recognizes) {
    this.resampler = new Resampler(rate);
    this.peaks = new Peaks();
    this.track = recognizes ? new Track(model, name, channel) : null;
    this.rows = [];
    this.start = []; // the first samples at 16 kHz, as long as the recording may be a short clip
    this.size = 0;
  }

  async add(samples) {
    await this.push(this.resampler.add(samples));
  }

  async push(waveform) {
    if (!waveform.length) return;
    this.size += waveform.length;
    this.peaks.add(waveform);
    if (this.size <= LONGEST) this.start.push(waveform);
    else this.start = [];
    if (this.track) this.rows.push(...(await this.track.add(waveform)));
  }

  async finish() {
    await this.push(this.resampler.finish());
    if (this.track) this.rows.push(...(await this.track.finish()));
  }
}

async function processSource(source, name, { recognizes, separate }, onProgress) {
  const { rate, channels, seconds, blocks } = source;
  const divided = separate && channels > 1 && channels <= MOST_CHANNELS;
  const mixer = new Mixer(rate);
  const lanes = Array.from(
    { length: divided ? channels : 1 },
    (_, i) => new Lane(rate, name, divided ? i + 1 : null, recognizes),
  );
  let read = 0;
  for await (const planes of blocks) {
    const parts = divided ? planes : [mixer.mix(planes)];
    for (const [i, lane] of lanes.entries()) await lane.add(parts[i]);
    read += planes[0].length;
    onProgress?.(read / rate, seconds);
  }
  for (const lane of lanes) await lane.finish();
  return describe(lanes, name, channels, recognizes && !divided);
}

async function describe(lanes, name, channels, recognizesWhole) {
  const { size, start } = lanes[0];
  if (!size) throw new AudioError("empty", "The file has no samples.");
  if (size < SHORTEST * SAMPLE_RATE) throw new AudioError("too_short", `The recording is shorter than ${SHORTEST} s.`);
  const segments = lanes.flatMap((lane) => lane.rows);
  segments.sort((a, b) => a.start - b.start || a.end - b.end || (a.channel ?? 0) - (b.channel ?? 0));
  return {
    channels,
    duration: Math.round((size / SAMPLE_RATE) * 1e4) / 1e4,
    peaks: lanes.map((lane) => lane.peaks.finish()),
    segmentation: DESCRIPTION,
    segments,
    clip: recognizesWhole && size <= LONGEST ? await recognizeClip(model, concatenate(start), name) : null,
  };
}

/** An error as data, since comlink would drop its code. */
const asData = (error) => ({ error: { code: error.code ?? "internal", message: error.message } });

/** Run one task after the other, and return what it returns or its error as data: the model and the stream are shared. */
function answer(make) {
  const result = queue.then(make).catch(asData);
  queue = result;
  return result;
}

const service = {
  /** Load the model once; arguments as for `loadModel`. Return {model, emotions}, or {error}. */
  load: (...options) =>
    answer(async () => {
      model ??= await loadModel(...options);
      return { model: model.settings.model, emotions: model.settings.emotions };
    }),

  /**
   * Decode a file and recognize it. Return {channels, duration, peaks, segments, clip}, or {error}.
   *
   * Options: `recognizes` (whether the model is applied, or only the outline is made) and `separate` (a track per channel).
   */
  processFile: (file, options, onProgress) =>
    answer(async () => processSource(await openFile(file), file.name, options, onProgress)),

  /** The same for channels that the page has decoded. */
  processPlanes: (planes, rate, name, options, onProgress) =>
    answer(() => processSource(openPlanes(planes, rate), name, options, onProgress)),

  /** Begin a live stream; `recognizes` is false if the service does that. */
  startStream: (rate, recognizes) =>
    answer(() => {
      stream = { lane: new Lane(rate, STREAM, null, recognizes), told: 0, kept: [] };
    }),

  /**
   * Add samples; return the events {kind, row} as those of the service, or {error}. If the device is too slow, there are no
   * provisional ones.
   */
  addSamples: (samples) => {
    waiting++;
    return answer(async () => {
      waiting--;
      const events = [];
      let waveform = stream.lane.resampler.add(samples);
      keep(waveform);
      while (waveform.length) {
        const size = Math.min(waveform.length, UPDATE - (stream.lane.size % UPDATE));
        await stream.lane.push(waveform.subarray(0, size));
        waveform = waveform.subarray(size);
        events.push(...takeEvents());
        if (stream.lane.track && stream.lane.size % UPDATE === 0 && !waiting) {
          const row = await stream.lane.track.current();
          if (row) events.push({ kind: "provisional", row });
        }
      }
      return events;
    });
  },

  /** End the stream. Return {result, samples}: as `processFile`, and the recording as 16-bit samples at 16 kHz; or {error}. */
  finishStream: () =>
    answer(async () => {
      const { lane } = stream;
      const rest = lane.resampler.finish();
      keep(rest);
      await lane.push(rest);
      if (lane.track) lane.rows.push(...(await lane.track.finish()));
      const samples = joinInt16(stream.kept);
      const result = await describe([lane], STREAM, 1, lane.track !== null);
      return Comlink.transfer({ result, samples }, [samples.buffer]);
    }),
};

function takeEvents() {
  const rows = stream.lane.rows.slice(stream.told);
  stream.told = stream.lane.rows.length;
  return rows.map((row) => ({ kind: "segment", row }));
}

/** Keep samples of the stream, so that the recording can be played. */
const keep = (waveform) => stream.kept.push(Int16Array.from(waveform, toInt16));
const toInt16 = (value) => Math.max(-32768, Math.min(32767, Math.round(value * 32768)));

function joinInt16(parts) {
  const joined = new Int16Array(parts.reduce((total, part) => total + part.length, 0));
  let position = 0;
  for (const part of parts) {
    joined.set(part, position);
    position += part.length;
  }
  return joined;
}

Comlink.expose(service);
