// The page "My server": asks for the numbers while it is seen; asking is no activity.
"use strict";
(() => {
  const main = document.getElementById("main");
  const base = main.dataset.base;
  const at = (id) => document.getElementById(id);
  const clock = new Intl.DateTimeFormat(undefined, { weekday: "short", hour: "2-digit", minute: "2-digit" });
  const when = (seconds) => clock.format(new Date(seconds * 1000));
  const { size, span } = units;

  const ask = async (method, path, body) => {
    const answer = await fetch(base + path, {
      method,
      headers: { "X-XSRFToken": main.dataset.xsrf, "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
    });
    const fields = answer.status === 204 ? {} : await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(fields.message || `The server answered ${answer.status}.`);
    return fields;
  };

  const say = (text) => {
    at("trouble").textContent = text;
    at("trouble").hidden = !text;
  };
  const put = (id, text) => {
    // Screen readers read a status again whenever it is written.
    if (at(id).textContent !== text) at(id).textContent = text;
  };

  const stopText = (s) => {
    const now = Date.now() / 1000;
    if (s.stops === null) return "This server is not stopped by itself. Stop it on the portal's home page when you need it no more.";
    if (s.ends && s.stops >= s.ends) return `This server ends at ${when(s.ends)}, in ${span(s.ends - now)}, whatever it does: that is its job's time limit on the cluster. Save your work before, and let long computations save theirs.`;
    const oldest = s.max_age_seconds ? s.started + s.max_age_seconds : Infinity;
    if (s.stops >= oldest) return `This server stops at ${when(oldest)}: the portal ends every server after ${span(s.max_age_seconds)}.`;
    if (s.busy.length) return `Busy. When the work is done, the server stops after ${span(s.idle_seconds)} without use.`;
    const kept = s.keep_until && s.stops <= s.keep_until + 1 ? " You have asked to keep it until then." : "";
    return `If nothing happens, this server stops at ${when(s.stops)}, in ${span(s.stops - now)}.${kept}`;
  };

  const show = (s) => {
    put("stops", stopText(s));
    const now = Date.now() / 1000;
    const items = s.busy.map((one) => {
      const li = document.createElement("li");
      const name = document.createElement("span");
      name.textContent = ["kernel", "terminal"].includes(one.kind) ? `Running: ${one.text}` : one.text;
      li.append(name);
      if (one.since) {
        const since = document.createElement("span");
        since.className = "muted";
        since.textContent = one.kind === "kernel" ? `last sign ${span(now - one.since)} ago` : `for ${span(now - one.since)}`;
        li.append(since);
      }
      return li;
    });
    if (!items.length) {
      const li = document.createElement("li");
      li.className = "muted";
      li.textContent = `Nothing. Last used at ${when(s.last_activity)}.`;
      items.push(li);
    }
    at("busy").replaceChildren(...items);
    const u = s.usage;
    put("memory", u.memory_limit ? `${size(u.memory)} of ${size(u.memory_limit)}` : size(u.memory));
    put("cores", u.cores_limit ? `${u.cores.toFixed(1)} of ${u.cores_limit}` : u.cores.toFixed(1));
    for (const [id, value, limit] of [["memory", u.memory, u.memory_limit], ["cores", u.cores, u.cores_limit]]) {
      const meter = at(`${id}-meter`);
      meter.hidden = !limit;
      if (limit) {
        meter.value = Math.min(1, value / limit);
        meter.textContent = at(id).textContent;
      }
    }
    put("processes", String(u.processes));
    put("started", when(s.started));
    at("release").hidden = !s.keep_until;
    for (const button of at("keep").querySelectorAll("[data-hours]")) {
      button.hidden = button.dataset.hours * 3600 > s.keep_most_seconds;
      button.disabled = !s.idle_seconds;
    }
  };

  const showPackages = (p) => {
    const items = (p.packages.length ? p.packages : ["None: you have the lab's."]).map((text) => {
      const li = document.createElement("li");
      li.textContent = text.replace("==", " ");
      if (!p.packages.length) li.className = "muted";
      return li;
    });
    at("packages").replaceChildren(...items);
    at("hides").hidden = !p.hides.length;
    at("hides").textContent = `These hide the lab's of the same name: ${p.hides.join(", ")}.`;
    at("reset").hidden = !p.packages.length;
  };
  at("reset").addEventListener("click", async () => {
    if (!confirm("Take all of your own packages away? Notebooks that use them need them again.")) return;
    at("reset").disabled = true;
    try {
      const { removed } = await ask("DELETE", "labkit/api/packages");
      at("reset-done").textContent = `Removed. Restart your kernels. To have them again: pip install ${removed.join(" ")}`;
      showPackages(await ask("GET", "labkit/api/packages"));
    } catch (error) {
      say(error.message);
    }
    at("reset").disabled = false;
  });
  ask("GET", "labkit/api/packages").then(showPackages, (error) => say(error.message));

  let failures = 0;
  const refresh = async () => {
    try {
      show(await ask("GET", "labkit/api/status"));
      if (failures) say("");
      failures = 0;
    } catch (error) {
      failures += 1;
      if (failures > 1) say(`The server does not answer: ${error.message} It may have been stopped; reload the page.`);
    }
  };
  const change = async (button, method, body) => {
    button.disabled = true;
    try {
      await ask(method, "labkit/api/keep", body);
      say("");
    } catch (error) {
      say(error.message);
    }
    button.disabled = false;
    await refresh();
  };
  at("keep").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.id === "release") change(button, "DELETE");
    else change(button, "PUT", { seconds: button.dataset.hours * 3600 });
  });
  refresh();
  setInterval(() => { if (!document.hidden) refresh(); }, 5000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
})();
