/** Bars to both sides of zero: a few groups, with one bar per series in each. */

import { draw } from "./draw";
import { Plot, type PlotOptions } from "./plot";
import { roundUp, spelt } from "./reading";

export interface Bars {
  name: string;
  color: string;
  dashed?: boolean;
  /** Bars to compare with: drawn faintly behind those of the same place, and neither named nor read. */
  faint?: boolean;
  /** One value per group. */
  values: readonly number[];
}

export class BarPlot extends Plot {
  private series: readonly Bars[] = [];
  private behind: readonly Bars[] = [];
  private group: number | null = null;

  constructor(
    parent: HTMLElement,
    private readonly groupNames: readonly string[],
    options: Omit<PlotOptions, "y">,
    /** False where colours are named elsewhere on the page. */
    private readonly named = true,
  ) {
    super(parent, { ...options, y: { label: "", domain: [groupNames.length, 0], ticks: [] } });
    this.element.classList.add("gl-grouped");
    this.layers("legend", "bars", "zero", "names");
    this.margin.left = 14 + 7 * Math.max(8, ...groupNames.map(({ length }) => length)); // letters of a usual width
    this.track((at) => {
      const group = at ? Math.floor(this.y.invert(at[1])) : -1;
      this.choose(group >= 0 && group < this.groupNames.length ? group : null);
    });
  }

  show(series: readonly Bars[]): void {
    this.series = series.filter(({ faint }) => !faint);
    this.behind = series.filter(({ faint }) => faint);
    const most = Math.max(0, ...series.flatMap(({ values }) => values.filter(Number.isFinite).map(Math.abs)));
    const end = most > 0 ? roundUp(most) : 1;
    this.frameTo([-end, end], this.options.y.domain);
    this.redraw();
  }

  protected override head(): number {
    return this.legend().height;
  }

  private legend(): { height: number; places: [number, number][] } {
    return this.entries(this.named ? this.series.map(({ name }) => name) : []);
  }

  private drawLegend(): void {
    const { height, places } = this.legend();
    const entries = places.map(([x, y], at) => ({ x, y: y + 10 - height, one: this.series[at] }));
    draw(this.layer("legend"), "rect", entries, {
      class: "gl-bar-value gl-color", "--gl-color": ({ one }) => one.color, width: 22, height: 9,
      x: ({ x }) => x, y: ({ y }) => y - 5,
      "fill-opacity": ({ one }) => (one.dashed ? 0.45 : 1), "stroke-dasharray": ({ one }) => (one.dashed ? "4 2" : null),
    });
    draw(this.layer("legend"), "text", entries, { x: ({ x }) => x + 27, y: ({ y }) => y, dy: "0.35em", text: ({ one }) => one.name });
  }

  protected draw(): void {
    this.drawLegend();
    const thick = 0.8 / Math.max(this.series.length, this.behind.length, 1);
    const slim = this.behind.length ? 0.5 : 0.9; // of a bar's room, so that those behind are seen
    const placed = (series: readonly Bars[], share: number) => series.flatMap((one, at) => one.values.map(
      (value, group) => ({ one, value, share, top: group + 0.1 + (at + (0.9 - share) / 2) * thick }),
    ));
    const bars = [...placed(this.behind, 0.9), ...placed(this.series, slim)];
    draw(this.layer("bars"), "rect", bars.filter(({ value }) => Number.isFinite(value)), {
      class: "gl-bar-value gl-color",
      "--gl-color": ({ one }) => one.color,
      opacity: ({ one }) => (one.faint ? 0.4 : null),
      "fill-opacity": ({ one }) => (one.dashed ? 0.45 : 1),
      "stroke-dasharray": ({ one }) => (one.dashed ? "4 2" : null),
      x: ({ value }) => this.x(Math.min(value, 0)),
      width: ({ value }) => Math.abs(this.x(value) - this.x(0)),
      y: ({ top }) => this.y(top),
      height: ({ share }) => Math.abs(this.y(thick) - this.y(0)) * share,
    });
    const zero = this.x(0);
    draw(this.layer("zero"), "line", [zero], { class: "gl-rule", x1: zero, x2: zero, y2: this.plotHeight });
    draw(this.layer("names"), "text", this.groupNames, {
      "text-anchor": "end", dy: "0.35em", x: -6, y: (_, at) => this.y(at + 0.5), text: (name) => name,
    });
    this.read();
  }

  protected key(name: string): boolean {
    const last = this.groupNames.length - 1;
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
    this.say(at === null ? "" : `${this.groupNames[at]}: ${words.join(", ")}`);
  }
}
