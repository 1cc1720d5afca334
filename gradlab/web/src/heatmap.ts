/** A table of numbers as a map: one pixel per cell on a canvas, which the browser enlarges without blur. */

import { axisRight } from "d3-axis";
import { pointer } from "d3-selection";
import { type ColorsName, colorTable } from "./palette";
import { Plot, type PlotOptions, scaleOf, SVG, ticks } from "./plot";
import { cellAt, cellsBetween, moved, pixels, spelt } from "./reading";

export interface MapOptions extends Omit<PlotOptions, "x" | "y"> {
  rows: number;
  columns: number;
  /** Names of a row and a column, such as "prompt" and "response". */
  names: [string, string];
  /** The name of a value, with its unit. */
  quantity: string;
  colors: ColorsName;
  /** Values of the first and the last colour. */
  ends: [number, number];
  logarithmic?: boolean;
}

const BAR = { gap: 10, width: 12 }; // pixels

export type Cell = [row: number, column: number];

export class HeatMap extends Plot {
  /** Called with the cell under the pointer, or null where it has left. */
  onhover: (cell: Cell | null) => void = () => {};
  /** Called with a cell that is clicked, or chosen by Enter or the space bar. */
  onchoose: (cell: Cell) => void = () => {};
  /** Called with every cell of a stroke while `painting` is on, and with null at its end. */
  onpaint: (cell: Cell | null) => void = () => {};
  private brush: Cell | null = null;
  private paints = false;
  private readonly canvas = document.createElement("canvas");
  private readonly bar = document.createElement("canvas");
  private readonly table: Uint8ClampedArray;
  private level = scaleOf({ label: "", domain: [0, 1] });
  private values: ArrayLike<number> = [];
  private hidden: ArrayLike<number> | undefined;
  private marked: Cell | null = null;

  constructor(
    parent: HTMLElement,
    private readonly map: MapOptions,
  ) {
    const [row, column] = map.names;
    const whole = (count: number): [number, number] => [-0.5, count - 0.5];
    const [low, high] = whole(map.rows);
    super(parent, { right: 74, ...map, x: { label: column, domain: whole(map.columns) }, y: { label: row, domain: [high, low] } });
    this.table = colorTable(map.colors);
    [this.canvas.width, this.canvas.height] = [map.columns, map.rows];
    [this.bar.width, this.bar.height] = [1, 256];
    const shades = Float64Array.from({ length: 256 }, (_, at) => 255 - at);
    this.bar.getContext("2d")!.putImageData(new ImageData(pixels(shades, this.table, [0, 256]), 1, 256), 0, 0);
    this.stage.prepend(this.canvas, this.bar);
    for (const name of ["struck", "marks", "bar"]) this.inner.append("g").attr("class", `gl-${name}`);
    this.stage.addEventListener("pointermove", (event) => {
      const cell = this.cell(event);
      this.hover(cell);
      if (this.brush && cell) this.stroke(this.brush, cell);
    });
    this.stage.addEventListener("pointerleave", () => this.hover(null));
    this.stage.addEventListener("click", (event) => {
      const cell = this.cell(event);
      if (cell && !this.paints) this.onchoose(cell);
    });
    this.stage.addEventListener("pointerdown", (event) => {
      const cell = this.cell(event);
      if (!cell || !this.paints || event.button !== 0) return;
      this.stage.setPointerCapture(event.pointerId);
      this.brush = cell;
      this.onpaint(cell);
    });
    for (const end of ["pointerup", "pointercancel"]) {
      this.stage.addEventListener(end, () => {
        if (this.brush) this.onpaint(null);
        this.brush = null;
      });
    }
  }

  /** If true, a pressed pointer paints; else a click chooses, and a finger scrolls the page. */
  set painting(on: boolean) {
    this.paints = on;
    this.stage.style.touchAction = on ? "none" : "";
    this.stage.style.cursor = on ? "crosshair" : "";
  }

  /** Changes the values of the first and the last colour; the next `show` draws with them. */
  set ends(ends: [number, number]) {
    this.map.ends = ends;
  }

  /** Shows values (rows × columns), row by row; cells with 1 in `hidden` are struck through. */
  show(values: ArrayLike<number>, hidden?: ArrayLike<number>): void {
    const { rows, columns } = this.map;
    if (values.length !== rows * columns) throw new Error(`values must have ${rows * columns} numbers, got ${values.length}`);
    this.values = values;
    this.hidden = hidden;
    const image = pixels(values, this.table, this.map.ends, this.map.logarithmic);
    this.canvas.getContext("2d")!.putImageData(new ImageData(image, columns, rows), 0, 0);
    if (this.width) this.draw();
  }

