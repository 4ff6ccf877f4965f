"use strict";
const PAGE = 24;
const field = (id) => document.getElementById(id);
let offset = 0;
let cards = [];
let turn = 0; // answers of overtaken questions are dropped

async function ask(path, parameters, options) {
  const query = new URLSearchParams(parameters || {});
  const response = await fetch(`${path}?${query}`, options);
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error || response.statusText);
  return answer;
}

function withSource(image) {
  image.src = image.readable ? `picture?${new URLSearchParams({ id: image.id, px: 960 })}` : null;
  return image;
}

async function search() {
  const mine = ++turn;
  const message = field("message");
  message.textContent = "searching…";
  try {
    const answer = await ask("api/images", {
      terms: field("terms").value, mode: field("mode").value, combine: field("combine").value,
      distance: field("distance").value, least: field("least").value, offset, count: PAGE,
    });
    if (mine !== turn) return;
    cards = answer.images.map((image) => new Card(withSource(image), openLarge));
    field("cards").replaceChildren(...cards.map((card) => card.element));
    for (const card of cards) {
      card.update(currentLeast(), "");
      watch(card);
    }
    const last = offset + answer.images.length;
    message.textContent = answer.images.length ? "" : "nothing found";
    field("range").textContent = answer.images.length ? `${offset + 1}–${last} of ${answer.total}` : "";
    field("previous").disabled = offset === 0;
    field("next").disabled = last >= answer.total;
  } catch (error) {
    if (mine === turn) message.textContent = error.message;
  }
}

// A picture that cannot be read any more becomes a note that says why.
function watch(card) {
  const picture = card.element.querySelector("img");
  if (!picture) return;
  picture.addEventListener("error", async () => {
    let reason = "cannot be read";
    try {
      await ask("api/reason", { id: card.image.id });
    } catch (error) {
      reason = error.message;
    }
    card.image.src = null;
    card.image.note = reason;
    picture.replaceWith(element("div", { class: "none", text: `no picture: ${reason}` }));
  }, { once: true });
}

function fill(table, names, rows) {
  const numeric = names.map((_, n) => rows.length > 0 && rows.every((row) => typeof row[n] === "number"));
  const head = element("tr", {}, ...names.map((name, n) => (
    element("th", numeric[n] ? { class: "number", text: name } : { text: name }))));
  const lines = rows.map((row) => element("tr", {}, ...row.map((value) => {
    const number = typeof value === "number";
    const text = value === null ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
    return element("td", number ? { class: "number", text } : { text });
  })));
  table.replaceChildren(element("thead", {}, head), element("tbody", {}, ...lines));
}

let errorsFrom = 0;
async function errors() {
  try {
    const answer = await ask("api/errors", { offset: errorsFrom, count: 100 });
    fill(field("error-table"), answer.names, answer.rows);
    field("error-range").textContent = answer.rows.length
      ? `${errorsFrom + 1}–${errorsFrom + answer.rows.length} of ${answer.total}` : "No image failed.";
    field("error-previous").disabled = errorsFrom === 0;
    field("error-next").disabled = errorsFrom + answer.rows.length >= answer.total;
  } catch (error) {
    field("error-range").textContent = error.message;
  }
}

async function sql() {
  const message = field("sql-message");
  message.textContent = "running…";
  field("run").disabled = true;
  try {
    const answer = await ask("api/sql", {}, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ sql: field("statement").value }),
    });
    fill(field("sql-table"), answer.names, answer.rows);
    const more = answer.more ? ` (the first ${answer.rows.length} are shown)` : "";
    message.textContent = `${answer.rows.length} rows in ${answer.seconds.toFixed(2)} s${more}`;
  } catch (error) {
    field("sql-table").replaceChildren();
    message.textContent = error.message;
  } finally {
    field("run").disabled = false;
  }
}

function begin() {
  offset = 0;
  search();
}

field("search").addEventListener("submit", (event) => { event.preventDefault(); begin(); });
for (const id of ["mode", "combine"]) field(id).addEventListener("change", begin);
field("mode").addEventListener("change", () => { field("distance-label").hidden = field("mode").value !== "fuzzy"; });
field("least").addEventListener("input", () => {
  field("least-value").textContent = currentLeast().toFixed(2);
  for (const card of cards) card.update(currentLeast(), "");
});
field("least").addEventListener("change", begin);
field("previous").addEventListener("click", () => { offset = Math.max(0, offset - PAGE); search(); });
field("next").addEventListener("click", () => { offset += PAGE; search(); });
field("error-previous").addEventListener("click", () => { errorsFrom = Math.max(0, errorsFrom - 100); errors(); });
field("error-next").addEventListener("click", () => { errorsFrom += 100; errors(); });
field("run").addEventListener("click", sql);
field("statement").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) sql();
});
document.addEventListener("tab", (event) => { if (event.detail === "errors") errors(); });
field("least-value").textContent = currentLeast().toFixed(2);
tabs();
search();
