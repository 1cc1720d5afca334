/** Points that can be dragged in a picture with axes, by mouse, finger and arrow keys. */

import { drag } from "d3-drag";
import type { Selection } from "d3-selection";
import { type Layer, put } from "./draw";
import { type Marker, markPath } from "./marks";
import { inside, type PlotOptions, type Scale } from "./plot";
import { spelt } from "./reading";

/** A point that can be dragged, and moved by arrow keys in steps of a hundredth of the axes. */
export interface Handle {
  name: string;
  color: string;
  at: [number, number];
  move: (at: [number, number]) => void;
  /** Called at the end of a drag, and after each key. */
  end?: () => void;
  shape?: Marker;
  /** Answers an arrow key instead of a move by a hundredth of the axes; right and up are −1, 0 or 1. */
  step?: (right: number, up: number) => void;
}

/** A picture's scales as they are now. */
interface Scales {
  readonly x: Scale;
  readonly y: Scale;
}

const RADIUS = 8; // pixels
const REACH = 14; // pixels around a handle's middle in which a finger takes it

export function drawHandles(
  layer: Layer,
  handles: readonly Handle[],
  { x: across, y: up }: Pick<PlotOptions, "x" | "y">,
  scales: Scales,
): void {
  const place = ({ at }: Handle) => `translate(${scales.x(at[0])},${scales.y(at[1])})`;
  // Each is below all handles, so that none covers a neighbour.
  const reaches = layer
    .selectAll<SVGPathElement, Handle>(".gl-reach")
    .data(handles)
    .join((enter) => enter.insert("path", ".gl-handle").call(listen, layer, { x: across, y: up }, scales));
  put(reaches, { class: "gl-reach", d: markPath("dot", REACH), transform: place });
  const paths = layer
    .selectAll<SVGPathElement, Handle>(".gl-handle")
    .data(handles)
    .join((enter) => enter.append("path").call(listen, layer, { x: across, y: up }, scales));
  put(paths, {
    class: "gl-handle gl-color",
    d: ({ shape = "dot" }) => markPath(shape, RADIUS),
    tabindex: 0,
    role: "slider",
    "aria-label": ({ name }) => name,
    "aria-valuenow": ({ at }) => at[0],
    "aria-valuetext": ({ at }) => `${across.label} ${spelt(at[0])}, ${up.label} ${spelt(at[1])}`,
    "--gl-color": ({ color }) => color,
    transform: place,
  });
}

/** Lets new handles be moved; the handle that an element stands for, and the scales, may change later. */
function listen(
  paths: Selection<SVGPathElement, Handle, SVGGElement, unknown>,
  layer: Layer,
  { x: across, y: up }: Pick<PlotOptions, "x" | "y">,
  scales: Scales,
): void {
  const go = (handle: Handle, right: number, down: number) =>
    handle.move([inside(scales.x.invert(right), across.domain), inside(scales.y.invert(down), up.domain)]);
  const step = (scale: Scale) => Math.abs(scale.range()[1] - scale.range()[0]) / 100; // pixels
  const place = ({ at: [x, y] }: Handle): [number, number] => [scales.x(x), scales.y(y)];
  paths
    .on("keydown", (event: KeyboardEvent, handle) => {
      const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
      if (!by) return;
      event.preventDefault();
      event.stopPropagation();
      const [right, down] = place(handle);
      if (handle.step) handle.step(by[0], -by[1]);
      else go(handle, right + by[0] * step(scales.x), down + by[1] * step(scales.y));
      handle.end?.();
    })
    .call(
      drag<SVGPathElement, Handle>()
        .container(() => layer.node()!)
        .subject((_, handle) => ({ x: place(handle)[0], y: place(handle)[1] }))
        .on("drag", (event: { x: number; y: number }, handle) => go(handle, event.x, event.y))
        .on("end", (_, handle) => handle.end?.()),
    );
}
