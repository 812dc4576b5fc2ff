// The audio worklet that passes the microphone's samples to the page, about ten times per second.

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Float32Array(4096);
    this.size = 0;
  }

  process([input]) {
    const samples = input[0];
    if (!samples) return true;
    for (const sample of samples) {
      this.block[this.size++] = sample;
      if (this.size < this.block.length) continue;
      this.port.postMessage(this.block, [this.block.buffer]);
      this.block = new Float32Array(4096);
      this.size = 0;
    }
    return true;
  }
}

registerProcessor("capture", Capture);
