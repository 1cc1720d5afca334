/** Handles of charts: they move controls along axes, or run along a track, and stay under the hand while Python computes. */

import { arrayOf, type HandleMessage } from "./chart_messages";
import type { Handle } from "./handles";
import { inside, type Plot } from "./plot";
import { placeOf, valueAt } from "./slider";

/** The facts of a control that hold a value: its ends, and how its slider rounds. */
export interface Ends {
  low?: number | null;
  high?: number | null;
  scale?: "linear" | "log" | "logit";
  whole?: boolean;
  kind?: string;
}

/** Called with controls to set; `gesture` names what the hand does, `settled` says that it is done. */
export type OnSet = (changes: Record<string, number>, gesture: string, settled: boolean) => void;

type Point = [x: number, y: number];

/** A value held within a control's ends, and rounded as its slider rounds. */
export function heldBy(value: number, control: Ends | undefined): number {
  if (!control) return value;
  const { low, high, scale } = control;
  const whole = control.whole || control.kind === "whole";
  if (typeof low === "number" && typeof high === "number") {
    const options = { label: "", low, high, scale, whole };
    return valueAt(placeOf(inside(value, [low, high]), options), options); // a logarithm has no place below 0
  }
  return Math.max(low ?? -Infinity, Math.min(high ?? Infinity, whole ? Math.round(value) : value));
}

export class Grip {
  private message!: HandleMessage;
  private at: Point = [NaN, NaN];
  private held: Record<string, number> | null = null;

  constructor(
    private readonly plot: Plot,
    private readonly onset: OnSet,
    private readonly controls: (name: string) => Ends | undefined,
    private readonly draw: () => void,
  ) {}

  /** The handle of a message; while it is held, it stays where the hand has it. */
  handle(message: HandleMessage): Handle {
    this.message = message;
    if (!this.held) this.at = [message.x ?? NaN, message.y ?? NaN];
    const { name, color, shape } = message;
    return {
      name, color, shape, at: this.at,
      move: (at) => this.move(at),
      step: (right, up) => this.step(right, up),
      end: () => this.end(),
    };
  }

  private move(at: Point): void {
    const { track, moves } = this.message;
    if (track) return this.run(this.nearest(at));
    const changes: Record<string, number> = {};
    for (const { control, axis, origin, factor } of moves) {
      changes[control] = heldBy((at[axis === "x" ? 0 : 1] - origin) * factor, this.controls(control));
    }
    this.set(changes);
  }

  /** Puts the handle where the controls have these values. */
  private set(changes: Record<string, number>): void {
    const at: Point = [...this.at];
    for (const { control, axis, origin, factor } of this.message.moves) {
      at[axis === "x" ? 0 : 1] = changes[control] / factor + origin;
    }
    this.go(changes, at);
  }

  private run(place: number): void {
    const { control, values, x, y } = this.message.track!;
    if (place < 0) return;
    this.go({ [control]: arrayOf(values)[place] }, [arrayOf(x)[place], arrayOf(y)[place]]);
  }

  private go(changes: Record<string, number>, at: Point): void {
    this.held = changes;
    this.at = at;
    this.draw();
    this.onset(changes, this.message.name, false);
  }

  private end(): void {
    const { held } = this;
    if (!held) return;
    this.held = null;
    this.onset(held, this.message.name, true);
  }

  /** Moves by an arrow key: to the next point of the track, or by a hundredth of an axis, at least by one where values are whole. */
  private step(right: number, up: number): void {
    const { track, moves } = this.message;
    if (track) {
      const [here, xs] = [this.nearest(this.at), arrayOf(track.x)];
      const forward = xs[0] > xs[xs.length - 1] ? -1 : 1; // the track may run from right to left
      const next = here < 0 ? here : inside(here + forward * (right + up), [0, xs.length - 1]);
      if (next !== here) this.run(next);
      return;
    }
    const changes: Record<string, number> = {};
    for (const { control, axis, origin, factor } of moves) {
      const [by, here, scale] = axis === "x" ? [right, this.at[0], this.plot.x] : [up, this.at[1], this.plot.y];
      const ends = this.controls(control);
      const now = heldBy((here - origin) * factor, ends);
      const [from, to] = scale.range();
      const beside = scale.invert(scale(here) + (by * (to - from)) / 100);
      const next = heldBy((inside(beside, scale.domain() as Point) - origin) * factor, ends);
      changes[control] = by && next === now ? heldBy(now + Math.sign((beside - here) * factor), ends) : by ? next : now;
    }
    this.set(changes);
  }

  /** The point of the track that is nearest on the screen; −1 where there is none. */
  private nearest([x, y]: Point): number {
    const { plot } = this;
    const [xs, ys] = [arrayOf(this.message.track!.x), arrayOf(this.message.track!.y)];
    let [best, least] = [-1, Infinity];
    for (let place = 0; place < xs.length; place++) {
      const far = Math.hypot(plot.x(xs[place]) - plot.x(x), plot.y(ys[place]) - plot.y(y));
      if (far < least) [best, least] = [place, far];
    }
    return best;
  }
}
