"use strict";
// The pages in one file: everything is there, filters choose what is shown.
const data = JSON.parse(field("data").textContent);
const CONTROLS = ["filter", "least", "script", "status"].filter((id) => field(id));
const initial = Object.fromEntries(CONTROLS.map((id) => [id, field(id).value]));
const viewer = new Viewer({
  cards: () => cards.filter((card) => !card.element.hidden),
  source: (image) => ({ type: "image", url: image.src, buildPyramid: false }),
  link: (image) => image.original || null,
});
const cards = data.images.map((image) => new Card(image, (card, word) => viewer.open(card, word)));
field("cards").append(...cards.map((card) => card.element));

function fitsStatus(image, wanted) {
  if (!wanted) return true;
  if (wanted === "damaged" || wanted === "saturated") return Boolean(image[wanted]);
  return image.status === wanted;
}

function update() {
  const least = currentLeast();
  const text = field("filter").value.trim().toLowerCase();
  const script = field("script") && SCRIPTS[field("script").value];
  const status = field("status") ? field("status").value : "";
  let images = 0;
  let words = 0;
  let hidden = 0;
  for (const card of cards) {
    const shown = card.update(least);
    const test = (word) => (text !== "" || Boolean(script))
      && (text === "" || word.t.toLowerCase().includes(text)) && (!script || script.test(word.t));
    const matching = card.image.words.filter((word) => word.c >= least && test(word)).length;
    card.markHits(test);
    const named = text !== "" && !script && `${card.image.folder}/${card.image.name}`.toLowerCase().includes(text);
    card.element.hidden = !fitsStatus(card.image, status) || ((text !== "" || Boolean(script)) && !matching && !named);
    if (!card.element.hidden) {
      images += 1;
      words += text === "" && !script ? shown : matching;
      hidden += card.image.words.length - shown;
    }
  }
  if (field("least-value")) field("least-value").textContent = least.toFixed(2);
  const below = hidden ? `; ${grouped(hidden)} more below ${least.toFixed(2)}` : "";
  field("shown").textContent = cards.length
    ? `${counted(words, "word")} in ${counted(images, "image")}${below}` : "No images to show.";
  for (const kind of ["csv", "jsonl"]) field(`download-${kind}`).hidden = !words;
  State.write(Object.fromEntries(CONTROLS.map((id) => [id, field(id).value === initial[id] ? "" : field(id).value])));
}

// The words that are shown as hits (or all that are shown), as a file.
function rows() {
  const least = currentLeast();
  return cards.filter((card) => !card.element.hidden).flatMap((card) => card.stops(least).map((word) => {
    const xs = word.p.filter((_, n) => n % 2 === 0);
    const ys = word.p.filter((_, n) => n % 2 === 1);
    return {
      image_id: card.image.id, text: shownText(word), confidence: word.c, x_min: Math.min(...xs),
      y_min: Math.min(...ys), x_max: Math.max(...xs), y_max: Math.max(...ys),
    };
  }));
}

function download(event, kind) {
  const quoted = (value) => (/[",\n\r]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
  const found = rows();
  const lines = kind === "csv"
    ? [Object.keys(found[0]).join(","), ...found.map((row) => Object.values(row).map(quoted).join(","))]
    : found.map((row) => JSON.stringify(row));
  const link = event.currentTarget;
  const url = URL.createObjectURL(new Blob([`${lines.join("\n")}\n`], { type: kind === "csv" ? "text/csv" : "application/x-ndjson" }));
  link.href = url;
  setTimeout(() => { URL.revokeObjectURL(url); link.href = "#"; }, 10_000);
}

function restore() {
  const state = State.read();
  for (const id of CONTROLS) field(id).value = state[id] === undefined ? initial[id] : state[id];
  update();
  if (state.image === undefined && viewer.isOpen) viewer.dialog.close();
  else if (state.image !== undefined && !viewer.isOpen) openNamed(viewer, cards);
}

for (const id of CONTROLS) field(id).addEventListener("input", update);
field("filters").addEventListener("submit", (event) => event.preventDefault());
for (const kind of ["csv", "jsonl"]) field(`download-${kind}`).addEventListener("click", (event) => download(event, kind));
const restoreTab = tabs();
window.addEventListener("popstate", () => { restoreTab(); restore(); });
restore();
