/** A field of arrows over the policies of one pair, with points to drag: axes π_w and π_l, linear or logarithmic. */

import { draw } from "./draw";
import { drawHandles, type Handle } from "./handles";
import { markPath } from "./marks";
import { Plot, type PlotOptions } from "./plot";

/** An arrow at (x, y); right and up are shares of the axes' lengths, of any size. */
export interface Arrow {
  x: number;
  y: number;
  right: number;
  up: number;
  color: string;
}

export type Point = [x: number, y: number];

export class FieldPlot extends Plot {
  /** Called with the point under the pointer, or null where it has left. */
  onhover: (at: Point | null) => void = () => {};
  /** Says in words what is at a point. */
  describe: (at: Point) => string = () => "";
  private arrows: readonly Arrow[] = [];
  private handles: readonly Handle[] = [];
  private trail: readonly Point[] = [];
  private kept: readonly Point[] = [];
  private marked: Point | null = null;

  constructor(parent: HTMLElement, options: PlotOptions) {
    super(parent, options);
    this.layers("beyond", "arrows", "kept", "trail", "marks", "handles");
    this.track((at) => this.hover(at && this.within(at) ? [this.x.invert(at[0]), this.y.invert(at[1])] : null));
  }

  /** Changes both axes. */
  axes(kind: "linear" | "log", domain: [number, number]): void {
    if (this.options.x.kind === kind) return;
    this.options.x.kind = this.options.y.kind = kind;
    this.limits(domain, [...domain]);
  }

  /** Shows arrows, points to drag and a path; `kept` is a path to compare with, drawn faintly from a ring on. */
  show(arrows: readonly Arrow[], handles: readonly Handle[], trail: readonly Point[] = [], kept: readonly Point[] = []): void {
    this.arrows = arrows;
    this.handles = handles;
    this.trail = trail;
    this.kept = kept;
    this.redraw();
  }

  /** Marks a point, as where another picture is hovered over; null: none. */
  mark(at: Point | null): void {
    this.marked = at;
    if (this.width) this.drawMark();
  }

  protected draw(): void {
    const [low, high] = this.options.x.domain;
    const edge = Array.from({ length: 61 }, (_, at) => {
      const prob = Math.min(Math.max(this.x.invert((this.width * at) / 60), low), high);
      return `${this.x(prob)},${this.y(Math.max(high - prob, low))}`;
    });
    const beyond = this.layer("beyond");
    draw(beyond, "path", [`M${edge.join("L")}L${this.width},0Z`], { d: (path) => path });
    draw(beyond, "line", [[low, high]], {
      class: "gl-rule",
      x1: ([from]) => this.x(from), y1: ([from]) => this.y(from), x2: ([, to]) => this.x(to), y2: ([, to]) => this.y(to),
    });
    draw(this.layer("arrows"), "path", this.arrows, {
      class: "gl-arrow gl-color", "--gl-color": ({ color }) => color, d: (arrow) => this.path(arrow),
    });
    const place = ([x, y]: Point): Point => [this.x(Math.max(x, low)), this.y(Math.max(y, low))];
    const path = (points: readonly Point[]) => (points.length ? [`M${points.map(place).join("L")}`] : []);
    const ring = this.kept.slice(0, 1).map((start) => markPath("ring", 6, ...place(start)));
    draw(this.layer("kept"), "path", [...path(this.kept), ...ring], { class: "gl-step", opacity: 0.4, d: (drawn) => drawn });
    draw(this.layer("trail"), "path", path(this.trail), { class: "gl-step", d: (drawn) => drawn });
    drawHandles(this.layer("handles"), this.handles, this.options, this);
    this.drawMark();
  }

  protected key(name: string): boolean {
    if (name === "Escape") {
      this.hover(null);
      return true;
    }
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[name];
    if (!by) return false;
    const [x, y] = this.marked ?? this.handles[0]?.at ?? [this.x.invert(this.width / 2), this.y.invert(this.plotHeight / 2)];
    const inside = (value: number, most: number) => Math.min(Math.max(value, 0), most);
    const right = inside(this.x(x) + (by[0] * this.width) / 25, this.width);
    const down = inside(this.y(y) + (by[1] * this.plotHeight) / 25, this.plotHeight);
    this.hover([this.x.invert(right), this.y.invert(down)]);
    return true;
  }

  private path({ x, y, right, up }: Arrow): string {
    const length = Math.hypot(right * this.width, up * this.plotHeight);
    if (!(length > 0)) return "";
    const [unitX, unitY] = [(right * this.width) / length, (-up * this.plotHeight) / length];
    const half = 0.32 * Math.min(this.width, this.plotHeight) * SPACING;
    const [fromX, fromY] = [this.x(x) - half * unitX, this.y(y) - half * unitY];
    const [toX, toY] = [this.x(x) + half * unitX, this.y(y) + half * unitY];
    const wing = (turn: number) =>
      `M${toX},${toY}L${toX - 0.7 * half * (unitX - turn * 0.6 * unitY)},${toY - 0.7 * half * (unitY + turn * 0.6 * unitX)}`;
    return `M${fromX},${fromY}L${toX},${toY}${wing(1)}${wing(-1)}`;
  }

  private hover(at: Point | null): void {
    this.mark(at);
    this.onhover(at);
  }

  private drawMark(): void {
    const at = this.marked ? [this.marked] : [];
    draw(this.layer("marks"), "circle", at, { class: "gl-point", r: 5, cx: ([x]) => this.x(x), cy: ([, y]) => this.y(y) });
    this.say(this.marked ? this.describe(this.marked) : "");
  }
}

/** Distance of arrows, as a share of an axis. */
export const SPACING = 1 / 12;
