// The model card: the part of Markdown that cards use, as elements. No text becomes markup.

import { make } from "./dom.js";

const INLINE = /\*\*(.+?)\*\*|`([^`]+)`|\[([^\]]+)\]\(([^)\s]+)\)/g;

function inline(text) {
  const parts = [];
  let position = 0;
  for (const match of text.matchAll(INLINE)) {
    parts.push(text.slice(position, match.index));
    const [, bold, code, label, target] = match;
    if (bold) parts.push(make("b", {}, bold));
    else if (code) parts.push(make("code", {}, code));
    else parts.push(/^https?:/.test(target) ? make("a", { href: target, rel: "noreferrer" }, label) : label);
    position = match.index + match[0].length;
  }
  return [...parts, text.slice(position)].filter(Boolean);
}

const cells = (line) =>
  line
    .trim()
    .replace(/^\||\|$/g, "")
    .split("|")
    .map((cell) => cell.trim());

function table(lines) {
  const row = (line, name) => make("tr", {}, ...cells(line).map((cell) => make(name, {}, ...inline(cell))));
  const head = make("thead", {}, row(lines[0], "th"));
  const body = make("tbody", {}, ...lines.slice(2).map((line) => row(line, "td")));
  return make("div", { className: "scroll", tabIndex: 0 }, make("table", {}, head, body));
}

const KINDS = [
  [/^#/, ([line]) => heading(line), 1],
  [/^\|/, table, Infinity],
  [/^( {4}|\t)/, (lines) => make("pre", {}, lines.map((line) => line.replace(/^( {4}|\t)/, "")).join("\n")), Infinity],
];

function heading(line) {
  const [, marks, text] = line.match(/^(#+)\s*(.*)$/);
  return make(`h${Math.min(6, marks.length + 2)}`, {}, ...inline(text));
}

function list(lines) {
  const items = [];
  for (const line of lines) {
    if (/^[-*] /.test(line)) items.push(line.slice(2));
    else items[items.length - 1] += ` ${line.trim()}`;
  }
  return make("ul", {}, ...items.map((item) => make("li", {}, ...inline(item))));
}

/** Return the elements of a text in Markdown. */
export function renderMarkdown(text) {
  const lines = text.split("\n");
  const elements = [];
  for (let i = 0; i < lines.length; ) {
    if (!lines[i].trim()) {
      i++;
      continue;
    }
    const [pattern, render, most] = KINDS.find(([start]) => start.test(lines[i])) ?? [null, null, Infinity];
    const start = i++;
    const belongs = (line) => (pattern ? pattern.test(line) : line.trim() && !KINDS.some(([other]) => other.test(line) && other !== KINDS[2][0]));
    while (i < lines.length && i - start < most && belongs(lines[i])) i++;
    const block = lines.slice(start, i);
    if (render) elements.push(render(block));
    else if (/^[-*] /.test(block[0])) elements.push(list(block));
    else elements.push(make("p", {}, ...inline(block.join(" "))));
  }
  return elements;
}
