// The two networks: the model's ONNX graph, and the detector of voice activity (affekt/inference/onnx.py).

import * as ort from "onnxruntime-web/wasm";

const WASM = "ort-wasm-simd-threaded.wasm.gz";

/** Fetch a file, and call `onProgress` with the number of bytes so far. Raises an error that names the file. */
async function fetchBytes(url, onProgress = () => {}, headers = {}) {
  const response = await fetch(url, { headers });
  if (!response.ok) throw new Error(`${url} cannot be loaded (status ${response.status})`);
  const chunks = [];
  let size = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    chunks.push(value);
    size += value.length;
    onProgress(size);
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

/** Return the runtime's WebAssembly, which is stored compressed. */
async function loadRuntime(pageUrl) {
  let bytes = await fetchBytes(new URL(WASM, pageUrl));
  const isCompressed = bytes[0] === 0x1f && bytes[1] === 0x8b; // a server may have declared the compression
  if (!isCompressed) return bytes.buffer;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

async function createSession(bytes) {
  return ort.InferenceSession.create(bytes, { executionProviders: ["wasm"], logSeverityLevel: 3 });
}

/** The detector of voice activity. */
export class Detector {
  constructor(session, settings) {
    this.session = session;
    this.settings = settings;
  }

  initialState() {
    const zeros = () => new ort.Tensor("float32", new Float32Array(this.settings.units), [1, 1, this.settings.units]);
    return { h: zeros(), c: zeros() };
  }

  /** Return the probabilities of consecutive frames, and the state after them. */
  async run(frames, count, state) {
    const input = new ort.Tensor("float32", frames, [count, frames.length / count]);
    const [probability, hidden, cell] = this.session.outputNames;
    const outputs = await this.session.run({ frames: input, ...state });
    return [outputs[probability].data.slice(), { h: outputs[hidden], c: outputs[cell] }];
  }
}

/** The model's graph, with the speech detector in it. */
export class Graph {
  constructor(session, settings) {
    this.session = session;
    this.settings = settings;
    this.outputs = ["probabilities", ...(settings.speech_threshold === null ? [] : ["speech_probability"])];
  }

  /** Return the probabilities of a waveform at 16 kHz; null if the model's detector finds no speech in it. */
  async run(waveform) {
    const input = new ort.Tensor("float32", waveform, [1, waveform.length]);
    const outputs = await this.session.run({ waveform: input }, this.outputs);
    const { speech_threshold: threshold, min_detected_samples: minimum } = this.settings;
    if (threshold !== null && waveform.length >= minimum && outputs.speech_probability.data[0] < threshold) return null;
    return Array.from(outputs.probabilities.data);
  }
}

/** Load everything that is needed, and return {settings, graph, detector}.
 *
 * @param {string} pageUrl The folder of this page, with the runtime.
 * @param {string} filesUrl The folder of the model's files.
 * @param onProgress Called with the number of bytes of the model so far.
 * @param headers Headers of the requests for the model's files.
 */
export async function loadModel(pageUrl, filesUrl, onProgress, headers) {
  ort.env.wasm.numThreads = 1;
  ort.env.logLevel = "error";
  const file = (name, report) => fetchBytes(new URL(name, filesUrl), report, headers);
  const settings = JSON.parse(new TextDecoder().decode(await file("settings.json")));
  const [wasm, model, vad] = await Promise.all([
    loadRuntime(pageUrl),
    file("model.onnx", onProgress),
    file(settings.vad.file),
  ]);
  ort.env.wasm.wasmBinary = wasm;
  const detector = new Detector(await createSession(vad), settings.vad);
  return { settings, graph: new Graph(await createSession(model), settings), detector };
}
