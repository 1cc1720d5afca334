/** Worlds and trainings of the grid explorer's settings, as `gradlab.fit` does them. */

import type { Job } from "./job";
import { type Metrics, metricsOf } from "./metrics";
import type { KernelRecord, Reals } from "./kernel";
import { tooLarge, worldOfText } from "./own_world";
import { misfit, painted } from "./paint";
import type { Pool } from "./pool";
import type { Slot } from "./spec";
import type { Value } from "./state";
import { comparable, drawPairs, exactPairs, gaussianWorld, radialBasis, type World, type WorldSettings } from "./world";

export type Settings = Record<string, Value>;

export const RECORD = 24; // log-spaced steps that the scrubber walks through

/** The steps that are recorded: 0, about `record` log-spaced steps from 1 on, and the last, as Python's `fit` does. */
export function recordedSteps(steps: number, record = RECORD): number[] {
  const spaced = Array.from({ length: record }, (_, at) => Math.round(10 ** ((Math.log10(steps) * at) / (record - 1))));
  return [...new Set([0, ...spaced, steps])].sort((one, other) => one - other);
}

/** Which recorded step is shown at a share of the way, in %. */
export function shownStep(when: number, steps: readonly number[]): number {
  return Math.round((when / 100) * (steps.length - 1));
}

/** The world of a seed, with what was painted on it. */
export function worldOf(settings: Settings, seed: number): World {
  const world = baseOf(settings, seed);
  return misfit(settings.painted as string, world) ? world : painted(world, settings.painted as string);
}

/** The world of a seed without paint: one's own, or a drawn one. Throws an Error of one sentence. */
export function baseOf(settings: Settings, seed: number): World {
  if (settings.world) return worldOfText(settings.world as string);
  const names = ["prompts", "responses", "utility", "sigma", "scale", "reference", "shift"] as const;
  const same = Object.fromEntries(names.map((name) => [name, settings[name]])) as Partial<WorldSettings>;
  const reason = tooLarge(same.prompts!, same.responses!);
  if (reason) throw new Error(reason);
  const maskKind = settings.mask_kind as WorldSettings["maskKind"];
  return gaussianWorld({ ...same, maskRate: settings.mask_rate as number, maskKind, seed });
}

/** Says why a painted world cannot be trained on; null if it can. */
function unfit(world: World): string | null {
  const area = world.responses ** 2;
  const live = comparable(world);
  for (let prompt = 0; prompt < world.prompts; prompt++) {
    const paired = live.subarray(prompt * area, (prompt + 1) * area).includes(1);
    if (!paired) return `prompt ${prompt} must keep two responses in the data, so that there is a pair`;
  }
  return null;
}

/** A trained policy at its recorded steps, with the curves of its metrics. */
export interface Trained {
  logp: Reals;
  utility: number[];
  kl: number[];
  unobserved: number[];
  share: number[];
}

/** The world, data and steps that a seed's trainings share. */
export class Ground {
  readonly world: World;
  /** A sentence on paint that is not put on this world, or nothing. */
  readonly note: string;
  private readonly columns: Job["columns"];

  /** `wanted` are the steps whose policies are kept. */
  constructor(
    private readonly settings: Settings,
    seed: number,
    readonly wanted = recordedSteps(settings.steps as number),
  ) {
    this.world = worldOf(settings, seed);
    this.note = misfit(settings.painted as string, this.world) ?? "";
    const reason = unfit(this.world);
    if (reason) throw new Error(reason);
    const pairs = settings.pairs === "exact" ? exactPairs(this.world) : drawPairs(this.world, Number(settings.pairs), { seed });
    const { prompts: count, responses, refLogp, lengths } = this.world;
    this.columns = { count, responses, weights: pairs, reference: refLogp, start: refLogp, lengths };
    if (settings.policy === "shared") this.columns.features = radialBasis(responses);
  }

  async train({ loss, hyper }: Slot, kernel: KernelRecord, pool: Pool, signal?: AbortSignal): Promise<Trained> {
    const { settings, world, wanted, columns } = this;
    const moved = kernel.laws && Object.keys(hyper).length ? hyper : undefined;
    const job = { kernel, hyper: moved, columns, learningRate: settings.learning_rate as number, wanted };
    const logp = await pool.train(job, signal);
    const size = world.utility.length;
    const at = wanted.map((_, step) => logp.subarray(step * size, (step + 1) * size));
    if (!at[at.length - 1].every(Number.isFinite)) {
      throw new Error(`${loss.label} must have a smaller learning rate: its policy is no longer finite`);
    }
    const metrics = metricsOf(at, world);
    const along = (name: keyof Metrics) => metrics.map((one) => one[name]);
    return { logp, utility: along("utility"), kl: along("kl"), unobserved: along("unobserved"), share: along("share") };
  }
}

/** The settings on which a training depends, as a key. */
export function trainingKey(all: Settings, seed: number): string {
  const { when: _, prompt: __, guess: ___, seed: ____, seeds: _____, ...settings } = all;
  const short = Object.fromEntries(Object.entries(settings).map(([name, value]) => [name, numbered(value)]));
  return JSON.stringify([short, seed]);
}

const texts = new Map<string, string>();

/** A long text as its number among those that were met, so that keys stay short. */
function numbered(value: Value): Value {
  if (typeof value !== "string" || value.length < 100) return value;
  if (!texts.has(value)) texts.set(value, `text ${texts.size}`);
  return texts.get(value)!;
}
