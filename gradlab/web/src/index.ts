/** What the built file offers to explorers, to the page and to tests. */

export * from "./curves";
export * from "./heatmap";
export { type Job, Trainer } from "./job";
export * from "./kernel";
export * as metrics from "./metrics";
export { FACTORS } from "./optimizers";
export * from "./pairs";
export * as palette from "./palette";
export { Stream } from "./random";
export * from "./pool";
export * as reading from "./reading";
export * from "./slider";
export * from "./state";
export * from "./training";
export * from "./world";
