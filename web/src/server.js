// Recognition on the server (docs/serving.md).

import { site } from "./site.js";
import { strings } from "./strings.js";

const SUBPROTOCOL = "affekt.v1";
let key = "";

export const setKey = (value) => (key = value);
export const headers = () => (key ? { Authorization: `Bearer ${key}` } : {});

export class ServerError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(new URL(path, document.baseURI), { ...options, headers: headers() });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("unreachable", strings.errors.unreachable);
  }
  const content = await response.json().catch(() => ({}));
  if (response.status === 401) throw new ServerError("unauthorized", strings.errors.key);
  if (!response.ok) {
    const { code = "internal", message = `status ${response.status}` } = content.error ?? {};
    throw new ServerError(code, strings.errors.server(message));
  }
  return content;
}

/** Return the description of the service's model: {id, emotions, card}. */
export async function describeModel() {
  return (await request(`${site.service}models`)).models[0];
}

/** Return the rows of a file: of its segments, or with `timeline` false of the file as a whole. */
export async function recognize(file, { timeline, separate = false, signal }) {
  const form = new FormData();
  form.append("file", file);
  const options = timeline ? { timeline: true, channels: separate ? "separate" : "mix" } : {};
  const content = await request(`${site.service}recognize?${new URLSearchParams(options)}`, {
    method: "POST",
    body: form,
    signal,
  });
  return content.results;
}

/** A stream of live speech, whose events are passed to `onEvent`. */
export class ServerStream {
  constructor(rate, onEvent) {
    const url = new URL(`${site.service}stream?${new URLSearchParams({ rate })}`, document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    this.socket = new WebSocket(url, key ? [SUBPROTOCOL, `affekt.key.${key}`] : [SUBPROTOCOL]);
    this.socket.binaryType = "arraybuffer";
    this.waiting = [];
    this.ended = new Promise((resolve, reject) => {
      const fail = () => reject(new ServerError("unreachable", strings.errors.unreachable));
      this.socket.onopen = () => this.waiting.splice(0).forEach((message) => this.socket.send(message));
      this.socket.onerror = fail;
      this.socket.onclose = fail; // after "end", nothing changes any more
      this.socket.onmessage = ({ data }) => {
        const event = JSON.parse(data);
        if (event.kind === "error") reject(new ServerError(event.error.code, strings.errors.server(event.error.message)));
        else if (event.kind === "end") resolve();
        else if (event.row) onEvent(event);
      };
    });
    this.ended.catch(() => {}); // who waits for the end sees the error
  }

  /** Send samples, Float32Array. */
  add(samples) {
    this.send(Int16Array.from(samples, (value) => Math.max(-32768, Math.min(32767, Math.round(value * 32768)))));
  }

  /** Return when the remaining events have arrived. */
  finish() {
    this.send("end");
    return this.ended;
  }

  send(message) {
    if (this.socket.readyState === WebSocket.CONNECTING) this.waiting.push(message);
    else if (this.socket.readyState === WebSocket.OPEN) this.socket.send(message);
  }
}
