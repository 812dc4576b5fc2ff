// The result of a recording: headline, bars, waveform, segments and downloads.

import { showBars } from "./bars.js";
import { emotionColors, inkOn } from "./colors.js";
import { byId, clock, make } from "./dom.js";
import { FORMATS, labelOf } from "./exports.js";
import { mostProbable } from "./recognize/hysteresis.js";
import { strings } from "./strings.js";
import { drawWaveform } from "./waveform.js";

const PAGE = 200; // segments that are listed at a time
let waveform = null;
let urls = [];

/** Return the mean of the segments' probabilities, weighted by their seconds of speech; null without any. */
function average(segments, emotions) {
  const scored = segments.filter((row) => row.probabilities && row.speech > 0);
  const total = scored.reduce((sum, row) => sum + row.speech, 0);
  if (!total) return null;
  const mean = (emotion) => scored.reduce((sum, row) => sum + row.probabilities[emotion] * row.speech, 0) / total;
  return Object.fromEntries(emotions.map((emotion) => [emotion, mean(emotion)]));
}

/** Return the sentence that says what was recognized. */
function headline(probabilities, { clip, segments }) {
  if (probabilities) {
    const best = mostProbable(probabilities);
    return `${best}, ${strings.percent(probabilities[best])}`;
  }
  const statuses = clip ? [clip.status] : segments.map((row) => row.status);
  if (statuses.every((status) => status === "silence")) return strings.headlines.silence;
  return statuses.some((status) => status === "no_speech") ? strings.headlines.no_speech : strings.headlines.none;
}

/**
 * Show a result, and return its headline.
 *
 * @param result {name, place, model, emotions, duration, channels, peaks, segmentation, segments, clip, media}: `clip` is the
 *   row of a short recording as a whole, `media` the file to play; `peaks` are empty if the browser cannot decode it.
 */
export function showResult(result) {
  const { clip, segments, emotions } = result;
  const colors = emotionColors(emotions);
  const probabilities = clip ? clip.probabilities : average(segments, emotions);
  const text = headline(probabilities, result);
  byId("result-title").textContent = result.name;
  byId("facts").textContent = strings.facts(strings.seconds(result.duration), result.channels, result.place);
  byId("headline").textContent = text;
  byId("bars-caption").textContent = probabilities ? (clip ? strings.whole : strings.average) : "";
  byId("bars").hidden = !probabilities;
  if (probabilities) showBars(byId("bars"), probabilities, colors);
  byId("result").hidden = false;
  release();
  showPlayer(result, colors);
  showSegments(segments, colors);
  showDownloads(result);
  return text;
}

/** Remove the result. */
export function hideResult() {
  release();
  byId("result").hidden = true;
}

function release() {
  waveform?.destroy();
  waveform = null;
  urls.forEach((url) => URL.revokeObjectURL(url));
  urls = [];
}

function makeUrl(blob) {
  urls.push(URL.createObjectURL(blob));
  return urls.at(-1);
}

function showPlayer({ peaks, duration, segments, media }, colors) {
  byId("player").hidden = !peaks.length;
  if (!peaks.length) return;
  const play = byId("play");
  play.disabled = false;
  play.textContent = strings.play;
  const onPlaying = (isPlaying) => {
    play.textContent = isPlaying ? strings.pause : strings.play;
    play.disabled = isPlaying === null;
  };
  const onTime = (seconds) => {
    byId("position").textContent = `${clock(seconds, 1)} / ${clock(duration, 1)}`;
    markSegment(seconds);
  };
  const options = { peaks, duration, segments, url: makeUrl(media), colors };
  waveform = drawWaveform(byId("waveform"), options, { onTime, onPlaying });
  play.onclick = () => waveform.toggle();
  byId("position").textContent = `${clock(0, 1)} / ${clock(duration, 1)}`;
  const labels = [...new Set(segments.map(labelOf).filter(Boolean))];
  byId("legend").replaceChildren(
    ...labels.map((label) => make("span", {}, make("i", { className: "swatch", style: { background: colors[label] } }), label)),
  );
}

function showSegments(segments, colors) {
  const hasChannels = segments.some((row) => row.channel);
  const { columns } = strings;
  const head = [
    [columns.time, ""],
    ...(hasChannels ? [[columns.channel, ""]] : []),
    [columns.emotion, ""],
    [columns.probability, "number"],
    [columns.others, "wide"],
    [columns.speech, "number wide"],
  ].map(([text, className]) => make("th", { className, scope: "col" }, text));
  const body = make("tbody");
  byId("segments").replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...head)), body));
  const more = byId("more");
  const add = () => {
    const start = body.rows.length;
    body.append(...segments.slice(start, start + PAGE).map((row) => makeSegment(row, colors, hasChannels)));
    more.hidden = body.rows.length >= segments.length;
  };
  more.onclick = add;
  add();
  byId("segments-part").hidden = !segments.length;
}

function makeSegment(row, colors, hasChannels) {
  const ranked = Object.entries(row.probabilities ?? {}).sort((a, b) => b[1] - a[1]);
  const own = row.emotion;
  const time = make("button", { type: "button", className: "time" }, `${clock(row.start, 1)} – ${clock(row.end, 1)}`);
  time.onclick = () => waveform?.seek(row.start);
  const emotion = make("td", {});
  if (own) {
    const style = { background: colors[own], color: inkOn(colors[own]) };
    emotion.append(make("span", { className: "chip", style }, own));
    if (row.steady_emotion && row.steady_emotion !== own) {
      emotion.append(make("span", { className: "steady" }, strings.steady(row.steady_emotion)));
    }
  } else emotion.append(make("span", { className: "quiet" }, strings.statuses[row.status] ?? row.status));
  const next = ranked.slice(1, 3).map(([name, value]) => `${name} ${strings.percent(value)}`);
  const line = make(
    "tr",
    {},
    make("td", {}, time),
    hasChannels ? make("td", {}, `${row.channel ?? ""}`) : null,
    emotion,
    make("td", { className: "number" }, own ? strings.percent(row.probabilities[own]) : ""),
    make("td", { className: "wide quiet" }, next.join(", ")),
    make("td", { className: "number wide" }, row.speech ? strings.seconds(row.speech) : ""),
  );
  Object.assign(line.dataset, { start: row.start, end: row.end });
  return line;
}

function markSegment(seconds) {
  for (const line of byId("segments").querySelectorAll("tbody tr")) {
    line.classList.toggle("now", seconds > 0 && line.dataset.start <= seconds && seconds < line.dataset.end);
  }
}

function showDownloads({ name, duration, model, emotions, segmentation, segments }) {
  const timeline = { file: name, duration, model, emotions, segmentation, notes: {}, segments };
  const stem = name.replace(/\.[^.]*$/, "") || name;
  const links = Object.entries(FORMATS).map(([suffix, [type, write]]) =>
    make(
      "a",
      {
        className: "button",
        download: `${stem}.${suffix}`,
        href: makeUrl(new Blob([write(timeline)], { type })),
      },
      strings.formatNames[suffix],
    ),
  );
  byId("downloads").replaceChildren(...links);
}
