// The spawn page: one press starts one server; on a cluster, only where it can start.
import { tellTimes } from "./hub.js";

const form = document.getElementById("spawn_form");
const button = form.querySelector("button[type=submit]");
const label = button.textContent;
const places = [...form.querySelectorAll("#places .profile")];

form.addEventListener("submit", () => {
  button.disabled = true;
  button.textContent = "Starting…";
});
window.addEventListener("pageshow", () => { // back from the next page
  button.disabled = false;
  button.textContent = label;
  tellPlaces();
});
form.addEventListener("change", (event) => { if (event.target.name === "profile") tellPlaces(); });
tellTimes(form);

/** Offer the partitions in which the chosen profile can start; say of the others why not. */
function tellPlaces() {
  const chosen = form.querySelector("input[name=profile]:checked");
  if (!chosen) return;
  for (const place of places) {
    const input = place.querySelector("input");
    const refused = JSON.parse(place.dataset.refused)[chosen.value];
    const room = JSON.parse(place.dataset.room)[chosen.value];
    input.disabled = Boolean(refused);
    if (refused) input.checked = false;
    place.classList.toggle("profile-off", Boolean(refused));
    place.querySelector(".profile-why").textContent = refused || room || "";
  }
  const inputs = places.map((place) => place.querySelector("input"));
  if (!inputs.some((input) => input.checked)) {
    const first = inputs.find((input) => !input.disabled);
    if (first) first.checked = true;
  }
}
