// What makes the pages live: they are rendered by the server, and fetched again every few seconds while they are seen.

import { watchActions } from "./actions.js";
import { drawCharts } from "./charts.js";
import { morph } from "./morph.js";
import { logOut, request } from "./server.js";
import { followTail } from "./tail.js";
import { formatTimes, secondOfDay, setServerTime, withoutZone, withZone } from "./times.js";

const main = document.getElementById("main");
const status = document.getElementById("status");
const every = Number(main.dataset.refresh ?? 0) * 1000;
let paused = false;
let timer = 0;
let busy = false;
let failures = 0;
let answeredAt = new Date();

// ---- refreshing

function isHeld() {
  if (paused || document.visibilityState !== "visible" || document.querySelector("dialog[open]")) return true;
  const why = heldBy();
  if (why && !failures) tell("paused", why);
  return Boolean(why);
}

// Somebody is about to act on what is listed: it must not move away. The page says so, because it is not live then.
function heldBy() {
  if (document.querySelector('input[name="pick"]:checked')) return `held since ${secondOfDay(answeredAt)}: some are selected`;
  return document.querySelector("[data-list] tbody:hover") ? `held since ${secondOfDay(answeredAt)}: the pointer is on the list` : "";
}

async function refresh() {
  if (busy) return;
  busy = true;
  try {
    const answer = await request(location.href, { headers: { "X-Fragment": "1", Accept: "text/html" }, redirect: "manual" });
    if (answer.type === "opaqueredirect" || answer.status === 401) {
      tell("away", "logged out: load the page again");
      return;
    }
    if (answer.status >= 500) throw new Error(`the server answered ${answer.status}`);
    show(new DOMParser().parseFromString(await answer.text(), "text/html"));
    failures = 0;
    answeredAt = new Date();
    tell(paused ? "paused" : "", paused ? "paused" : "live");
  } catch {
    failures += 1;
    // What is shown is as old as the last answer.
    tell("away", `no answer since ${secondOfDay(answeredAt)}`);
  } finally {
    busy = false;
  }
}

function show(fresh) {
  const next = fresh.getElementById("main");
  if (!next) return;
  setServerTime(next.dataset.now);
  formatTimes(next);
  enableButtons(next);
  keepFocus(() => {
    morph(main, next);
    morph(document.getElementById("nav"), fresh.getElementById("nav"));
  });
  drawCharts(main);
}

// What moves to another place in a list loses the focus, although it is still there.
function keepFocus(change) {
  const focused = document.activeElement;
  change();
  if (focused.isConnected && focused !== document.activeElement) focused.focus({ preventScroll: true });
}

// Buttons are served disabled: what is pressed before this script listens would be lost without a word.
function enableButtons(root) {
  for (const button of root.querySelectorAll("button[disabled]")) button.disabled = false;
}

function tell(kind, text) {
  status.className = `status ${kind}`;
  status.textContent = text;
}

async function keepFresh() {
  clearTimeout(timer);
  if (!isHeld()) await refresh();
  timer = setTimeout(keepFresh, every * Math.min(2 ** failures, 8));
}

if (every) {
  status.hidden = false;
  // A page that only says that there is no answer.
  if (document.getElementById("away")) tell("away", `no answer since ${secondOfDay(answeredAt)}`);
  timer = setTimeout(keepFresh, every);
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && keepFresh());
  status.addEventListener("click", () => {
    paused = !paused;
    tell(paused ? "paused" : "", paused ? "paused" : "live");
    if (!paused) keepFresh();
  });
}

// ---- dark or light

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
  try {
    localStorage.setItem("worker-theme", root.dataset.theme);
  } catch {
    // It holds for this page, then.
  }
});

document.getElementById("logout")?.addEventListener("click", logOut);

// ---- filters: the URL names only what is set

document.getElementById("filters")?.addEventListener("submit", (event) => {
  event.preventDefault();
  const given = new URLSearchParams();
  const moments = new Set([...event.target.querySelectorAll("[data-moment]")].map((one) => one.name));
  for (const [name, value] of new FormData(event.target)) {
    const text = value.trim();
    if (text) given.append(name, moments.has(name) ? withZone(text) : text);
  }
  location.assign(given.size ? `${event.target.action}?${given}` : event.target.action);
});
document.getElementById("filters")?.addEventListener("change", (event) => {
  if (event.target.type === "checkbox" || event.target.nodeName === "SELECT") event.target.form.requestSubmit();
});

for (const field of document.querySelectorAll("[data-moment]")) field.value = withoutZone(field.value);
setServerTime(main.dataset.now);
formatTimes(document);
setInterval(() => formatTimes(main), 1000);
drawCharts(main);
watchActions(refresh);
const tail = document.getElementById("tail");
if (tail) followTail(tail);
enableButtons(document);
document.querySelector('nav [aria-current]')?.scrollIntoView({ block: "nearest", inline: "center" });
