// The pending page: phases, time and log as the hub tells them, then on to the server.
import { call, serverPath } from "./hub.js";

const root = document.getElementById("start");
const phases = document.getElementById("phases");
const clock = document.getElementById("clock");
const log = document.getElementById("log");
const logBox = document.getElementById("log-box");
const cancel = document.getElementById("cancel");
const status = document.getElementById("status");
const RETRY_MS = 2000;
const SILENCE_MS = 15000; // the hub says something every 5 s, but its end may go unnoticed
let began = performance.now();
let heard = performance.now();

/** Load the page again as soon as the hub answers: it knows where this leads. */
async function goOn() {
  try {
    const answer = await fetch(location.href, { credentials: "same-origin", redirect: "manual" });
    const hub = answer.type === "opaqueredirect" || answer.headers.has("X-JupyterHub-Version");
    if (hub) return location.reload();
  } catch { /* the hub restarts */ }
  setTimeout(goOn, RETRY_MS);
}

function tick() {
  if (source.readyState !== EventSource.CLOSED && performance.now() - heard > SILENCE_MS) {
    source.close();
    goOn();
  }
  clock.textContent = `${Math.floor((performance.now() - began) / 1000)} s`;
}

function showPhase(event) {
  const item = document.createElement("li");
  const text = document.createElement("span");
  const time = document.createElement("time");
  text.textContent = event.message;
  time.textContent = `after ${event.at.toFixed(1)} s`;
  item.append(text, time);
  phases.append(item);
}

function showLog(text) {
  const follow = log.scrollTop + log.clientHeight >= log.scrollHeight - 5;
  log.textContent = text;
  logBox.hidden = false;
  if (follow) log.scrollTop = log.scrollHeight;
}

const source = new EventSource(root.dataset.progress);
// The hub tells everything again to whoever comes (back).
source.onopen = () => phases.replaceChildren();
source.onmessage = (message) => {
  heard = performance.now();
  const event = JSON.parse(message.data);
  if (event.elapsed !== undefined) began = performance.now() - event.elapsed * 1000;
  if (event.log !== undefined) showLog(event.log);
  else if (event.at !== undefined) showPhase(event);
  // The hub leads on from here: to the server, or to the reason why there is none.
  if (event.ready || event.failed) { source.close(); location.reload(); }
};
source.onerror = () => {
  // Closed for good: the start has ended, or the hub restarts.
  if (source.readyState === EventSource.CLOSED) setTimeout(goOn, RETRY_MS);
};
setInterval(tick, 1000);

cancel.addEventListener("click", async () => {
  cancel.disabled = true;
  status.textContent = "Cancelling…";
  try {
    source.close();
    await call("DELETE", serverPath(root.dataset.owner, root.dataset.server));
    location.href = root.dataset.home;
  } catch (error) {
    cancel.disabled = false;
    status.textContent = `That did not work: ${error.message}`;
  }
});
