// The home page: stop and remove servers, add one, keep what is shown up to date.
import { call, serverPath, tellTimes } from "./hub.js";

const user = document.body.dataset.user;
const status = document.getElementById("status");
const BUSY_MS = 1500; // while a server starts or stops
const CALM_MS = 30000;
let timer;

function say(text, bad = false) {
  status.textContent = text;
  status.className = bad ? "notice notice-bad" : "notice";
  status.hidden = !text;
}

// The apps as the hub has written them, before their states are shown.
let apps = document.getElementById("apps").innerHTML;

/** Show apps that were added meanwhile, or to whom somebody now belongs; take away what is gone. */
function takeApps(fresh) {
  const next = fresh.getElementById("apps");
  if (!next || next.innerHTML === apps) return;
  apps = next.innerHTML;
  const now = document.getElementById("apps");
  const focused = now.contains(document.activeElement) && document.activeElement.getAttribute("href");
  now.replaceChildren(...next.childNodes);
  if (focused) [...now.querySelectorAll("a")].find((a) => a.getAttribute("href") === focused)?.focus();
}

/** Take the lists of servers and apps from a fresh copy of the page. */
async function refresh() {
  clearTimeout(timer);
  if (!document.hidden) {
    try {
      const answer = await fetch(location.pathname, { credentials: "same-origin" });
      if (!answer.ok) throw new Error(answer.status);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const next = fresh.getElementById("servers");
      const now = document.getElementById("servers");
      if (!next) return location.reload(); // logged out meanwhile
      tellTimes(next);
      if (next.innerHTML !== now.innerHTML) {
        const focused = now.contains(document.activeElement) && document.activeElement.id;
        now.replaceChildren(...next.childNodes);
        if (focused) document.getElementById(focused)?.focus();
      }
      takeApps(fresh);
    } catch { /* the hub restarts: try again later */ }
  }
  tellApps();
  const busy = document.querySelector("#servers [data-busy]");
  timer = setTimeout(refresh, busy ? BUSY_MS : CALM_MS);
}

// What is shown of an app's state; one that is stopped starts when it is opened.
const STATES = {
  running: ["Running", "state state-good"],
  starting: ["Starting", "state state-warn"],
  failed: ["Down", "state state-bad"],
  stopped: ["Stopped", "state"],
};

/** Show the states of the apps behind the gate. */
async function tellApps() {
  const badges = [...document.querySelectorAll("[data-app]")];
  if (!badges.length || document.hidden) return;
  try {
    const states = await (await call("GET", "/labhub/services")).json();
    for (const badge of badges) {
      const [text, look] = STATES[states[badge.dataset.app]] ?? ["", ""];
      badge.textContent = text;
      badge.className = look;
      badge.hidden = !text;
    }
  } catch { /* the hub restarts: the next time tells */ }
}

async function act(button) {
  const { action, server } = button.dataset;
  const label = server || "your server";
  if (action === "remove" && !confirm(`Remove "${server}" from this list? Your files stay.`)) return;
  button.disabled = true;
  say(action === "stop" ? `Stopping ${label}…` : `Removing ${label}…`);
  try {
    await call("DELETE", serverPath(user, server), action === "remove" ? { remove: true } : undefined);
    await refresh();
    say(action === "stop" ? `Asked ${label} to stop.` : `Removed ${label}.`);
  } catch (error) {
    button.disabled = false;
    say(`That did not work: ${error.message}`, true);
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-action]");
  if (button) act(button);
});

const form = document.getElementById("add-server");
form?.addEventListener("submit", (event) => {
  event.preventDefault();
  const name = form.elements.name.value;
  location.href = `${form.dataset.spawn}/${encodeURIComponent(name)}`;
});

document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
window.addEventListener("pageshow", (event) => { if (event.persisted) refresh(); });
tellTimes();
tellApps();
timer = setTimeout(refresh, document.querySelector("#servers [data-busy]") ? BUSY_MS : CALM_MS);
