// JupyterLab tells of the time limit in time, why the cluster ends the server, and what the
// portal's administrators say. Written as JupyterLab loads it: nothing is built.
"use strict";
(() => {
  const EVERY = 30000; // milliseconds between two looks; asking is no activity
  const NEWS = 12000;
  const LONGEST = 140; // characters: JupyterLab cuts off the rest
  const READ = "labkit:read-message";

  const text = (ends, now) => {
    const minutes = Math.max(1, Math.round((ends - now) / 60));
    const clock = new Date(ends * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    return (
      `This server ends at ${clock}, in ${minutes} min: that is its time limit on the cluster. ` +
      "Save your work and intermediate results." // JupyterLab cuts off after 140 characters
    );
  };

  // -- messages of the administrators ------------------------------------------------
  const shown = new Map(); // by the message's id: the notification's id, and its text
  const time = (seconds) => new Date(seconds * 1000).toLocaleString([], { weekday: "short", hour: "2-digit", minute: "2-digit" });
  const wording = ({ text, begins, until }) => {
    const now = Date.now() / 1000;
    if (!begins) return text;
    const minutes = Math.max(1, Math.round((begins - now) / 60));
    const end = until ? ` until ${time(until)}` : "";
    const when = begins > now ? `Maintenance begins at ${time(begins)}, in ${minutes < 120 ? `${minutes} min` : `${Math.round(minutes / 60)} h`}` : `Maintenance${end}: no new servers`;
    return `${when}. ${text}`;
  };
  const read = (text) => {
    const dialog = document.createElement("dialog");
    const words = document.createElement("p");
    words.textContent = text;
    const close = document.createElement("button");
    close.textContent = "Close";
    close.onclick = () => dialog.close();
    dialog.onclose = () => dialog.remove();
    dialog.append(words, close);
    document.body.append(dialog);
    dialog.showModal();
  };
  const news = async (app) => {
    const settings = app.serviceManager.serverSettings;
    const headers = settings.token ? { Authorization: `token ${settings.token}` } : {};
    const answer = await fetch(`${settings.baseUrl}labkit/api/messages`, { headers, cache: "no-store" });
    if (!answer.ok) return;
    const messages = await answer.json();
    const current = new Set(messages.map(({ id }) => id));
    for (const [id, { notification }] of shown) {
      if (!current.has(id)) {
        shown.delete(id);
        await app.commands.execute("apputils:dismiss-notification", { id: notification });
      }
    }
    for (const message of messages.reverse()) { // the newest on top
      const full = wording(message);
      const known = shown.get(message.id);
      if (known && known.full === full) continue;
      const long = full.length > LONGEST;
      const args = {
        message: long ? `${full.slice(0, LONGEST - 1)}…` : full,
        type: "warning",
        options: { autoClose: false, actions: long ? [{ label: "Read all", commandId: READ, args: { text: full } }] : [] },
      };
      if (known) {
        known.full = full; // one that was closed stays closed
        await app.commands.execute("apputils:update-notification", { id: known.notification, ...args, ...args.options });
      } else {
        shown.set(message.id, { full, notification: await app.commands.execute("apputils:notify", args) });
      }
    }
  };

  const activate = (app) => {
    const settings = app.serviceManager.serverSettings;
    let told = 0;
    const look = async () => {
      const headers = settings.token ? { Authorization: `token ${settings.token}` } : {};
      const answer = await fetch(`${settings.baseUrl}labkit/api/status`, { headers, cache: "no-store" });
      if (!answer.ok) return;
      const { ends, warn_seconds: warn } = await answer.json();
      const now = Date.now() / 1000;
      if (!ends || ends <= now || ends - now > warn || told === ends) return;
      told = ends;
      await app.commands.execute("apputils:notify", {
        message: text(ends, now),
        type: "warning",
        options: { autoClose: false },
      });
    };
    const again = () => look().catch(() => {}); // the next look is soon
    // Answers when the cluster ends the server, or after a while without news.
    const listen = async () => {
      const headers = settings.token ? { Authorization: `token ${settings.token}` } : {};
      const answer = await fetch(`${settings.baseUrl}labkit/api/ending`, { headers, cache: "no-store" });
      if (!answer.ok) throw new Error(answer.status);
      const { why } = await answer.json();
      if (!why) return true;
      await app.commands.execute("docmanager:save-all").catch(() => {});
      await app.commands.execute("apputils:notify", {
        message: `The cluster ends this server now: ${why}. Open documents were saved.`,
        type: "error",
        options: { autoClose: false },
      });
      return false;
    };
    const goOn = () => listen().then((on) => on && goOn(), () => setTimeout(goOn, EVERY));
    const tell = () => news(app).catch(() => {});
    app.commands.addCommand(READ, { label: "Read the portal's message", execute: ({ text }) => read(text) });
    app.restored.then(() => {
      goOn();
      again();
      setInterval(again, EVERY);
      tell();
      setInterval(tell, NEWS);
    });
  };

  const plugin = { id: "labkit-notices:time-limit", description: "Warns before the server ends, and shows the portal's messages", autoStart: true, activate };
  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB["labkit-notices"] = {
    init: () => {},
    get: () => Promise.resolve(() => ({ __esModule: true, default: plugin })),
  };
})();
