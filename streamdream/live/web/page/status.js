// What /api/status tells, as the page shows it.

import { make } from "/rows.js";

const ALIVE = 10000; // ms for which a signal counts as alive after it was above 0

const $ = (id) => document.getElementById(id);
const heard = new Map(); // when a signal was last above 0

const digits = (value, places = 0) =>
  value === null || !Number.isFinite(value) ? "–" : value.toFixed(places);

function clock(seconds) {
  const two = (value) => String(Math.floor(value) % 60).padStart(2, "0");
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  if (hours < 1) return `${minutes}:${two(seconds)}`;
  if (hours < 48) return `${hours}:${two(minutes)}:${two(seconds)}`;
  return `${Math.floor(hours / 24)} days`;
}

/** The last part of a path, where a line on the camera has one. */
export function short(line) {
  const [, name, size] = /^(.+?)( \d+x\d+)?$/.exec(line) ?? [null, line];
  if (size) return (/[^\\/]+(?=[\\/]*$)/.exec(name)?.[0] ?? name) + size;
  return line.replace(/[^\s()]*[\\/](?=[^\s()\\/])/g, "");
}

/** Show the line at the top, the figures, the signals and what is in trouble. */
export function show(status) {
  document.body.classList.toggle("connected", status.connected);
  const troubles = status.outputs.filter((output) => output.trouble)
    .map((output) => `${output.name}: ${output.trouble}`);
  $("camera-line").textContent = short(status.camera);
  $("rate-line").textContent = `${digits(status.shown, 1)} pictures a second`;
  $("trouble-line").textContent = troubles.map((line) => line.split(":")[0]).join(", ");
  const figures = [
    ["Pictures", digits(status.shown, 1), `of ${digits(status.wanted, 1)} a second`],
    ["Latency", `${digits(status.latency[0])} ms`, `at times ${digits(status.latency[1])} ms`],
    ["Dream steps", digits(status.steps, 1), "a second"],
    ["Quality", `${digits(100 * status.share)} %`, `${status.lines} lines`],
    ["Late", String(status.dropped), `picture${status.dropped === 1 ? "" : "s"} dropped`],
    ["Running for", clock(status.seconds), ""],
  ];
  if ($("stats").children.length !== figures.length)
    $("stats").replaceChildren(...figures.map(([name]) =>
      make("div", {}, make("dt", {}, name), " ", make("dd", {}, make("b"), " ", make("small")))));
  figures.forEach(([, value, unit], i) => {
    const dd = $("stats").children[i].lastChild;
    dd.firstChild.textContent = value;
    dd.lastChild.textContent = unit;
  });
  if (troubles.join("\n") !== [...$("troubles").children].map((li) => li.textContent).join("\n"))
    $("troubles").replaceChildren(...troubles.map((line) => make("li", {}, line)));
  signals(status.signals);
}

function signals(found) {
  const now = performance.now();
  for (const [name, value] of Object.entries(found)) if (value > 0) heard.set(name, now);
  const names = Object.keys(found).filter((name) => now - (heard.get(name) ?? -ALIVE) < ALIVE);
  const shown = [...$("signals").children].map((label) => label.firstChild.textContent);
  if (names.join() !== shown.join())
    $("signals").replaceChildren(...names.map((name) => make("label", {}, name, make("meter"))));
  names.forEach((name, i) => ($("signals").children[i].lastChild.value = found[name] ?? 0));
}
