// One row for each control of /api/controls: label, input, hint.

const STEPS = [1, 0.5, 0.1, 0.05, 0.01, 0.005, 0.001];
const TOLD = 8000; // ms for which a complaint stays
const HELD = 1200; // ms for which a hand on a control counts more than what the server says

/** An element with properties and children. */
export function make(tag, properties = {}, ...children) {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in found && !name.startsWith("aria-")) found[name] = value;
    else if (value !== null) found.setAttribute(name, value);
  }
  found.append(...children);
  return found;
}

/** "work-size" as "Work size". */
export function words(name) {
  const spaced = name.replaceAll("-", " ");
  return spaced[0].toUpperCase() + spaced.slice(1);
}

/** A text that was written for the command line, without its dashes. */
export const plain = (text) =>
  text.replace(/(?<![\w-])--([a-z][a-z0-9-]*)/g, (_, name) => name.replaceAll("-", " "));

/** The largest handy step that divides a slider finely and meets its low end. */
function stepOf(low, high) {
  const meets = (step) => Math.abs(low / step - Math.round(low / step)) < 1e-6;
  return STEPS.find((step) => (high - low) / step >= 80 && meets(step)) ?? 0.001;
}

const rounded = (value) => Number(Number(value).toFixed(4));

/** What a number may be; a bound that it must not reach comes as the number next to it. */
function bounds(least, most) {
  const found = [];
  if (least !== null) found.push(`${rounded(least) < least ? "above" : "from"} ${rounded(least)}`);
  if (most !== null) found.push(`${rounded(most) > most ? "below" : "to"} ${rounded(most)}`);
  return found.join(" ");
}

/** A control on the page; `send(name, value)` when a hand moved it. */
export class Row {
  constructor(control, send) {
    this.control = control;
    this.said = JSON.stringify(control);
    this.id = `control-${control.name}`;
    this.until = 0;
    this.down = false;
    this.send = (value) => {
      this.hold();
      this.complain("");
      send(control.name, value);
    };
    this.hint = make("p", { className: "hint", id: `${this.id}-hint` }, plain(control.help));
    this.wrong = make("p", { className: "wrong", id: `${this.id}-wrong`, role: "alert" });
    this.node = make("div", { className: "row" });
    const kind = { number: "slider", whole: "slider" }[control.kind] ?? control.kind;
    this[kind]();
    this.node.append(this.hint, this.wrong);
    this.node.addEventListener("pointerdown", () => (this.down = true));
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"])
      this.node.addEventListener(end, () => (this.down = false));
  }

  hold() {
    this.until = performance.now() + HELD;
  }

  /** Whether somebody here is changing it now. */
  get held() {
    return this.down || performance.now() < this.until;
  }

  complain(text) {
    this.wrong.textContent = text;
    for (const input of this.inputs) input.toggleAttribute("aria-invalid", false);
    clearTimeout(this.told);
    if (!text) return;
    for (const input of this.inputs) input.setAttribute("aria-invalid", "true");
    this.told = setTimeout(() => this.complain(""), TOLD);
  }

  described(properties) {
    return { "aria-describedby": `${this.hint.id} ${this.wrong.id}`, ...properties };
  }

  label(target) {
    return make("label", { htmlFor: target }, words(this.control.name));
  }

  slider() {
    const { kind, least, most, name } = this.control;
    const low = this.control.low ?? least ?? 0;
    const high = this.control.high ?? most ?? 100;
    const step = kind === "whole" ? 1 : stepOf(low, high);
    const range = make("input", this.described({
      type: "range", className: "wide", id: this.id, min: low, max: high, step,
    }));
    const number = make("input", this.described({
      type: "number", step, inputMode: "decimal", "aria-label": `${words(name)}, as a number`,
    }));
    if (least !== null) number.min = least;
    if (most !== null) number.max = most;
    const fill = () => {
      const part = (range.value - low) / (high - low);
      range.style.setProperty("--fill", `${(100 * Math.min(1, Math.max(0, part))).toFixed(1)}%`);
    };
    range.addEventListener("input", () => {
      number.value = inForce = range.value;
      fill();
      this.send(Number(range.value));
    });
    let inForce = range.value; // the last that was shown or sent
    number.addEventListener("input", () => this.hold());
    number.addEventListener("change", () => {
      const { badInput, rangeOverflow, rangeUnderflow } = number.validity;
      if (number.value === "" || badInput || rangeOverflow || rangeUnderflow) {
        const typed = number.value === "" ? "That is no number" : `${number.value} cannot be`;
        this.complain(`${typed}: ${bounds(least, most) || "any number"}, please.`);
        number.value = inForce;
        return;
      }
      range.value = inForce = number.value;
      fill();
      this.send(Number(number.value));
    });
    this.inputs = [range, number];
    this.show = (value) => {
      range.value = value;
      number.value = inForce = rounded(value);
      fill();
    };
    this.node.append(this.label(this.id), number, range);
  }

  choice() {
    const options = this.control.choices.map(
      (choice) => make("option", { value: choice }, choice || "none"),
    );
    const select = make("select", this.described({ id: this.id, className: "wide" }), ...options);
    select.addEventListener("change", () => this.send(select.value));
    this.inputs = [select];
    this.show = (value) => (select.value = value);
    this.node.append(this.label(this.id), select);
  }

  switch() {
    const box = make("input", this.described({ id: this.id, type: "checkbox", role: "switch" }));
    box.addEventListener("change", () => this.send(box.checked));
    this.inputs = [box];
    this.show = (value) => (box.checked = value);
    this.node.append(this.label(this.id), box);
  }

  names() {
    const title = words(this.control.name);
    const chips = make("div", { className: "chips wide", role: "group", "aria-label": title });
    const first = make("option", { value: "" }, "add …");
    const options = this.control.choices.map((choice) => make("option", { value: choice }, choice));
    const select = make(
      "select", this.described({ id: this.id, className: "wide" }), first, ...options,
    );
    let chosen = [];
    const put = (names) => {
      chosen = names;
      chips.replaceChildren(...names.map((name) => {
        const chip = make("button", { type: "button", "aria-label": `Remove ${name}` }, `${name} ✕`);
        chip.addEventListener("click", () => {
          put(chosen.filter((other) => other !== name));
          (chips.querySelector("button") ?? select).focus();
          this.send(chosen.join(","));
        });
        return chip;
      }));
      if (!names.length) chips.append(this.control.name === "layers" ? "usual ones" : "none");
    };
    select.addEventListener("change", () => {
      if (select.value && !chosen.includes(select.value)) {
        put([...chosen, select.value]);
        this.send(chosen.join(","));
      }
      select.value = "";
    });
    this.inputs = [select];
    this.show = (value) => {
      if (value !== chosen.join(",")) put(value ? value.split(/,(?![^[]*\])/) : []);
    };
    put([]);
    this.node.append(this.label(this.id), chips, select);
  }
}
