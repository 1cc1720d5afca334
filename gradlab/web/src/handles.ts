/** Points that can be dragged in a picture with axes, by mouse, finger and arrow keys. */

import { drag } from "d3-drag";
import type { Selection } from "d3-selection";
import { type Marker, markPath } from "./marks";
import type { PlotOptions, Scale } from "./plot";
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
}

const RADIUS = 8; // pixels

export function drawHandles(
  layer: Selection<SVGGElement, unknown, null, undefined>,
  handles: readonly Handle[],
  { x: across, y: up }: Pick<PlotOptions, "x" | "y">,
  x: Scale,
  y: Scale,
): void {
  const inside = (value: number, [low, high]: [number, number]) => Math.min(Math.max(value, low), high);
  const go = (handle: Handle, right: number, down: number) =>
    handle.move([inside(x.invert(right), across.domain), inside(y.invert(down), up.domain)]);
  const step = (scale: Scale) => Math.abs(scale.range()[1] - scale.range()[0]) / 100; // pixels
  layer
    .selectAll<SVGPathElement, Handle>("path")
    .data(handles)
    .join("path")
    .attr("class", "gl-handle gl-color")
    .attr("d", ({ shape = "dot" }) => markPath(shape, RADIUS))
    .attr("tabindex", 0)
    .attr("role", "slider")
    .attr("aria-label", (handle) => handle.name)
    .attr("aria-valuenow", (handle) => handle.at[0])
    .attr("aria-valuetext", ({ at }) => `${across.label} ${spelt(at[0])}, ${up.label} ${spelt(at[1])}`)
    .style("--gl-color", (handle) => handle.color)
    .attr("transform", ({ at }) => `translate(${x(at[0])},${y(at[1])})`)
    .on("keydown", (event: KeyboardEvent, handle) => {
      const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
      if (!by) return;
      event.preventDefault();
      event.stopPropagation();
      go(handle, x(handle.at[0]) + by[0] * step(x), y(handle.at[1]) + by[1] * step(y));
      handle.end?.();
    })
    .call(
      drag<SVGPathElement, Handle>()
        .container(() => layer.node()!)
        .subject((_, handle) => ({ x: x(handle.at[0]), y: y(handle.at[1]) }))
        .on("drag", (event: { x: number; y: number }, handle) => go(handle, event.x, event.y))
        .on("end", (_, handle) => handle.end?.()),
    );
}
