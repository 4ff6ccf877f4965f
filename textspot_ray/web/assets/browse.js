"use strict";
// The live page: the server finds, counts and reads; what is asked stands in the page's address.
const PAGE = 24;
const CONTROLS = ["terms", "mode", "distance", "combine", "least", "name", "source", "status", "script"];
const initial = Object.fromEntries(CONTROLS.map((id) => [id, field(id).value]));
let offset = 0;
let total = 0;
let cards = [];
let answered = ""; // the question that the cards answer
let turn = 0; // answers of overtaken questions are dropped

async function ask(path, parameters, options) {
  const query = new URLSearchParams(parameters || {});
  const response = await fetch(`${path}?${query}`, options);
  if (response.status === 403) throw new Error("the server was restarted: open the address that it printed");
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error || response.statusText);
  return answer;
}

const question = () => Object.fromEntries(CONTROLS.map((id) => [id, field(id).value]));
const asAddress = (parameters) => new URLSearchParams(parameters).toString();

function withSource(image) {
  image.src = image.readable ? `picture?${asAddress({ id: image.id, px: 960 })}` : null;
  return image;
}

// Tiles of the image's own pixels; the levels' sides are halves, rounded up.
function tiles(image) {
  const top = Math.ceil(Math.log2(Math.max(image.w, image.h, 1)));
  return {
    width: image.w, height: image.h, tileSize: 512, tileOverlap: 0, maxLevel: top,
    minLevel: Math.max(0, Math.min(top, 9)),
    getTileUrl: (level, column, row) => `tile?${asAddress({ id: image.id, level, column, row })}`,
  };
}

const viewer = new Viewer({
  cards: () => cards, source: tiles,
  link: (image) => (image.readable ? `original?${asAddress({ id: image.id })}` : null),
  beyond: async (direction) => {
    const next = offset + direction * PAGE;
    if (next < 0 || next >= total) return false;
    offset = next;
    await search(false);
    return cards.length > 0;
  },
});
viewer.reason = async (image) => {
  try {
    await ask("api/reason", { id: image.id });
  } catch (error) {
    return error.message;
  }
  return "a part of it cannot be read";
};

async function search(push) {
  const mine = ++turn;
  const asked = question();
  field("shown").textContent = "Searching…";
  field("cards").setAttribute("aria-busy", "true");
  State.write({
    ...Object.fromEntries(CONTROLS.map((id) => [id, asked[id] === initial[id] ? "" : asked[id]])), offset: offset || "",
  }, push);
  for (const kind of ["csv", "jsonl"]) field(`download-${kind}`).href = `api/hits.${kind}?${asAddress(asked)}`;
  try {
    const answer = await ask("api/images", { ...asked, offset, count: PAGE });
    if (mine !== turn) return;
    answered = asAddress({ ...asked, offset });
    total = answer.total;
    cards = answer.images.map((image) => new Card(withSource(image), (card, word) => viewer.open(card, word)));
    field("cards").replaceChildren(...cards.map((card) => card.element));
    for (const card of cards) {
      card.update(currentLeast());
      watch(card);
    }
    const last = offset + answer.images.length;
    field("shown").textContent = summary(asked, answer);
    for (const kind of ["csv", "jsonl"]) field(`download-${kind}`).hidden = !answer.images.length;
    field("images-pager").hidden = total <= PAGE && offset === 0;
    field("images-range").textContent = answer.images.length ? `${grouped(offset + 1)}–${grouped(last)} of ${grouped(total)}` : "";
    field("images-previous").disabled = offset === 0;
    field("images-next").disabled = last >= total;
  } catch (error) {
    if (mine !== turn) return;
    cards = [];
    field("cards").replaceChildren();
    field("images-pager").hidden = true;
    field("shown").textContent = error.message;
  } finally {
    if (mine === turn) field("cards").removeAttribute("aria-busy");
  }
}

function summary(asked, answer) {
  const terms = asked.terms.trim();
  if (!answer.total) return terms ? "Nothing found." : "No images.";
  const images = counted(answer.total, "image");
  if (!terms) return images;
  const cut = answer.cut ? " (the best; there may be more)" : "";
  return `${counted(answer.hits, "hit")} in ${images}${cut}`;
}

// A picture that cannot be read any more becomes a note that says why.
function watch(card) {
  const picture = card.element.querySelector("img");
  if (!picture) return;
  picture.addEventListener("error", async () => card.withoutPicture(await viewer.reason(card.image)), { once: true });
}

// Numbers are rounded for the eye; the whole one is told on hovering.
function rounded(value) {
  if (Number.isInteger(value)) return String(value);
  return Math.abs(value) >= 1e6 || Math.abs(value) < 1e-4 ? value.toPrecision(5) : String(Number(value.toPrecision(5)));
}

function fill(table, names, rows) {
  const numeric = names.map((_, n) => rows.length > 0 && rows.every((row) => typeof row[n] === "number" || row[n] === null));
  const head = element("tr", {}, ...names.map((name, n) => (
    element("th", { scope: "col", class: numeric[n] ? "number" : null, text: name }))));
  const lines = rows.map((row) => element("tr", {}, ...row.map((value) => {
    if (value === null) return element("td", {});
    if (typeof value === "number") {
      const text = rounded(value);
      return element("td", { class: "number", text, title: text === String(value) ? null : String(value) });
    }
    const text = typeof value === "object"
      ? JSON.stringify(value, (_, part) => (typeof part === "number" ? Number(rounded(part)) : part)) : String(value);
    if (text.length <= 60) return element("td", { dir: "auto", text });
    if (text.includes(" ")) return element("td", { class: "prose", dir: "auto", text });
    return element("td", { class: "long", dir: "auto", text, title: text }); // all of it is copied
  })));
  table.replaceChildren(element("thead", {}, head), element("tbody", {}, ...lines));
}

