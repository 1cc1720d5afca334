/** The button that plays a training from its start to its end, and the place of the play. */

import { make, write } from "./dom";
import type { History } from "./state";

const LENGTH = 2500; // ms

export class Player {
  readonly button = make("button", { type: "button", textContent: "▶ play", className: "gl-play" });
  private frame = 0; // asked of the browser; 0 where nothing plays
  private place: number | null = null;

  /** A player moves the setting `when`, in %; while it plays, it calls `draw` for each frame instead. */
  constructor(private readonly history: History, private readonly draw: () => void) {
    this.button.onclick = () => (this.playing ? this.stop() : this.start());
  }

  get playing(): boolean {
    return this.frame !== 0;
  }

  /** How far through training, in %. */
  get when(): number {
    return this.place ?? (this.history.state.when as number);
  }

  /** Plays from the start, or from where `when` is if that is not the end; `following`: as a part of the last step. */
  start(following = false): void {
    const before = this.history.state.when as number;
    const from = before < 100 ? before : 0;
    write(this.button, "❚❚ pause");
    const began = performance.now();
    const next = (now: number) => {
      this.place = Math.min(100, from + Math.round((100 * Math.max(now - began, 0)) / LENGTH));
      if (this.place === 100) return this.stop(following);
      this.frame = requestAnimationFrame(next);
      this.draw();
    };
    this.frame = requestAnimationFrame(next);
  }

  /** Ends the play where `when` is, since the scrubber is in hand. */
  halt(): void {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    this.place = null;
    write(this.button, "▶ play");
  }

  /** Ends the play; the scrubber stays where it is. */
  private stop(following = false): void {
    const { when, history } = this;
    this.halt();
    if (when === history.state.when) this.draw();
    else if (following || history.canRedo) history.amend({ when });
    else history.set({ when });
  }
}
