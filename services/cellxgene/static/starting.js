// Follows a start and opens the dataset when it is ready.
const place = document.getElementById("start");
const began = Date.now();
const show = (id, shown) => { document.getElementById(id).hidden = !shown; };
let failing = !document.getElementById("failed").hidden;

const look = async () => {
  try {
    const answer = await fetch(place.dataset.state, { cache: "no-store" });
    if (answer.status === 401 || answer.status === 403 || answer.status === 404) {
      location.reload(); // logged out, or no longer shared: the page says so
      return;
    }
    const now = await answer.json();
    if (now.state === "ready" || now.state === "stopped") {
      location.reload(); // stopped: the reload starts it again
      return;
    }
    failing = now.state === "failed";
    show("failed", failing);
    show("step", !failing);
    if (failing) document.getElementById("why").textContent = now.error;
    else document.getElementById("text").textContent = now.step;
  } catch { /* the service itself may be away for a moment */ }
  const seconds = Math.round((Date.now() - began) / 1000);
  if (seconds > 1) document.getElementById("time").textContent = `${seconds} s`;
  if (!failing) setTimeout(look, seconds < 10 ? 300 : 1500);
};

document.getElementById("again").addEventListener("click", async () => {
  await fetch(place.dataset.state, { method: "POST" });
  location.reload();
});
if (!failing) setTimeout(look, 300);
