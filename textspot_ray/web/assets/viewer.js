"use strict";
// One image in full, down to its own pixels, with its words beside it. Keys: arrows go to the
// next image (with Shift they move the picture), n and p to the next and previous hit.

const HELP = [
  ["← →", "image"], ["n p", "hit"], ["+ − 0", "zoom"], ["Shift + arrows", "move"],
  ["b", "boxes"], ["c", "copy text"], ["Esc", "close"],
];

class Viewer {
  // cards: gives the cards that can be shown now; source: an image's tiles for OpenSeadragon;
  // beyond: asked for more cards before (-1) or after (1) them, tells whether there are any.
  constructor({ cards, source, link, beyond }) {
    this.cards = cards;
    this.source = source;
    this.link = link;
    this.beyond = beyond;
    this.dialog = null;
  }

  get isOpen() {
    return this.dialog !== null;
  }

  open(card, word) {
    const first = !this.isOpen;
    if (first) this.build();
    this.card = card;
    this.word = null;
    this.hovered = null;
    const image = card.image;
    this.dialog.setAttribute("aria-label", image.name);
    this.title.textContent = image.name;
    this.title.title = image.id;
    this.folder.textContent = image.folder;
    this.about.textContent = card.count.textContent;
    this.warnings.replaceChildren(...(image.warnings || []).map((text) => element("p", { class: "warning", text })));
    const original = this.link(image);
    this.original.hidden = !original;
    if (original) this.original.href = original;
    this.lines = new Lines(image, (chosen) => this.choose(chosen, true), (pointed, on) => this.point(pointed, on));
    this.lines.update(currentLeast());
    this.text.replaceChildren(this.lines.element);
    this.silent.hidden = !this.lines.element.hidden;
    this.shapes = image.words.filter((one) => one.c >= currentLeast()).map((one) => {
      const shape = polygon(one);
      shape.classList.toggle("hit", one.found === undefined ? isHit(one) : one.found);
      return { word: one, shape };
    });
    this.place.replaceChildren(...this.shapes.map((entry) => entry.shape));
    this.failure.hidden = true;
    this.zoom.close();
    if (image.src) {
      const wanted = word;
      this.zoom.addOnceHandler("open", () => { if (wanted && this.card === card) this.choose(wanted, true); });
      this.zoom.open(this.source(image));
    } else {
      this.fail(image.note);
    }
    this.showPosition();
    State.write({ image: image.id, word: word ? word.i : "" }, first); // going back closes it
  }

  fail(reason) {
    this.failure.textContent = `No picture: ${reason}`;
    this.failure.hidden = false;
  }

  build() {
    const button = (text, label, act, kind) => {
      const made = element("button", { type: "button", class: `button ${kind || ""}`.trim(), "aria-label": label, title: label, text });
      made.addEventListener("click", act);
      return made;
    };
    this.title = element("h2", { dir: "auto" });
    this.folder = element("p", { class: "folder", dir: "auto" });
    this.about = element("p", { class: "meta" });
    this.warnings = element("div");
    this.position = element("span", { class: "position" });
    this.original = element("a", { class: "button", target: "_blank", rel: "noopener", text: "Original" });
    this.stage = element("div", { class: "stage" });
    this.failure = element("p", { class: "failure", role: "alert", hidden: true });
    this.text = element("div", { class: "text" });
    this.silent = element("p", { class: "hint", text: "No words." });
    this.copyButton = button("Copy text", "Copy the text (c)", () => copy(this.lines.text(), "the text"));
    const steps = (name, back, on) => element("div", { class: "steps", role: "group", "aria-label": name }, back, on);
    const bar = element("header", { class: "bar" },
      steps("Image", button("←", "Previous image (left arrow)", () => this.step(-1)), button("→", "Next image (right arrow)", () => this.step(1))),
      element("div", { class: "steps", role: "group", "aria-label": "Hit" },
        button("‹", "Previous hit (p)", () => this.stepHit(-1)), this.position,
        button("›", "Next hit (n)", () => this.stepHit(1))),
      element("div", { class: "steps", role: "group", "aria-label": "Zoom" },
        button("−", "Smaller (−)", () => this.scale(1 / 1.5), "touchless"),
        button("+", "Larger (+)", () => this.scale(1.5), "touchless"),
        button("Fit", "All of the image (0)", () => this.fit()),
        button("1:1", "The image's own pixels (1)", () => this.ownPixels())),
      (this.boxes = button("Boxes", "Show or hide the boxes (b)", () => this.toggleBoxes())),
      this.original,
      element("span", { class: "filler" }),
      button("Close", "Close (Escape)", () => this.dialog.close()),
    );
    this.boxes.setAttribute("aria-pressed", "true");
    const side = element("aside", { class: "side", "aria-label": "Words" },
      element("div", { class: "naming" }, this.title, this.copyButton), this.folder, this.about, this.warnings,
      this.silent, this.text,
      element("dl", { class: "keys" }, ...HELP.map(([keys, what]) => element("div", {}, element("dt", { text: keys }), element("dd", { text: what })))));
    this.dialog = element("dialog", { class: "viewer", tabindex: "-1" }, bar,
      element("div", { class: "halves" }, element("div", { class: "holder" }, this.stage, this.failure), side));
    document.body.append(this.dialog);
    this.dialog.addEventListener("close", () => this.closed());
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    this.opener = document.activeElement;
    this.dialog.showModal();
    this.dialog.focus();
    this.makeZoom();
  }

