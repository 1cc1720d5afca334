/**
 * Charts that Python describes (gradlab/plotting/charts.py), on a page: drawn, kept up to date in place, linked at the
 * pointer, and set by hand.
 */

import { BarPlot } from "./bars";
import {
  arrayOf,
  type ArrowsMessage,
  type AxisMessage,
  type BarsMessage,
  type ChartMessage,
  type CurveMessage,
  type CurvesMessage,
  type HandleMessage,
  type MapMessage,
  type Named,
  type Numbers,
  type PictureMessage,
} from "./chart_messages";
import { type Curve, CurvePlot } from "./curves";
import { make } from "./dom";
import { FieldPlot } from "./field";
import { DASHES } from "./palette";
import { type Ends, Grip, heldBy, type OnSet } from "./grips";
import type { Handle } from "./handles";
import { HeatMap } from "./heatmap";
import { type Axis, type Plot, style } from "./plot";
import { spelt } from "./reading";

export type { ChartMessage, OnSet };

/** A chart on the page. */
interface Panel<M extends ChartMessage> {
  readonly element: HTMLElement;
  readonly plot?: Plot;
  link?: string;
  show(message: M): void;
  /** Marks an x, as where a linked chart is hovered over; a map also gets the cell. */
  mark?(x: number | null, cell: [number, number] | null): void;
  remove(): void;
}

/** What panels share. */
interface Board {
  onset: OnSet;
  controls: (name: string) => Ends | undefined;
  hover(from: object, link: string, x: number | null, cell: [number, number] | null): void;
}

/** Plots on a page that follow messages. */
export class ChartBoard {
  readonly element = make("div", { className: "gl-charts" });
  private shown: { shape: string; panel: Panel<ChartMessage> }[] = [];
  private readonly board: Board;

  constructor(parent: HTMLElement, onset: OnSet, controls: (name: string) => Ends | undefined) {
    parent.append(this.element);
    style(parent);
    const hover: Board["hover"] = (from, link, x, cell) => {
      if (!link) return;
      for (const { panel } of this.shown) if (panel !== from && panel.link === link) panel.mark?.(x, cell);
    };
    this.board = { onset, controls, hover };
  }

  get plots(): Plot[] {
    return this.shown.flatMap(({ panel }) => panel.plot ?? []);
  }

  /** Shows charts, each in the place of the former one, and in its element where they are alike. */
  show(charts: readonly ChartMessage[]): void {
    charts.forEach((chart, at) => {
      const shape = shapeOf(chart);
      const former = this.shown[at];
      if (former?.shape !== shape) {
        const panel = panelOf(chart, this.element, this.board);
        if (former) former.panel.element.replaceWith(panel.element);
        former?.panel.remove();
        this.shown[at] = { shape, panel };
      }
      this.shown[at].panel.show(chart);
    });
    for (const { panel } of this.shown.splice(charts.length)) panel.remove();
  }

  /** Forgets all charts. */
  remove(): void {
    this.show([]);
    this.element.remove();
  }
}

/** What a plot cannot change: charts with one shape share an element. */
function shapeOf(chart: ChartMessage): string {
  const { type } = chart;
  if (type === "picture") return type;
  if (type === "bars") return JSON.stringify([type, chart.label, chart.groups, chart.height]);
  if (type === "curves" || type === "arrows") {
    return JSON.stringify([type, chart.x.label, chart.x.kind, chart.y.label, chart.y.kind, chart.height]);
  }
  if (type !== "map") return "";
  const { x, y, columns, rows, quantity, colors, logarithmic, struck_means: struck, height } = chart;
  const down = y.low > y.high;
  const axes = [x.label, x.kind, [...arrayOf(columns)], y.label, y.kind, [...arrayOf(rows)], down];
  return JSON.stringify([type, axes, quantity, colors, logarithmic, struck, height]);
}

function panelOf(chart: ChartMessage, parent: HTMLElement, board: Board): Panel<ChartMessage> {
  const made = {
    curves: () => new CurvesPanel(parent, chart as CurvesMessage, board),
    map: () => new MapPanel(parent, chart as MapMessage, board),
    arrows: () => new ArrowsPanel(parent, chart as ArrowsMessage, board),
    bars: () => new BarsPanel(parent, chart as BarsMessage),
    picture: () => new PicturePanel(parent),
  };
  const known = Object.hasOwn(made, chart.type) ? made[chart.type] : () => new UnknownPanel(parent, chart);
  return known() as Panel<ChartMessage>;
}

