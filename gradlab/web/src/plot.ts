/** A picture with axes that fills its parent's width: its frame, read-out, keyboard and export. */

import { axisBottom, axisLeft } from "d3-axis";
import { scaleLinear, scaleLog, scaleSymlog, type ScaleContinuousNumeric } from "d3-scale";
import { pointer, type Selection, select } from "d3-selection";
import { write } from "./dom";
import type { Layer } from "./draw";
import css from "./plot.css";
import { spelt } from "./reading";

export const SVG = "http://www.w3.org/2000/svg";

export type Scale = ScaleContinuousNumeric<number, number>;

export interface Axis {
  label: string;
  domain: [number, number];
  kind?: "linear" | "log" | "symlog";
  /** If true, ticks stand at whole numbers only. */
  whole?: boolean;
  /** Numbers that are written on the axis; default: few round ones. */
  ticks?: readonly number[];
}

export interface PlotOptions {
  title: string;
  /** Words for a reader who cannot see the picture. */
  description: string;
  x: Axis;
  y: Axis;
  /** Pixels from top to bottom, without the title. */
  height?: number;
  /** Pixels to the right of the axes. */
  right?: number;
}

/** A base of pictures: `draw` is called whenever the size, the data or an axis has changed. */
export abstract class Plot {
  readonly element = document.createElement("figure");
  x!: Scale;
  y!: Scale;
  protected readonly stage = document.createElement("div");
  protected readonly svg: Selection<SVGSVGElement, unknown, null, undefined>;
  protected readonly inner: Selection<SVGGElement, unknown, null, undefined>;
  protected width = 0;
  protected readonly height: number;
  protected readonly margin: { top: number; right: number; bottom: number; left: number };
  private readonly heading = document.createElement("span");
  private readonly reading = document.createElement("output");
  private readonly watch: ResizeObserver;
  private readonly groups = new Map<string, Layer>();
  private stale = false;
  private leastLeft?: number;

  constructor(
    parent: HTMLElement,
    protected readonly options: PlotOptions,
  ) {
    this.height = options.height ?? 240;
    this.margin = { top: 6, right: options.right ?? 16, bottom: 40, left: 52 };
    this.element.className = "gl-plot";
    this.element.tabIndex = 0;
    this.element.setAttribute("aria-label", options.title);
    this.reading.className = "gl-reading"; // an output is a live region
    this.heading.className = "gl-title";
    this.heading.textContent = options.title;
    const header = document.createElement("header");
    header.append(this.heading, this.reading);
    this.stage.className = "gl-stage";
    this.element.append(header, this.stage);
    this.svg = select(this.stage).append("svg").attr("role", "img").attr("aria-label", options.description);
    this.inner = this.svg.append("g");
    this.layers("axis-x", "axis-y");
    for (const name of ["x", "y"]) this.inner.append("text").attr("class", `gl-label-${name}`).attr("text-anchor", "middle");
    this.element.addEventListener("keydown", (event) => {
      if (event.target === this.element && this.key(event.key)) {
        event.preventDefault();
        event.stopPropagation();
      }
    });
    parent.append(this.element);
    style(parent);
    this.watch = new ResizeObserver(() => this.resize());
    this.watch.observe(this.stage);
  }

  /** Changes the title, which is also the picture's name for a reader who cannot see it. */
  set title(text: string) {
    if (text === this.options.title) return;
    this.options.title = text;
    this.heading.textContent = text;
    this.element.setAttribute("aria-label", text);
  }

  /** Changes the words for a reader who cannot see the picture. */
  set description(text: string) {
    this.options.description = text;
    this.svg.attr("aria-label", text);
  }

  /** Says in an empty picture why there is nothing to see; "" takes that back. */
  set waits(text: string) {
    if (text) this.stage.dataset.waits = text;
    else delete this.stage.dataset.waits;
  }

  /** Forgets the picture: nothing is left on the page. */
  remove(): void {
    this.watch.disconnect();
    this.element.remove();
  }

  /** Changes the ends of axes, and draws. */
  limits(x: [number, number], y: [number, number]): void {
    this.options.x.domain = x;
    this.options.y.domain = y;
    if (this.width) this.frame();
  }

