// The spawn page: one press starts one server.
const form = document.getElementById("spawn_form");
const button = form.querySelector("button[type=submit]");
const label = button.textContent;

form.addEventListener("submit", () => {
  button.disabled = true;
  button.textContent = "Starting…";
});
window.addEventListener("pageshow", () => { // back from the next page
  button.disabled = false;
  button.textContent = label;
});
