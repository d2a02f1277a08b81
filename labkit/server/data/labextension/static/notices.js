// JupyterLab tells of the time limit in time, and why the cluster ends the server. Written as JupyterLab loads it: nothing is built.
"use strict";
(() => {
  const EVERY = 30000; // milliseconds between two looks; asking is no activity

  const text = (ends, now) => {
    const minutes = Math.max(1, Math.round((ends - now) / 60));
    const clock = new Date(ends * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    return (
      `This server ends at ${clock}, in ${minutes} min: that is its time limit on the cluster. ` +
      "Save your work and intermediate results." // JupyterLab cuts off after 140 characters
    );
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
    app.restored.then(() => {
      goOn();
      again();
      setInterval(again, EVERY);
    });
  };

  const plugin = { id: "labkit-notices:time-limit", description: "Warns before the server ends", autoStart: true, activate };
  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB["labkit-notices"] = {
    init: () => {},
    get: () => Promise.resolve(() => ({ __esModule: true, default: plugin })),
  };
})();