  makeZoom() {
    // OpenSeadragon adds a style sheet for phones unless there is one; the page's policy forbids it
    this.sheet = document.createElementNS("urn:none", "style");
    this.sheet.setAttribute("data-openseadragon-mobile-css", "");
    document.head.append(this.sheet);
    this.zoom = OpenSeadragon({
      element: this.stage, drawer: "canvas", showNavigationControl: false, animationTime: 0.4,
      maxZoomPixelRatio: 8, minZoomImageRatio: 0.8, visibilityRatio: 0.5, crossOriginPolicy: false,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    });
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (calm) this.zoom.viewport.springStiffness = 100;
    this.overlay = drawn("svg", { class: "overlay", "aria-hidden": "true" });
    this.place = drawn("g", {});
    this.overlay.append(this.place);
    this.zoom.canvas.append(this.overlay);
    this.zoom.canvas.setAttribute("role", "img");
    this.zoom.addHandler("update-viewport", () => this.follow());
    this.zoom.addHandler("animation", () => this.follow());
    this.zoom.addHandler("resize", () => this.follow());
    this.zoom.addHandler("open", () => {
      this.zoom.canvas.setAttribute("aria-label", `${this.card.image.name}, ${this.card.count.textContent}`);
      this.follow();
    });
    this.zoom.addHandler("open-failed", () => this.fail("it cannot be read"));
    this.zoom.addHandler("tile-load-failed", async (event) => {
      if (this.failure.hidden && this.reason) this.fail(await this.reason(this.card.image, event));
    });
    this.zoom.addHandler("canvas-key", (event) => { event.preventDefaultAction = true; });
    this.zoom.addHandler("canvas-click", (event) => {
      const word = event.quick ? this.at(event.position) : null;
      if (word) this.choose(word, false);
    });
    this.stage.addEventListener("mousemove", (event) => this.hover(event));
    this.stage.addEventListener("mouseleave", () => this.hover(null));
  }

  // The boxes follow the picture: image pixels become places on the screen.
  follow() {
    const item = this.zoom.world.getItemAt(0);
    if (!item) return;
    const { w, h } = this.card.image;
    const from = item.imageToViewerElementCoordinates(new OpenSeadragon.Point(0, 0));
    const size = item.getContentSize();
    const to = item.imageToViewerElementCoordinates(size);
    const x = (to.x - from.x) / w;
    const y = (to.y - from.y) / h;
    this.place.setAttribute("transform", `matrix(${x} 0 0 ${y} ${from.x} ${from.y})`);
  }

  // The smallest word at a place on the screen.
  at(position) {
    const matrix = this.place.getCTM();
    if (!matrix) return null;
    const inside = new DOMPoint(position.x, position.y).matrixTransform(this.place.transform.baseVal.consolidate().matrix.inverse());
    const area = (p) => {
      let sum = 0;
      for (let n = 0; n < 8; n += 2) sum += p[n] * p[(n + 3) % 8] - p[(n + 2) % 8] * p[n + 1];
      return Math.abs(sum);
    };
    const holds = (p) => {
      let found = false;
      for (let n = 0, m = 6; n < 8; m = n, n += 2) {
        const [xa, ya, xb, yb] = [p[n], p[n + 1], p[m], p[m + 1]];
        if ((ya > inside.y) !== (yb > inside.y) && inside.x < ((xb - xa) * (inside.y - ya)) / (yb - ya) + xa) found = !found;
      }
      return found;
    };
    const found = this.shapes.map((entry) => entry.word).filter((word) => holds(word.p));
    return found.sort((a, b) => area(a.p) - area(b.p))[0] || null;
  }

  hover(event) {
    const box = this.stage.getBoundingClientRect();
    const word = event ? this.at({ x: event.clientX - box.left, y: event.clientY - box.top }) : null;
    if (this.hovered && this.hovered !== word) this.point(this.hovered, false);
    this.hovered = word;
    if (!word) return hideTip();
    this.point(word, true);
    return showTip(event, `${shownText(word)}  ${word.c.toFixed(2)}`);
  }

  point(word, on) {
    const kept = on || word === this.word;
    for (const one of this.shapes) {
      if (one.word === word) one.shape.classList.toggle("on", kept);
    }
    this.lines.mark(word, kept);
  }

