// Light or dark: the system's choice, or the person's (kept where JupyterHub's own switch keeps
// it). Loaded before the first paint, so that a page does not flash in the wrong colours.
"use strict";
(() => {
  const KEY = "jupyterhub-bs-theme";
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const stored = () => {
    try { return localStorage.getItem(KEY); } catch { return null; }
  };
  const chosen = stored();
  if (chosen === "light" || chosen === "dark") root.dataset.bsTheme = chosen;
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("dark-theme-toggle");
    if (!button) return;
    button.hidden = false;
    button.addEventListener("click", () => {
      const dark = root.dataset.bsTheme ? root.dataset.bsTheme === "dark" : system.matches;
      root.dataset.bsTheme = dark ? "light" : "dark";
      try { localStorage.setItem(KEY, root.dataset.bsTheme); } catch { /* for this page only */ }
    });
  });
})();