// Folder and file name as a person reads them; as the server's shown_name.
function shownName(id) {
  let path = id;
  try {
    path = decodeURIComponent(id);
  } catch { /* not encoded, or not in UTF-8 */ }
  path = path.replace(/^file:\/\//, "");
  const cut = path.lastIndexOf("/");
  return [path.slice(0, Math.max(0, cut)), path.slice(cut + 1)];
}

let errorsFrom = 0;
async function errors() {
  const message = field("errors-message");
  try {
    const answer = await ask("api/errors", { offset: errorsFrom, count: 100 });
    message.textContent = answer.total ? "" : "No image failed.";
    field("error-table").parentElement.hidden = !answer.total;
    fill(field("error-table"), ["image", "kind", "message", "stage", "attempts", "folder"], answer.rows.map((row) => {
      const { image_id: id, kind, message: why, stage, attempts } = Object.fromEntries(answer.names.map((name, n) => [name, row[n]]));
      const [folder, name] = shownName(id);
      return [name, kind, why, stage, attempts, folder];
    }));
    field("errors-pager").hidden = answer.total <= answer.rows.length && errorsFrom === 0;
    field("errors-range").textContent = `${grouped(errorsFrom + 1)}–${grouped(errorsFrom + answer.rows.length)} of ${grouped(answer.total)}`;
    field("errors-previous").disabled = errorsFrom === 0;
    field("errors-next").disabled = errorsFrom + answer.rows.length >= answer.total;
    if (errorsFrom === 0) {
      field("damaged-part").hidden = !answer.damaged.length;
      fill(field("damaged-table"), ["image", "damage", "folder"], answer.damaged.map(([id, damage]) => {
        const [folder, name] = shownName(id);
        return [name, damage, folder];
      }));
    }
  } catch (error) {
    message.textContent = error.message;
  }
}

async function sql() {
  const message = field("sql-message");
  message.textContent = "running…";
  field("run").disabled = true;
  State.write({ sql: field("statement").value === field("statement").defaultValue ? "" : field("statement").value });
  try {
    const answer = await ask("api/sql", {}, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ sql: field("statement").value }),
    });
    fill(field("sql-table"), answer.names, answer.rows);
    field("sql-result").hidden = false;
    const more = answer.more ? " (there are more)" : "";
    message.textContent = `${counted(answer.rows.length, "row")}${more} in ${answer.seconds.toFixed(2)} s`;
  } catch (error) {
    field("sql-result").hidden = true;
    message.textContent = error.message;
  } finally {
    field("run").disabled = false;
  }
}

function begin() {
  offset = 0;
  return search(true);
}

function showControls() {
  field("distance-field").hidden = field("mode").value !== "fuzzy";
  field("least-value").textContent = currentLeast().toFixed(2);
  if (["combine", "name", "source", "status", "script"].some((id) => field(id).value !== initial[id])) field("more").open = true;
}

// What the address says becomes what is shown; also after going back.
async function restore() {
  const state = State.read();
  for (const id of CONTROLS) field(id).value = state[id] === undefined ? initial[id] : state[id];
  if (state.sql !== undefined) field("statement").value = state.sql;
  offset = Math.max(0, Math.floor(Number(state.offset) || 0));
  showControls();
  if (answered !== asAddress({ ...question(), offset })) await search(false);
  if (state.image === undefined) {
    if (viewer.isOpen) viewer.dialog.close();
  } else if (!openNamed(viewer, cards)) {
    try {
      const image = withSource(await ask("api/image", { ...question(), id: state.image }));
      const card = new Card(image, (one, word) => viewer.open(one, word));
      card.update(currentLeast());
      cards = [card, ...cards];
      field("cards").prepend(card.element);
      watch(card);
      openNamed(viewer, cards);
    } catch (error) {
      say(error.message);
      State.write({ image: "", word: "" });
    }
  }
}

field("search").addEventListener("submit", (event) => { event.preventDefault(); begin(); });
field("search").addEventListener("reset", () => setTimeout(() => { showControls(); begin(); }));
for (const id of ["mode", "combine", "distance", "name", "source", "status", "script"]) {
  field(id).addEventListener("change", () => { showControls(); begin(); });
}
field("least").addEventListener("input", () => {
  showControls();
  for (const card of cards) card.update(currentLeast());
});
field("least").addEventListener("change", begin);
const turnPage = (direction) => {
  offset = Math.max(0, offset + direction * PAGE);
  search(true);
  window.scrollTo({ top: 0 });
};
field("images-previous").addEventListener("click", () => turnPage(-1));
field("images-next").addEventListener("click", () => turnPage(1));
field("errors-previous").addEventListener("click", () => { errorsFrom = Math.max(0, errorsFrom - 100); errors(); });
field("errors-next").addEventListener("click", () => { errorsFrom += 100; errors(); });
field("run").addEventListener("click", sql);
field("statement").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) sql();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || viewer.isOpen || event.target.closest("input, textarea, select")) return;
  event.preventDefault();
  field("tab-images").click();
  field("terms").focus();
});
const restoreTab = tabs((name) => { if (name === "errors") errors(); });
window.addEventListener("popstate", () => { restoreTab(); restore(); });
restore();
