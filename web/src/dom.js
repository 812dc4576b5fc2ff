// Helpers for elements of the page.

import { strings } from "./strings.js";

export const byId = (id) => document.getElementById(id);

/** Return a new element with properties and children; properties with a hyphen are attributes. */
export function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-")) element.setAttribute(key, value);
    else if (key === "style") Object.assign(element.style, value);
    else element[key] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== ""));
  return element;
}

/** Fill the elements with the attribute data-text by the texts of that name. */
export function fillTexts(root = document) {
  for (const element of root.querySelectorAll("[data-text]")) element.textContent = strings[element.dataset.text];
  for (const element of root.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", strings[element.dataset.label]);
  }
}

/** Return seconds as minutes and seconds, with hours if there are any. */
export function clock(seconds, digits = 0) {
  const unit = 10 ** digits;
  const total = Math.round(seconds * unit);
  const whole = Math.floor(total / unit);
  const pad = (value) => String(value).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const fraction = digits ? `.${String(total % unit).padStart(digits, "0")}` : "";
  return `${hours ? `${hours}:${pad(minutes)}` : minutes}:${pad(whole % 60)}${fraction}`;
}
