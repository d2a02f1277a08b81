// Choose a Shiny app, wait until it listens, go there; stop what runs.
"use strict";
(() => {
  const main = document.getElementById("main");
  const base = main.dataset.base;
  const at = (id) => document.getElementById(id);
  const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
  const address = (id) => `${base}labkit/shiny/${id}/`;

  const ask = async (method, path, body) => {
    const answer = await fetch(`${base}labkit/api/shiny/${path}`, {
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
  const text = (tag, content, className) => {
    const element = document.createElement(tag);
    element.textContent = content;
    if (className) element.className = className;
    return element;
  };
  const button = (label, name, act, className) => {
    const element = text("button", label, className);
    element.type = "button";
    element.setAttribute("aria-label", `${label} ${name}`);
    element.addEventListener("click", () => act(element));
    return element;
  };

  const fail = (error, log) => {
    at("waiting").hidden = true;
    at("error").textContent = error;
    at("log").textContent = log;
    at("failed").hidden = false;
  };

  const follow = async (id) => {
    for (;;) {
      let preview;
      try {
        preview = await ask("GET", `open/${id}`);
      } catch (error) {
        fail(error.message, "");
        return;
      }
      if (preview.state === "running") {
        location.assign(address(id));
        return;
      }
      if (preview.state !== "starting") {
        fail(`The app did not start. ${preview.advice}`, preview.log);
        return;
      }
      await new Promise((done) => setTimeout(done, 400));
    }
  };

  const open = async (path) => {
    say("");
    let preview;
    try {
      preview = await ask("POST", "open", { path });
    } catch (error) {
      say(error.message);
      return;
    }
    at("h-progress").textContent = `Starting ${preview.path}`;
    at("choose").hidden = true;
    at("failed").hidden = true;
    at("waiting").hidden = false;
    at("progress").hidden = false;
    at("h-progress").focus();
    follow(preview.id);
  };

  const stop = async (id, pressed) => {
    pressed.disabled = true;
    try {
      await ask("DELETE", `open/${id}`);
    } catch (error) {
      say(error.message);
    }
    list();
  };

  const list = async () => {
    try {
      const { apps, complete, previews } = await ask("GET", "apps");
      at("running").hidden = !previews.length;
      at("previews").replaceChildren(...previews.map((one) => {
        const li = document.createElement("li");
        const link = text("a", "Open", "button");
        link.href = address(one.id);
        link.setAttribute("aria-label", `Open ${one.path}`);
        const written = document.createElement("details");
        written.append(text("summary", "What it has written"), text("pre", one.log || "Nothing yet."));
        li.append(text("span", one.path), link, button("Stop", one.path, (pressed) => stop(one.id, pressed), "quiet"), written);
        return li;
      }));
      at("summary").textContent = apps.length
        ? `${apps.length} found in your home, newest first.${complete ? "" : " There may be more: not everything was searched."}`
        : `No app.R or server.R was found in your home${complete ? "." : " so far as was searched."}`;
      at("apps").replaceChildren(...apps.map((app) => {
        const li = document.createElement("li");
        li.append(text("span", app.path), text("span", day.format(new Date(app.modified * 1000)), "muted"), button("Run", app.path, () => open(app.path)));
        return li;
      }));
    } catch (error) {
      at("summary").textContent = error.message;
    }
  };

  at("form").addEventListener("submit", (event) => {
    event.preventDefault();
    open(at("path").value);
  });
  at("back").addEventListener("click", () => {
    at("progress").hidden = true;
    at("choose").hidden = false;
    list();
  });
  list();
})();
