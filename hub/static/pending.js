// The pending page: phases, time and log as the hub tells them, then on to the server.
import { call, serverPath, tellTimes } from "./hub.js";

const root = document.getElementById("start");
const waitBox = document.getElementById("wait");
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

/** Show where in the cluster's queue the server is, or that it waits no longer. */
function showWait(wait) {
  waitBox.hidden = !wait;
  if (!wait) return;
  const write = (id, text) => {
    const item = document.getElementById(id);
    if (item.textContent !== text) item.textContent = text;
    item.hidden = !text;
  };
  waitBox.classList.toggle("notice-bad", wait.hopeless);
  write("wait-title", wait.title);
  write("wait-why", wait.why);
  write("wait-hint", wait.hint);
  const facts = document.getElementById("wait-facts");
  facts.replaceChildren();
  const fact = (name, value) => {
    const term = document.createElement("dt");
    const text = document.createElement("dd");
    term.textContent = name;
    text.append(value);
    facts.append(term, text);
  };
  if (wait.partition) fact("Partition", wait.partition);
  if (wait.position) fact("Place", wait.length > 1 ? `${wait.position} of ${wait.length} that wait` : "the next");
  if (wait.expected) {
    const time = document.createElement("time");
    time.dateTime = new Date(wait.expected * 1000).toISOString();
    fact("Expected start", time);
    tellTimes(facts);
  } else if (wait.position && !wait.hopeless) {
    fact("Expected start", "not known yet");
  }
}

const source = new EventSource(root.dataset.progress);
// The hub tells everything again to whoever comes (back).
source.onopen = () => phases.replaceChildren();
source.onmessage = (message) => {
  heard = performance.now();
  const event = JSON.parse(message.data);
  if (event.elapsed !== undefined) began = performance.now() - event.elapsed * 1000;
  if (event.log !== undefined) showLog(event.log);
  else if (event.wait !== undefined) showWait(event.wait);
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
