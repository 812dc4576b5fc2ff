// A recording from the microphone as a WAV file, so that it can be played.

const HEADER = 44;

/** Return 16-bit samples, one channel, as a file. */
export function makeWav(samples, rate, name) {
  const view = new DataView(new ArrayBuffer(HEADER));
  const text = (position, value) => [...value].forEach((letter, i) => view.setUint8(position + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, HEADER - 8 + samples.byteLength, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // channel
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, samples.byteLength, true);
  return new File([view.buffer, samples], name, { type: "audio/wav" });
}
