// Arrays of samples: float32, full scale is 1.

export const SAMPLE_RATE = 16000;
export const SILENCE_RANGE = 2 ** -15; // one step of 16-bit audio; a smaller range of values is digital silence
export const SHORTEST = 0.1; // seconds that are needed for a result
export const MAX_AMPLITUDE = 1e12;

/** An error with a code, as in the rows of affekt. */
export class AudioError extends Error {
  constructor(code, message) {
    super(message);
    this.name = "AudioError";
    this.code = code;
  }
}

/** Return arrays joined to one. */
export function concatenate(arrays) {
  const joined = new Float32Array(arrays.reduce((total, array) => total + array.length, 0));
  let position = 0;
  for (const array of arrays) {
    joined.set(array, position);
    position += array.length;
  }
  return joined;
}

/** Return the largest sample minus the smallest. */
export function range(samples) {
  let low = Infinity;
  let high = -Infinity;
  for (const sample of samples) {
    if (sample < low) low = sample;
    if (sample > high) high = sample;
  }
  return samples.length ? high - low : 0;
}

/** Raise an error if a sample is not finite or impossibly large. */
export function checkSamples(samples) {
  for (const sample of samples) {
    if (!(Math.abs(sample) < MAX_AMPLITUDE)) {
      throw new AudioError("not_finite", "The file has samples that are not finite or impossibly large.");
    }
  }
}
