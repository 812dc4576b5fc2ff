// The page: it connects the elements with recognition on this device and on the server.

import { renderMarkdown } from "./card.js";
import { Device } from "./device.js";
import { byId, clock, fillTexts } from "./dom.js";
import { LiveRecording } from "./live.js";
import { hideResult, showResult } from "./result.js";
import { ServerError, describeModel, headers, recognize, setKey } from "./server.js";
import { site } from "./site.js";
import { language, strings } from "./strings.js";

const RUNTIME = "ort-wasm-simd-threaded.wasm.gz";
const LONGEST_CLIP = 8; // seconds of a recording that is recognized as a whole
const LIMITS = "Limits"; // the heading of the card

const device = new Device();
let recording = null;
let last = null; // the file that is shown
let job = 0; // counts up, so that a canceled job shows nothing
let abort = null;

const place = () => document.querySelector("input[name=place]:checked").value;

function showError(error) {
  byId("error").hidden = false;
  byId("error").textContent = error.message;
  byId("status").textContent = "";
  if (error.code === "unauthorized") {
    byId("key-form").hidden = false;
    byId("key").focus();
  }
}

function clearError() {
  byId("error").hidden = true;
  byId("error").textContent = "";
}

/** Show a text, and a bar if `fraction` is a number (0 to 1) or null (unknown); without it the work is over. */
function showProgress(text, fraction) {
  byId("status").textContent = text;
  byId("progress").hidden = fraction === undefined;
  if (fraction === null) byId("bar").removeAttribute("value");
  else if (fraction !== undefined) byId("bar").value = fraction;
}

function setBusy(isBusy) {
  for (const id of ["file", "record", "separate"]) byId(id).disabled = isBusy;
  byId("places").disabled = isBusy;
  document.querySelector("label.button").classList.toggle("disabled", isBusy);
}

async function loadModel() {
  const report = (bytes) => showProgress(strings.progress.model((bytes / 1e6).toFixed(1)), Math.min(1, bytes / 16e6));
  try {
    return await device.load(report, headers());
  } catch (error) {
    throw new Error(strings.errors.model(error.message));
  }
}

/** Return the error to show for a file that cannot be decoded. */
function explain(error, name) {
  if (error.code !== "undecodable") return error;
  return new Error(site.service && place() === "device" ? strings.errors.undecodableHere(name) : strings.errors.undecodable(name));
}

async function recognizeOnDevice(file, separate) {
  const { model, emotions } = await loadModel();
  showProgress(strings.progress.recognizing, null);
  const report = (done, total) =>
    showProgress(
      `${strings.progress.recognizing}: ${strings.progress.decoding(clock(done), total ? clock(total) : "")}`,
      total ? Math.min(1, done / total) : null,
    );
  const result = await device.processFile(file, { recognizes: true, separate }, report);
  return { ...result, model, emotions };
}

async function recognizeOnServer(file, separate) {
  showProgress(strings.progress.server, null);
  abort = new AbortController();
  const { signal } = abort;
  const options = { recognizes: false, separate };
  const [outline, segments, { id, emotions }] = await Promise.all([
    device.processFile(file, options, () => {}).catch(() => ({ duration: 0, channels: 1, peaks: [], segmentation: "" })),
    recognize(file, { timeline: true, separate, signal }),
    describeModel(),
  ]);
  if (segments[0]?.error && !segments[0].duration) throw new ServerError(segments[0].error.code, segments[0].error.message);
  const duration = outline.duration || Math.max(0, ...segments.map((row) => row.end));
  const isClip = duration <= LONGEST_CLIP && !segments.some((row) => row.channel);
  const clip = isClip ? (await recognize(file, { timeline: false, signal }))[0] : null;
  return { ...outline, duration, segments, clip, model: id, emotions };
}

async function run(work) {
  const number = ++job;
  clearError();
  setBusy(true);
  try {
    const result = await work();
    if (number !== job) return;
    const text = showResult(result);
    showProgress(strings.progress.done(text));
    byId("result").focus({ preventScroll: true });
    byId("result").scrollIntoView({ block: "nearest" });
  } catch (error) {
    if (number !== job) return;
    showProgress("");
    showError(error);
  } finally {
    if (number === job) setBusy(false);
  }
}

