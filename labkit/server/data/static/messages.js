// Shows what the portal's administrators say: on the hub's pages, the gate's, the apps' and a server's own.
"use strict";
(() => {
  const EVERY = 12000; // milliseconds between two looks
  const region = document.getElementById("lab-messages");
  if (!region) return;

  const spell = (seconds) => {
    const minutes = Math.max(1, Math.round(seconds / 60));
    if (minutes < 60) return `${minutes} min`;
    const hours = Math.floor(minutes / 60);
    return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.round(hours / 24)} days`;
  };
  const clock = (seconds) => {
    const moment = new Date(seconds * 1000);
    const day = moment.toDateString() === new Date().toDateString() ? {} : { month: "short", day: "numeric" };
    return moment.toLocaleString([], { hour: "2-digit", minute: "2-digit", ...day });
  };
  /** What is said of the time beside a message's text; it counts down. */
  const time = ({ begins, until }) => {
    const now = Date.now() / 1000;
    if (begins && begins > now) return ` Maintenance begins at ${clock(begins)}, in ${spell(begins - now)}: no new servers from then on.`;
    if (begins) return ` Maintenance: no new servers${until ? ` until ${clock(until)}, for ${spell(until - now)} more` : ""}.`;
    return "";
  };
  const show = (messages) => {
    const lines = messages.map(({ text }) => text).join("\n");
    const shown = [...region.children].map((line) => line.dataset.text).join("\n");
    if (lines !== shown || region.children.length !== messages.length) { // screen readers hear only what is new
      region.replaceChildren(...messages.map(({ text }) => {
        const paragraph = document.createElement("p");
        paragraph.dataset.text = text;
        const countdown = document.createElement("span");
        countdown.setAttribute("aria-live", "off");
        paragraph.append(text, countdown);
        return paragraph;
      }));
    }
    messages.forEach((message, place) => { region.children[place].lastChild.textContent = time(message); });
  };
  const headers = { Accept: "application/json" };
  if (region.dataset.xsrf) headers["X-XSRFToken"] = region.dataset.xsrf;
  const ask = async () => {
    try {
      const answer = await fetch(region.dataset.source, { cache: "no-store", headers });
      if (answer.ok) show(await answer.json());
    } catch { /* the portal restarts: the next look is soon */ }
  };
  document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
  setInterval(() => { if (!document.hidden) ask(); }, EVERY);
  ask();
})();
