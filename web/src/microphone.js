// The microphone: its samples at the rate of the audio hardware.

import { strings } from "./strings.js";

/** Open the microphone, and call `onSamples` with each Float32Array. Return {rate, close}. Raises an error to show. */
export async function openMicrophone(onSamples) {
  if (!navigator.mediaDevices?.getUserMedia || !window.AudioWorkletNode) throw new Error(strings.errors.microphoneInsecure);
  const media = await navigator.mediaDevices
    .getUserMedia({ audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false } })
    .catch((error) => {
      throw new Error(describe(error));
    });
  const context = new AudioContext();
  try {
    await context.audioWorklet.addModule("capture.worklet.js");
    await context.resume();
  } catch (error) {
    media.getTracks().forEach((track) => track.stop());
    throw new Error(strings.errors.microphoneFailed(error.message));
  }
  const source = context.createMediaStreamSource(media);
  const node = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
  node.port.onmessage = ({ data }) => onSamples(data);
  source.connect(node);
  return {
    rate: context.sampleRate,
    close() {
      media.getTracks().forEach((track) => track.stop());
      source.disconnect();
      node.port.onmessage = null;
      context.close();
    },
  };
}

function describe(error) {
  if (["NotAllowedError", "SecurityError"].includes(error.name)) return strings.errors.microphoneDenied;
  if (["NotFoundError", "DevicesNotFoundError"].includes(error.name)) return strings.errors.microphoneMissing;
  return strings.errors.microphoneFailed(error.message || error.name);
}
