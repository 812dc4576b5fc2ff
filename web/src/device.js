// Recognition on this device: the worker, and WebAudio for files that mediabunny cannot open.

import * as Comlink from "comlink";
import { site } from "./site.js";

const FALLBACK_RATE = 48000; // WebAudio resamples to one rate when it decodes

export class DeviceError extends Error {
  constructor({ code, message }) {
    super(message);
    this.code = code;
  }
}

const check = (answer) => {
  if (answer.error) throw new DeviceError(answer.error);
  return answer;
};

export class Device {
  constructor() {
    this.start();
  }

  start() {
    this.worker = new Worker("worker.js", { type: "module" });
    this.service = Comlink.wrap(this.worker);
    this.loading = null;
  }

  /** Stop what is computed; the model is loaded again when it is needed. */
  cancel() {
    this.worker.terminate();
    this.start();
  }

  /** Load the model once. Return {model, emotions}. */
  load(onProgress, headers) {
    this.loading ??= this.service
      .load(document.baseURI, new URL(site.files, document.baseURI).href, Comlink.proxy(onProgress), headers)
      .then(check)
      .catch((error) => {
        this.loading = null;
        throw error;
      });
    return this.loading;
  }

  /** Decode a file, and recognize it if `options.recognizes`; see worker.js. */
  async processFile(file, options, onProgress) {
    const report = Comlink.proxy(onProgress);
    const answer = await this.service.processFile(file, options, report);
    if (answer.error?.code !== "undecodable") return check(answer);
    const planes = await decodeWithWebAudio(file);
    if (!planes) throw new DeviceError(answer.error);
    return check(await this.service.processPlanes(planes, FALLBACK_RATE, file.name, options, report));
  }

  startStream(rate, recognizes) {
    return this.service.startStream(rate, recognizes);
  }

  async addSamples(samples) {
    return check(await this.service.addSamples(Comlink.transfer(samples, [samples.buffer])));
  }

  async finishStream() {
    return check(await this.service.finishStream());
  }
}

/** Return the channels of a file as Float32Array; null if the browser cannot decode it. */
async function decodeWithWebAudio(file) {
  try {
    const context = new OfflineAudioContext(1, 1, FALLBACK_RATE);
    const buffer = await context.decodeAudioData(await file.arrayBuffer());
    return Array.from({ length: buffer.numberOfChannels }, (_, channel) => buffer.getChannelData(channel).slice());
  } catch {
    return null;
  }
}
