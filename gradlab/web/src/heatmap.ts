/** A table of numbers as a map: one pixel per cell on a canvas, which the browser enlarges. Axes count cells, or are numbers. */

import { axisRight } from "d3-axis";
import { contours } from "d3-contour";
import { draw } from "./draw";
import { drawHandles, type Handle } from "./handles";
import { markPath } from "./marks";
import { type ColorsName, colorTable } from "./palette";
import { type Axis, Plot, type PlotOptions, scaleOf, SVG, ticks } from "./plot";
import { cellAt, cellsBetween, moved, pixels, spelt, stepOf } from "./reading";

/** A numeric axis: the middles of its cells rise evenly in the axis's scale. */
export interface NumericAxis {
  label: string;
  values: readonly number[];
  kind?: Axis["kind"];
  ticks?: readonly number[];
  /** Of rows: true if the first is at the top. */
  down?: boolean;
}

/** A line on which the values are equal to one. */
export interface Level {
  value: number;
  color?: string;
  label?: string;
}

export interface MapOptions extends Omit<PlotOptions, "x" | "y"> {
  rows: number;
  columns: number;
  /** Names of a row and a column, such as "prompt" and "response"; default: the labels of numeric axes. */
  names?: [string, string];
  /** The name of a value, with its unit. */
  quantity: string;
  colors: ColorsName;
  /** True: the first colour is for the largest value. */
  reversed?: boolean;
  /** Values of the first and the last colour. */
  ends: [number, number];
  logarithmic?: boolean;
  /** Numbers along the columns and the rows; both or neither. Row 0 is then at the bottom, unless y goes down. */
  x?: NumericAxis;
  y?: NumericAxis;
  /** Words for cells that are struck through; default: "in no pair". */
  struck?: string;
  /** True: small cells that are struck through keep their colour, under lines. */
  hatched?: boolean;
  /** True: colours go over from cell to cell. */
  smooth?: boolean;
  levels?: readonly Level[];
  /** A point of numeric axes that is ringed. */
  ring?: [number, number] | null;
}

/** What may change with the values; what is not named stays. */
export interface MapExtras {
  levels?: readonly Level[];
  ring?: [number, number] | null;
  /** A ring to compare with, drawn faintly. */
  ghost?: [number, number] | null;
  handles?: readonly Handle[];
}

const BY_KEYS = "; arrow keys go from cell to cell, and the space bar paints";
const BAR = { gap: 10, width: 12 }; // pixels
const RING = 6.5; // pixels
const HATCH = 7; // pixels from one line to the next
const SMALL = 5; // pixels of a cell in which no stroke can be seen

export type Cell = [row: number, column: number];

export class HeatMap extends Plot {
  /** Called with the cell under the pointer, or null where it has left. */
  onhover: (cell: Cell | null) => void = () => {};
  /** Called with a cell that is clicked, or chosen by Enter or the space bar. */
  onchoose: (cell: Cell) => void = () => {};
  /** Called with the numbers at which a map with numeric axes is clicked, or with those of a cell chosen by keys. */
  onpick: (x: number, y: number) => void = () => {};
  /** Called with every cell of a stroke while `painting` is on, and with null at its end. */
  onpaint: (cell: Cell | null) => void = () => {};
  private brush: Cell | null = null;
  private paints = false;
  private readonly words: string; // its description
  private readonly canvas = document.createElement("canvas");
  private readonly bar = document.createElement("canvas");
  private readonly table: Uint8ClampedArray;
  private level = scaleOf({ label: "", domain: [0, 1] });
  private values: ArrayLike<number> = [];
  private hidden: ArrayLike<number> | undefined;
  private marked: Cell | null = null;
  private extras: MapExtras;
  private painted = new Uint8ClampedArray(0);
  private barKey = "";
  private readonly names: [string, string];

