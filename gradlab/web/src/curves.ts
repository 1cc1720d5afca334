/** Curves over a common axis, with bands, a read-out at the pointer, and points that can be dragged. */

import { pointer } from "d3-selection";
import { area, line } from "d3-shape";
import { drawHandles, type Handle } from "./handles";
import { Plot, type PlotOptions } from "./plot";
import { nearest, spelt } from "./reading";

/** A curve: x rises; low and high are the ends of a band. NaN is a gap. */
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
}

export class CurvePlot extends Plot {
  /** Called with the x under the pointer, or null where it has left. */
  onhover: (x: number | null) => void = () => {};
  private curves: readonly Curve[] = [];
  private handles: readonly Handle[] = [];
  private marked: number | null = null;
  private home: number | null = null;

  constructor(parent: HTMLElement, options: PlotOptions) {
    super(parent, options);
    for (const name of ["legend", "bands", "lines", "marks", "handles"]) this.inner.append("g").attr("class", `gl-${name}`);
    this.stage.addEventListener("pointermove", (event) => this.hover(this.x.invert(pointer(event, this.inner.node())[0])));
    this.stage.addEventListener("pointerleave", () => this.hover(null));
  }

  show(curves: readonly Curve[], handles: readonly Handle[] = []): void {
    this.curves = curves;
    this.handles = handles;
    if (!this.width) return;
    const top = this.margin.top;
    if (this.legend().height === top) this.draw();
    else this.frame();
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

  /** Places of the legend's entries above the axes, in as many rows as they need. */
  private legend(): { height: number; places: [number, number][] } {
    if (this.named.length < 2) return { height: 6, places: [] };
    const places: [number, number][] = [];
    let [right, row] = [0, 0];
    for (const { name } of this.named) {
      const size = 40 + 7 * name.length; // pixels: a line, the name at a usual width, a gap
      if (right > 0 && right + size > this.width) [right, row] = [0, row + 1];
      places.push([right, row * 16]);
      right += size;
    }
    return { height: (row + 1) * 16 + 6, places };
  }

  private drawLegend(): void {
    const { height, places } = this.legend();
    const entries = this.inner
      .select(".gl-legend")
      .attr("transform", `translate(0,${10 - height})`)
      .selectAll<SVGGElement, Curve>("g")
      .data(places.length ? this.named : [])
      .join((enter) => {
        const made = enter.append("g");
        made.append("line").attr("class", "gl-curve gl-color").attr("x2", 22);
        made.append("text").attr("x", 27).attr("dy", "0.35em");
        return made;
      })
      .attr("transform", (_, at) => `translate(${places[at]})`);
    entries
      .select("line")
      .style("--gl-color", (curve) => curve.color)
      .attr("stroke-dasharray", (curve) => curve.dash ?? null);
    entries.select("text").text((curve) => curve.name);
  }

  protected draw(): void {
    this.drawLegend();
    const defined = (value: number) => Number.isFinite(this.y(value)) && Number.isFinite(value);
    const places = (curve: Curve) => Array.from(curve.x, (_, at) => at);
    const path = (curve: Curve) =>
      line<number>((at) => this.x(curve.x[at]), (at) => this.y(curve.y[at])).defined((at) => defined(curve.y[at]))(places(curve));
    const band = ({ low, high, ...curve }: Curve) =>
      area<number>((at) => this.x(curve.x[at]), (at) => this.y(low![at]), (at) => this.y(high![at])).defined(
        (at) => defined(low![at]) && defined(high![at]),
      )(Array.from(curve.x, (_, at) => at));
    this.inner
      .select(".gl-bands")
      .selectAll("path")
      .data(this.curves.filter(({ low, high }) => low && high))
      .join("path")
      .attr("class", "gl-band gl-color")
      .style("--gl-color", (curve) => curve.color)
      .attr("d", band);
    this.inner
      .select(".gl-lines")
      .selectAll("path")
      .data(this.curves)
      .join("path")
      .attr("class", "gl-curve gl-color")
      .style("--gl-color", (curve) => curve.color)
      .attr("stroke-dasharray", (curve) => curve.dash ?? null)
      .attr("stroke-opacity", (curve) => (curve.faint ? 0.4 : null))
      .attr("d", path);
    this.drawHandles();
    this.drawMarks();
  }

  protected key(name: string): boolean {
    const xs = this.named[0]?.x;
    if (!xs?.length) return false;
    const here = this.marked === null ? -1 : nearest(xs, this.marked);
    const next = { ArrowLeft: Math.max(here - 1, 0), ArrowRight: Math.min(here + 1, xs.length - 1), Home: 0, End: xs.length - 1 }[name];
    if (next === undefined && name !== "Escape") return false;
    this.hover(next === undefined ? null : xs[next]);
    return true;
  }

  private hover(x: number | null): void {
    const [low, high] = this.options.x.domain;
    this.mark(x !== null && x >= low && x <= high ? x : null);
    this.onhover(this.marked);
  }

  private drawMarks(): void {
    const x = this.marked ?? this.home;
    const found = x === null ? [] : this.named.map((curve) => ({ curve, at: nearest(curve.x, x) })).filter(({ at }) => at >= 0);
    const marks = this.inner.select(".gl-marks");
    marks
      .selectAll("line")
      .data(found.slice(0, 1))
      .join("line")
      .attr("class", "gl-rule")
      .attr("x1", ({ curve, at }) => this.x(curve.x[at]))
      .attr("x2", ({ curve, at }) => this.x(curve.x[at]))
      .attr("y2", this.plotHeight);
    marks
      .selectAll("circle")
      .data(found.filter(({ curve, at }) => Number.isFinite(this.y(curve.y[at]))))
      .join("circle")
      .attr("class", "gl-dot gl-color")
      .attr("r", 4)
      .style("--gl-color", ({ curve }) => curve.color)
      .attr("cx", ({ curve, at }) => this.x(curve.x[at]))
      .attr("cy", ({ curve, at }) => this.y(curve.y[at]));
    const words = found.map(({ curve, at }) => `${curve.name} ${spelt(curve.y[at])}`);
    const [first] = found;
    this.say(first && this.marked !== null ? `${this.options.x.label} ${spelt(first.curve.x[first.at])}: ${words.join(", ")}` : "");
  }

  private drawHandles(): void {
    drawHandles(this.inner.select<SVGGElement>(".gl-handles"), this.handles, this.options, this.x, this.y);
  }
}
