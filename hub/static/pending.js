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
let began = performance.now();

function tick() {
  clock.textContent = `${Math.floor((performance.now() - began) / 1000)} s`;
}
setInterval(tick, 1000);

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
  const event = JSON.parse(message.data);
  if (event.elapsed !== undefined) began = performance.now() - event.elapsed * 1000;
  if (event.log !== undefined) showLog(event.log);
  else if (event.at !== undefined) showPhase(event);
  // The hub leads on from here: to the server, or to the reason why there is none.
  if (event.ready || event.failed) { source.close(); location.reload(); }
};
source.onerror = () => {
  // Closed for good: the start has ended, or the hub restarts.
  if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), RETRY_MS);
};

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
