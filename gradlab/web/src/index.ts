/**
 * The names that the built file offers to explorers, to the page and to tests.
 *
 * random → world: worlds and data of a seed. kernel → training → job → pool: kernels of the engine, in the page or in
 * workers. pairs, metrics: what there is to see. palette, reading → plot → curves, heatmap: pictures. state, slider:
 * what a hand moves. lab: two explorers on all of that. Files that make no elements also run in Node.
 */

export * from "./bars";
export { arrayOf } from "./chart_messages";
export * from "./charts";
export * from "./curves";
export * as effects from "./effects";
export * from "./field";
export * as foundations from "./foundations";
export * from "./spec";
export { heldBy } from "./grips";
export * from "./handles";
export * from "./heatmap";
export { type Job, Trainer } from "./job";
export * from "./kernel";
export * from "./lab";
export * from "./marks";
export * from "./metrics";
export { FACTORS } from "./optimizers";
export * from "./own_world";
export * as paint from "./paint";
export * from "./pairs";
export * as palette from "./palette";
export { Stream } from "./random";
export * from "./pool";
export * as reading from "./reading";
export * as python from "./python";
export * from "./runs";
export * from "./slider";
export * from "./state";
export { readTable } from "./tables";
export * from "./training";
export * from "./world";
export * from "./shell";
export { render } from "./jupyter";

import { render } from "./jupyter";

export default { render };
