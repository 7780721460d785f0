// Times as people read them: local, with the whole of it in the title. The server's clock counts, not the visitor's.

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const whole = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

let ahead = 0; // milliseconds that the server's clock is ahead of the visitor's

export function setServerTime(text) {
  if (text) ahead = Date.parse(text) - Date.now();
}

export const serverNow = () => Date.now() + ahead;

export function formatTimes(root) {
  const now = serverNow();
  for (const element of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(element.dateTime);
    if (Number.isNaN(moment.getTime())) continue;
    const text = say(moment, element.dataset.as, now);
    if (element.textContent !== text) element.textContent = text;
    if (!element.title) element.title = `${whole.format(moment)} (${element.dateTime})`;
  }
}

function say(moment, as, now) {
  const ms = now - moment.getTime();
  if (as === "clock") return clockTime(moment, now);
  if (as === "for") return duration(Math.max(0, ms));
  if (as === "until") return ms >= 0 ? "due now" : `in ${rough(-ms)}`;
  return ms < 1000 ? "just now" : `${rough(ms)} ago`;
}

export function clockTime(moment, now = serverNow()) {
  const same = moment.toDateString() === new Date(now).toDateString();
  return same ? clock.format(moment) : `${day.format(moment)}, ${clock.format(moment)}`;
}

// A moment without a zone, as a visitor writes one, is local, like all times on the pages; the server reads UTC.
const LOCAL_MOMENT = /^\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?$/;
const UTC_MOMENT = /^\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d+)?)?Z$/;

export function withZone(text) {
  if (!LOCAL_MOMENT.test(text)) return text;
  // A day alone would be read as one of UTC.
  const moment = new Date(text.length === 10 ? `${text}T00:00` : text.replace(" ", "T"));
  return Number.isNaN(moment.getTime()) ? text : moment.toISOString();
}

export function withoutZone(text) {
  const moment = new Date(text);
  if (!UTC_MOMENT.test(text) || Number.isNaN(moment.getTime())) return text;
  const local = new Date(moment.getTime() - moment.getTimezoneOffset() * 60_000).toISOString();
  return local.endsWith(":00.000Z") ? local.slice(0, 16) : local.slice(0, -1);
}

const toSeconds = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

export const secondOfDay = (moment) => toSeconds.format(moment);

function rough(ms) {
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d`;
}

export function duration(ms) {
  if (ms == null) return "–";
  if (ms < 1) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m ${Math.floor(seconds % 60)} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} m`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}
