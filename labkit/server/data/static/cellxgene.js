// Choose data, follow how it opens, go there.
"use strict";
(() => {
  const main = document.getElementById("main");
  const base = main.dataset.base;
  const at = (id) => document.getElementById(id);
  const { size } = units;
  const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });

  const ask = async (method, path, body) => {
    const answer = await fetch(`${base}labkit/api/cellxgene/${path}`, {
      method,
      headers: { "X-XSRFToken": main.dataset.xsrf, "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
    });
    const fields = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(fields.message || `The server answered ${answer.status}.`);
    return fields;
  };
  const say = (text) => {
    at("trouble").textContent = text;
    at("trouble").hidden = !text;
  };

  let asked = "";
  const choose = () => {
    at("progress").hidden = true;
    at("choose").hidden = false;
    at("path").focus();
  };

  const line = (text) => {
    const li = document.createElement("li");
    li.textContent = text;
    return li;
  };

  const follow = async (id) => {
    let shown = [];
    for (;;) {
      let opening;
      try {
        opening = await ask("GET", `open/${id}`);
      } catch (error) {
        at("error").textContent = error.message;
        at("failed").hidden = false;
        return;
      }
      // A step that only counts its seconds takes the place of the one before.
      if (opening.steps.join("\n") !== shown.join("\n")) {
        shown = opening.steps;
        const distinct = shown.filter((text, i) => text.split("…")[0] !== (shown[i + 1] || "").split("…")[0]);
        at("steps").replaceChildren(...distinct.map(line));
      }
      if (opening.state === "ready") {
        const place = `${base}proxy/${opening.port}/`;
        at("link").href = place;
        const told = [...opening.changes.map(([where, what]) => `${where}: ${what}`), ...opening.notes];
        at("changes").replaceChildren(...told.map(line));
        at("ready").hidden = false;
        // Where something was changed or noted, let the person read it first.
        if (told.length) at("link").focus();
        else location.assign(place);
        return;
      }
      if (opening.state === "failed") {
        at("error").textContent = opening.error;
        at("failed").hidden = false;
        at("force").hidden = opening.kind !== "NotEnoughMemoryError";
        return;
      }
      await new Promise((done) => setTimeout(done, 500));
    }
  };

  const open = async (path, force = false) => {
    asked = path;
    say("");
    let id;
    try {
      ({ id } = await ask("POST", "open", { path, force }));
    } catch (error) {
      say(error.message);
      return;
    }
    at("steps").replaceChildren(line("Reading and checking the data …"));
    for (const part of ["failed", "ready"]) at(part).hidden = true;
    at("h-progress").textContent = `Opening ${path}`;
    at("choose").hidden = true;
    at("progress").hidden = false;
    at("h-progress").focus();
    follow(id);
  };

  const list = async () => {
    try {
      const { files, complete } = await ask("GET", "files");
      at("summary").textContent = files.length
        ? `${files.length} found in your home, newest first.${complete ? "" : " There may be more: not everything was searched."}`
        : `No .h5ad or .zarr was found in your home${complete ? "" : " so far as was searched"}. In a notebook, write one: adata.write("my.h5ad")`;
      at("files").replaceChildren(...files.map((file) => {
        const li = document.createElement("li");
        const name = document.createElement("span");
        name.textContent = file.path;
        const facts = document.createElement("span");
        facts.className = "muted";
        facts.textContent = [file.size === null ? "zarr" : size(file.size), day.format(new Date(file.modified * 1000))].join(" · ");
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = "Open";
        button.setAttribute("aria-label", `Open ${file.path}`);
        button.addEventListener("click", () => open(file.path));
        li.append(name, facts, button);
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
  at("back").addEventListener("click", choose);
  at("force").addEventListener("click", () => open(asked, true));
  list();
})();
