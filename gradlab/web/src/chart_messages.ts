/** What Python sends of a chart: the fields of gradlab/plotting/charts.py, by their names. */

import type { Marker } from "./marks";
import type { ColorsName } from "./palette";

/** Numbers as bytes (float64), or as they are; null is not a number. */
export type Numbers = { f8: DataView | ArrayBuffer; shape: number[] } | readonly (number | null)[];

export interface Named {
  title: string;
  description: string;
}

export interface AxisMessage {
  label: string;
  low: number;
  high: number;
  kind: "linear" | "log" | "symlog";
}

export type Dash = "" | "dashed" | "dotted" | "dashdot";

export interface CurveMessage {
  name: string;
  x: Numbers;
  y: Numbers;
  color: string;
  dash: Dash;
  marker: Marker | null;
  line: boolean;
  filled: boolean;
  low: Numbers | null;
  high: Numbers | null;
  faint: boolean;
}

export interface CurvesMessage extends Named {
  type: "curves";
  x: AxisMessage;
  y: AxisMessage;
  curves: CurveMessage[];
  bands: { low: number; high: number; label: string }[];
  rules: { x: number | null; y: number | null; label: string; dash: Dash }[];
  labels: { x: number; y: number; text: string; color: string }[];
  handles: HandleMessage[];
  link: string;
  picks: [string, string];
  height: number;
}

export interface MapMessage extends Named {
  type: "map";
  x: AxisMessage;
  y: AxisMessage;
  columns: Numbers;
  rows: Numbers;
  values: Numbers;
  quantity: string;
  low: number;
  high: number;
  colors: ColorsName;
  logarithmic: boolean;
  levels: { value: number; color: string; label: string }[];
  struck: Numbers | null;
  struck_means: string;
  ring: [number, number] | null;
  picks: [string, string];
  link: string;
  height: number;
}

export interface ArrowsMessage extends Named {
  type: "arrows";
  x: AxisMessage;
  y: AxisMessage;
  at_x: Numbers;
  at_y: Numbers;
  right: Numbers;
  up: Numbers;
  colors: string[];
  handles: HandleMessage[];
  trail: [number, number][];
  height: number;
}

export interface BarsMessage extends Named {
  type: "bars";
  label: string;
  groups: string[];
  bars: { name: string; values: Numbers; color: string; dashed: boolean }[];
  height: number;
}

export interface PictureMessage extends Named {
  type: "picture";
  png: DataView | ArrayBuffer;
  width: number;
}

export type ChartMessage = CurvesMessage | MapMessage | ArrowsMessage | BarsMessage | PictureMessage;

export interface MoveMessage {
  control: string;
  axis: "x" | "y";
  origin: number;
  factor: number;
}

export interface HandleMessage {
  name: string;
  x: number | null;
  y: number | null;
  color: string;
  moves: MoveMessage[];
  track: { control: string; values: Numbers; x: Numbers; y: Numbers } | null;
  shape: "dot" | "diamond";
}

/** The numbers of a message. */
export function arrayOf(numbers: Numbers): Float64Array {
  if (Array.isArray(numbers)) return Float64Array.from(numbers, (value) => value ?? NaN);
  const { f8 } = numbers as { f8: DataView | ArrayBuffer };
  const [buffer, from, length] = ArrayBuffer.isView(f8) ? [f8.buffer, f8.byteOffset, f8.byteLength] : [f8, 0, f8.byteLength];
  return new Float64Array(buffer.slice(from, from + length) as ArrayBuffer); // a view may begin anywhere
}