  /** Marks a cell, as where another picture is hovered over; null: none. */
  mark(cell: Cell | null): void {
    this.marked = cell;
    if (this.width) this.drawMark();
  }

  protected draw(): void {
    const { columns, ends, logarithmic } = this.map;
    const { left, top } = this.margin;
    const box = (from: number, width: number) => ({
      left: `${left + from}px`, top: `${top}px`, width: `${width}px`, height: `${this.plotHeight}px`,
    });
    Object.assign(this.canvas.style, box(0, this.width));
    Object.assign(this.bar.style, box(this.width + BAR.gap, BAR.width));
    const axis = { label: "", domain: ends, kind: logarithmic ? ("log" as const) : ("linear" as const) };
    this.level = scaleOf(axis).range([this.plotHeight, 0]).clamp(true);
    const values = ticks(axis, this.level, Math.max(2, Math.floor(this.plotHeight / 40)));
    this.inner
      .select<SVGGElement>(".gl-bar")
      .attr("transform", `translate(${this.width + BAR.gap + BAR.width},0)`)
      .call(axisRight(this.level).tickValues(values).tickFormat((value) => spelt(Number(value))).tickSizeOuter(0));
    const struck = Array.from(this.hidden ?? [], (one, at) => (one ? at : -1)).filter((at) => at >= 0);
    const strokes = struck.map((at) => {
      const [row, column] = [Math.floor(at / columns), at % columns];
      return `M${this.x(column - 0.3)},${this.y(row + 0.3)}L${this.x(column + 0.3)},${this.y(row - 0.3)}`;
    });
    this.inner
      .select(".gl-struck")
      .selectAll("path")
      .data(["gl-hidden-halo", "gl-hidden"]) // one path each for all cells
      .join("path")
      .attr("class", (look) => look)
      .attr("d", strokes.join(""));
    this.drawMark();
  }

  protected key(name: string): boolean {
    const { rows, columns } = this.map;
    if (name === "Enter" || name === " ") {
      if (this.marked) this.onchoose(this.marked);
      return this.marked !== null;
    }
    const next = this.marked ? moved(name, this.marked, rows, columns) : moved(name, [0, 0], rows, columns) && ([0, 0] as Cell);
    if (!next && name !== "Escape") return false;
    this.hover(next);
    return true;
  }

  protected override decorate(copy: SVGSVGElement): void {
    for (const [canvas, x, width] of [[this.canvas, 0, this.width], [this.bar, this.width + BAR.gap, BAR.width]] as const) {
      const image = document.createElementNS(SVG, "image");
      const place = { x, y: 0, width, height: this.plotHeight, preserveAspectRatio: "none", href: canvas.toDataURL() };
      for (const [name, value] of Object.entries(place)) image.setAttribute(name, String(value));
      image.style.imageRendering = "pixelated";
      copy.querySelector("g")!.prepend(image);
    }
  }

  private hover(cell: Cell | null): void {
    this.mark(cell);
    this.onhover(cell);
  }

  private stroke(from: Cell, to: Cell): void {
    this.brush = to;
    for (const cell of cellsBetween(from, to)) this.onpaint(cell);
  }

  private cell(event: PointerEvent | MouseEvent): Cell | null {
    const [x, y] = pointer(event, this.inner.node());
    return cellAt(x / this.width, y / this.plotHeight, this.map.rows, this.map.columns);
  }

  private drawMark(): void {
    const { columns, names, quantity } = this.map;
    const marks = this.inner.select(".gl-marks");
    for (const look of ["gl-cell-halo", "gl-cell"]) {
      marks
        .selectAll(`.${look}`)
        .data(this.marked ? [this.marked] : [])
        .join("rect")
        .attr("class", look)
        .attr("x", ([, column]) => this.x(column - 0.5))
        .attr("y", ([row]) => this.y(row - 0.5))
        .attr("width", this.x(1) - this.x(0))
        .attr("height", this.y(1) - this.y(0));
    }
    const at = this.marked ? this.marked[0] * columns + this.marked[1] : 0;
    const shown = this.marked && Number.isFinite(this.values[at]) ? [this.level(this.values[at])] : [];
    marks
      .selectAll("path")
      .data(shown)
      .join("path") // a triangle beside the colour bar
      .attr("class", "gl-level")
      .attr("d", (level) => `M${this.width + BAR.gap},${level}l-7,-4v8Z`);
    if (!this.marked) return this.say("");
    const [row, column] = this.marked;
    const seen = this.hidden?.[at] ? ", in no pair" : "";
    this.say(`${names[0]} ${row}, ${names[1]} ${column}: ${quantity} ${spelt(this.values[at] ?? NaN)}${seen}`);
  }
}