class CurvesPanel implements Panel<CurvesMessage> {
  readonly plot: CurvePlot;
  readonly element: HTMLElement;
  link = "";
  private message!: CurvesMessage;
  private readonly grips: Grips;

  constructor(parent: HTMLElement, chart: CurvesMessage, board: Board) {
    const { title, description, height } = chart;
    this.plot = new CurvePlot(parent, { title, description, height, x: axisOf(chart.x), y: axisOf(chart.y) });
    this.element = this.plot.element;
    this.grips = new Grips(this.plot, board, () => this.draw());
    this.plot.onhover = (x) => board.hover(this, this.link, x, null);
    this.plot.onplace = (x, y) => pick(board, this.message.picks, x, y);
  }

  show(chart: CurvesMessage): void {
    this.message = chart;
    this.link = chart.link;
    this.element.classList.toggle("gl-picks", chart.picks.some(Boolean));
    entitle(this.plot, chart);
    this.plot.frameTo([chart.x.low, chart.x.high], [chart.y.low, chart.y.high]);
    this.draw();
  }

  mark(x: number | null): void {
    this.plot.mark(x);
  }

  remove(): void {
    this.plot.remove();
  }

  private draw(): void {
    const { curves, bands, rules, labels, handles } = this.message;
    this.plot.show(curves.map(curveOf), this.grips.of(handles), {
      bands: bands.map(({ low, high, label }) => ({ from: low, to: high, label })),
      rules: rules
        .filter(({ x, y }) => x !== null || y !== null)
        .map(({ x, y, label, dash }) => ({ x: x ?? undefined, y: y ?? undefined, label, dash: DASHES[dash] })),
      labels: labels.map(({ color, ...label }) => ({ ...label, color: color || undefined })),
    });
  }
}

class MapPanel implements Panel<MapMessage> {
  readonly plot: HeatMap;
  readonly element: HTMLElement;
  link = "";
  private message!: MapMessage;

  constructor(parent: HTMLElement, chart: MapMessage, board: Board) {
    const { title, description, height, quantity, colors, logarithmic } = chart;
    const [rows, columns] = [[...arrayOf(chart.rows)], [...arrayOf(chart.columns)]];
    const down = chart.y.low > chart.y.high;
    const counted = down && [rows, columns].every((values) => values.every((value, at) => value === at));
    const numeric = !counted && rows.length > 1 && columns.length > 1;
    const along = ({ label, kind }: AxisMessage, values: number[]) => ({ label, values, kind });
    this.plot = new HeatMap(parent, {
      title, description, height, quantity, colors, logarithmic, rows: rows.length, columns: columns.length,
      names: [chart.y.label, chart.x.label], ends: [chart.low, chart.high], struck: chart.struck_means,
      hatched: true,
      ...(numeric ? { x: along(chart.x, columns), y: { ...along(chart.y, rows), down } } : {}),
    });
    this.element = this.plot.element;
    this.plot.onhover = (cell) => board.hover(this, this.link, cell && columns[cell[1]], cell);
    const set = (x: number, y: number) => pick(board, this.message.picks, x, y);
    if (numeric) this.plot.onpick = set;
    else this.plot.onchoose = ([row, column]) => set(columns[column], rows[row]);
  }

  show(chart: MapMessage): void {
    this.message = chart;
    this.link = chart.link;
    this.element.classList.toggle("gl-picks", chart.picks.some(Boolean));
    entitle(this.plot, chart);
    this.plot.ends = [chart.low, chart.high];
    const struck = chart.struck === null ? undefined : arrayOf(chart.struck);
    this.plot.show(arrayOf(chart.values), struck, { levels: chart.levels, ring: chart.ring });
  }

  mark(_: number | null, cell: [number, number] | null): void {
    this.plot.mark(cell);
  }

  remove(): void {
    this.plot.remove();
  }
}

class ArrowsPanel implements Panel<ArrowsMessage> {
  readonly plot: FieldPlot;
  readonly element: HTMLElement;
  private message!: ArrowsMessage;
  private readonly grips: Grips;

  constructor(parent: HTMLElement, chart: ArrowsMessage, board: Board) {
    const { title, description, height, x, y } = chart;
    this.plot = new FieldPlot(parent, { title, description, height, x: axisOf(x), y: axisOf(y) });
    this.element = this.plot.element;
    this.grips = new Grips(this.plot, board, () => this.draw());
    this.plot.describe = ([across, up]) => `${x.label} ${spelt(across)}, ${y.label} ${spelt(up)}`;
  }

  show(chart: ArrowsMessage): void {
    this.message = chart;
    entitle(this.plot, chart);
    this.plot.frameTo([chart.x.low, chart.x.high], [chart.y.low, chart.y.high]);
    this.draw();
  }

