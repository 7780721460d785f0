// The page's way to its server, and what it tells its visitor.

// The longest that requests may take, in milliseconds: longer than the web process waits for its server, and long for an
// action on very many messages.
const PATIENCE = 15_000;
const PATIENCE_WITH_ACTIONS = 120_000;

// Fetches, and gives up after a while: a web process that hangs answers nothing, and breaks no connection.
export const request = (url, options = {}, patience = PATIENCE) => fetch(url, { ...options, signal: AbortSignal.timeout(patience) });

const meta = (name) => document.querySelector(`meta[name="${name}"]`)?.content ?? "";
export const base = meta("base");

// Sends an action, and gives back what the server answers; throws what it complains of.
export async function post(path, body = {}) {
  const answer = await request(`${base}/api${path}`, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": meta("csrf-token"), Accept: "application/json" },
    body: JSON.stringify(body),
  }, PATIENCE_WITH_ACTIONS);
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(found.detail ?? `the server answered ${answer.status}`);
  return found;
}

let hiding = 0;

// Says something for some seconds; `link` is where one can look at it.
export function toast(text, link) {
  const element = document.getElementById("toast");
  element.replaceChildren(text);
  if (link) {
    const there = document.createElement("a");
    there.href = base + link.path;
    there.textContent = link.text;
    element.append(" ", there);
  }
  element.hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => (element.hidden = true), 8000);
}

export async function logOut() {
  await request(`${base}/logout`, { method: "POST", headers: { "X-CSRF-Token": meta("csrf-token") }, redirect: "manual" });
  location.assign(`${base}/login`);
}
