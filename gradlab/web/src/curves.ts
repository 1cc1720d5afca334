/** Curves over a common axis and marks at points, with bands, rules, labels, read-outs, and points that can be dragged. */

import type { Selection } from "d3-selection";
import { area, line } from "d3-shape";
import { draw, put } from "./draw";
import { drawHandles, type Handle } from "./handles";
import { type Marker, markPath } from "./marks";
import { inside, Plot, type PlotOptions } from "./plot";
import { nearest, spelt } from "./reading";

/** A curve: x rises, but where there are marks it need not. low and high are the ends of a band. NaN is a gap. */
export interface Curve {
  name: string;
  color: string;
  dash?: string;
  x: ArrayLike<number>;
  y: ArrayLike<number>;
  low?: ArrayLike<number>;
  high?: ArrayLike<number>;
  /** A curve to compare with: it is drawn faintly, and neither named nor read. */
  faint?: boolean;
  /** A mark at each point; without one, points have none. */
  marker?: Marker;
  /** False: marks alone. */
  line?: boolean;
  /** Whether marks are filled, for all or for each; default: they are. */
  filled?: boolean | readonly boolean[];
  /** Pixels from the middle of a mark to its edge. */
  size?: number;
}

/**
 * What is drawn with curves: ranges of x that are shaded, straight lines across at an x or a y, lines of slope 1 through
 * an x and a y, and words at points.
 */
export interface Extras {
  bands?: readonly { from: number; to: number; label?: string }[];
  rules?: readonly { x?: number; y?: number; label?: string; dash?: string }[];
  labels?: readonly { x: number; y: number; text: string; color?: string }[];
}

interface Point {
  curve: Curve;
  at: number;
}

/** A text in pixels. */
interface Word {
  x: number;
  y: number;
  text: string;
  anchor: "start" | "middle" | "end";
  color?: string;
}

const SIZE = 4; // pixels
const NEAR = 24; // pixels within which a pointer reads a mark

let count = 0; // of plots: each has a name for its frame

export class CurvePlot extends Plot {
  /** Called with the x under the pointer, or null where it has left. */
  onhover: (x: number | null) => void = () => {};
  /** Called with a mark without a line that is clicked, or chosen by Enter: its curve, and its place in it. */
  onpick: (curve: Curve, at: number) => void = () => {};
  /** Called with the place of a click inside the axes, or of the mark that Enter chooses. */
  onplace: (x: number, y: number) => void = () => {};
  private curves: readonly Curve[] = [];
  private handles: readonly Handle[] = [];
  private extras: Extras = {};
  private marked: number | null = null;
  private home: number | null = null;
  private point: Point | null = null;
  private readonly clip = `gl-frame-${count++}`;
  private readonly frameClip: Selection<SVGRectElement, unknown, null, undefined>;

  constructor(parent: HTMLElement, options: PlotOptions) {
    super(parent, options);
    this.frameClip = this.inner.append("clipPath").attr("id", this.clip).append("rect").attr("x", -2).attr("y", -2);
    const layers = ["legend", "spans", "rules", "bands", "lines", "points", "marks", "words", "handles"];
    this.layers(...layers);
    for (const name of ["bands", "lines"]) this.layer(name).attr("clip-path", `url(#${this.clip})`);
    this.track((at) => {
      this.point = at && this.nearestMark(at);
      this.hover(at && this.x.invert(at[0]));
    });
    this.stage.addEventListener("click", (event) => {
      this.pick();
      const at = this.placeOf(event);
      const held = (event.target as Element).closest(".gl-handle, .gl-reach");
      if (!held && this.within(at)) this.onplace(this.x.invert(at[0]), this.y.invert(at[1]));
    });
  }

  show(curves: readonly Curve[], handles: readonly Handle[] = [], extras: Extras = {}): void {
    if (this.point) {
      const curve = curves[this.curves.indexOf(this.point.curve)];
      this.point = curve && this.point.at < curve.x.length ? { curve, at: this.point.at } : null;
    }
    this.curves = curves;
    this.handles = handles;
    this.extras = extras;
    this.redraw();
  }

  /** Marks the points nearest to x, as where another picture is hovered over; null: none. */
  mark(x: number | null): void {
    this.marked = x;
    if (this.width) this.drawMarks();
  }