  remove(): void {
    this.plot.remove();
  }

  private draw(): void {
    const { at_x, at_y, right, up, colors, handles, trail } = this.message;
    const [xs, ys, rights, ups] = [at_x, at_y, right, up].map(arrayOf);
    const arrows = colors.map((color, at) => ({ x: xs[at], y: ys[at], right: rights[at], up: ups[at], color }));
    this.plot.show(arrows, this.grips.of(handles), trail);
  }
}

class BarsPanel implements Panel<BarsMessage> {
  readonly plot: BarPlot;
  readonly element: HTMLElement;

  constructor(parent: HTMLElement, { title, description, height, groups, label }: BarsMessage) {
    this.plot = new BarPlot(parent, groups, { title, description, height, x: { label, domain: [-1, 1] } });
    this.element = this.plot.element;
  }

  show(chart: BarsMessage): void {
    entitle(this.plot, chart);
    this.plot.show(chart.bars.map(({ values, ...bar }) => ({ ...bar, values: [...arrayOf(values)] })));
  }

  remove(): void {
    this.plot.remove();
  }
}

/** A picture that exists already; its bytes are given back when it leaves. */
class PicturePanel implements Panel<PictureMessage> {
  private readonly image = make("img");
  private readonly title = make("figcaption", { className: "gl-title" });
  readonly element = make("figure", { className: "gl-plot gl-picture" }, this.title, this.image);

  constructor(parent: HTMLElement) {
    parent.append(this.element);
  }

  show({ title, description, png, width }: PictureMessage): void {
    this.forget();
    this.title.textContent = title;
    Object.assign(this.image, { alt: description, src: URL.createObjectURL(new Blob([png as BlobPart], { type: "image/png" })) });
    this.image.style.width = `${width}px`;
  }

  remove(): void {
    this.forget();
    this.element.remove();
  }

  private forget(): void {
    if (this.image.src) URL.revokeObjectURL(this.image.src);
  }
}

class UnknownPanel implements Panel<ChartMessage> {
  readonly element: HTMLElement;

  constructor(parent: HTMLElement, { type }: { type: string }) {
    const reason = `This page cannot draw a chart of the type "${type}"`;
    const textContent = `${reason}: reload it, so that it is of gradlab's present version.`;
    this.element = make("p", { className: "gl-notice", textContent });
    parent.append(this.element);
  }

  show(): void {}

  remove(): void {
    this.element.remove();
  }
}

/** The handles of a plot, which stay under the hand while Python computes. */
class Grips {
  private readonly all = new Map<string, Grip>();

  constructor(
    private readonly plot: Plot,
    private readonly board: Board,
    private readonly draw: () => void,
  ) {}

  /** Handles for messages; those that the hand holds stay where they are. */
  of(messages: readonly HandleMessage[]): Handle[] {
    const placed = messages.filter(({ x, y }) => x !== null && y !== null);
    for (const name of this.all.keys()) if (!placed.some((one) => one.name === name)) this.all.delete(name);
    return placed.map((message) => {
      const grip = this.all.get(message.name) ?? new Grip(this.plot, this.board.onset, this.board.controls, this.draw);
      this.all.set(message.name, grip);
      return grip.handle(message);
    });
  }
}

function axisOf({ label, low, high, kind }: AxisMessage): Axis {
  return { label, kind, domain: [low, high] };
}

/** A curve; its points from left to right, which is how a pointer looks for them. */
function curveOf({ name, x, y, low, high, color, dash, marker, line, filled, faint }: CurveMessage): Curve {
  const xs = arrayOf(x);
  const falls = xs[0] > xs[xs.length - 1];
  const ordered = (numbers: Numbers) => (falls ? arrayOf(numbers).reverse() : arrayOf(numbers));
  return {
    name, color, dash: DASHES[dash], line, filled, faint, marker: marker ?? undefined, x: ordered(x), y: ordered(y),
    low: low === null ? undefined : ordered(low), high: high === null ? undefined : ordered(high),
  };
}

function entitle(plot: Plot, { title, description }: Named): void {
  plot.title = title;
  plot.description = description;
}

function pick({ onset, controls }: Board, names: readonly string[], ...at: number[]): void {
  const held = (name: string, which: number) => [name, heldBy(at[which], controls(name))] as const;
  const set = names.flatMap((name, which) => (name && Number.isFinite(at[which]) ? [held(name, which)] : []));
  if (set.length) onset(Object.fromEntries(set), `pick ${names.join(" ")}`, true);
}
