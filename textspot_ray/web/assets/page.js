"use strict";
// Shared by all pages. Text from tables only ever becomes text nodes and attribute values set
// through the DOM, never markup.
const SVG = "http://www.w3.org/2000/svg";
const field = (id) => document.getElementById(id);

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "text") made.textContent = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

function drawn(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

const counted = (n, one, many) => `${grouped(n)} ${n === 1 ? one : many || `${one}s`}`;
const grouped = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, ",");

// What just happened, for those who hear the page; shown for a moment to those who see it.
let saidTimer = 0;
function say(text) {
  const said = field("said");
  (document.querySelector("dialog[open]") || document.body).append(said);
  said.textContent = text;
  said.classList.add("seen");
  clearTimeout(saidTimer);
  saidTimer = setTimeout(() => said.classList.remove("seen"), 1600);
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const holder = element("textarea", { "aria-hidden": "true", class: "unseen" });
    holder.value = text;
    (document.querySelector("dialog[open]") || document.body).append(holder);
    holder.select();
    const done = document.execCommand("copy");
    holder.remove();
    if (!done) return say("cannot copy here: select the text instead");
  }
  return say(`copied ${what}`);
}

const tip = element("div", { id: "tip", hidden: true, "aria-hidden": "true" });
document.body.append(tip);

function showTip(event, text) {
  (document.querySelector("dialog[open]") || document.body).append(tip); // a dialog covers the rest
  tip.textContent = text;
  tip.hidden = false;
  const x = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
  tip.style.left = `${Math.max(4, x)}px`;
  tip.style.top = `${Math.min(event.clientY + 16, window.innerHeight - tip.offsetHeight - 8)}px`;
}

function hideTip() {
  tip.hidden = true;
}

// The page's state in its address, so that a link opens what was seen: #tab=images&terms=exit
const State = {
  read() {
    return Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  },
  // Empty values are left out. A step that someone may want to go back from is pushed.
  write(changes, push) {
    const next = new URLSearchParams(location.hash.slice(1));
    for (const [key, value] of Object.entries(changes)) {
      if (value === "" || value === null || value === undefined) next.delete(key);
      else next.set(key, value);
    }
    const hash = next.toString();
    if (hash === location.hash.slice(1)) return;
    const where = hash ? `#${hash}` : location.pathname + location.search;
    try {
      if (push) history.pushState(null, "", where);
      else history.replaceState(null, "", where);
    } catch { /* browsers allow so many a second: a slider that is dragged asks for more */ }
  },
};

// Tabs as the ARIA practices have them: one is in the tab order, arrows, Home and End go on.
function tabs(onShow) {
  const buttons = [...document.querySelectorAll('[role="tab"]')];
  const show = (chosen) => {
    for (const button of buttons) {
      button.setAttribute("aria-selected", String(button === chosen));
      button.tabIndex = button === chosen ? 0 : -1;
      field(button.getAttribute("aria-controls")).hidden = button !== chosen;
    }
    if (onShow) onShow(chosen.getAttribute("aria-controls"));
  };
  const choose = (button) => {
    show(button);
    State.write({ tab: button === first ? "" : button.getAttribute("aria-controls") });
  };
  const first = buttons.find((button) => button.getAttribute("aria-selected") === "true") || buttons[0];
  buttons.forEach((button, n) => {
    button.addEventListener("click", () => choose(button));
    button.addEventListener("keydown", (event) => {
      const step = { ArrowRight: n + 1, ArrowLeft: n - 1, Home: 0, End: buttons.length - 1 }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      const next = buttons[(step + buttons.length) % buttons.length];
      choose(next);
      next.focus();
    });
  });
  const restore = () => {
    const wanted = State.read().tab;
    show(buttons.find((button) => button.getAttribute("aria-controls") === wanted) || first);
  };
  restore();
  return restore;
}

// One element of a group is in the tab order; arrows, Home and End move among those shown.
function roving(group, selector) {
  const members = () => [...group.querySelectorAll(selector)].filter((one) => !one.hidden);
  group.addEventListener("focusin", (event) => {
    const now = event.target.closest(selector);
    if (!now) return;
    for (const one of group.querySelectorAll(selector)) one.tabIndex = one === now ? 0 : -1;
  });
  group.addEventListener("keydown", (event) => {
    const all = members();
    const n = all.indexOf(event.target.closest(selector));
    if (n < 0) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      event.stopPropagation();
      event.target.click();
      return;
    }
    const step = {
      ArrowRight: n + 1, ArrowDown: n + 1, ArrowLeft: n - 1, ArrowUp: n - 1, Home: 0, End: all.length - 1,
    }[event.key];
    if (step === undefined || event.shiftKey) return;
    event.preventDefault();
    event.stopPropagation();
    all[Math.min(all.length - 1, Math.max(0, step))].focus();
  });
}

// What a filter by script looks for in a word; the live page's server has the same by name.
const SCRIPTS = {
  Latin: /\p{Script=Latin}/u, Digits: /\p{Nd}/u, Arabic: /\p{Script=Arabic}/u,
  Chinese: /\p{Script=Han}/u, Cyrillic: /\p{Script=Cyrillic}/u,
  Devanagari: /\p{Script=Devanagari}/u, Greek: /\p{Script=Greek}/u, Hebrew: /\p{Script=Hebrew}/u,
  Japanese: /[\p{Script=Hiragana}\p{Script=Katakana}]/u, Korean: /\p{Script=Hangul}/u,
  Thai: /\p{Script=Thai}/u,
};

function currentLeast() {
  return field("least") ? Number(field("least").value) : 0;
}
