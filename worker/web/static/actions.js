// What people do: every action is counted first, shown in a dialog, and done when it is confirmed.

import { base, post, toast } from "./server.js";

const NAMES = { replay: "Replay", purge: "Purge", cancel: "Cancel", run_now: "Run now", pause: "Pause", resume: "Resume" };
const DONE = { replay: "enqueued again", purge: "purged", cancel: "cancelled", run_now: "enqueued now" };
const WARNINGS = {
  purge: "They and their history are gone for good.",
  cancel: "Those that run are interrupted; none is retried.",
  replay: "Each gets a new retry budget; its history goes on.",
  run_now: "They do not wait for their time any more.",
};

const messages = (count) => `${count.toLocaleString("en")} message${count === 1 ? "" : "s"}`;

export function ask(title, body, yes, danger) {
  const dialog = document.getElementById("dialog");
  document.getElementById("dialog-title").textContent = title;
  document.getElementById("dialog-body").replaceChildren(...body);
  const button = document.getElementById("dialog-yes");
  button.textContent = yes ?? "";
  button.hidden = !yes;
  button.classList.toggle("danger", danger);
  dialog.returnValue = "no";
  dialog.showModal();
  // Enter on a list, and Enter again, must change nothing.
  document.getElementById("dialog-no").focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

function paragraph(text, kind = "") {
  const element = document.createElement("p");
  element.textContent = text;
  element.className = kind;
  return element;
}

function listOf(ids) {
  const list = document.createElement("ul");
  for (const id of ids.slice(0, 20)) {
    const item = document.createElement("li");
    const link = document.createElement("a");
    link.href = `${base}/messages/${encodeURIComponent(id)}`;
    link.textContent = id;
    item.append(link);
    list.append(item);
  }
  return list;
}

async function act(action, targets, refresh) {
  const found = await post(`/actions/${action}`, { ...targets, dry_run: true });
  if (!found.count) {
    await ask(`${NAMES[action]}: nothing to do`, [paragraph("None of these messages is in a state for that.", "muted")], null, false);
    return;
  }
  const body = [paragraph(WARNINGS[action], "muted"), listOf(found.ids)];
  if (found.count > Math.min(found.ids.length, 20)) body.push(paragraph(`and ${messages(found.count - Math.min(found.ids.length, 20))} more`, "muted"));
  const danger = action === "purge" || action === "cancel";
  if (!(await ask(`${NAMES[action]} ${messages(found.count)}?`, body, `${NAMES[action]} ${messages(found.count)}`, danger))) return;
  // What was counted is what is done: not what matches only now.
  const counted = found.up_to === null ? { ids: found.ids } : { ...targets, up_to: found.up_to };
  const done = await post(`/actions/${action}`, { ...counted, confirm: true });
  const refused = Object.keys(done.refused).length;
  toast(`${messages(done.count)} ${DONE[action]}${refused ? `; ${messages(refused)} could not be` : ""}.`);
  refresh();
}

async function turn(button, refresh) {
  const { turn: action, queue } = button.dataset;
  await post(`/queues/${encodeURIComponent(queue)}/${action}`);
  toast(`Queue ${queue} is ${action === "pause" ? "paused: workers take nothing new from it" : "open again"}.`);
  refresh();
}

function tellSent(sent) {
  const said = sent.is_new ? "Enqueued:" : "Nothing was enqueued. This message has the unique key:";
  toast(said, { path: `/messages/${encodeURIComponent(sent.message_id)}`, text: sent.message_id });
}

async function sync(button, refresh) {
  const sent = await post(`/repositories/${encodeURIComponent(button.dataset.sync)}/sync`);
  tellSent(sent);
  refresh();
}

function bulkTargets() {
  if (document.getElementById("bulk-of").value === "all") {
    return { filter: JSON.parse(document.querySelector("[data-list]").dataset.filter) };
  }
  return { ids: [...document.querySelectorAll('input[name="pick"]:checked')].map((one) => one.value) };
}

async function bulk(action, refresh) {
  const targets = bulkTargets();
  if (targets.ids && !targets.ids.length) {
    toast("No message is selected: tick some, or choose everything that matches.");
    return;
  }
  await act(action, targets, refresh);
  for (const box of document.querySelectorAll('input[name="pick"]:checked, #pick-all:checked')) box.checked = false;
}

function handle(button, refresh) {
  if (button.dataset.turn) return turn(button, refresh);
  if (button.dataset.sync) return sync(button, refresh);
  if (button.dataset.bulk) return bulk(button.dataset.bulk, refresh);
  const targets = button.dataset.ids ? { ids: JSON.parse(button.dataset.ids) } : { filter: JSON.parse(button.dataset.filter) };
  return act(button.dataset.action, targets, refresh);
}

const acting = new WeakSet();

export function watchActions(refresh) {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-turn], [data-sync], [data-bulk], [data-action]");
    if (!button || acting.has(button)) return;
    // A disabled button would lose the focus, which belongs to it again when the dialog closes.
    acting.add(button);
    try {
      await handle(button, refresh);
    } catch (error) {
      toast(`That did not work: ${error.message}`);
    } finally {
      acting.delete(button);
    }
  });
  document.addEventListener("change", (event) => {
    if (event.target.id !== "pick-all") return;
    for (const box of document.querySelectorAll('input[name="pick"]')) box.checked = event.target.checked;
  });
  watchEnqueueing(refresh);
}

// ---- enqueueing

const SECONDS = { ms: 0.001, s: 1, m: 60, h: 3600, d: 86400, "": 1 };

function readSeconds(text) {
  if (!text.trim()) return null;
  const parts = text.trim().match(/^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?$/);
  if (!parts) throw new Error(`${text} is no delay: write 30s, 5m or 1h`);
  return Number(parts[1]) * SECONDS[parts[2] ?? ""];
}

function readJson(name, text, empty, fits) {
  let found;
  try {
    found = JSON.parse(text.trim() || empty);
  } catch (error) {
    throw new Error(`${name} cannot be read as JSON: ${error.message}`);
  }
  if (!fits(found)) throw new Error(`${name} must look like ${empty === "[]" ? '["a", 1]' : '{"name": 1}'}`);
  return found;
}

function readMessage(form) {
  const { actor, args, kwargs, delay, key } = form.elements;
  const seconds = readSeconds(delay.value);
  return {
    actor: actor.value.trim(),
    args: readJson("The arguments", args.value, "[]", Array.isArray),
    kwargs: readJson("The named arguments", kwargs.value, "{}", (found) => found && typeof found === "object" && !Array.isArray(found)),
    ...(seconds ? { delay: `${seconds}s` } : {}),
    ...(key.value.trim() ? { key: key.value.trim() } : {}),
  };
}

function watchEnqueueing(refresh) {
  const dialog = document.getElementById("enqueue");
  if (!dialog) return;
  const form = document.getElementById("enqueue-form");
  const complaint = form.querySelector(".complaint");
  document.getElementById("enqueue-open").addEventListener("click", () => {
    complaint.hidden = true;
    dialog.showModal();
  });
  form.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const sent = await post("/messages", readMessage(form));
      dialog.close();
      tellSent(sent);
      refresh();
    } catch (error) {
      complaint.textContent = error.message;
      complaint.hidden = false;
    }
  });
}
