// Trains on cases from standard input with the built file, and prints log π of each: tests/test_web_parity.py compares them.
import { readFileSync } from "node:fs";
import { Kernel, train } from "../gradlab.js";

const cases = JSON.parse(readFileSync(0, "utf8"));
const results = [];
for (const { kernel: record, hyper, columns, learningRate, wanted } of cases) {
  const tables = Object.fromEntries(
    Object.entries(columns).map(([name, value]) => [name, Array.isArray(value) ? Float64Array.from(value) : value]),
  );
  const loaded = await Kernel.load(record);
  const kernel = hyper ? loaded.at(hyper) : loaded;
  results.push([...train(kernel, tables, learningRate, wanted)]);
}
console.log(JSON.stringify(results));