function processFile(file) {
  const separate = byId("separate").checked;
  const where = place();
  last = file;
  hideResult();
  return run(async () => {
    const recognizeThere = where === "device" ? recognizeOnDevice : recognizeOnServer;
    const result = await recognizeThere(file, separate).catch((error) => {
      throw explain(error, file.name);
    });
    return { ...result, name: file.name, place: where, media: file };
  });
}

function cancel() {
  job++;
  abort?.abort();
  device.cancel();
  setBusy(false);
  showProgress(strings.progress.canceled);
}

async function startRecording() {
  clearError();
  hideResult();
  setBusy(true);
  const where = place();
  try {
    const { emotions, model } = where === "device" ? await loadModel() : rename(await describeModel());
    showProgress(strings.progress.opening);
    recording = new LiveRecording(device, where, emotions, failRecording);
    Object.assign(recording, { model });
    await recording.start(stopRecording);
    byId("live").hidden = false;
    showProgress(strings.live);
    byId("stop").focus();
  } catch (error) {
    failRecording(error);
  }
}

const rename = ({ id, emotions }) => ({ model: id, emotions });

function failRecording(error) {
  recording = null;
  byId("live").hidden = true;
  setBusy(false);
  showProgress("");
  showError(error);
}

function stopRecording() {
  const ended = recording;
  if (!ended) return;
  recording = null;
  byId("live").hidden = true;
  run(async () => {
    showProgress(strings.progress.recognizing, null);
    const result = await ended.finish();
    last = result.media;
    const { model, emotions, place: where } = ended;
    return { ...result, model, emotions, name: "recording.wav", place: where };
  });
}

function connectInput() {
  const drop = byId("drop");
  byId("file").onchange = ({ target }) => {
    if (target.files.length) processFile(target.files[0]);
    target.value = ""; // so that the same file can be chosen again
  };
  drop.ondragover = (event) => {
    event.preventDefault();
    drop.classList.add("over");
  };
  drop.ondragleave = () => drop.classList.remove("over");
  drop.ondrop = (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const file = event.dataTransfer.files[0];
    if (file && !byId("file").disabled) processFile(file);
  };
  byId("record").onclick = startRecording;
  byId("stop").onclick = stopRecording;
  byId("cancel").onclick = cancel;
  const again = () => last && !recording && processFile(last);
  byId("separate").onchange = again;
  byId("places").onchange = () => {
    showPlace();
    again();
  };
  byId("key-form").onsubmit = (event) => {
    event.preventDefault();
    setKey(byId("key").value);
    byId("key-form").hidden = true;
    clearError();
    describe();
  };
}

function showPlace() {
  byId("place-hint").textContent = place() === "server" ? strings.onServerHint : strings.onDeviceHint;
}

/** Show what the page can do here: the switch if there is a service, and only the server without the runtime. */
async function connectPlaces() {
  if (!site.service) {
    byId("places").querySelectorAll("label, legend").forEach((element) => (element.hidden = true));
    byId("place-hint").textContent = strings.staticHint;
    byId("api").hidden = true;
    return;
  }
  showPlace();
  const response = await fetch(RUNTIME, { method: "HEAD" });
  if (response.ok) return;
  document.querySelector("input[value=server]").checked = true;
  document.querySelector("input[value=device]").disabled = true;
  byId("place-hint").textContent = strings.noRuntime;
}

async function describe() {
  try {
    const description = site.service ? await describeModel() : await describeStatic();
    byId("model").textContent = strings.model(description.id);
    byId("card-text").replaceChildren(...renderMarkdown(description.card || strings.noCard));
  } catch (error) {
    showError(error);
  }
}

async function describeStatic() {
  const read = async (name) => {
    const response = await fetch(new URL(name, new URL(site.files, document.baseURI)));
    if (!response.ok) throw new Error(strings.errors.model(`${name}, status ${response.status}`));
    return response.text();
  };
  return { id: JSON.parse(await read("settings.json")).model, card: await read("card.md") };
}

function connectCard() {
  const dialog = byId("card");
  byId("show-card").onclick = () => {
    dialog.showModal();
    byId("card-text").scrollTop = 0;
  };
  byId("show-limits").onclick = () => {
    dialog.showModal();
    const heading = [...byId("card-text").querySelectorAll("h3, h4")].find(({ textContent }) => textContent === LIMITS);
    heading?.scrollIntoView();
  };
  byId("close-card").onclick = () => dialog.close();
}

document.documentElement.lang = language;
document.title = strings.title;
fillTexts();
connectInput();
connectCard();
connectPlaces();
describe();
