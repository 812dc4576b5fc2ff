(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const { duration, labels, tracks, segments, summarized } = data;
  const [START, END, TRACK, LABEL, PERCENT, TEXT, BEFORE, OWN] = [0, 1, 2, 3, 4, 5, 6, 7];
  const byId = (id) => document.getElementById(id);
  const [audio, view, sheet, cursor, tip, list, now] = ["audio", "view", "sheet", "cursor", "tip", "list", "now"].map(byId);
  const PAGE = summarized ? 200 : segments.length;
  const MOST_BANDS = 600;
  const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];
  const maxZoom = Math.max(1, Math.min(2 ** 12, (duration * 60) / 1000));
  let time = 0, zoom = 1, first = -1, shown = [];

  const clock = (seconds, digits = 0) => {
    const unit = 10 ** digits, total = Math.round(seconds * unit), whole = Math.floor(total / unit);
    const pad = (value) => String(value).padStart(2, "0");
    const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
    const fraction = digits ? "." + String(total % unit).padStart(digits, "0") : "";
    return (hours ? `${hours}:${pad(minutes)}` : `${minutes}`) + `:${pad(whole % 60)}${fraction}`;
  };
  const make = (name, className, text) => {
    const element = document.createElement(name);
    if (className) element.className = className;
    if (text) element.textContent = text;
    return element;
  };
  const look = (label) => `e${label}` + (labels[label] === "unknown" ? " unknown" : "");
  // The emotion that is shown, and the most probable one of the segment alone if that is another.
  const percent = (segment) => (segment[LABEL] < 0 ? "" : segment[OWN] ? labels[segment[LABEL]] : `${labels[segment[LABEL]]} ${segment[PERCENT]}%`);
  const alone = (segment) => (segment[OWN] ? `by itself: ${segment[OWN]} ${segment[PERCENT]}%` : "");
  const describe = (segment) => {
    const emotion = percent(segment) + (segment[OWN] ? ` (${alone(segment)})` : "");
    return [tracks[segment[TRACK]], emotion].filter(Boolean).join(": ");
  };
  // The index of the last segment that starts at or before a time; -1 if there is none.
  const lastStart = (seconds) => {
    let low = 0, high = segments.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (segments[middle][START] <= seconds) low = middle + 1; else high = middle;
    }
    return low - 1;
  };
  // The indices of the segments at a time: of each track the last one that has begun, if it has not ended.
  const segmentsAt = (seconds) => {
    const latest = new Map();
    for (let index = lastStart(seconds); index >= 0 && latest.size < tracks.length && seconds - segments[index][START] < 600; index--) {
      if (!latest.has(segments[index][TRACK])) latest.set(segments[index][TRACK], index);
    }
    return [...latest.values()].filter((index) => seconds < segments[index][END]).sort((a, b) => a - b);
  };

  const renderList = (from) => {
    first = Math.max(0, Math.min(from, segments.length - 1));
    const rows = segments.slice(first, first + PAGE).map((segment, offset) => {
      const row = make("li");
      row.dataset.index = first + offset;
      row.append(make("button", "", clock(segment[START], 1)), make("span", "who", tracks[segment[TRACK]]));
      row.append(segment[LABEL] < 0 ? make("span") : make("span", `chip ${look(segment[LABEL])}`, percent(segment)));
      const words = make("span", "words", segment[TEXT]);
      if (segment[BEFORE]) words.append(make("span", "change", `\u25be was ${segment[BEFORE]}`));
      if (segment[OWN]) words.append(make("span", "change", alone(segment)));
      row.append(words);
      row.firstChild.type = "button";
      return row;
    });
    list.replaceChildren(...rows);
    const last = Math.min(first + PAGE, segments.length);
    byId("range").textContent = segments.length ? `${first + 1} to ${last} of ${segments.length}` : "";
    byId("earlier").disabled = first === 0;
    byId("later").disabled = last >= segments.length;
    shown = [];
  };

  const renderAxis = () => {
    const width = sheet.clientWidth, step = STEPS.find((value) => (value / duration) * width >= 64) || 86400;
    const from = Math.max(0, Math.floor(((view.scrollLeft - 100) / width) * duration / step));
    const to = Math.ceil(((view.scrollLeft + view.clientWidth + 100) / width) * duration / step);
    const ticks = [];
    for (let tick = from; tick <= to && tick * step < duration; tick++) {
      const mark = make("span", "", clock(tick * step, step < 1 ? 1 : 0));
      mark.style.left = `${(100 * tick * step) / duration}%`;
      ticks.push(mark);
    }
    byId("axis").replaceChildren(...ticks);
  };

  // In a long timeline, single segments are drawn if few are in view, and columns otherwise.
  const renderBands = () => {
    if (!summarized) return;
    const width = sheet.clientWidth;
    const from = ((view.scrollLeft - view.clientWidth) / width) * duration;
    const to = ((view.scrollLeft + 2 * view.clientWidth) / width) * duration;
    const indices = [];
    for (let index = Math.max(0, lastStart(from) - 20); index < segments.length && segments[index][START] < to; index++) {
      indices.push(index);
      if (indices.length > MOST_BANDS) break;
    }
    const few = indices.length <= MOST_BANDS;
    sheet.classList.toggle("zoomed", few);
    for (const lane of sheet.querySelectorAll(".lane")) {
      lane.querySelectorAll(".band, .turn").forEach((element) => element.remove());
      if (!few) continue;
      for (const segment of indices.map((index) => segments[index])) {
        if (segment[TRACK] !== Number(lane.dataset.track) || segment[LABEL] < 0) continue;
        const band = make("i", `band ${look(segment[LABEL])}`);
        band.append(make("span", "", labels[segment[LABEL]]));
        band.style.left = `${(100 * segment[START]) / duration}%`;
        band.style.width = `${(100 * (segment[END] - segment[START])) / duration}%`;
        lane.append(band);
        if (!segment[BEFORE]) continue;
        const turn = make("i", "turn");
        turn.style.left = band.style.left;
        lane.append(turn);
      }
    }
  };

  const render = () => { renderAxis(); renderBands(); };
  let waiting = false;
  const renderSoon = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; render(); });
  };

  const setZoom = (value) => {
    const width = sheet.clientWidth, at = (time / duration) * width;
    const offset = at >= view.scrollLeft && at <= view.scrollLeft + view.clientWidth ? at - view.scrollLeft : view.clientWidth / 2;
    const center = (view.scrollLeft + offset) / width;
    zoom = Math.max(1, Math.min(value, maxZoom));
    sheet.style.width = `${100 * zoom}%`;
    view.scrollLeft = center * sheet.clientWidth - offset;
    byId("out").disabled = byId("all").disabled = zoom === 1;
    byId("in").disabled = zoom >= maxZoom;
    render();
  };

  const follow = () => {
    const at = (time / duration) * sheet.clientWidth;
    if (at < view.scrollLeft || at > view.scrollLeft + view.clientWidth) view.scrollLeft = at - view.clientWidth * 0.1;
  };

  // Show the present time: the cursor, the segments at it, and with `move` the part of the list that has them.
  const showTime = (move) => {
    cursor.style.left = `${(100 * Math.min(time, duration)) / duration}%`;
    const active = segmentsAt(time);
    now.textContent = [clock(time, 1), ...active.map((index) => describe(segments[index]))].join("  ");
    if (move && active.length && (active[0] < first || active[0] >= first + PAGE)) renderList(active[0] - 10);
    if (active.join() === shown.join() && list.querySelector(".on")) return;
    shown = active;
    for (const row of list.querySelectorAll(".on")) { row.classList.remove("on"); row.removeAttribute("aria-current"); }
    for (const index of active) {
      const row = list.querySelector(`[data-index="${index}"]`);
      if (row) { row.classList.add("on"); row.setAttribute("aria-current", "true"); }
    }
    const row = list.querySelector(".on");
    if (row && move && (row.offsetTop < list.scrollTop || row.offsetTop + row.offsetHeight > list.scrollTop + list.clientHeight)) {
      list.scrollTop = row.offsetTop - list.clientHeight / 3;
    }
  };

  const seek = (seconds, play) => {
    time = Math.max(0, Math.min(seconds, duration));
    if (audio) {
      audio.currentTime = time;
      if (play) audio.play().catch(() => {});
    }
    follow();
    showTime(true);
  };
  const toggle = () => { if (audio) { if (audio.paused) audio.play().catch(() => {}); else audio.pause(); } };
  const jump = (step) => {
    const index = step > 0 ? lastStart(time) + 1 : lastStart(time - 0.5);
    const target = step < 0 && index >= 0 && segments[index][START] >= time ? index - 1 : index;
    if (segments[target]) seek(segments[target][START], false);
  };

  const locate = (event) => {
    const box = sheet.getBoundingClientRect(), lane = event.target.closest(".lane");
    const seconds = Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)) * duration;
    const candidates = segmentsAt(seconds).map((index) => segments[index]);
    return [seconds, lane && candidates.find((segment) => segment[TRACK] === Number(lane.dataset.track))];
  };
  sheet.addEventListener("click", (event) => {
    const [seconds, segment] = locate(event);
    seek(segment ? segment[START] : seconds, Boolean(segment));
  });
  sheet.addEventListener("pointermove", (event) => {
    const [seconds, segment] = locate(event);
    tip.hidden = event.pointerType === "touch" || (!segment && !event.target.closest(".wave"));
    if (tip.hidden) return;
    tip.textContent = segment ? `${clock(segment[START], 1)}\u2013${clock(segment[END], 1)}  ${describe(segment)}` : clock(seconds, 1);
    if (segment && segment[TEXT]) tip.append(make("br"), segment[TEXT]);
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(event.clientX + 12, innerWidth - box.width - 8))}px`;
    tip.style.top = `${event.clientY + 18 + box.height > innerHeight ? event.clientY - box.height - 10 : event.clientY + 18}px`;
  });
  sheet.addEventListener("pointerleave", () => { tip.hidden = true; });
  list.addEventListener("click", (event) => {
    const row = event.target.closest("li");
    if (row && !String(getSelection())) seek(segments[Number(row.dataset.index)][START], true);
  });
  byId("out").addEventListener("click", () => setZoom(zoom / 2));
  byId("all").addEventListener("click", () => setZoom(1));
  byId("in").addEventListener("click", () => setZoom(zoom * 2));
  byId("earlier").addEventListener("click", () => { renderList(first - PAGE); showTime(false); });
  byId("later").addEventListener("click", () => { renderList(first + PAGE); showTime(false); });
  view.addEventListener("scroll", renderSoon, { passive: true });
  addEventListener("resize", renderSoon);
  addEventListener("beforeprint", () => setZoom(1));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("audio, input, select")) return;
    if (event.key === " " && event.target.closest("button, a")) return;
    const actions = {
      " ": toggle, "+": () => setZoom(zoom * 2), "=": () => setZoom(zoom * 2), "-": () => setZoom(zoom / 2), 0: () => setZoom(1),
      ArrowLeft: () => (event.shiftKey ? seek(time - 5) : jump(-1)), ArrowRight: () => (event.shiftKey ? seek(time + 5) : jump(1)),
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  });
  if (audio) {
    const tick = () => {
      time = audio.currentTime;
      follow();
      showTime(true);
      if (!audio.paused) requestAnimationFrame(tick);
    };
    audio.addEventListener("play", () => requestAnimationFrame(tick));
    audio.addEventListener("seeked", () => { if (audio.paused) tick(); });
    audio.addEventListener("error", () => audio.replaceWith(make("p", "small", "This browser cannot play the recording, or does not find it.")));
  }
  list.classList.toggle("alone", tracks.length < 2);
  document.querySelector(".pager").hidden = segments.length <= PAGE;
  renderList(0);
  setZoom(1);
  showTime(false);
})();
