// Decoding a file piece by piece, so that a long one is never in memory as a whole.

import { ALL_FORMATS, AudioSampleSink, BlobSource, Input } from "mediabunny";
import { AudioError, checkSamples, concatenate } from "./samples.js";

const BLOCK = 1 << 16; // samples of a block, of all channels together

const MAX_PADDING = 0.15; // seconds; a packet has at most 0.12 s

/** Return the frames of a block, as Python's: the choice of a channel (mixer.js) depends on it. */
const blockFrames = (rate, channels) => Math.max(1, Math.min(Math.floor(BLOCK / channels), 4 * rate));

/**
 * Open a file with mediabunny. Return {rate, channels, seconds, blocks}: the sample rate in Hz, the number of channels, the
 * duration as far as it is known, and an async iterator of blocks, each a list of Float32Array, one per channel.
 * Raise an `AudioError` with the code "undecodable" if this browser cannot decode it so.
 */
export async function openFile(file) {
  const input = new Input({ source: new BlobSource(file), formats: ALL_FORMATS });
  let track;
  let seconds = 0;
  try {
    track = await input.getPrimaryAudioTrack();
    if (!track || !(await track.canDecode())) throw new Error("no audio track that this browser can decode");
    seconds = await track.computeDuration();
  } catch (error) {
    throw new AudioError("undecodable", error.message);
  }
  const [rate, channels] = [await track.getSampleRate(), await track.getNumberOfChannels()];
  return { rate, channels, seconds, blocks: readBlocks(track, rate, channels, seconds) };
}

async function* readBlocks(track, rate, channels, seconds) {
  const size = blockFrames(rate, channels);
  const end = Math.round(seconds * rate);
  let read = 0;
  let pending = Array.from({ length: channels }, () => new Float32Array(0));
  for await (const sample of new AudioSampleSink(track).samples()) {
    const planes = trimPadding(readPlanes(sample, rate, channels), end - read, rate);
    read += planes[0].length;
    pending = pending.map((plane, channel) => concatenate([plane, planes[channel]]));
    while (pending[0].length >= size) {
      yield pending.map((plane) => plane.slice(0, size));
      pending = pending.map((plane) => plane.slice(size));
    }
  }
  if (pending[0].length) yield pending;
}

/** Cut off the padding with which an encoder fills its last packet, if `left` frames are left until the end of the track. */
function trimPadding(planes, left, rate) {
  const excess = planes[0].length - left;
  return excess > 0 && excess < MAX_PADDING * rate ? planes.map((plane) => plane.slice(0, Math.max(0, left))) : planes;
}

/** Return the samples of each channel of mediabunny's sample, which is closed. */
function readPlanes(sample, rate, channels) {
  try {
    if (sample.sampleRate !== rate || sample.numberOfChannels !== channels) {
      throw new AudioError("not_audio", "The sample rate or the number of channels changes within the file.");
    }
    return Array.from({ length: channels }, (_, planeIndex) => {
      const plane = new Float32Array(sample.numberOfFrames);
      sample.copyTo(plane, { planeIndex, format: "f32-planar" });
      checkSamples(plane);
      return plane;
    });
  } finally {
    sample.close();
  }
}

/** Return decoded channels as `openFile` does a file. */
export function openPlanes(planes, rate) {
  async function* blocks() {
    const size = blockFrames(rate, planes.length);
    for (let start = 0; start < planes[0].length; start += size) {
      yield planes.map((plane) => plane.slice(start, start + size));
    }
  }
  return { rate, channels: planes.length, seconds: planes[0].length / rate, blocks: blocks() };
}
