/** Shapes of marks, as paths that begin at a point, so that many marks are one path. */

export type Marker = "dot" | "cross" | "triangle-up" | "triangle-down" | "diamond" | "ring";

/** A mark's path around (x, y); `radius` in pixels. All shapes look about equally large. */
export function markPath(marker: Marker, radius: number, x = 0, y = 0): string {
  const r = (share: number) => Number((share * radius).toFixed(2));
  const shapes: Record<Marker, () => string> = {
    dot: () => `m${-r(1)},0a${r(1)},${r(1)} 0 1,0 ${r(2)},0a${r(1)},${r(1)} 0 1,0 ${-r(2)},0z`,
    ring: () => shapes.dot(),
    diamond: () => `m0,${-r(1.2)}l${r(1.2)},${r(1.2)}l${-r(1.2)},${r(1.2)}l${-r(1.2)},${-r(1.2)}z`,
    cross: () => `m${-r(0.9)},${-r(0.9)}l${r(1.8)},${r(1.8)}m${-r(1.8)},0l${r(1.8)},${-r(1.8)}`,
    "triangle-up": () => `m0,${-r(1.25)}l${r(1.15)},${r(2)}h${-r(2.3)}z`,
    "triangle-down": () => `m0,${r(1.25)}l${-r(1.15)},${-r(2)}h${r(2.3)}z`,
  };
  return `M${x},${y}${shapes[marker]()}`;
}
