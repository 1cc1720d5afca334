/** Explorers whose charts follow from a state by a formula: the page computes them, with or without Python. */

import type { ChartMessage } from "./chart_messages";
import { ChartBoard } from "./charts";
import { NumberTable, type Reading } from "./dom";
import type { Context, ExplorerKind, ExplorerView } from "./explorer";
import type { Plot } from "./plot";
import type { State } from "./state";

/** The part that one explorer has of its own; `former` is the state that is drawn faintly, if any. */
export interface Formula {
  charts(state: State, former: State | null): ChartMessage[];
  readings(state: State): Reading[];
  outcome(state: State): [truth: string, sentence: string];
  code(state: State): string;
}

class FormulaView implements ExplorerView {
  private readonly board: ChartBoard;
  private readonly table = new NumberTable("");
  private state: State | null = null;
  private former: State | null = null;
  private touched = "";
  private pinned = false;

  constructor({ stage, history, spec }: Context, private readonly formula: Formula) {
    const place = (changes: Record<string, number>, gesture: string, settled: boolean) => {
      history.set(changes, gesture);
      if (settled) history.rest();
    };
    this.board = new ChartBoard(stage, place, (name) => spec.controls[name]);
    stage.append(this.table.element);
  }

  get plots(): Plot[] {
    return this.board.plots;
  }

  update(state: State): void {
    const before = this.state;
    const touched = Object.keys(state).filter((name) => before && name !== "guess" && state[name] !== before[name]).join(" ");
    if (touched && touched !== this.touched && !this.pinned) [this.touched, this.former] = [touched, before];
    this.state = { ...state };
    this.show();
  }

  outcome(state: State): [truth: string, sentence: string] {
    return this.formula.outcome(state);
  }

  code(): string {
    return this.formula.code(this.state!);
  }

  pin(on: boolean): void {
    [this.pinned, this.former, this.touched] = [on, on ? this.state : null, ""];
    this.show();
  }

  private show(): void {
    if (!this.state) return;
    this.board.show(this.formula.charts(this.state, this.former));
    this.table.list(this.formula.readings(this.state));
  }
}

/** The class of an explorer that shows a formula. */
export function explorerOf(formula: Formula): ExplorerKind {
  return class extends FormulaView {
    constructor(context: Context) {
      super(context, formula);
    }
  };
}
