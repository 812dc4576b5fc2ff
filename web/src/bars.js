// The probabilities of emotions as bars, in the model's order, so that they keep their place while they change.

import { make } from "./dom.js";
import { strings } from "./strings.js";

/** Show probabilities in an element; existing bars are moved. */
export function showBars(element, probabilities, colors) {
  const emotions = Object.keys(probabilities);
  if (element.dataset.emotions !== emotions.join()) {
    element.dataset.emotions = emotions.join();
    element.replaceChildren(make("dl", { className: "bars" }, ...emotions.flatMap((emotion) => makeBar(emotion, colors))));
  }
  const best = Math.max(...Object.values(probabilities));
  element.querySelectorAll("dd").forEach((bar, i) => {
    const probability = probabilities[emotions[i]];
    bar.querySelector("i").style.width = `${100 * probability}%`;
    bar.querySelector(".value").textContent = strings.percent(probability);
    bar.previousElementSibling.classList.toggle("best", probability === best);
  });
}

function makeBar(emotion, colors) {
  const fill = make("i", { style: { background: colors[emotion] } });
  const track = make("span", { className: "track", "aria-hidden": "true" }, fill);
  return [make("dt", {}, emotion), make("dd", {}, track, make("span", { className: "value" }))];
}
