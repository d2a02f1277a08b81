// Searches the cards: every word must be found somewhere in what a card says.
const search = document.getElementById("search");
if (search) {
  const cards = [...document.querySelectorAll("#cards > li")];
  const count = document.getElementById("count");
  const none = document.getElementById("none");
  const look = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    for (const card of cards) {
      card.hidden = !words.every((word) => card.dataset.words.includes(word));
      found += card.hidden ? 0 : 1;
    }
    none.hidden = found > 0;
    const all = `${cards.length} dataset${cards.length === 1 ? "" : "s"}`;
    count.textContent = words.length ? `${found} of ${all}` : all;
  };
  search.addEventListener("input", look);
  look(); // the browser may have kept the words over a reload
}
