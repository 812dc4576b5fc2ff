// The downloads of a timeline, in the formats of affekt's exports (affekt/timeline/exports).

import { emotionColors } from "./colors.js";

/** Return the emotion to show for a segment: the steady one if there is one; null without speech. */
export const labelOf = (row) => (row.probabilities ? (row.steady_emotion ?? row.emotion ?? "unknown") : null);

/** Return the timeline as JSON, with a segment per line. */
function toJson(timeline) {
  const { segments, ...head } = timeline;
  const opening = JSON.stringify({ schema: 1, ...head }).slice(0, -1);
  return `${opening},\n"segments": [\n${segments.map((row) => JSON.stringify(row)).join(",\n")}\n]}\n`;
}

function toCsv({ segments, emotions }) {
  const leading = ["schema", "file", "start", "end", "duration", "channel", "status", "emotion", "steady_emotion"];
  const names = [
    ...leading,
    ...emotions.map((emotion) => `probabilities.${emotion}`),
    "model",
    "error.code",
    "error.message",
    "speech",
  ];
  const cell = (row, name) => name.split(".").reduce((value, part) => value?.[part], row) ?? "";
  const quote = (value) => (/[",\r\n]/.test(`${value}`) ? `"${`${value}`.replaceAll('"', '""')}"` : `${value}`);
  const lines = segments.map((row) => names.map((name) => quote(cell(row, name))).join(","));
  return `${[names.join(","), ...lines].join("\r\n")}\r\n`;
}

function toWebVtt({ segments, emotions, model, segmentation }) {
  const time = (seconds) => {
    const total = Math.round(seconds * 1000);
    const pad = (value, size) => String(value).padStart(size, "0");
    const [hours, minutes] = [Math.floor(total / 3600000), Math.floor(total / 60000) % 60];
    return `${pad(hours, 2)}:${pad(minutes, 2)}:${pad(Math.floor(total / 1000) % 60, 2)}.${pad(total % 1000, 3)}`;
  };
  const name = (emotion) => emotion.replace(/[^A-Za-z0-9_-]/g, "-");
  const escape = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const styles = Object.entries(emotionColors(emotions)).map(([emotion, color]) => `::cue(c.${name(emotion)}) { color: ${color}; }`);
  const cues = segments
    .filter(labelOf)
    .map((row) => `${time(row.start)} --> ${time(row.end)}\n<c.${name(labelOf(row))}>[${escape(labelOf(row))}]</c>`)
    .map((cue, i) => `${i + 1}\n${cue}`);
  const note = `NOTE emotions by ${escape(model)}, ${escape(segmentation)}`;
  return `${["WEBVTT", note, `STYLE\n${styles.join("\n")}`, ...cues].join("\n\n")}\n`;
}

function toLabels({ segments }) {
  const who = (row) => (row.channel ? `channel ${row.channel}: ` : "");
  return segments
    .filter(labelOf)
    .map((row) => `${row.start.toFixed(6)}\t${row.end.toFixed(6)}\t${who(row)}${labelOf(row)}\n`)
    .join("");
}

/** Suffix -> the media type, and the function that returns the content. */
export const FORMATS = {
  json: ["application/json", toJson],
  csv: ["text/csv", toCsv],
  vtt: ["text/vtt", toWebVtt],
  txt: ["text/plain", toLabels],
};