  /** Changes the ends of axes as `limits`, but the next `show` draws with them. */
  frameTo(x: [number, number], y: [number, number]): void {
    const same = ([low, high]: [number, number], { domain }: Axis) => low === domain[0] && high === domain[1];
    if (same(x, this.options.x) && same(y, this.options.y)) return;
    this.options.x.domain = x;
    this.options.y.domain = y;
    this.stale = true;
  }

  /** The picture as a file of its own, with the colours that it has on the page. */
  svgText(): string {
    const source = this.svg.node()!;
    const copy = source.cloneNode(true) as SVGSVGElement;
    const unseens = [...copy.querySelectorAll(".gl-reach")];
    const [shown, kept] = [source, copy].map((root) => [root, ...root.querySelectorAll("*")] as SVGElement[]);
    shown.forEach((element, at) => {
      const look = getComputedStyle(element);
      kept[at].removeAttribute("style");
      for (const name of LOOKS) kept[at].style.setProperty(name, plainColor(look.getPropertyValue(name)));
      kept[at].removeAttribute("class");
    });
    for (const unseen of unseens) unseen.remove();
    const title = document.createElementNS(SVG, "title");
    title.textContent = this.options.title;
    copy.prepend(title);
    copy.setAttribute("xmlns", SVG);
    copy.style.background = getComputedStyle(this.element).backgroundColor;
    this.decorate(copy);
    return new XMLSerializer().serializeToString(copy);
  }

  /** The picture as a PNG, with `ratio` pixels per pixel of the page. */
  png(ratio = 2): Promise<Blob> {
    return pngOf(this.svgText(), ratio);
  }

  /**
   * Calls back with a pointer's place in the inner part, in pixels, and with null where it has left; a tap is a place, too.
   * Moves are told once per frame, after all that they do elsewhere.
   */
  protected track(move: (at: [number, number] | null) => void): void {
    let frame = 0;
    let last: [number, number] | null = null;
    const tell = (at: [number, number] | null) => {
      cancelAnimationFrame(frame);
      frame = 0;
      move(at);
    };
    this.stage.addEventListener("pointermove", (event) => {
      last = this.placeOf(event);
      frame ||= requestAnimationFrame(() => tell(last));
    });
    this.stage.addEventListener("click", (event) => tell(this.placeOf(event)));
    this.stage.addEventListener("pointerleave", ({ pointerType }) => pointerType === "touch" || tell(null));
    this.stage.addEventListener("pointercancel", () => tell(null)); // such as a finger that scrolls
    this.element.addEventListener("focusout", ({ relatedTarget }) => this.element.contains(relatedTarget as Node) || tell(null));
  }

  /** The place of a pointer in the inner part, in pixels. */
  protected placeOf(event: PointerEvent | MouseEvent): [number, number] {
    return pointer(event, this.inner.node());
  }

  /** True for a place in the inner part, in pixels. */
  protected within([right, down]: [number, number]): boolean {
    return right >= 0 && right <= this.width && down >= 0 && down <= this.plotHeight;
  }

  /** Draws the data in the inner part, which is `width` × `plotHeight` pixels. */
  protected abstract draw(): void;

  /** Answers a key; true if it did something. */
  protected abstract key(name: string): boolean;

  /** Adds to an export what is not in the SVG. */
  protected decorate(_copy: SVGSVGElement): void {}

  protected say(text: string): void {
    write(this.reading, text);
  }

  protected get plotHeight(): number {
    return this.height - this.margin.top - this.margin.bottom;
  }

  private resize(): void {
    const { left, right } = this.margin;
    const width = Math.max(40, Math.floor(this.stage.clientWidth) - left - right);
    if (width === this.width) return;
    this.width = width;
    this.frame();
  }

  /** Pixels above the axes. */
  protected head(): number {
    return 6;
  }

  /** Places of a legend's entries above the axes, in as many rows as they need; a single name needs none. */
  protected entries(names: readonly string[]): { height: number; places: [number, number][] } {
    if (names.length < 2) return { height: 6, places: [] };
    const places: [number, number][] = [];
    let [right, row] = [0, 0];
    for (const name of names) {
      const size = 40 + 7 * name.length; // pixels: a line, the name at a usual width, a gap
      if (right > 0 && right + size > this.width) [right, row] = [0, row + 1];
      places.push([right, row * 16]);
      right += size;
    }
    return { height: (row + 1) * 16 + 6, places };
  }

