/** An explorer whose charts and numbers Python sends: all of them at once, for one state. */

import { ChartBoard, type ChartMessage } from "./charts";
import { NumberTable, type Reading } from "./dom";
import type { Context, ExplorerView } from "./explorer";
import type { Plot } from "./plot";

/** What Python shows of a state. */
export interface ShownCharts {
  charts?: ChartMessage[];
  readings?: Reading[];
  outcome?: [truth: string, sentence: string];
}

export class ChartView implements ExplorerView {
  private readonly board: ChartBoard;
  private readonly table = new NumberTable("");
  private told: [string, string] | null = null;

  constructor({ stage, history, spec }: Context) {
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

  present({ charts = [], readings = [], outcome }: ShownCharts): void {
    this.board.show(charts);
    this.table.list(readings);
    this.told = outcome?.[1] ? outcome : null;
  }

  update(): void {}

  outcome(): [truth: string, sentence: string] | null {
    return this.told;
  }
}
