
"use strict";

const one = (selector) => document.querySelector(selector);
const plates = [...document.querySelectorAll(".plate")];
const told = (plate) =>
  [".facts", ".told", "code", "h2"]
    .map((part) => plate.querySelector(part)?.textContent ?? "")
    .join(" ");
const words = new Map(plates.map((plate) => [plate, ` ${told(plate).toLowerCase()} `]));
const large = one("#large");
const search = one("#search");
const kinds = [...document.querySelectorAll("#kinds button")];
const MOST_ENLARGED = 2.5;
let kind = "";
let shown = plates;
let current = null;

const opener = (plate) => plate.querySelector(".show");
const titleOf = (plate) => plate.querySelector("h2").textContent;

// What was typed as it stands, at the beginning of a word; where that is nowhere, all its words.
function sift() {
  const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const phrase = ` ${wanted.join(" ")}`;
  const kin = plates.filter((plate) => !kind || plate.dataset.kind === kind);
  shown = kin.filter((plate) => words.get(plate).includes(phrase));
  if (shown.length === 0) {
    shown = kin.filter((plate) => wanted.every((word) => words.get(plate).includes(word)));
  }
  for (const plate of plates) plate.hidden = !shown.includes(plate);
  one("#none").hidden = shown.length > 0;
  one("#count").textContent =
    shown.length === plates.length ? `${plates.length}` : `${shown.length} of ${plates.length}`;
}

async function copy(plate, button) {
  const text = plate.querySelector("code").textContent;
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    done = copyByHand(text, button);
  }
  button.textContent = done ? "copied" : "not copied";
  button.classList.toggle("done", done);
  clearTimeout(Number(button.dataset.timer));
  button.dataset.timer = String(setTimeout(() => {
    button.textContent = "copy";
    button.classList.remove("done");
  }, 1600));
}

// Pages that were opened over plain HTTP have no clipboard of their own.
function copyByHand(text, button) {
  const field = document.createElement("textarea");
  field.value = text;
  field.readOnly = true;
  const before = document.activeElement;
  button.after(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  before?.focus();
  return done;
}

function enlarge(plate) {
  current = plate;
  const picture = plate.querySelector("img");
  one("#dream").src = picture.src;
  one("#dream").alt = picture.alt;
  for (const large of [one("#dream"), one("#source")]) {
    large.style.maxWidth = `${MOST_ENLARGED * picture.naturalWidth}px`;
  }
  one("#name").textContent = titleOf(plate);
  one("#facts").textContent = plate.querySelector(".facts").textContent;
  one("#about").textContent = plate.querySelector(".told")?.textContent ?? "";
  one("#command").replaceChildren(...plate.querySelector("code").cloneNode(true).childNodes);
  compare(false);
  if (!large.open) large.showModal();
}

function compare(on) {
  one("#source").hidden = !on;
  one("#dream").hidden = on;
  one("#compare").setAttribute("aria-pressed", String(on));
}

function turn(by) {
  const place = shown.indexOf(current);
  enlarge(shown[(place + by + shown.length) % shown.length]);
}

// Where an arrow leads to in the grid, whose columns follow the width of the window.
function neighbour(plate, key) {
  const place = shown.indexOf(plate);
  if (key === "ArrowLeft") return shown[place - 1];
  if (key === "ArrowRight") return shown[place + 1];
  const at = plate.getBoundingClientRect();
  const rows = key === "ArrowDown" ? shown.slice(place + 1) : shown.slice(0, place).reverse();
  return rows.find((other) => {
    const box = other.getBoundingClientRect();
    return Math.abs(box.left - at.left) < 2 && Math.abs(box.top - at.top) > 2;
  });
}

search.addEventListener("input", sift);
for (const button of kinds) {
  button.addEventListener("click", () => {
    kind = button.dataset.kind;
    for (const other of kinds) other.setAttribute("aria-pressed", String(other === button));
    sift();
  });
}
for (const plate of plates) {
  opener(plate).addEventListener("click", () => enlarge(plate));
  const button = plate.querySelector(".copy");
  button.addEventListener("click", () => copy(plate, button));
}
one("#copy").addEventListener("click", () => copy(current, one("#copy")));
one("#before").addEventListener("click", () => turn(-1));
one("#after").addEventListener("click", () => turn(1));
one("#close").addEventListener("click", () => large.close());
one("#stage").addEventListener("click", () => large.close());
one("#compare").addEventListener("pointerdown", () => compare(true));
for (const end of ["pointerup", "pointerleave", "pointercancel"]) {
  one("#compare").addEventListener(end, () => compare(false));
}
large.addEventListener("close", () => {
  compare(false);
  if (current && !current.hidden) opener(current).focus();
});

const ARROWS = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"];
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key;
  if (large.open) {
    if (key === "ArrowLeft" || key === "ArrowUp") turn(-1);
    else if (key === "ArrowRight" || key === "ArrowDown") turn(1);
    else if (key === " ") compare(true);
    else if (key.toLowerCase() === "c") copy(current, one("#copy"));
    else return;
    event.preventDefault();
    return;
  }
  if (event.target === search) {
    if (key === "Escape") {
      search.value = "";
      sift();
      search.blur();
    } else if ((key === "Enter" || key === "ArrowDown") && shown.length) {
      opener(shown[0]).focus();
      event.preventDefault();
    }
    return;
  }
  const plate = event.target.closest?.(".plate");
  if (key === "/") {
    search.focus();
    search.select();
  } else if (ARROWS.includes(key) && shown.length && (plate || event.target === document.body)) {
    const next = plate ? neighbour(plate, key) : shown[0];
    if (next) {
      opener(next).focus({ preventScroll: true });
      next.scrollIntoView({ block: "nearest" });
    }
  } else if (key.toLowerCase() === "c" && plate) {
    copy(plate, plate.querySelector(".copy"));
  } else {
    return;
  }
  event.preventDefault();
});
document.addEventListener("keyup", (event) => {
  if (large.open && event.key === " ") {
    compare(false);
    event.preventDefault();
  }
});