  /** Makes layers of the picture, from back to front. */
  protected layers(...names: string[]): void {
    for (const name of names) this.groups.set(name, this.inner.append("g").attr("class", `gl-${name}`));
  }

  protected layer(name: string): Layer {
    return this.groups.get(name)!;
  }

  /** Draws the data, and the axes where they have changed. */
  protected redraw(): void {
    if (!this.width) return;
    if (this.stale || this.head() !== this.margin.top) this.frame();
    else this.draw();
  }

  /** Draws everything: axes, and the data. */
  protected frame(): void {
    this.stale = false;
    const { margin } = this;
    const few = (pixels: number) => Math.max(2, Math.floor(pixels / 60));
    const written = (value: unknown) => spelt(Number(value));
    this.y = scaleOf(this.options.y);
    const read = () => {
      margin.top = this.head();
      return ticks(this.options.y, this.y.range([this.plotHeight, 0]), few(this.plotHeight * 1.5));
    };
    this.makeRoom(0); // what is drawn must not depend on what was
    this.makeRoom(Math.max(...read().map((value) => written(value).length)));
    const upright = read(); // a narrower legend may be higher
    const { plotHeight, width } = this;
    this.inner.attr("transform", `translate(${margin.left},${margin.top})`);
    const all = width + margin.left + margin.right;
    this.svg.attr("width", all).attr("height", this.height).attr("viewBox", `0 0 ${all} ${this.height}`);
    this.x = scaleOf(this.options.x).range([0, width]);
    this.layer("axis-x")
      .attr("transform", `translate(0,${plotHeight})`)
      .call(axisBottom(this.x).tickValues(ticks(this.options.x, this.x, few(width))).tickFormat(written).tickSizeOuter(0));
    this.layer("axis-y")
      .call(axisLeft(this.y).tickValues(upright).tickFormat(written).tickSizeOuter(0));
    this.inner.select(".gl-label-x").attr("x", width / 2).attr("y", plotHeight + 34).text(this.options.x.label);
    this.inner
      .select(".gl-label-y")
      .attr("transform", `translate(${12 - margin.left},${plotHeight / 2}) rotate(-90)`)
      .text(this.options.y.label);
    this.draw();
  }

  /** Moves the upright axis so far to the right that its label stands beside ticks of so many letters. */
  private makeRoom(letters: number): void {
    this.leastLeft ??= this.margin.left;
    const left = Math.max(this.leastLeft, 31 + 7 * letters); // pixels: the label, a gap and the tick, letters
    this.width += this.margin.left - left;
    this.margin.left = left;
  }
}

/** Several pictures as one file, each with its title, where they stand on the page. */
export function together(plots: readonly Plot[]): string {
  const boxes = plots.map(({ element }) => element.getBoundingClientRect());
  const [left, top] = [Math.min(...boxes.map((box) => box.left)), Math.min(...boxes.map((box) => box.top))];
  const [right, bottom] = [Math.max(...boxes.map((box) => box.right)), Math.max(...boxes.map((box) => box.bottom))];
  const parts = plots.map(({ element, svgText }, at) => {
    const { left: x, top: y } = boxes[at];
    const below = element.querySelector("svg")!.getBoundingClientRect().top;
    const look = getComputedStyle(element);
    const title = document.createElementNS(SVG, "text");
    title.textContent = element.getAttribute("aria-label");
    const font = { "font-family": look.fontFamily, "font-size": 13, "font-weight": 600 };
    for (const [name, value] of Object.entries({ x: x - left, y: y - top + 13, fill: look.color, ...font })) {
      title.setAttribute(name, String(value));
    }
    const drawn = svgText.call(plots[at]).replace("<svg", `<svg x="${x - left}" y="${below - top}" overflow="visible"`);
    return new XMLSerializer().serializeToString(title) + drawn;
  });
  const paper = plots.length ? getComputedStyle(plots[0].element).backgroundColor : "#fff";
  const [width, height] = [Math.ceil(right - left), Math.ceil(bottom - top)];
  const ground = `<rect width="100%" height="100%" fill="${paper}"/>`;
  return `<svg xmlns="${SVG}" width="${width}" height="${height}">${ground}${parts.join("")}</svg>`;
}

