/** Charts that Python describes, on a page. */

import type { Plot } from "./plot";
import type { ControlSpec } from "./spec";

export type ChartMessage = Record<string, unknown>;

export class ChartBoard {
  plots: Plot[] = [];

  constructor(
    _parent: HTMLElement,
    _onset: (changes: Record<string, number>, gesture: string, settled: boolean) => void,
    _control: (name: string) => ControlSpec | undefined,
  ) {}

  show(_charts: readonly ChartMessage[]): void {}
}
