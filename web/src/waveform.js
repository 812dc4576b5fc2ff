// The waveform with the emotion over time: wavesurfer.js, with a region for each stretch of one emotion.

import WaveSurfer from "wavesurfer.js";
import RegionsPlugin from "wavesurfer.js/dist/plugins/regions.esm.js";
import { inkOn } from "./colors.js";
import { make } from "./dom.js";
import { labelOf } from "./exports.js";

const HEIGHT = 110;
const LANE_HEIGHT = 80;
const MIN_LABEL = 0.06; // fraction of the width from which a region has its emotion as text
const ALPHA = "66";

/** Return the stretches {start, end, label, channel} of consecutive segments of one emotion. */
function stretches(rows) {
  const joined = [];
  const last = new Map();
  for (const row of rows) {
    const label = labelOf(row);
    const channel = row.channel ?? 1;
    const before = last.get(channel);
    if (before && before.label === label && row.start - before.end < 1e-3) before.end = row.end;
    else {
      last.set(channel, { start: row.start, end: row.end, label, channel });
      joined.push(last.get(channel));
    }
  }
  return joined.filter(({ label }) => label !== null);
}

/** Draw a result. Return {seek, toggle, destroy}; `onTime` is called with the seconds, `onPlaying` with whether it plays. */
export function drawWaveform(container, { peaks, duration, segments, url, colors }, { onTime, onPlaying }) {
  const style = getComputedStyle(document.documentElement);
  const regions = RegionsPlugin.create();
  const lanes = peaks.length;
  const height = lanes > 1 ? LANE_HEIGHT : HEIGHT;
  const surfer = WaveSurfer.create({
    container,
    url,
    peaks,
    duration,
    height,
    splitChannels: lanes > 1 ? peaks.map(() => ({ height })) : undefined,
    waveColor: style.getPropertyValue("--quiet").trim(),
    progressColor: style.getPropertyValue("--ink").trim(),
    cursorColor: style.getPropertyValue("--bad").trim(),
    cursorWidth: 2,
    normalize: true,
    plugins: [regions],
  });
  surfer.on("ready", () => {
    for (const { start, end, label, channel } of stretches(segments)) {
      const color = colors[label] ?? "#8c8c8c";
      const isWide = (end - start) / duration >= MIN_LABEL;
      regions.addRegion({
        start,
        end: Math.min(end, duration),
        color: `${color}${ALPHA}`,
        content: isWide ? makeLabel(label, color) : undefined,
        channelIdx: lanes > 1 ? channel - 1 : -1,
        drag: false,
        resize: false,
      });
    }
  });
  surfer.on("timeupdate", onTime);
  surfer.on("play", () => onPlaying(true));
  surfer.on("pause", () => onPlaying(false));
  surfer.on("finish", () => onPlaying(false));
  surfer.on("error", () => onPlaying(null)); // the browser decodes this format, but does not play it
  return {
    seek: (seconds) => surfer.setTime(seconds),
    toggle: () => surfer.playPause().catch(() => onPlaying(null)),
    destroy: () => surfer.destroy(),
  };
}

function makeLabel(label, color) {
  const style = {
    font: "600 12px system-ui, sans-serif",
    padding: "1px 6px",
    margin: "3px",
    borderRadius: "9px",
    background: color,
    color: inkOn(color),
    width: "max-content",
  };
  return make("div", { style }, label);
}
