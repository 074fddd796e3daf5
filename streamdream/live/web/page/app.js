// The page: asks how it goes, and sends what is changed. Controls are in rows.js, the picture is
// in picture.js, what is shown of the status in status.js.

import { Picture } from "/picture.js";
import { Row, make, plain, words } from "/rows.js";
import { show } from "/status.js";

const POLL = 500; // ms between two looks at the status
const PACE = 100; // ms between two messages while a slider moves
const PATIENCE = 4000; // ms for an answer
const SURE = 4000; // ms in which the end is confirmed
const READ = 5000; // ms for which news stays in view
const MAIN = ["strength", "layers", "style"]; // controls above all others
const EXPERT = [
  "octaves", "octave-scale", "steps", "warm-steps", "step-size", "jitter", "seed", "work-size",
  "flow", "memory",
];
const PRESET_ACTIONS = ["previous-preset", "next-preset", "random-preset"];
const SCREEN_ACTIONS = ["fullscreen", "identify", "test-pattern", "status", "help", "quit"];

const KEYS = { backspace: "⌫", escape: "esc" }; // as they are shown

const $ = (id) => document.getElementById(id);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const rows = new Map();
const buttons = new Map(); // of actions
const pressed = new Map(); // toggles that were switched here, and until when that counts
let known = null; // the last /api/controls
let actions = [];
let pending = {};
let sending = false;
let asked = 0; // grows with every change sent; what was asked before is old
let online = true;
let notices = null; // as they came last
let newsEnds = 0; // the timer that takes the news away

async function ask(path, body) {
  const answer = await fetch(path, {
    method: body ? "POST" : "GET",
    headers: body ? { "Content-Type": "application/json" } : {},
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(PATIENCE),
  });
  if (answer.status === 401) location.reload(); // the server asks for the token
  const found = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(found.error), { told: true });
  return found;
}

function say(text, kind = "", news = true) {
  if ($("notices").firstChild?.textContent === text) return;
  $("notices").prepend(make("p", { className: kind }, text));
  if (!news) return;
  $("news").textContent = text; // the log is at the page's end
  clearTimeout(newsEnds);
  newsEnds = setTimeout(() => ($("news").textContent = ""), READ);
  while ($("notices").children.length > 5) $("notices").lastChild.remove();
}

function connected(now) {
  if (now === online) return;
  online = now;
  document.body.classList.toggle("offline", !now);
  $("lost").textContent = now ? "" : "Connection lost. Trying again …";
  if (now) picture.again();
}

/** Send what has gathered, at most ten times a second, one message after the other. */
async function flush() {
  if (sending) return;
  sending = true;
  while (Object.keys(pending).length) {
    const values = pending;
    pending = {};
    asked += 1;
    const pause = sleep(PACE);
    try {
      take(await ask("/api/set", values));
    } catch (fault) {
      const names = Object.keys(values);
      if (fault.told && names.length === 1) rows.get(names[0])?.complain(fault.message);
      say(fault.told ? fault.message : "That did not arrive: no connection", "error");
      known = null;
    }
    await pause;
  }
  sending = false;
}

function change(name, value) {
  pending[name] = value;
  flush();
}

async function tell(path, body) {
  asked += 1;
  try {
    take(await ask(path, body));
  } catch (fault) {
    say(fault.told ? fault.message : "That did not arrive: no connection", "error");
  }
}

/** Show values that came from the server, except where a hand is. */
function take(state) {
  if (known) known = { ...known, ...state };
  let held = false;
  for (const [name, row] of rows) {
    if (row.held || name in pending) held = true;
    else row.show(state.values[name]);
  }
  if (held && known) known.tag = null; // look again when it was let go
  for (const button of $("presets").children) {
    const chosen = button.textContent === words(state.preset ?? " ");
    if (chosen && button.getAttribute("aria-pressed") === "false") reveal(button);
    button.setAttribute("aria-pressed", String(chosen));
  }
}

/** Sweep the row of presets to one of them; the page itself stays where it is. */
function reveal(button) {
  const row = button.parentElement;
  row.scrollLeft = button.offsetLeft - row.offsetLeft - (row.clientWidth - button.offsetWidth) / 2;
}

function build(found) {
  known = found;
  const order = ({ name }) => MAIN.indexOf(name);
  for (const control of [...found.controls].sort((a, b) => order(a) - order(b))) {
    const old = rows.get(control.name);
    if (old?.said === JSON.stringify(control)) continue;
    const row = new Row(control, change);
    rows.set(control.name, row);
    if (old) old.node.replaceWith(row.node);
    else home(control.name).append(row.node);
  }
  if (!actions.length) {
    actions = found.actions;
    for (const action of actions) place(action);
    $("presets").append(...found.presets.map((name) => {
      const button = make("button", { type: "button", "aria-pressed": "false" }, words(name));
      button.addEventListener("click", () => tell("/api/preset", { name }));
      return button;
    }));
  }
  take(found);
}

