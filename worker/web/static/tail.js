// The live tail: at most so many rows, drawn a few times a second, however many events go by.
// Only what is shown is read; the rest is counted.

import { base } from "./server.js";
import { clockTime, duration, secondOfDay } from "./times.js";

const ROWS = 200;
const DRAW_EVERY = 250; // milliseconds
const RATE_OVER = 3000;

export function followTail(element) {
  const rows = document.getElementById("tail-rows");
  const rate = document.getElementById("tail-rate");
  const note = document.getElementById("tail-note");
  const pause = document.getElementById("tail-pause");
  let waiting = []; // texts of events that are not drawn yet, the newest last
  let left = 0; // how many of them were left out
  let counts = []; // [when, how many], of the last seconds
  let came = 0;
  let paused = false;
  let drawing = false;
  let awaySince = new Date(); // null while events come
  let missed = false;

  const source = new EventSource(`${base}/api/events/live?${element.dataset.follow}`);
  source.addEventListener("message", (event) => {
    came += 1;
    if (paused || !event.data) return;
    waiting.push(event.data);
    if (waiting.length > 2 * ROWS) {
      left += waiting.length - ROWS;
      waiting = waiting.slice(-ROWS);
    }
    schedule();
  });
  source.addEventListener("missed", () => (missed = true));
  // The web process sends this, every so often, while its own server does not answer.
  source.addEventListener("away", (event) => (awaySince = new Date(JSON.parse(event.data).since)));
  source.addEventListener("back", () => (awaySince = null));
  source.addEventListener("open", () => (awaySince = null));
  source.addEventListener("error", () => (awaySince ??= new Date()));
  addEventListener("pagehide", () => source.close());

  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Go on" : "Pause";
    waiting = [];
    tell();
  });

  function schedule() {
    if (drawing) return;
    drawing = true;
    setTimeout(() => requestAnimationFrame(draw), DRAW_EVERY);
  }

  function draw() {
    drawing = false;
    left += Math.max(0, waiting.length - ROWS);
    const fresh = waiting.slice(-ROWS).reverse();
    waiting = [];
    const piece = document.createDocumentFragment();
    for (const text of fresh) piece.append(rowOf(JSON.parse(text)));
    rows.prepend(piece);
    while (rows.childElementCount > ROWS) rows.lastElementChild.remove();
  }

  function tell() {
    const now = Date.now();
    counts.push([now, came]);
    came = 0;
    counts = counts.filter(([at]) => at > now - RATE_OVER);
    const total = counts.reduce((sum, [, count]) => sum + count, 0);
    rate.textContent = Math.round(total / Math.max(1, counts.length)).toLocaleString("en");
    const said = [];
    if (awaySince) said.push(`no answer since ${secondOfDay(awaySince)}: trying again`);
    else if (paused) said.push("paused");
    if (left) said.push(`${left.toLocaleString("en")} not shown: too many to read`);
    if (missed) said.push("some were gone before they could be read");
    note.textContent = said.join(" · ");
  }
  setInterval(tell, 1000);
}

function rowOf(event) {
  const row = document.createElement("tr");
  const about = Object.entries(event.subject).map(([key, value]) => `${key}=${value}`).join(" ");
  const names = (event.error?.type ?? "").split(", ").map((one) => one.split(".").pop()).join(", ");
  const said = event.error ? [names, event.error.text].filter(Boolean).join(": ") : event.text;
  const progress = event.done == null ? "" : `${event.done}${event.total ? ` of ${event.total}` : ""} `;
  cell(row, clockTime(new Date(event.time)), "num").title = event.time;
  const name = document.createElement("span");
  name.className = `state ${event.state === "progress" ? "progress-event" : event.state}`;
  name.textContent = event.state;
  cell(row, "").append(name);
  cell(row, event.event.slice(0, -event.state.length - 1)).title = event.event;
  cell(row, event.attempt ?? "", "num");
  cell(row, event.duration_ms == null ? "" : duration(event.duration_ms), "num");
  const link = document.createElement("a");
  link.textContent = about || event.message_id || "";
  if (event.message_id) link.href = `${base}/messages/${encodeURIComponent(event.message_id)}`;
  cell(row, "").append(link);
  cell(row, `${progress}${said}`.split("\n")[0].slice(0, 300), "said");
  return row;
}

function cell(row, text, kind = "") {
  const made = document.createElement("td");
  made.textContent = text;
  made.className = kind;
  row.append(made);
  return made;
}
