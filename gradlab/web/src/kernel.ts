/** The engine's kernels in a page: load a module that `gradlab.lab.engine.webassembly` made, and call it. */

export type Kind = "integer" | "integers" | "places" | "scalars" | "rows";
export type Reals = Float64Array | Float32Array;

/** The record that `WebKernel.record()` sends; its fields are described there. The module is in base64. */
export interface KernelRecord {
  module: string;
  function: string;
  arguments: [string, Kind][];
  dtype: "float64" | "float32";
  lanes: number;
  constants: number[];
  antisymmetric: boolean;
  shared: boolean;
  optimizer: string;
  memories: number;
  laws: Law[] | null;
  hyper: Record<string, number>;
}

/**
 * A constant as factor · (h + shift)^power + offset of the hyper-parameter of this name; null: always the offset. Power 0
 * stands for ln |h + shift|.
 */
export type Law = [name: string | null, factor: number, shift: number, power: number, offset: number];

/** Arrays in a kernel's memory, by the names of its arguments. They are valid until the next `allocate`. */
export interface Arrays {
  reals: Record<string, Reals>;
  integers: Record<string, BigInt64Array>;
}

const place = (base: number, power: number) => (power === 0 ? Math.log(Math.abs(base)) : base ** power);

const PAGE = 2 ** 16; // bytes by which a memory grows
const ALIGNMENT = 128; // bytes: where a row begins at most

/** A loaded kernel with a memory of its own, which grows to the largest problem that it was given. */
export class Kernel {
  private constructor(
    readonly record: KernelRecord,
    private readonly memory: WebAssembly.Memory,
    private readonly run: (...given: (bigint | number)[]) => void,
  ) {}

  /** Compiles a kernel's module. Throws an Error of one sentence where this browser or the module is not fit. */
  static async load(record: KernelRecord): Promise<Kernel> {
    if (typeof WebAssembly === "undefined") throw new Error("this browser has no WebAssembly, so nothing can train here");
    const bytes = Uint8Array.from(atob(record.module), (letter) => letter.charCodeAt(0));
    if (!WebAssembly.validate(bytes)) {
      throw new Error("this browser cannot run the kernel: it needs WebAssembly with SIMD, and an undamaged module");
    }
    const memory = new WebAssembly.Memory({ initial: 1 });
    const { instance } = await WebAssembly.instantiate(bytes, { env: { __linear_memory: memory } });
    const run = instance.exports[record.function];
    if (typeof run !== "function") throw new Error(`the kernel has no function "${record.function}"`);
    return new Kernel(record, memory, run as (...given: (bigint | number)[]) => void);
  }

  /** Returns this module, with this memory, under another record of it. */
  as(record: KernelRecord): Kernel {
    return new Kernel(record, this.memory, this.run);
  }

  /** Returns this kernel, with this memory, at other hyper-parameters of its loss; those not named keep their values. */
  at(changes: Record<string, number>): Kernel {
    const { laws, hyper } = this.record;
    if (!laws) throw new Error("the kernel serves no other hyper-parameters than its own");
    for (const [name, value] of Object.entries(changes)) {
      if (!Object.hasOwn(hyper, name)) throw new Error(`the kernel has no hyper-parameter "${name}" that a page moves`);
      if (!Number.isFinite(value)) throw new Error(`${name} must be a finite number, got ${value}`);
    }
    const values = { ...hyper, ...changes };
    const constants = laws.map(([name, factor, shift, power, offset]) =>
      name === null ? offset : factor * place(values[name] + shift, power) + offset,
    );
    return this.as({ ...this.record, constants, hyper: values });
  }

  /** An array of the kernel's kind of real numbers, outside its memory. */
  reals(length: number): Reals {
    return this.record.dtype === "float64" ? new Float64Array(length) : new Float32Array(length);
  }

  /**
   * Makes room for arrays of these lengths, in numbers. Their contents are whatever was there before.
   * Arguments that are not named count as absent; only what the kernel does not use may be.
   */
  allocate(lengths: Record<string, number>): Arrays {
    const size = this.record.dtype === "float64" ? 8 : 4;
    const kinds = new Map(this.record.arguments);
    const places: [string, Kind, number, number][] = [];
    let end = ALIGNMENT; // not 0, so that no array is at a null pointer
    for (const [name, length] of Object.entries(lengths)) {
      const kind = kinds.get(name);
      if (kind === undefined || kind === "integer" || kind === "places") throw new Error(`the kernel takes no array "${name}"`);
      places.push([name, kind, end, length]);
      end = Math.ceil((end + length * (kind === "integers" ? 8 : size)) / ALIGNMENT) * ALIGNMENT;
    }
    const missing = end - this.memory.buffer.byteLength;
    if (missing > 0) this.memory.grow(Math.ceil(missing / PAGE)); // before any view: growing detaches them
    const arrays: Arrays = { reals: {}, integers: {} };
    const Real = this.record.dtype === "float64" ? Float64Array : Float32Array;
    for (const [name, kind, place, length] of places) {
      if (kind === "integers") arrays.integers[name] = new BigInt64Array(this.memory.buffer, place, length);
      else arrays.reals[name] = new Real(this.memory.buffer, place, length);
    }
    return arrays;
  }

  /** Runs the kernel on whole numbers by name, and on arrays of `allocate` or parts of them. */
  call(whole: Record<string, number>, arrays: Arrays): void {
    const given = this.record.arguments.map(([name, kind]) => {
      if (kind === "integer") return BigInt(whole[name] ?? 0);
      return (arrays.integers[name] ?? arrays.reals[name])?.byteOffset ?? 0;
    });
    this.run(...given);
  }
}