  // Mark a word, and go to it.
  choose(word, go) {
    const before = this.word;
    this.word = word;
    if (before && before !== word) this.point(before, false);
    this.point(word, true);
    const shown = this.lines.words.find((one) => one.word === word);
    if (shown) shown.shown.scrollIntoView({ block: "nearest" });
    this.showPosition();
    State.write({ word: word.i });
    const item = go ? this.zoom.world.getItemAt(0) : null;
    if (!item) return;
    const xs = word.p.filter((_, n) => n % 2 === 0);
    const ys = word.p.filter((_, n) => n % 2 === 1);
    const size = item.getContentSize();
    const scale = size.x / this.card.image.w; // an embedded picture may be smaller than the image
    const width = Math.max(...xs) - Math.min(...xs);
    const height = Math.max(...ys) - Math.min(...ys);
    const room = Math.max(width * 2.2, height * 6, 160);
    const x = (Math.max(...xs) + Math.min(...xs)) / 2 - room / 2;
    const y = (Math.max(...ys) + Math.min(...ys)) / 2 - room / 3;
    const box = item.imageToViewportRectangle(x * scale, y * scale, room * scale, (room * 2 * scale) / 3);
    this.zoom.viewport.fitBoundsWithConstraints(box);
  }

  showPosition() {
    const stops = this.card.stops(currentLeast());
    const n = this.word ? stops.indexOf(this.word) : -1;
    const found = stops.length > 0 && isHitStop(stops[0]);
    const what = !found ? "word" : stops[0].kind ? "difference" : "hit";
    this.position.textContent = n < 0 ? counted(stops.length, what) : `${what} ${n + 1} of ${stops.length}`;
  }

  async step(direction, atHit) {
    if (this.stepping) return;
    this.stepping = true; // a key that is held down must not load page after page
    try {
      let cards = this.cards();
      let n = cards.indexOf(this.card) + direction;
      if (n < 0 || n >= cards.length) {
        if (!this.beyond || !(await this.beyond(direction))) {
          say(direction > 0 ? "this is the last image" : "this is the first image");
          return;
        }
        cards = this.cards();
        n = direction > 0 ? 0 : cards.length - 1;
      }
      const card = cards[n];
      const stops = atHit ? card.stops(currentLeast()) : [];
      this.open(card, stops.length ? stops[direction > 0 ? 0 : stops.length - 1] : null);
    } finally {
      this.stepping = false;
    }
  }

  stepHit(direction) {
    const stops = this.card.stops(currentLeast());
    const now = this.word ? stops.indexOf(this.word) : direction > 0 ? -1 : stops.length;
    const next = stops[now + direction];
    if (!next) return this.step(direction, true);
    this.choose(next, true);
    return say(shownText(next));
  }

  scale(by) {
    this.zoom.viewport.zoomBy(by).applyConstraints();
  }

  fit() {
    this.zoom.viewport.goHome();
  }

  ownPixels() {
    const item = this.zoom.world.getItemAt(0);
    if (!item) return;
    const ratio = (item.getContentSize().x / this.card.image.w) || 1;
    this.zoom.viewport.zoomTo(item.imageToViewportZoom(1 / ratio / OpenSeadragon.pixelDensityRatio)).applyConstraints();
  }

  toggleBoxes() {
    const shown = this.boxes.getAttribute("aria-pressed") !== "true";
    this.boxes.setAttribute("aria-pressed", String(shown));
    this.overlay.classList.toggle("hidden", !shown);
  }

  pan(x, y) {
    const viewport = this.zoom.viewport;
    viewport.panBy(viewport.deltaPointsFromPixels(new OpenSeadragon.Point(x, y))).applyConstraints();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select")) return;
    const acts = {
      ArrowLeft: () => (event.shiftKey ? this.pan(-90, 0) : this.step(-1)),
      ArrowRight: () => (event.shiftKey ? this.pan(90, 0) : this.step(1)),
      ArrowUp: () => this.pan(0, -90), ArrowDown: () => this.pan(0, 90),
      n: () => this.stepHit(1), p: () => this.stepHit(-1), "+": () => this.scale(1.5), "=": () => this.scale(1.5),
      "-": () => this.scale(1 / 1.5), 0: () => this.fit(), 1: () => this.ownPixels(), b: () => this.toggleBoxes(),
      c: () => copy(this.lines.text(), "the text"),
    };
    const act = acts[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  closed() {
    hideTip();
    document.body.append(tip, field("said"));
    this.zoom.destroy();
    this.dialog.remove();
    this.sheet.remove();
    this.dialog = null;
    State.write({ image: "", word: "" });
    const back = this.card.element.isConnected ? this.card.element.querySelector("button.picture") : null;
    if (back) back.focus();
    else if (this.opener && this.opener.isConnected) this.opener.focus();
  }
}

const isHitStop = (word) => (word.found === undefined ? isHit(word) : word.found);

// The image and word that the page's address names.
function openNamed(viewer, cards) {
  const { image, word } = State.read();
  const card = image === undefined ? null : cards.find((one) => one.image.id === image);
  if (!card) return false;
  viewer.open(card, card.image.words.find((one) => String(one.i) === word) || null);
  return true;
}
