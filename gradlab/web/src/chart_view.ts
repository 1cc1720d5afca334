/** Explorers that consist of charts and a table of numbers; `ChartView` shows those that Python sends. */

import { ChartBoard, type ChartMessage } from "./charts";
import { NumberTable, type Reading } from "./number_table";
import type { Context, ExplorerView } from "./explorer";
import type { Plot } from "./plot";

/** Charts with a table below, on an explorer's stage; handles and marks in them move the explorer's controls. */
export class Sheet {
  private readonly board: ChartBoard;
  private readonly table = new NumberTable("");

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

  show(charts: readonly ChartMessage[], readings: readonly Reading[]): void {
    this.board.show(charts);
    this.table.list(readings);
  }
}

/** A state as Python shows it: charts, table and outcome at once. */
export interface ShownCharts {
  charts?: ChartMessage[];
  readings?: Reading[];
  outcome?: [truth: string, sentence: string];
}

export class ChartView implements ExplorerView {
  private readonly sheet: Sheet;
  private known: [truth: string, sentence: string] | null = null;

  constructor(context: Context) {
    this.sheet = new Sheet(context);
  }

  get plots(): Plot[] {
    return this.sheet.plots;
  }

  present({ charts = [], readings = [], outcome }: ShownCharts): void {
    this.sheet.show(charts, readings);
    this.known = outcome?.[1] ? outcome : null;
  }

  update(): void {}

  outcome(): [truth: string, sentence: string] | null {
    return this.known;
  }
}