  /** Marks the points nearest to x, without words, while nothing is hovered over; null: none. */
  rest(x: number | null): void {
    this.home = x;
    if (this.width && this.marked === null) this.drawMarks();
  }

  protected override head(): number {
    return this.legend().height;
  }

  private get named(): readonly Curve[] {
    return this.curves.filter(({ faint }) => !faint);
  }

  /** Curves that are read at an x. */
  private get lined(): readonly Curve[] {
    return this.named.filter(({ line, x }) => line !== false && rises(x));
  }

  /** Marks that are read one by one, from left to right: those alone, and those on a line that turns back. */
  private get points(): Point[] {
    const all = this.named
      .filter(({ line, marker, x }) => line === false || (marker && !rises(x)))
      .flatMap((curve) => Array.from(curve.x, (_, at) => ({ curve, at })).filter(({ at }) => this.inside(curve, at)));
    return all.sort((one, other) => one.curve.x[one.at] - other.curve.x[other.at]);
  }

  private legend(): { height: number; places: [number, number][] } {
    return this.entries(this.named.map(({ name }) => name));
  }

  private drawLegend(): void {
    const { height, places } = this.legend();
    const entries = this.layer("legend")
      .selectAll<SVGGElement, Curve>("g")
      .data(places.length ? this.named : [])
      .join((enter) => {
        const entry = enter.append("g");
        entry.append("line").attr("class", "gl-curve gl-color");
        entry.append("path");
        entry.append("text").attr("x", 27).attr("dy", "0.35em");
        return entry;
      });
    put(this.layer("legend"), { transform: `translate(0,${10 - height})` });
    put(entries, { transform: (_, at) => `translate(${places[at]})` });
    put(entries.select<SVGElement>("line"), {
      "--gl-color": ({ color }) => color, x2: ({ line }) => (line === false ? 0 : 22), "stroke-dasharray": ({ dash }) => dash,
    });
    put(entries.select<SVGElement>("path"), {
      class: (curve) => markClass(curve, curve.filled !== false), "--gl-color": ({ color }) => color,
      d: ({ marker, size = SIZE }) => marker && markPath(marker, Math.min(size, 6), 11),
    });
    put(entries.select<SVGElement>("text"), { text: ({ name }) => name });
  }

  protected draw(): void {
    put(this.frameClip, { width: this.width + 4, height: this.plotHeight + 4 });
    this.drawLegend();
    this.drawExtras();
    this.drawBands();
    this.drawLines();
    this.drawPoints();
    drawHandles(this.layer("handles"), this.handles, this.options, this);
    this.drawMarks();
  }

  private drawExtras(): void {
    draw(this.layer("spans"), "rect", this.extras.bands ?? [], {
      x: ({ from, to }) => this.across(Math.min(from, to)),
      width: ({ from, to }) => Math.abs(this.across(to) - this.across(from)),
      height: this.plotHeight,
    });
    draw(this.layer("rules"), "path", this.rules, {
      class: "gl-rule", "--gl-dash": ({ dash }) => dash, d: ({ places }) => `M${places.join("L")}`,
    });
    draw(this.layer("words"), "text", this.words(), {
      class: ({ color }) => (color ? "gl-word gl-color gl-colored" : "gl-word"),
      "--gl-color": ({ color }) => color,
      "text-anchor": ({ anchor }) => anchor,
      x: ({ x }) => x,
      y: ({ y }) => y,
      text: ({ text }) => text,
    });
  }

  /** Rules that lie between the ends of their axes, with their places in pixels. */
  private get rules(): { x?: number; y?: number; label?: string; dash?: string; places: [number, number][] }[] {
    const rules = (this.extras.rules ?? []).map((rule) => ({ ...rule, places: this.placesOf(rule.x, rule.y) }));
    return rules.filter(({ places }) => places.length > 1);
  }

  private placesOf(x: number | undefined, y: number | undefined): [number, number][] {
    const { width, plotHeight } = this;
    if (x !== undefined && y !== undefined) {
      const across = Array.from({ length: width + 1 }, (_, right) => right);
      const places = across.map((right): [number, number] => [right, this.y(this.x.invert(right) + y - x)]);
      return places.filter((at) => this.within(at));
    }
    const level = (up: number): [number, number][] => [[0, this.y(up)], [width, this.y(up)]];
    const upright = (across: number): [number, number][] => [[this.x(across), 0], [this.x(across), plotHeight]];
    const ends = x === undefined ? level(y!) : upright(x);
    return ends.filter((at) => this.within(at));
  }

