"use strict";
// Shared by the static and the live page. Text from tables only ever becomes text nodes and
// attribute values set through the DOM, never markup.
const SVG = "http://www.w3.org/2000/svg";

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key === "text") made.textContent = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

const tip = element("div", { id: "tip", hidden: "" });
document.body.append(tip);

function showTip(event, text) {
  tip.textContent = text;
  tip.hidden = false;
  const x = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
  tip.style.left = `${Math.max(4, x)}px`;
  tip.style.top = `${Math.min(event.clientY + 16, window.innerHeight - tip.offsetHeight - 8)}px`;
}

// image: {id, w, h, src, note, meta, words: [{t, c, p, hit, kind}]}
class Card {
  constructor(image, onOpen) {
    this.image = image;
    this.words = image.words.map((word) => ({ word, shape: this.shape(word), chip: this.chip(word) }));
    this.element = element("article", { class: "card" });
    this.count = element("p", { class: "meta" });
    const chips = element("div", { class: "chips" }, ...this.words.map((entry) => entry.chip));
    this.element.append(
      element("h2", { text: image.id }), this.count, this.picture(onOpen), chips,
    );
    for (const entry of this.words) {
      for (const part of [entry.shape, entry.chip]) {
        part.addEventListener("mousemove", (event) => this.point(event, entry, true));
        part.addEventListener("mouseleave", (event) => this.point(event, entry, false));
      }
    }
  }

  picture(onOpen) {
    const box = element("div", { class: "picture" });
    if (this.image.src) {
      box.append(element("img", { src: this.image.src, alt: "", loading: "lazy" }));
    } else {
      box.append(element("div", { class: "none", text: `no picture: ${this.image.note}` }));
    }
    if (this.image.w && this.image.h) {
      const svg = document.createElementNS(SVG, "svg");
      svg.setAttribute("viewBox", `0 0 ${this.image.w} ${this.image.h}`);
      svg.setAttribute("preserveAspectRatio", "none");
      svg.append(...this.words.map((entry) => entry.shape));
      box.append(svg);
    }
    if (onOpen) box.addEventListener("click", () => onOpen(this.image));
    return box;
  }

  shape(word) {
    const polygon = document.createElementNS(SVG, "polygon");
    polygon.setAttribute("points", word.p.join(" "));
    polygon.setAttribute("class", [word.hit ? "hit" : "", word.kind || ""].join(" "));
    return polygon;
  }

  chip(word) {
    const kind = ["chip", word.hit ? "hit" : "", word.kind || ""].join(" ");
    return element("span", { class: kind, text: word.label || word.t });
  }

  point(event, entry, on) {
    entry.shape.classList.toggle("on", on);
    entry.chip.classList.toggle("on", on);
    if (on) showTip(event, `${entry.word.label || entry.word.t}  ${entry.word.c.toFixed(3)}`);
    else tip.hidden = true;
  }

  // Show words of at least this confidence; mark those that contain the filter's text.
  update(least, filter) {
    let shown = 0;
    let matching = 0;
    for (const { word, shape, chip } of this.words) {
      const visible = word.c >= least;
      const match = visible && filter !== "" && word.t.includes(filter);
      shape.toggleAttribute("hidden", !visible);
      shape.style.display = visible ? "" : "none";
      chip.hidden = !visible;
      shape.classList.toggle("hit", Boolean(word.hit) || match);
      chip.classList.toggle("hit", Boolean(word.hit) || match);
      shown += visible;
      matching += match;
    }
    const meta = this.image.meta ? ` · ${this.image.meta}` : "";
    this.count.textContent = `${shown} of ${this.words.length} words${meta}`;
    const named = filter !== "" && this.image.id.toLowerCase().includes(filter);
    this.element.hidden = filter !== "" && matching === 0 && !named;
    return { shown, matching };
  }
}

function openLarge(image) {
  const dialog = element("dialog");
  const close = element("button", { class: "close", type: "button", text: "Close" });
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => { tip.hidden = true; dialog.remove(); });
  const card = new Card(image, null);
  card.update(currentLeast(), "");
  dialog.append(close, card.element);
  dialog.append(tip); // a modal dialog covers what lies outside it
  dialog.addEventListener("close", () => document.body.append(tip));
  document.body.append(dialog);
  dialog.showModal();
}

function currentLeast() {
  return Number(document.getElementById("least").value);
}

function tabs() {
  const buttons = [...document.querySelectorAll("nav button")];
  const choose = (chosen) => {
    for (const button of buttons) {
      button.setAttribute("aria-selected", String(button === chosen));
      document.getElementById(button.dataset.tab).hidden = button !== chosen;
    }
    document.dispatchEvent(new CustomEvent("tab", { detail: chosen.dataset.tab }));
  };
  for (const button of buttons) button.addEventListener("click", () => choose(button));
  const wanted = buttons.find((button) => button.getAttribute("aria-selected") === "true");
  choose(wanted || buttons[0]);
}
