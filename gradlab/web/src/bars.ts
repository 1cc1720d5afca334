/** Bars to both sides of zero: a few groups, with one bar per series in each. */

import { Plot, type PlotOptions } from "./plot";
import { roundUp, spelt } from "./reading";

export interface Bars {
  name: string;
  color: string;
  dashed?: boolean;
  /** One value per group. */
  values: readonly number[];
}

export class BarPlot extends Plot {
  private series: readonly Bars[] = [];
  private group: number | null = null;

  constructor(
    parent: HTMLElement,
    private readonly groups: readonly string[],
    options: Omit<PlotOptions, "y">,
  ) {
    super(parent, { ...options, y: { label: "", domain: [groups.length, 0] } });
    for (const name of ["bars", "zero", "names"]) this.inner.append("g").attr("class", `gl-${name}`);
    this.margin.left = 70;
    this.track((at) => {
      const group = at ? Math.floor(this.y.invert(at[1])) : -1;
      this.choose(group >= 0 && group < this.groups.length ? group : null);
    });
  }

  show(series: readonly Bars[]): void {
    this.series = series;
    const most = Math.max(0, ...series.flatMap(({ values }) => values.filter(Number.isFinite).map(Math.abs)));
    const end = most > 0 ? roundUp(most) : 1;
    if (end !== this.options.x.domain[1]) this.limits([-end, end], this.options.y.domain);
    else if (this.width) this.draw();
  }

  protected draw(): void {
    this.inner.select(".gl-axis-y").selectAll("*").remove();
    const thick = 0.8 / Math.max(this.series.length, 1);
    const bars = this.series.flatMap((one, at) => one.values.map((value, group) => ({ one, value, top: group + 0.1 + at * thick })));
    this.inner
      .select(".gl-bars")
      .selectAll("rect")
      .data(bars.filter(({ value }) => Number.isFinite(value)))
      .join("rect")
      .attr("class", "gl-bar-value gl-color")
      .style("--gl-color", ({ one }) => one.color)
      .attr("fill-opacity", ({ one }) => (one.dashed ? 0.45 : 1))
      .attr("stroke-dasharray", ({ one }) => (one.dashed ? "4 2" : null))
      .attr("x", ({ value }) => this.x(Math.min(value, 0)))
      .attr("width", ({ value }) => Math.abs(this.x(value) - this.x(0)))
      .attr("y", ({ top }) => this.y(top))
      .attr("height", Math.abs(this.y(thick) - this.y(0)) * 0.9);
    const zero = this.inner.select(".gl-zero").selectAll("line").data([0]).join("line").attr("class", "gl-rule");
    zero.attr("x1", this.x(0)).attr("x2", this.x(0)).attr("y2", this.plotHeight);
    this.inner
      .select(".gl-names")
      .selectAll("text")
      .data(this.groups)
      .join("text")
      .attr("text-anchor", "end")
      .attr("dy", "0.35em")
      .attr("x", -6)
      .attr("y", (_, at) => this.y(at + 0.5))
      .text((name) => name);
    this.read();
  }

  protected key(name: string): boolean {
    const last = this.groups.length - 1;
    const here = this.group ?? -1;
    const next = { ArrowDown: Math.min(here + 1, last), ArrowUp: Math.max(here - 1, 0), Home: 0, End: last, Escape: null }[name];
    if (next === undefined) return false;
    this.choose(next);
    return true;
  }

  private choose(group: number | null): void {
    this.group = group;
    this.read();
  }

  private read(): void {
    const at = this.group;
    const words = at === null ? [] : this.series.map(({ name, values }) => `${name} ${spelt(values[at])}`);
    this.say(at === null ? "" : `${this.groups[at]}: ${words.join(", ")}`);
  }
}