  constructor(
    parent: HTMLElement,
    private readonly map: MapOptions,
  ) {
    const names = map.names ?? [map.y?.label ?? "row", map.x?.label ?? "column"];
    const upright = axisOf(names[0], map.rows, map.y);
    if (!map.y || map.y.down) upright.domain.reverse();
    super(parent, { right: 74, ...map, x: axisOf(names[1], map.columns, map.x), y: upright });
    this.names = names;
    this.words = map.description;
    this.extras = { levels: map.levels, ring: map.ring };
    this.table = colorTable(map.colors, map.reversed);
    [this.canvas.width, this.canvas.height] = [map.columns, map.rows];
    [this.bar.width, this.bar.height] = [1, 256];
    const shades = Float64Array.from({ length: 256 }, (_, at) => 255 - at);
    this.bar.getContext("2d")!.putImageData(new ImageData(pixels(shades, this.table, [0, 256]), 1, 256), 0, 0);
    if (map.smooth) this.canvas.style.imageRendering = "auto";
    this.stage.prepend(this.canvas, this.bar);
    const layers = ["struck", "levels", "rings", "marks", "words", "bar", "handles"];
    this.layers(...layers);
    this.track((at) => this.hover(at && this.cellOf(at)));
    this.stage.addEventListener("pointermove", (event) => {
      const cell = this.brush && this.cellOf(this.placeOf(event));
      if (this.brush && cell) this.stroke(this.brush, cell);
    });
    this.stage.addEventListener("click", (event) => this.click(this.placeOf(event)));
    this.stage.addEventListener("pointerdown", (event) => {
      const cell = this.cellOf(this.placeOf(event));
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

  /** If true, a pressed pointer or the space bar paints; else these choose, and a finger scrolls the page. */
  set painting(on: boolean) {
    this.paints = on;
    this.description = `${this.words}${on ? BY_KEYS : ""}`;
    this.stage.style.touchAction = on ? "none" : "";
    this.stage.style.cursor = on ? "crosshair" : "";
  }

  /** Changes how many rows and columns there are; `show` then fills them. */
  reshape(rows: number, columns: number): void {
    if (rows === this.map.rows && columns === this.map.columns) return;
    Object.assign(this.map, { rows, columns });
    [this.canvas.width, this.canvas.height] = [columns, rows];
    [this.values, this.hidden, this.marked, this.painted] = [[], undefined, null, new Uint8ClampedArray(0)];
    this.frameTo([-0.5, columns - 0.5], [rows - 0.5, -0.5]);
  }

  /** Changes the name of a value. */
  set quantity(name: string) {
    this.map.quantity = name;
  }

  /** Changes the values of the first and the last colour; the next `show` draws with them. */
  set ends(ends: [number, number]) {
    this.map.ends = ends;
  }

  /** Shows values (rows × columns), row by row; cells with 1 in `hidden` are struck through, small ones veiled or hatched. */
  show(values: ArrayLike<number>, hidden?: ArrayLike<number>, extras: MapExtras = {}): void {
    const { rows, columns } = this.map;
    if (values.length !== rows * columns) throw new Error(`values must have ${rows * columns} numbers, got ${values.length}`);
    this.values = values;
    this.hidden = hidden;
    this.extras = { ...this.extras, ...extras };
    this.paintCells(pixels(values, this.table, this.map.ends, this.map.logarithmic));
    this.redraw();
  }

  /** Marks a cell, as where another picture is hovered over; null: none. */
  mark(cell: Cell | null): void {
    this.marked = cell;
    if (this.width) this.drawMark();
  }

  /** Puts colours on the canvas where they have changed: a browser copies the whole canvas to the screen each time. */
  private paintCells(colors: Uint8ClampedArray<ArrayBuffer>): void {
    const { rows, columns } = this.map;
    if (colors.length === this.painted.length && colors.every((value, at) => value === this.painted[at])) return;
    this.painted = colors;
    const image = new ImageData(colors, columns, rows);
    const context = this.canvas.getContext("2d")!;
    if (!this.upwards) context.putImageData(image, 0, 0);
    else for (let row = 0; row < rows; row++) context.putImageData(image, 0, rows - 1 - 2 * row, 0, row, columns, 1);
  }

  protected override frame(): void {
    this.barKey = "";
    super.frame();
  }

  protected draw(): void {
    this.drawBar();
    this.drawStruck();
    this.drawLevels();
    this.drawRings();
    drawHandles(this.layer("handles"), this.extras.handles ?? [], this.options, this);
    this.drawMark();
  }

  /** Draws the colour bar with its axis, and places both canvases. */
  private drawBar(): void {
    const { ends, logarithmic } = this.map;
    const key = ends.join();
    if (key === this.barKey) return;
    this.barKey = key;
    const { left, top } = this.margin;
    const box = (from: number, width: number) => ({
      left: `${left + from}px`, top: `${top}px`, width: `${width}px`, height: `${this.plotHeight}px`,
    });
    Object.assign(this.canvas.style, box(0, this.width));
    Object.assign(this.bar.style, box(this.width + BAR.gap, BAR.width));
    const axis = { label: "", domain: ends, kind: logarithmic ? ("log" as const) : ("linear" as const) };
    this.level = scaleOf(axis).range([this.plotHeight, 0]).clamp(true);
    const values = ticks(axis, this.level, Math.max(2, Math.floor(this.plotHeight / 40)));
    this.layer("bar")
      .attr("transform", `translate(${this.width + BAR.gap + BAR.width},0)`)
      .call(axisRight(this.level).tickValues(values).tickFormat((value) => spelt(Number(value))).tickSizeOuter(0));
  }

  private drawStruck(): void {
    const struck = Array.from(this.hidden ?? [], (one, at) => (one ? at : -1)).filter((at) => at >= 0);
    const { width, height } = this.boxOf([0, 0]);
    const small = Math.min(width, height) < SMALL;
    const veiled = small && this.map.hatched !== true;
    const apart = small ? Math.ceil(HATCH / Math.min(width, height)) : 1; // lines through cells that are too small for strokes
    const strokes = struck.flatMap((at) => {
      const [row, column] = [Math.floor(at / this.map.columns), at % this.map.columns];
      const { x, y } = this.boxOf([row, column]);
      if (veiled) return [`M${x},${y}h${width}v${height}h${-width}Z`];
      if (!small) return [`M${x + 0.2 * width},${y + 0.8 * height}l${0.6 * width},${-0.6 * height}`];
      const diagonal = this.upwards ? column - row : column + row;
      return (diagonal + apart * this.map.rows) % apart ? [] : [`M${x},${y + height}l${width},${-height}`];
    });
    const looks = !strokes.length ? [] : veiled ? ["gl-veil"] : ["gl-hidden-halo", "gl-hidden"]; // one path each for all cells
    draw(this.layer("struck"), "path", looks, { class: (look) => look, d: strokes.join("") });
  }

  private drawLevels(): void {
    const { rows, columns } = this.map;
    const table = contours().size([columns, rows]);
    const place = ([across, down]: number[]): [number, number] => {
      const share = down / rows;
      return [(across / columns) * this.width, (this.upwards ? 1 - share : share) * this.plotHeight];
    };
    const levels = (this.extras.levels ?? []).filter(() => this.values.length > 0);
    const drawn = levels.map((level) => {
      const rings = table.contour(this.values as number[], level.value).coordinates.flat();
      return { ...level, lines: rings.flatMap((ring) => piecesOf(ring, columns, rows)).map((line) => line.map(place)) };
    });
    const looks = drawn.flatMap(({ lines, color }) => {
      const path = lines.map((line) => `M${line.join("L")}`).join("");
      return [{ look: "gl-contour-halo", path, color }, { look: "gl-contour gl-color", path, color }];
    });
    draw(this.layer("levels"), "path", looks, {
      class: ({ look }) => look, "--gl-color": ({ color }) => color, d: ({ path }) => path,
    });
    const named = drawn.filter(({ label, lines }) => label && lines.length);
    const middles = named.map(({ label, lines }) => {
      const longest = lines.reduce((best, line) => (line.length > best.length ? line : best));
      return { text: label!, at: longest[longest.length >> 1] };
    });
    const left = ({ at }: { at: [number, number] }) => at[0] > this.width / 2;
    draw(this.layer("words"), "text", middles, {
      class: "gl-word",
      x: (word) => word.at[0] + (left(word) ? -6 : 6),
      y: ({ at }) => at[1] - 4,
      "text-anchor": (word) => (left(word) ? "end" : "start"),
      text: ({ text }) => text,
    });
  }

  private drawRings(): void {
    const { ring, ghost } = this.extras;
    const rings = [{ at: ghost, faint: true }, { at: ring, faint: false }].filter(({ at }) => at);
    const looks = rings.flatMap((one) => ["gl-cell-halo", "gl-cell"].map((look) => ({ ...one, look })));
    draw(this.layer("rings"), "path", looks, {
      class: ({ look }) => look, opacity: ({ faint }) => (faint ? 0.4 : null),
      d: ({ at }) => markPath("ring", RING, this.x(at![0]), this.y(at![1])),
    });
  }

  protected key(name: string): boolean {
    const { rows, columns } = this.map;
    if (name === "Enter" || name === " ") {
      if (this.marked && this.paints) this.dab(this.marked);
      else if (this.marked) this.choose(this.marked);
      return this.marked !== null;
    }
    const key = (this.upwards && { ArrowUp: "ArrowDown", ArrowDown: "ArrowUp" }[name]) || name;
    const next = this.marked ? moved(key, this.marked, rows, columns) : moved(key, [0, 0], rows, columns) && ([0, 0] as Cell);
    if (!next && name !== "Escape") return false;
    this.hover(next);
    return true;
  }

  protected override decorate(copy: SVGSVGElement): void {
    for (const [canvas, x, width] of [[this.canvas, 0, this.width], [this.bar, this.width + BAR.gap, BAR.width]] as const) {
      const image = document.createElementNS(SVG, "image");
      const place = { x, y: 0, width, height: this.plotHeight, preserveAspectRatio: "none", href: canvas.toDataURL() };
      for (const [name, value] of Object.entries(place)) image.setAttribute(name, String(value));
      image.style.imageRendering = canvas === this.canvas && this.map.smooth ? "auto" : "pixelated";
      copy.querySelector("g")!.prepend(image);
    }
  }

  private click(at: [number, number]): void {
    const cell = this.cellOf(at);
    if (!cell || this.paints) return;
    this.onchoose(cell);
    const { x, y } = this.map;
    if (x && y) this.onpick(between(this.x.invert(at[0]), x.values), between(this.y.invert(at[1]), y.values));
  }

  /** A stroke of one cell. */
  private dab(cell: Cell): void {
    this.onpaint(cell);
    this.onpaint(null);
  }

  private choose([row, column]: Cell): void {
    this.onchoose([row, column]);
    const { x, y } = this.map;
    if (x && y) this.onpick(x.values[column], y.values[row]);
  }

  private hover(cell: Cell | null): void {
    this.mark(cell);
    this.onhover(cell);
  }

  private stroke(from: Cell, to: Cell): void {
    this.brush = to;
    for (const cell of cellsBetween(from, to)) this.onpaint(cell);
  }

  private cellOf([right, down]: [number, number]): Cell | null {
    const { rows, columns } = this.map;
    const cell = cellAt(right / this.width, down / this.plotHeight, rows, columns);
    return cell && this.upwards ? [rows - 1 - cell[0], cell[1]] : cell;
  }

  /** True if row 0 is at the bottom. */
  private get upwards(): boolean {
    return this.map.y !== undefined && !this.map.y.down;
  }

  /** A cell's place in pixels. */
  private boxOf([row, column]: Cell): { x: number; y: number; width: number; height: number } {
    const { rows, columns } = this.map;
    const [width, height] = [this.width / columns, this.plotHeight / rows];
    return { x: column * width, y: (this.upwards ? rows - 1 - row : row) * height, width, height };
  }

  private drawMark(): void {
    const marks = this.layer("marks");
    const box = this.marked && this.boxOf(this.marked);
    draw(marks, "rect", box ? ["gl-cell-halo", "gl-cell"] : [], { class: (look) => look, ...box });
    const value = this.marked ? this.values[this.marked[0] * this.map.columns + this.marked[1]] : NaN;
    const level = Number.isFinite(value) ? [this.level(value)] : []; // a triangle beside the colour bar
    draw(marks, "path", level, { class: "gl-level", d: (at) => `M${this.width + BAR.gap},${at}l-7,-4v8Z` });
    this.say(this.marked ? this.reads(this.marked) : "");
  }

  private reads([row, column]: Cell): string {
    const { columns, quantity, x, y } = this.map;
    const at = row * columns + column;
    const seen = this.hidden?.[at] ? `, ${this.map.struck ?? "in no pair"}` : "";
    const place = [
      `${this.names[0]} ${y ? spelt(y.values[row]) : row}`,
      `${this.names[1]} ${x ? spelt(x.values[column]) : column}`,
    ];
    return `${(x ? place.reverse() : place).join(", ")}: ${quantity} ${spelt(this.values[at] ?? NaN)}${seen}`;
  }
}

/** Functions to a ruler on which the cells of an axis are equally long, and back. */
const RULERS: Record<NonNullable<Axis["kind"]>, [to: (value: number) => number, from: (value: number) => number]> = {
  linear: [(value) => value, (value) => value],
  log: [Math.log, Math.exp],
  symlog: [
    (value) => Math.sign(value) * Math.log1p(Math.abs(value)),
    (value) => Math.sign(value) * Math.expm1(Math.abs(value)),
  ],
};

/** The axis of cells, which ends at the edges of the first and the last. Throws an Error if the numbers are not even. */
function axisOf(label: string, count: number, numeric?: NumericAxis): Axis {
  if (!numeric) return { label, domain: [-0.5, count - 0.5], whole: true };
  const { values, kind = "linear", ticks } = numeric;
  if (values.length !== count) throw new Error(`${numeric.label} must have ${count} values, got ${values.length}`);
  const [to, from] = RULERS[kind];
  const step = stepOf(values.map(to));
  if (step === null) throw new Error(`${numeric.label} must rise evenly${kind === "linear" ? "" : " in its logarithm"}`);
  const domain: [number, number] = [from(to(values[0]) - step / 2), from(to(values[count - 1]) + step / 2)];
  return { label: numeric.label, domain, kind, ticks };
}

function between(value: number, values: readonly number[]): number {
  return Math.min(Math.max(value, values[0]), values[values.length - 1]);
}

/** The pieces of a ring of `contours` that are inside the table: along its edge the ring only closes the area. */
function piecesOf(ring: number[][], columns: number, rows: number): number[][][] {
  const edge = ([across, down]: number[]) => across <= 0 || down <= 0 || across >= columns || down >= rows;
  const first = ring.findIndex(edge);
  if (first < 0) return [ring];
  const pieces: number[][][] = [];
  let piece: number[][] = [];
  for (const point of [...ring.slice(first), ...ring.slice(1, first + 1)]) {
    if (!edge(point)) piece.push(point);
    else {
      if (piece.length > 1) pieces.push(piece);
      piece = [];
    }
  }
  return pieces;
}
