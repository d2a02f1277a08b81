// Waits for the app to come up, for some minutes and only while the page is seen.
"use strict";
(() => {
  const note = document.getElementById("watch");
  if (!note) return;
  let left = 200;
  const look = async () => {
    if (left <= 0) {
      note.textContent = "";
      return;
    }
    if (!document.hidden) {
      left -= 1;
      try {
        const answer = await fetch(note.dataset.watch, { cache: "no-store" });
        if (answer.ok && (await answer.json()).listening) {
          location.reload();
          return;
        }
      } catch { /* the server itself may be away for a moment */ }
    }
    setTimeout(look, 1500);
  };
  note.textContent = "This page opens by itself once the app answers.";
  setTimeout(look, 1500);
})();
