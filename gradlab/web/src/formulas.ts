/** Explorers whose charts follow from a state by a formula: the page computes them, with or without Python. */

import type { ChartMessage } from "./chart_messages";
import { Sheet } from "./chart_view";
import type { Reading } from "./number_table";
import type { Context, ExplorerKind, ExplorerView } from "./explorer";
import type { Plot } from "./plot";
import { filled } from "./python";
import type { State } from "./state";

/** The part in which explorers differ; the pinned state, if any, is drawn faintly. */
export interface Formula {
  charts(state: State, pinned: State | null): ChartMessage[];
  readings(state: State): Reading[];
  outcome(state: State): [truth: string, sentence: string];
  /** What the template of its code names beside settings. */
  parts?(state: State): Record<string, string>;
}

const KEPT = 3; // the state, the pinned one, and the one before

/** A function of some settings of a state that knows its last answers. */
export function remembered<T>(names: readonly string[], make: (state: State) => T): (state: State) => T {
  const kept = new Map<string, T>();
  return (state) => {
    const key = JSON.stringify(names.map((name) => state[name]));
    const known = kept.has(key) ? kept.get(key)! : make(state);
    kept.delete(key);
    kept.set(key, known); // as the last that was used
    if (kept.size > KEPT) kept.delete(kept.keys().next().value!);
    return known;
  };
}

class FormulaView implements ExplorerView {
  private readonly sheet: Sheet;
  private pinned: State | null = null;

  constructor(private readonly context: Context, private readonly formula: Formula) {
    this.sheet = new Sheet(context);
  }

  get plots(): Plot[] {
    return this.sheet.plots;
  }

  update(state: State): void {
    this.sheet.show(this.formula.charts(state, this.pinned), this.formula.readings(state));
  }

  outcome(state: State): [truth: string, sentence: string] {
    return this.formula.outcome(state);
  }

  code(): string {
    const { history, spec } = this.context;
    return filled(spec.template, history.state, this.formula.parts?.(history.state));
  }

  pin(on: boolean): void {
    const { state } = this.context.history;
    this.pinned = on ? state : null;
    this.update(state);
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
