// Waits for the app to come up and opens it; only while the page is seen.
"use strict";
(() => {
  const place = document.getElementById("starting");
  const note = document.getElementById("note");
  if (!place) return;
  const began = Date.now();
  const look = async () => {
    if (!document.hidden) {
      try {
        const answer = await fetch(place.dataset.state, { cache: "no-store" });
        const { state } = answer.ok ? await answer.json() : {};
        // "unknown": it was stopped again meanwhile; the page itself says what is the matter.
        if (["ready", "down", "unknown"].includes(state) || answer.status === 403) {
          location.reload();
          return;
        }
      } catch { /* the portal may be away for a moment */ }
      const seconds = Math.round((Date.now() - began) / 1000);
      if (seconds >= 5) note.textContent = `${seconds} s so far. This page opens the app by itself.`;
    }
    setTimeout(look, 700);
  };
  setTimeout(look, 500);
})();
