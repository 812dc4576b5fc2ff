// Live recognition while the microphone records.

import { showBars } from "./bars.js";
import { emotionColors } from "./colors.js";
import { byId, clock } from "./dom.js";
import { openMicrophone } from "./microphone.js";
import { mostProbable } from "./recognize/hysteresis.js";
import { ServerStream } from "./server.js";
import { strings } from "./strings.js";
import { makeWav } from "./wav.js";

const RATE = 16000;
const MOST_SECONDS = 3600;

export class LiveRecording {
  /** @param {string} place "device" or "server". @param onFailure Called if the recognition fails while recording. */
  constructor(device, place, emotions, onFailure) {
    Object.assign(this, { device, place, onFailure, seconds: 0, rows: [] });
    this.colors = emotionColors(emotions);
    this.emotions = emotions;
  }

  /** Open the microphone and begin. Raises an error to show if it cannot be opened. `onFull`: no more can be recorded. */
  async start(onFull) {
    this.show(Object.fromEntries(this.emotions.map((emotion) => [emotion, 0])), strings.listening);
    byId("elapsed").textContent = clock(0);
    const waiting = [];
    this.microphone = await openMicrophone((samples) => (this.ready ? this.add(samples, onFull) : waiting.push(samples)));
    await this.device.startStream(this.microphone.rate, this.place === "device");
    if (this.place === "server") {
      this.stream = new ServerStream(this.microphone.rate, (event) => this.handle(event));
      this.stream.ended.catch((error) => this.fail(error));
    }
    this.ready = true;
    waiting.forEach((samples) => this.add(samples, onFull));
  }

  add(samples, onFull) {
    if (this.failed) return;
    this.seconds += samples.length / this.microphone.rate;
    byId("elapsed").textContent = clock(this.seconds);
    this.stream?.add(samples);
    this.device.addSamples(samples).then(
      (events) => events.forEach((event) => this.handle(event)),
      (error) => this.fail(error),
    );
    if (this.seconds >= MOST_SECONDS) onFull();
  }

  handle({ kind, row }) {
    if (kind === "segment") this.rows.push(row);
    if (row?.probabilities) this.show(row.probabilities, mostProbable(row.probabilities));
  }

  show(probabilities, text) {
    showBars(byId("live-bars"), probabilities, this.colors);
    byId("live-emotion").textContent = text;
  }

  fail(error) {
    if (this.failed || this.isFinishing) return;
    this.failed = true;
    this.microphone.close();
    this.onFailure(error);
  }

  /** End the recording. Return what `Device.processFile` returns, with the file `media`. */
  async finish() {
    this.isFinishing = true;
    this.microphone.close();
    await this.stream?.finish();
    const { result, samples } = await this.device.finishStream();
    if (this.stream) result.segments = this.rows;
    return { ...result, media: makeWav(samples, RATE, "recording.wav") };
  }
}
