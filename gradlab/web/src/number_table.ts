/** A table of numbers below charts. */

import { make, write } from "./dom";
import { spelt } from "./reading";

/** A row of a table of numbers: one value, or one per side; what is no finite number comes as a text. */
export interface Reading {
  name: string;
  value: number | string | Record<string, number | string>;
  unit: string;
}

/** A table of numbers with a head; cells are written anew only where they change. */
export class NumberTable {
  private readonly table = make("table", { className: "gl-table" });
  /** The table in a part of the page that scrolls where it is too wide. */
  readonly element = make("div", { className: "gl-wide" }, this.table);
  private readonly title = make("caption");
  private shape = "";

  constructor(caption: string) {
    this.caption = caption;
  }

  set caption(text: string) {
    write(this.title, text);
  }

  /** Shows a row per label with a number for each name, and B − A for two names; null is "?", not known yet. */
  compare(names: readonly string[], rows: readonly (readonly [label: string, values: readonly number[] | null])[]): void {
    const two = names.length === 2;
    const known = (values: readonly number[]) => [...values, ...(two ? [values[1] - values[0]] : [])].map(spelt);
    const unknown = Array<string>(names.length + Number(two)).fill("?");
    this.show(["", ...names, ...(two ? ["B − A"] : [])], rows.map(([label, values]) => [label, ...(values ? known(values) : unknown)]));
  }

  /** Shows readings: a column per side, and B − A where there are two; a value without sides has a column of its own. */
  list(readings: readonly Reading[]): void {
    const sided = readings.flatMap(({ value }) => (typeof value === "object" ? Object.keys(value) : []));
    const sides = [...new Set(sided)];
    const said = (value: number | string) => (typeof value === "number" ? spelt(value) : value);
    const cells = ({ value }: Reading): string[] => {
      if (typeof value !== "object") return [said(value), ...Array<string>(sides.length).fill("")];
      const all = sides.map((side) => value[side] ?? "");
      const numbers = all.filter((one) => typeof one === "number");
      return [...(plain ? [""] : []), ...all.map(said), ...(two ? [numbers.length === 2 ? spelt(numbers[1] - numbers[0]) : ""] : [])];
    };
    const two = sides.length === 2;
    const plain = readings.some(({ value }) => typeof value !== "object");
    const head = ["", ...(plain ? ["value"] : []), ...sides, ...(two ? [`${sides[1]} − ${sides[0]}`] : [])];
    const rows = readings.map((one) => [one.unit ? `${one.name}, ${one.unit}` : one.name, ...cells(one)]);
    this.show(head, rows.map((row) => [...row, ...Array<string>(head.length - row.length).fill("")]));
  }

  private show(head: readonly string[], rows: readonly (readonly string[])[]): void {
    const shape = `${head.length}×${rows.length}`;
    if (shape !== this.shape) {
      this.shape = shape;
      const row = (cells: readonly string[], top: boolean) =>
        make("tr", {}, ...cells.map((_, at) => make(top || at === 0 ? "th" : "td", top || at > 0 ? {} : { scope: "row" })));
      this.table.replaceChildren(
        this.title,
        make("thead", {}, row(head, true)),
        make("tbody", {}, ...rows.map((cells) => row(cells, false))),
      );
    }
    const cells = this.table.querySelectorAll("th, td");
    [head, ...rows].flat().forEach((text, at) => write(cells[at], text));
  }
}