  /** A place on the x axis in pixels, kept inside. */
  private across(x: number): number {
    return Math.min(Math.max(this.x(x), 0), this.width);
  }

  /** Words beside points, at the top of bands and upright rules, and at the right end of level rules. */
  private words(): Word[] {
    const { bands = [], labels = [] } = this.extras;
    const { width } = this;
    const ofBands = bands.map(({ from, to, label }): Word => (
      { x: (this.across(from) + this.across(to)) / 2, y: 12, text: label ?? "", anchor: "middle" }
    ));
    const ofRules = this.rules.map(({ x, y, label = "", places }): Word => {
      const [right, down] = places[places.length - 1];
      if (x !== undefined && y === undefined) return { x: right + 4, y: 12, text: label, anchor: "start" };
      return { x: right - 4, y: Math.max(down - 4, 12), text: label, anchor: "end" };
    });
    const ofPoints = labels.filter(({ x, y }) => this.reaches(x, y)).map(({ x, y, text, color }): Word => {
      const left = this.x(x) > width / 2; // where there is room
      return { x: this.x(x) + (left ? -8 : 8), y: this.y(y) - 6, text, color, anchor: left ? "end" : "start" };
    });
    return [...ofBands, ...ofRules, ...ofPoints].filter(({ text }) => text);
  }

  private drawBands(): void {
    const band = ({ low, high, ...curve }: Curve) =>
      area<number>((at) => this.x(curve.x[at]), (at) => this.y(low![at]), (at) => this.y(high![at])).defined(
        (at) => this.defined(low![at]) && this.defined(high![at]),
      )(placesOf(curve));
    draw(this.layer("bands"), "path", this.curves.filter(({ low, high }) => low && high), {
      class: "gl-band gl-color", "--gl-color": ({ color }) => color, d: band,
    });
  }

  private drawLines(): void {
    const path = (curve: Curve) => {
      const drawn = line<number>((at) => this.x(curve.x[at]), (at) => this.y(curve.y[at]));
      return drawn.defined((at) => this.defined(curve.y[at]))(placesOf(curve));
    };
    draw(this.layer("lines"), "path", this.curves.filter((curve) => curve.line !== false), {
      class: "gl-curve gl-color",
      "--gl-color": ({ color }) => color,
      "stroke-dasharray": ({ dash }) => dash,
      "stroke-opacity": ({ faint }) => (faint ? 0.4 : null),
      d: path,
    });
  }

  /** Draws the marks of a curve as two paths: those that are filled, and those that are hollow. */
  private drawPoints(): void {
    const parts = this.curves
      .filter(({ marker }) => marker)
      .flatMap((curve) => [true, false].map((filled) => ({ curve, filled, path: this.marksOf(curve, filled) })))
      .filter(({ path }) => path);
    draw(this.layer("points"), "path", parts, {
      class: ({ curve, filled }) => markClass(curve, filled),
      "--gl-color": ({ curve }) => curve.color,
      opacity: ({ curve }) => (curve.faint ? 0.4 : null),
      d: ({ path }) => path,
    });
  }

  private marksOf(curve: Curve, filled: boolean): string {
    const { marker, size = SIZE } = curve;
    const is = (at: number) => (typeof curve.filled === "object" ? curve.filled[at] : (curve.filled ?? true));
    const places = placesOf(curve).filter((at) => is(at) === filled && this.inside(curve, at));
    return places.map((at) => markPath(marker!, size, this.x(curve.x[at]), this.y(curve.y[at]))).join("");
  }

  private defined(value: number): boolean {
    return Number.isFinite(this.y(value)) && Number.isFinite(value);
  }

  /** True if a point lies between the ends of both axes. */
  private reaches(x: number, y: number): boolean {
    return this.within([this.x(x), this.y(y)]);
  }

  private inside({ x, y }: Curve, at: number): boolean {
    return this.reaches(x[at], y[at]);
  }

