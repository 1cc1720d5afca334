/** A slider as wide as its place, with a value that can be typed: the browser's own range and text field. */

import { ontyped, write } from "./dom";
import { style } from "./plot";
import { spelt } from "./reading";
import { refusal } from "./state";

export interface SliderOptions {
  label: string;
  hint?: string;
  low: number;
  high: number;
  /** The scale of the track; "logit" is for probabilities, with ends inside (0, 1). */
  scale?: "linear" | "log" | "logit";
  whole?: boolean;
}

const STOPS = 1000; // places on the track

type Map = (value: number) => number;
const SCALES: Record<string, [Map, Map]> = {
  linear: [(value) => value, (place) => place],
  log: [Math.log, Math.exp],
  logit: [(value) => Math.log(value / (1 - value)), (place) => 1 / (1 + Math.exp(-place))],
};

/** A value's place on the track, from 0 to 1. */
export function placeOf(value: number, { low, high, scale = "linear" }: SliderOptions): number {
  const [to] = SCALES[scale];
  return Math.min(Math.max((to(value) - to(low)) / (to(high) - to(low)), 0), 1);
}

/** The value at a place of the track, rounded to about as many digits as the track can tell; the ends are exact. */
export function valueAt(place: number, { low, high, scale = "linear", whole }: SliderOptions): number {
  if (place <= 0) return low;
  if (place >= 1) return high;
  const [to, from] = SCALES[scale];
  const value = from(to(low) + place * (to(high) - to(low)));
  if (whole) return Math.round(value);
  if (scale === "linear") return Number(value.toFixed(Math.max(0, Math.ceil(-Math.log10((high - low) / STOPS)))));
  const near = scale === "logit" && value > 0.5; // digits of 1 − p are those that count
  const rounded = near ? 1 - Number((1 - value).toPrecision(3)) : Number(value.toPrecision(3));
  return Math.min(Math.max(rounded, low), high);
}

/**
 * A number that somebody typed, such as "0,5", "1e-3", "−2" or "1 − 1e-9"; NaN for other text, and for one such as
 * "1,024", which is a thousand to some and one to others.
 */
export function typed(text: string): number {
  if (/^\s*[-−]?[1-9]\d{0,2},\d{3}\s*$/.test(text)) return NaN;
  const plain = text.trim().replaceAll("−", "-").replace(/^([^.,]*),([^.,]*)$/, "$1.$2");
  const below = /^1\s*-\s*(.+)$/.exec(plain);
  return plain === "" ? NaN : below ? 1 - Number(below[1]) : Number(plain);
}

/** A slider's value for people: a probability near 1 as 1 minus the rest, since four digits would all be nines. */
export function written(value: number, { scale }: SliderOptions): string {
  return scale === "logit" && value > 0.999 && value < 1 ? `1 − ${spelt(1 - value)}` : spelt(value);
}

export class Slider {
  readonly element = document.createElement("div");
  /** Called at every move; `settled` is true at the end of a drag, at a key, and for a typed value. */
  onmove: (value: number, settled: boolean) => void = () => {};
  private readonly name = document.createElement("label");
  private readonly track = document.createElement("input");
  private readonly field = document.createElement("input");
  private readonly note = document.createElement("output");
  private current: number;
  private moving = false;

  constructor(
    parent: HTMLElement,
    private options: SliderOptions,
    value: number,
  ) {
    this.element.className = "gl-slider";
    this.element.title = options.hint ?? "";
    Object.assign(this.track, { type: "range", min: "0", max: String(STOPS), step: "1" });
    Object.assign(this.field, { type: "text", inputMode: "decimal", size: 7 });
    this.element.append(this.name, this.field, this.track, this.note);
    parent.append(this.element);
    style(parent);
    this.current = value;
    this.range(options);
    this.track.addEventListener("input", () => {
      this.moving = true;
      this.show(valueAt(Number(this.track.value) / STOPS, this.options));
      this.onmove(this.current, false);
    });
    // A drag there and back ends without "change".
    for (const end of ["change", "pointerup", "pointercancel", "keyup", "blur"]) {
      this.track.addEventListener(end, () => {
        if (this.moving) this.onmove(this.current, true);
        this.moving = false;
      });
    }
    this.track.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
      const { whole, low, high } = this.options;
      if (!whole || !by) return; // between two whole numbers there may be many places of the track
      event.preventDefault();
      const next = Math.min(Math.max(this.current + by, low), high);
      if (next === this.current) return;
      this.value = next;
      this.onmove(next, true);
      this.element.dispatchEvent(new Event("input", { bubbles: true })); // as a drag does
    });
    ontyped(this.field, () => this.take());
  }

  /** Takes another label, other ends or another scale; the value stays. */
  range({ label, low, high, scale }: SliderOptions): void {
    this.options = { ...this.options, label, low, high, scale };
    write(this.name, label);
    this.track.setAttribute("aria-label", label);
    this.field.setAttribute("aria-label", `${label}, typed`);
    this.track.hidden = !Number.isFinite(high - low); // only typed
    this.value = this.current;
  }

  get value(): number {
    return this.current;
  }

  /** Shows a value; nobody is called. */
  set value(value: number) {
    this.track.value = String(Math.round(placeOf(value, this.options) * STOPS));
    this.show(value);
  }

  private show(value: number): void {
    this.current = value;
    this.field.value = written(value, this.options);
    this.track.setAttribute("aria-valuetext", this.field.value);
    this.note.textContent = "";
  }

  /** Takes what was typed, exactly as it was typed, or says what would be accepted. */
  private take(): void {
    const { low, high, whole, label } = this.options;
    const text = this.field.value;
    const value = typed(text);
    const reason = refusal(label, value, { kind: "number", low, high, whole }, text);
    this.value = reason ? this.current : value;
    if (reason) this.note.textContent = reason;
    else this.onmove(value, true);
  }
}