/** Where a control stands on the page. */
const home = (name) =>
  $(MAIN.includes(name) ? "main-rows" : EXPERT.includes(name) ? "expert-rows" : "other-rows");

/** The name of an action, shorter where it stands among presets. */
const shortened = (name) => name.replace(/-preset$/, "");

function place(action) {
  const button = make("button", { type: "button", title: plain(action.help) }, words(shortened(action.name)));
  button.dataset.action = action.name;
  if (action.key) button.append(make("kbd", {}, KEYS[action.key] ?? action.key));
  if (action.toggles) button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => act(action));
  buttons.set(action.name, button);
  const group = PRESET_ACTIONS.includes(action.name) ? "preset-actions"
    : SCREEN_ACTIONS.includes(action.name) ? "screen-actions" : "actions";
  $(group).append(button);
}

function act(action) {
  const button = buttons.get(action.name);
  if (action.name === "quit" && !button.classList.contains("sure")) {
    button.classList.add("sure");
    button.firstChild.textContent = "Really end?";
    setTimeout(() => {
      button.classList.remove("sure");
      button.firstChild.textContent = words(shortened(action.name));
    }, SURE);
    return;
  }
  const body = { name: action.name };
  if (action.toggles) {
    body.value = button.getAttribute("aria-pressed") !== "true";
    pressed.set(action.name, performance.now() + 1500);
    button.setAttribute("aria-pressed", String(body.value));
  }
  tell("/api/act", body);
  if (action.name === "snapshot") $("last").hidden = false;
}

/** Show which toggles are on, and what was told since the last time. */
function follow(status) {
  for (const [name, button] of buttons) {
    if (!button.hasAttribute("aria-pressed") || performance.now() < (pressed.get(name) ?? 0)) continue;
    button.setAttribute("aria-pressed", String(status.states.includes(name)));
  }
  document.title = status.states.includes("record") ? "● Recording: streamdream" : "streamdream";
  const old = notices?.join("\n");
  if (status.notices.join("\n") !== old) {
    // the server keeps the last few: what is new comes after the longest part known already
    let from = status.notices.length;
    while (from > 0 && !old?.endsWith(status.notices.slice(0, from).join("\n"))) from -= 1;
    for (const line of status.notices.slice(from)) say(line, "", notices !== null);
    notices = status.notices;
  }
}

async function watch() {
  for (;;) {
    const before = asked;
    try {
      const status = await ask("/api/status");
      if (!known || status.tag !== known.tag) {
        const found = await ask("/api/controls");
        if (before === asked) build(found);
      }
      show(status);
      follow(status);
      connected(true);
    } catch (fault) {
      if (fault.told) say(fault.message, "error");
      else connected(false);
    }
    await sleep(document.hidden || !online ? 2000 : POLL);
  }
}

function keyed(event) {
  if (!$("keys").checked || event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  const { target, key } = event;
  if (target.matches("select, input:not([type=range], [type=checkbox])")) return;
  if (target.matches("button, input, a") && (key === " " || key === "Enter")) return;
  const pushed = key === " " ? "space" : key.toLowerCase();
  const action = actions.find((other) => other.key === pushed && other.name !== "quit");
  if (!action) return;
  event.preventDefault();
  act(action);
}

const picture = new Picture($("view"), $("frame"), (text) => {
  if ($("overlay").textContent !== text) $("overlay").textContent = text;
});
const play = (on) => {
  $("play").setAttribute("aria-pressed", String(on));
  $("play").textContent = on ? "Picture on" : "Picture off";
  $("frame").classList.toggle("still", !on);
  picture.turn(on);
};
$("play").addEventListener("click", () => play(!picture.on));
if (matchMedia("(prefers-reduced-motion: reduce)").matches) play(false);

/** Let the picture fill the screen, or the page where a browser has no way to do that. */
function enlarge(on) {
  document.body.classList.toggle("enlarged", on);
  for (const part of document.querySelectorAll("header, .panel, .below")) part.inert = on;
  $("enlarge").setAttribute("aria-pressed", String(on));
  $("enlarge").textContent = on ? "Smaller" : "Enlarge";
  if (on) $("frame").requestFullscreen?.().catch(() => {});
  else if (document.fullscreenElement) document.exitFullscreen();
}
const enlarged = () => document.body.classList.contains("enlarged");
$("enlarge").addEventListener("click", () => enlarge(!enlarged()));
$("close").addEventListener("click", () => enlarge(false));
document.addEventListener("keydown", ({ key }) => {
  if (key === "Escape" && enlarged()) enlarge(false);
});
document.addEventListener("fullscreenchange", () => {
  if (!document.fullscreenElement && enlarged()) enlarge(false);
});
$("keys").checked = localStorage.getItem("keys") !== "off";
$("keys").addEventListener("change", () =>
  localStorage.setItem("keys", $("keys").checked ? "on" : "off"));
document.addEventListener("keydown", keyed);
watch();
