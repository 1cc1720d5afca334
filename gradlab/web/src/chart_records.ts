/** Charts that the page makes by itself, with the fields and defaults of gradlab/plotting/charts.py. */

import type { AxisMessage, CurveMessage, CurvesMessage, HandleMessage, Numbers } from "./chart_messages";

export function axis(label: string, low: number, high: number, kind: AxisMessage["kind"] = "linear"): AxisMessage {
  return { label, low, high, kind };
}

export function curve(name: string, x: Numbers, y: Numbers, color: string, more: Partial<CurveMessage> = {}): CurveMessage {
  return { name, x, y, color, dash: "", marker: null, line: true, filled: true, low: null, high: null, faint: false, ...more };
}

export function curves(
  title: string, description: string, x: AxisMessage, y: AxisMessage, shown: CurveMessage[], more: Partial<CurvesMessage> = {},
): CurvesMessage {
  const none = { bands: [], rules: [], labels: [], handles: [], link: "", height: 200 };
  return { type: "curves", title, description, x, y, curves: shown, picks: ["", ""], ...none, ...more };
}

/** A handle whose position along x is a control's value: (x − origin) · factor. */
export function acrossHandle(
  name: string, x: number, y: number, color: string, control: string, origin = 0, factor = 1,
  shape: HandleMessage["shape"] = "dot",
): HandleMessage {
  return { name, x, y, color, moves: [{ control, axis: "x", origin, factor }], track: null, shape };
}