  protected key(name: string): boolean {
    if (name === "Enter" || name === " ") return this.choose();
    const xs = this.lined[0]?.x;
    if (!xs?.length) return this.walk(name);
    const here = this.marked === null ? -1 : nearest(xs, this.marked);
    const next = step(name, here, xs.length);
    if (next === undefined) return false;
    this.hover(next === null ? null : xs[next]);
    return true;
  }

  /** Goes from mark to mark, where there are no lines. */
  private walk(name: string): boolean {
    const { points } = this;
    const here = points.findIndex(({ curve, at }) => curve === this.point?.curve && at === this.point.at);
    const next = step(name, here, points.length);
    if (next === undefined || !points.length) return false;
    this.point = next === null ? null : points[next];
    this.hover(this.point && this.point.curve.x[this.point.at]);
    return true;
  }

  private choose(): boolean {
    const [curve] = this.lined;
    const at = this.marked === null || !curve ? -1 : nearest(curve.x, this.marked);
    const chosen = this.point ?? (at < 0 ? null : { curve, at });
    this.pick();
    if (chosen) this.onplace(chosen.curve.x[chosen.at], chosen.curve.y[chosen.at]);
    return chosen !== null;
  }

  private pick(): void {
    if (this.point) this.onpick(this.point.curve, this.point.at);
  }

  private nearestMark([right, down]: [number, number]): Point | null {
    let best: Point | null = null;
    let least = NEAR;
    for (const point of this.points) {
      const { curve, at } = point;
      const far = Math.hypot(this.x(curve.x[at]) - right, this.y(curve.y[at]) - down);
      if (far < least) [best, least] = [point, far];
    }
    return best;
  }

  private hover(x: number | null): void {
    this.mark(x !== null && x === inside(x, this.options.x.domain) ? x : null);
    this.onhover(this.marked);
  }

  private drawMarks(): void {
    const x = this.marked ?? this.home;
    const points = x === null ? [] : this.lined.map((curve) => ({ curve, at: nearest(curve.x, x) })).filter(({ at }) => at >= 0);
    const marks = this.layer("marks");
    const here = ({ curve, at }: Point) => this.x(curve.x[at]);
    draw(marks, "line", points.slice(0, 1), { class: "gl-rule gl-here", x1: here, x2: here, y2: this.plotHeight });
    draw(marks, "circle", points.filter(({ curve, at }) => Number.isFinite(this.y(curve.y[at]))), {
      class: "gl-dot gl-color", r: 4, "--gl-color": ({ curve }) => curve.color,
      cx: here, cy: ({ curve, at }) => this.y(curve.y[at]),
    });
    draw(marks, "path", this.point ? [this.point] : [], {
      class: "gl-point",
      d: ({ curve, at }) => markPath("ring", (curve.size ?? SIZE) + 4, this.x(curve.x[at]), this.y(curve.y[at])),
    });
    this.say(this.marked === null ? "" : this.reads(points));
  }

  private reads(points: readonly Point[]): string {
    const { x, y } = this.options;
    const words: string[] = [];
    const [first] = points;
    const values = points.map(({ curve, at }) => `${curve.name} ${spelt(curve.y[at])}`);
    if (first) words.push(`${x.label} ${spelt(first.curve.x[first.at])}: ${values.join(", ")}`);
    if (this.point) {
      const { curve, at } = this.point;
      words.push(`${curve.name}: ${x.label} ${spelt(curve.x[at])}, ${y.label} ${spelt(curve.y[at])}`);
    }
    return words.join("; ");
  }
}

function placesOf({ x }: Curve): number[] {
  return Array.from({ length: x.length }, (_, at) => at);
}

function rises(x: ArrayLike<number>): boolean {
  for (let at = 1; at < x.length; at++) if (x[at] < x[at - 1]) return false;
  return true;
}

function markClass({ marker }: Curve, filled: boolean): string {
  return `gl-mark gl-color${filled && marker !== "ring" ? "" : " gl-hollow"}${marker === "ring" ? " gl-open" : ""}`;
}

/** The next place among `length` by an arrow key; null to leave, undefined for other keys. */
function step(name: string, here: number, length: number): number | null | undefined {
  const last = length - 1;
  return { ArrowLeft: Math.max(here - 1, 0), ArrowRight: Math.min(here + 1, last), Home: 0, End: last, Escape: null }[name];
}
