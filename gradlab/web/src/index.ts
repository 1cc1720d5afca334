/**
 * The names that the built file offers: to hosts `render` (a widget), `mountLab` and `mountExplorer` (a page), and what
 * tests call.
 *
 * - Hosts: jupyter has a kernel of Python behind it, lab has all data in the page. Both show a shell, which has what
 *   explorers share: question, guess, controls (slider, dom), stories, tools. spec is what Python says of an explorer,
 *   state its history and links, explorer what shell and explorer ask of each other.
 * - Explorers: chart_view shows the charts that Python sends. The page itself computes pair_lab (pairs, effects),
 *   grid_lab (player, world_tools), frontier_lab (frontier), atlas_lab (atlas) and the formulas of foundations and shift
 *   (families, weights, extrema, numeric). python fills Python's templates of code.
 * - Charts: charts draws what chart_messages describes and chart_records makes, with curves, heatmap, field and bars.
 *   These are plots (plot, draw, marks, palette, reading) with handles, which grips tie to controls.
 * - Training: random and ziggurat draw the worlds and pairs of world; tables and own_world read worlds, paint changes
 *   them, runs trains on them: kernels from shelf, in the workers of pool (kernel, optimizers, training, job, worker),
 *   judged by metrics.
 *
 * Files that make no elements also run in Node.
 */

import { render } from "./jupyter";

export default { render };
export { mountExplorer, mountLab } from "./lab";

// For tests.
export * as atlas from "./atlas";
export { arrayOf } from "./chart_messages";
export { ChartBoard } from "./charts";
export { CurvePlot } from "./curves";
export * as effects from "./effects";
export * as frontier from "./frontier";
export { Trainings } from "./frontier_lab";
export { heldBy } from "./grips";
export { HeatMap } from "./heatmap";
export { Trainer } from "./job";
export { Kernel } from "./kernel";
export { FORMULAS, KINDS } from "./lab";
export { markPath } from "./marks";
export { metricsOf } from "./metrics";
export { FACTORS } from "./optimizers";
export { textOfWorld, worldOfFile, worldOfText } from "./own_world";
export * as paint from "./paint";
export { logProbRatio, slopes } from "./pairs";
export * as palette from "./palette";
export { Pool } from "./pool";
export * as python from "./python";
export { Stream } from "./random";
export * as reading from "./reading";
export { Ground, recordedSteps, worldOf } from "./runs";
export { placeOf, Slider, typed, valueAt, written } from "./slider";
export { slotsOf } from "./spec";
export { copiedWords, fromFragment, History, toFragment } from "./state";
export { readTable } from "./tables";
export { train } from "./training";
export {
  checkWorld, drawPairs, exactPairs, gaussianWorld, MASK_KINDS, radialBasis, REFERENCES, UTILITIES,
} from "./world";
