/** Tables of numbers from files, CSV and numpy's .npy. What is not one is refused in one sentence. Pure, without a page. */

/** Numbers row by row. */
export interface Table {
  rows: number;
  columns: number;
  values: Float64Array;
}

const MAGIC = [0x93, ...[..."NUMPY"].map((letter) => letter.charCodeAt(0))];

/** The kinds of numbers in a .npy file that are read: bytes, and how. */
const KINDS: Record<string, [size: number, read: (view: DataView, at: number) => number]> = {
  "<f8": [8, (view, at) => view.getFloat64(at, true)],
  "<f4": [4, (view, at) => view.getFloat32(at, true)],
  "<i8": [8, (view, at) => Number(view.getBigInt64(at, true))],
  "<i4": [4, (view, at) => view.getInt32(at, true)],
  "|b1": [1, (view, at) => view.getUint8(at)],
  "|u1": [1, (view, at) => view.getUint8(at)],
};
const WORDS = new Map([["true", 1], ["false", 0]]);

/** The table of a file's bytes: .npy if it begins like one, else CSV. */
export function readTable(bytes: Uint8Array): Table {
  const table = MAGIC.every((byte, at) => bytes[at] === byte) ? readNpy(bytes) : readCsv(new TextDecoder().decode(bytes));
  const odd = table.values.findIndex((value) => !Number.isFinite(value));
  if (odd < 0) return table;
  const [row, column] = [Math.floor(odd / table.columns), odd % table.columns];
  throw new Error(`every number must be finite, got ${table.values[odd]} in row ${row}, column ${column}`);
}

/** Reads numpy's format, versions 1 to 3, in C or Fortran order. */
function readNpy(bytes: Uint8Array): Table {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const version = bytes[6];
  const begin = version === 1 ? 10 : 12;
  if (bytes.length < begin) throw new Error("a .npy file must not end within its head");
  if (!(version >= 1 && version <= 3)) throw new Error(`a .npy file must have version 1, 2 or 3, got ${version}`);
  const from = begin + (version === 1 ? view.getUint16(8, true) : view.getUint32(8, true));
  const head = new TextDecoder().decode(bytes.subarray(begin, from));
  const kind = /'descr':\s*'([^']*)'/.exec(head)?.[1] ?? "a structure";
  const order = /'fortran_order':\s*(True|False)/.exec(head)?.[1];
  const shape = /'shape':\s*\(([\d\s,]*)\)/.exec(head)?.[1].split(",").filter((part) => part.trim()).map(Number);
  if (!order || !shape) throw new Error("a .npy file must say its order and shape in its head");
  if (!Object.hasOwn(KINDS, kind)) throw new Error(`a .npy file must hold one of ${Object.keys(KINDS).join(", ")}, got ${kind}`);
  const [rows, columns] = shape;
  if (shape.length !== 2 || rows * columns === 0) {
    throw new Error(`a .npy file must have shape (prompts, responses), got (${shape.join(", ")})`);
  }
  const [size, read] = KINDS[kind];
  const wanted = from + rows * columns * size;
  if (bytes.length !== wanted) throw new Error(`a .npy file of this shape must have ${wanted} bytes, got ${bytes.length}`);
  const place = (at: number) => (order === "True" ? (at % columns) * rows + Math.floor(at / columns) : at);
  return { rows, columns, values: Float64Array.from({ length: rows * columns }, (_, at) => read(view, from + place(at) * size)) };
}

/** Reads lines of numbers between commas, semicolons or spaces; lines that begin with # are passed over. */
function readCsv(text: string): Table {
  const lines = [...text.split(/\r?\n|\r/).entries()].filter(([, line]) => line.trim() && !line.trimStart().startsWith("#"));
  if (!lines.length) throw new Error("the file must hold a table of numbers, but it is empty");
  const parts = (line: string) => line.trim().split(line.includes(",") ? "," : line.includes(";") ? ";" : /\s+/);
  const columns = parts(lines[0][1]).length;
  const values = new Float64Array(lines.length * columns);
  lines.forEach(([number, line], row) => {
    const cells = parts(line);
    if (cells.length !== columns) {
      throw new Error(`every line must have ${columns} numbers as the first has, got ${cells.length} in line ${number + 1}`);
    }
    cells.forEach((cell, column) => {
      const word = cell.trim().toLowerCase();
      const value = WORDS.get(word) ?? (word ? Number(word) : NaN);
      const got = `"${cell.trim().slice(0, 40)}" in line ${number + 1}`;
      if (Number.isNaN(value)) throw new Error(`every cell must be a number, got ${got}`);
      values[row * columns + column] = value;
    });
  });
  return { rows: lines.length, columns, values };
}
