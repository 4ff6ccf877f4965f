"use strict";
// image: {id, name, folder, w, h, src, note, meta, status, warnings, original,
//         words: [{i, t, c, p, l, hit, kind, label}]}, words in reading order

const shownText = (word) => word.label || word.t;
const isHit = (word) => Boolean(word.hit) || (word.kind !== undefined && word.kind !== "same");

// Words as lines of text that can be read, selected and copied; each word can be chosen.
class Lines {
  constructor(image, onChoose, onPoint) {
    this.element = element("div", {
      class: "lines", role: "group", "aria-label": `Words of ${image.name}`, dir: "auto",
    });
    this.words = image.words.map((word) => {
      const shown = element("span", {
        class: ["word", isHit(word) ? "hit" : "", word.kind || ""].join(" ").trim(),
        role: "button", tabindex: "-1", text: shownText(word), title: `confidence ${word.c.toFixed(2)}`,
      });
      shown.addEventListener("click", () => {
        if (window.getSelection().isCollapsed) onChoose(word);
      });
      shown.addEventListener("mouseenter", () => onPoint(word, true));
      shown.addEventListener("mouseleave", () => onPoint(word, false));
      shown.addEventListener("focus", () => onPoint(word, true));
      shown.addEventListener("blur", () => onPoint(word, false));
      return { word, shown };
    });
    let line = null;
    let number = -1;
    for (const { word, shown } of this.words) {
      if (word.l !== number || word.l === undefined) {
        if (word.l !== undefined || line === null) {
          line = element("p");
          this.element.append(line);
        }
        number = word.l;
      }
      if (line.childNodes.length) line.append(" ");
      line.append(shown);
    }
    roving(this.element, ".word");
  }

  // Show words of at least this confidence.
  update(least) {
    let first = true;
    for (const { word, shown } of this.words) {
      shown.hidden = word.c < least;
      if (!shown.hidden) {
        shown.tabIndex = first ? 0 : -1;
        first = false;
      }
    }
    for (const line of this.element.children) {
      line.hidden = [...line.children].every((one) => one.hidden);
    }
    this.element.hidden = first;
  }

  mark(word, on) {
    for (const one of this.words) {
      if (one.word === word) one.shown.classList.toggle("on", on);
    }
  }

  // Reading order, a line of the image on a line of text.
  text() {
    return [...this.element.children]
      .map((line) => [...line.children].filter((one) => !one.hidden).map((one) => one.textContent).join(" "))
      .filter((line) => line).join("\n");
  }
}

function polygon(word) {
  return drawn("polygon", {
    points: word.p.join(" "), class: [isHit(word) ? "hit" : "", word.kind || ""].join(" ").trim(),
  });
}

class Card {
  constructor(image, onOpen) {
    this.image = image;
    this.onOpen = onOpen;
    this.shapes = image.words.map((word) => ({ word, shape: polygon(word) }));
    this.lines = new Lines(image, (word) => onOpen(this, word), (word, on) => this.point(word, on));
    this.count = element("p", { class: "meta" });
    const name = element("h2", { title: image.id, dir: "auto", text: image.name });
    const copyButton = element("button", {
      type: "button", class: "quiet", text: "Copy text", "aria-label": `Copy the text of ${image.name}`,
    });
    copyButton.addEventListener("click", () => copy(this.lines.text(), `the text of ${image.name}`));
    this.copyButton = copyButton;
    this.element = element("article", { class: "card", "data-id": image.id }, this.picture());
    const body = element("div", { class: "about" });
    body.append(element("div", { class: "naming" }, name, copyButton));
    if (image.folder) body.append(element("p", { class: "folder", title: image.folder, dir: "auto", text: image.folder }));
    body.append(this.count);
    for (const warning of image.warnings || []) body.append(element("p", { class: "warning", text: warning }));
    body.append(this.lines.element);
    this.element.append(body);
  }

  picture() {
    const image = this.image;
    if (!image.src) {
      return element("div", { class: "picture none" }, element("p", { text: `No picture: ${image.note}` }));
    }
    const words = image.words.length ? counted(image.words.length, "word") : "no words";
    const box = element("button", {
      type: "button", class: "picture", "aria-label": `Open ${image.name}, ${words}`,
    });
    box.append(element("img", { src: image.src, alt: `${image.name}: ${words}`, loading: "lazy", decoding: "async" }));
    if (image.w && image.h) {
      const svg = drawn("svg", { viewBox: `0 0 ${image.w} ${image.h}`, "aria-hidden": "true" });
      svg.classList.toggle("dense", image.words.length > 40); // of small words little more would be seen
      svg.append(...this.shapes.map((entry) => entry.shape));
      box.append(svg);
      box.addEventListener("mousemove", (event) => {
        const found = event.target.closest("polygon");
        const entry = this.shapes.find((one) => one.shape === found);
        this.hover(entry ? entry.word : null, event);
      });
      box.addEventListener("mouseleave", () => this.hover(null));
    }
    box.addEventListener("click", (event) => {
      const found = this.shapes.find((one) => one.shape === event.target);
      this.onOpen(this, found ? found.word : null);
    });
    return box;
  }

  withoutPicture(reason) {
    this.image.src = null;
    this.image.note = reason;
    this.element.querySelector(".picture").replaceWith(this.picture());
  }

  hover(word, event) {
    if (this.hovered && this.hovered !== word) this.point(this.hovered, false);
    this.hovered = word;
    if (!word) return hideTip();
    this.point(word, true);
    return showTip(event, `${shownText(word)}  ${word.c.toFixed(2)}`);
  }

  point(word, on) {
    for (const one of this.shapes) {
      if (one.word === word) one.shape.classList.toggle("on", on);
    }
    this.lines.mark(word, on);
  }

  // Show words of at least this confidence, and tell how many those are.
  update(least) {
    let shown = 0;
    for (const { word, shape } of this.shapes) {
      const visible = word.c >= least;
      shape.style.display = visible ? "" : "none";
      shown += visible;
    }
    this.lines.update(least);
    const hidden = this.image.words.length - shown;
    const below = hidden ? ` (${grouped(hidden)} more below ${least.toFixed(2)})` : "";
    const meta = this.image.meta ? ` · ${this.image.meta}` : "";
    this.count.textContent = `${counted(shown, "word")}${below}${meta}`;
    this.copyButton.hidden = !shown;
    return shown;
  }

  // Mark words as hits by a test, besides those that are.
  markHits(test) {
    let hits = 0;
    this.shapes.forEach(({ word, shape }, n) => {
      const hit = isHit(word) || test(word);
      shape.classList.toggle("hit", hit);
      this.lines.words[n].shown.classList.toggle("hit", hit);
      word.found = hit;
      hits += hit && shape.style.display === "";
    });
    return hits;
  }

  // The words that next and previous go to: hits if there are any, else all that are shown.
  stops(least) {
    const shown = this.image.words.filter((word) => word.c >= least);
    const hits = shown.filter((word) => (word.found === undefined ? isHit(word) : word.found));
    return hits.length ? hits : shown;
  }
}
