/** What the built file offers to explorers, to the page and to tests. */

export * from "./kernel";
export * as metrics from "./metrics";
export { FACTORS } from "./optimizers";
export * from "./pairs";
export { Stream } from "./random";
export * from "./training";
export * from "./world";
