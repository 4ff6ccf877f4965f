"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const cards = data.images.map((image) => new Card(image, openLarge));
document.getElementById("cards").append(...cards.map((card) => card.element));

const least = document.getElementById("least");
const filter = document.getElementById("filter");

function update() {
  const text = filter.value.trim().toLowerCase();
  let shown = 0;
  let images = 0;
  for (const card of cards) {
    const counts = card.update(Number(least.value), text);
    if (!card.element.hidden) {
      images += 1;
      shown += text === "" ? counts.shown : counts.matching;
    }
  }
  document.getElementById("least-value").textContent = Number(least.value).toFixed(2);
  document.getElementById("shown").textContent = `${shown} words in ${images} images`;
}

least.addEventListener("input", update);
filter.addEventListener("input", update);
tabs();
update();