/** A picture in SVG as a PNG. */
export async function pngOf(svg: string, ratio = 2): Promise<Blob> {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.width * ratio, image.height * ratio];
  const context = canvas.getContext("2d")!;
  context.imageSmoothingEnabled = false;
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done, fail) =>
    canvas.toBlob((blob) => (blob ? done(blob) : fail(new Error("this browser makes no PNG")))),
  );
}

const LOOKS = [
  "fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-opacity", "stroke-linejoin", "opacity",
  "font-family", "font-size", "font-weight", "text-anchor",
];

/** A colour that CSS mixes from others as red, green and blue, which every reader of SVG knows; other text as it is. */
function plainColor(text: string): string {
  if (!/^(color|oklab|color-mix)\(/.test(text)) return text;
  const context = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d")!;
  context.fillStyle = text;
  context.fillRect(0, 0, 1, 1);
  const [red, green, blue] = context.getImageData(0, 0, 1, 1).data;
  return `rgb(${red}, ${green}, ${blue})`;
}

/** A value kept within an axis, which may run either way. */
export function inside(value: number, [one, other]: readonly [number, number]): number {
  return Math.min(Math.max(value, Math.min(one, other)), Math.max(one, other));
}

export function scaleOf({ kind, domain }: Axis): Scale {
  return (kind === "log" ? scaleLog() : kind === "symlog" ? scaleSymlog() : scaleLinear()).domain(domain);
}

/**
 * Few ticks; a logarithmic axis has powers of ten, every second or third where there are many, with 2 and 5 times as much
 * where there are fewer than three, and a symlog axis 0, too; one to both sides of 0 has those of both.
 */
export function ticks({ kind, domain, whole, ticks: chosen }: Axis, scale: Scale, count: number): number[] {
  const [low, high] = [Math.min(...domain), Math.max(...domain)]; // an axis may run downwards
  if (chosen) return chosen.filter((value) => value >= low && value <= high);
  if (kind !== "log" && kind !== "symlog") return scale.ticks(count).filter((tick) => !whole || Number.isInteger(tick));
  if (kind === "symlog" && low < 0 && high > 0) {
    const [zero, ...powers] = ticks({ label: "", domain: [0, Math.max(-low, high)], kind }, scale, count);
    const apart = powers.length > 2 ? powers.slice(1) : powers; // −1, 0 and 1 would stand too close
    return [...apart.map((tick) => -tick).reverse(), zero, ...apart].filter((tick) => tick >= low * 1.02 && tick <= high * 1.02);
  }
  const powers: number[] = kind === "symlog" && low <= 0 && high >= 0 ? [0] : [];
  const least = kind === "symlog" ? Math.max(low, 1) : low;
  for (let power = -12; power <= 12; power++) {
    if (10 ** power >= least * (1 - 1e-9) && 10 ** power <= high * (1 + 1e-9)) powers.push(10 ** power);
  }
  if (kind === "log" && powers.length > 0 && powers.length < 3) {
    return [powers[0] / 10, ...powers]
      .flatMap((power) => [1, 2, 5].map((times) => Number((times * power).toPrecision(1))))
      .filter((value) => value >= low && value <= high);
  }
  const stride = Math.ceil(powers.length / Math.max(1.5 * count, 4));
  return powers.length >= 2 ? powers.filter((_, at) => at % stride === 0) : scale.ticks(count);
}

const styled = new WeakMap<Node, Set<string>>();

/** Gives a document, or the shadow tree in which an element lies, a style, once; that of pictures if none is named. */
export function style(element: HTMLElement, rules = css): void {
  const found = element.getRootNode();
  const root = found instanceof ShadowRoot ? found : document;
  const there = styled.get(root) ?? new Set();
  if (there.has(rules)) return;
  styled.set(root, there.add(rules));
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(rules);
  root.adoptedStyleSheets = [...root.adoptedStyleSheets, sheet];
}
