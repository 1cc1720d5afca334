/** The frontier in a page: one policy trained per β and loss, beside the page, and drawn as trainings end. */

import { Sheet } from "./chart_view";
import { make, write } from "./dom";
import type { Context, ExplorerView } from "./explorer";
import { BETAS, betaOf, charts, endsOf, type Frontiers, idealOf, markOf, outcome, type Point, readings } from "./frontier";
import type { Plot } from "./plot";
import { Pool } from "./pool";
import { filled, frontierParts } from "./python";
import { Ground, type Settings, trainingKey } from "./runs";
import type { Shelf } from "./shelf";
import { type Slot, slotsOf } from "./spec";
import type { State } from "./state";

const COARSE = [0, 10, 5, 2, 8, 1, 4, 6, 9, 3, 7]; // the order in which places of `BETAS` are trained
const FIXED = { prompts: 20, responses: 20, optimizer: "adam", learning_rate: 0.05, world: "", painted: "" };
const VARIED = ["utility", "sigma", "scale", "mask_rate", "mask_kind", "reference", "shift", "pairs", "policy", "steps"];
const KEPT = 2000; // ends of training

const atBeta = (slot: Slot, beta: number): Slot => ("beta" in slot.hyper ? { ...slot, hyper: { ...slot.hyper, beta } } : slot);

/** A world with its data and recipe: what the trainings of a frontier share. */
class Scene {
  readonly ground: Ground;
  private known: Pick<Frontiers, "ideal" | "ends"> | null = null;

  constructor(readonly key: string, settings: Settings, seed: number) {
    this.ground = new Ground(settings, seed, [settings.steps as number]);
  }

  /** What the world is compared with; computed when it is first drawn. */
  get bounds(): Pick<Frontiers, "ideal" | "ends"> {
    const { world } = this.ground;
    return (this.known ??= { ideal: idealOf(world), ends: endsOf(world) });
  }
}

/** Trainings at all β, remembered by world, recipe, loss and β. */
export class Trainings {
  private readonly known = new Map<string, Point>();
  private scene: Scene | null = null;

  constructor(private readonly shelf: Pick<Shelf, "record">, private readonly pool: Pool) {}

  /** What is known of a state's frontiers; null while a loss's own β is not trained. Errors as in `Ground`. */
  seen(state: State, slots: Slot[]): Frontiers | null {
    const lines = slots.map((slot) =>
      [...new Set([...this.betas(slot), betaOf(slot)])].sort((one, other) => one - other)
        .flatMap((beta) => this.known.get(this.keyOf(state, atBeta(slot, beta))) ?? []));
    const shown: Frontiers = { value: state.value === "utility" ? "utility" : "unobserved", slots, lines, ...this.sceneOf(state).bounds };
    return slots.every((_, at) => markOf(shown, at)) ? shown : null;
  }

  /** Trains each loss at its own β. */
  async marks(state: State, slots: Slot[]): Promise<void> {
    await Promise.all(slots.map((slot) => this.train(state, slot, betaOf(slot))));
  }

  /** Trains what the lines still lack, all losses at few β first; `grown` is called whenever there is more to see. */
  async rest(state: State, slots: Slot[], grown: () => void, signal?: AbortSignal): Promise<void> {
    const due = COARSE.flatMap((at) => slots.map((slot) => [slot, this.betas(slot)[at]] as const));
    await Promise.all(due.map(async ([slot, beta]) => beta && (await this.train(state, slot, beta, signal)) && grown()));
  }

  private betas(slot: Slot): number[] {
    return "beta" in slot.hyper ? BETAS : [];
  }

  /** Trains unless that is known; returns whether it was done. */
  private async train(state: State, slot: Slot, beta: number, signal?: AbortSignal): Promise<boolean> {
    const at = atBeta(slot, beta);
    const key = this.keyOf(state, at);
    const known = this.known.get(key);
    if (known) {
      this.known.delete(key); // and is the newest again
      this.known.set(key, known);
      return false;
    }
    const { ground } = this.sceneOf(state);
    const kernel = await this.shelf.record(at, `${state.policy} adam`);
    const { kl, utility, unobserved } = await ground.train(at, kernel, this.pool, signal);
    if (this.known.size >= KEPT) this.known.delete(this.known.keys().next().value!);
    this.known.set(key, { beta, kl: kl[0], utility: utility[0], unobserved: unobserved[0] });
    return true;
  }

  private keyOf(state: State, { loss, hyper }: Slot): string {
    return JSON.stringify([this.sceneOf(state).key, loss.name, hyper]);
  }

  private sceneOf(state: State): Scene {
    const settings = { ...FIXED, ...Object.fromEntries(VARIED.map((name) => [name, state[name]])) };
    const key = trainingKey(settings, state.seed as number);
    if (this.scene?.key !== key) this.scene = new Scene(key, settings, state.seed as number);
    return this.scene;
  }
}

export class FrontierLab implements ExplorerView {
  private readonly pool = new Pool(Math.min(4, globalThis.navigator?.hardwareConcurrency ?? 2));
  private readonly trainings: Trainings;
  protected readonly sheet: Sheet;
  private readonly trouble = make("p", { className: "gl-trouble", role: "status" });
  protected shown: Frontiers | null = null;
  protected pinned: Frontiers | null = null;
  private filling: AbortController | null = null;
  private training = false;
  private again = false;
  private soon = 0; // the frame in which more is drawn

  constructor(protected readonly context: Context) {
    this.trainings = new Trainings(context.shelf, this.pool);
    context.stage.append(this.trouble);
    this.sheet = new Sheet(context);
  }

  get plots(): Plot[] {
    return this.sheet.plots;
  }

  get busy(): boolean {
    return this.training;
  }

  hidden({ reference }: State): string[] {
    return reference === "shifted" ? [] : ["shift"];
  }

  update(): void {
    this.filling?.abort();
    if (this.training) this.again = true;
    else void this.retrain();
  }

  outcome(): [truth: string, sentence: string] | null {
    return this.shown && outcome(this.shown);
  }

  code(): string {
    const { state } = this.context.history;
    return filled(this.context.spec.template, state, frontierParts(state, this.slots(state), BETAS));
  }

  pin(on: boolean): void {
    this.pinned = on ? this.shown : null;
    this.show();
  }

  close(): void {
    cancelAnimationFrame(this.soon);
    this.filling?.abort();
    this.pool.close();
  }

  protected slots(state: State): Slot[] {
    return slotsOf(state, this.context.losses);
  }

  /** Trains what the present state lacks, marks first, until nothing has changed meanwhile. */
  private async retrain(): Promise<void> {
    this.training = true;
    do {
      this.again = false;
      const { state } = this.context.history;
      const { signal } = (this.filling = new AbortController());
      try {
        const slots = this.slots(state);
        await this.trainings.marks(state, slots);
        this.draw(state, slots);
        write(this.trouble, "");
        if (this.again) continue;
        const grown = () => (this.soon ||= requestAnimationFrame(() => this.draw(state, slots)));
        await this.trainings.rest(state, slots, grown, signal);
        if (this.soon) this.draw(state, slots);
      } catch (error) {
        if ((error as Error).name !== "AbortError" && !this.again) write(this.trouble, `${(error as Error).message}.`);
      }
    } while (this.again);
    this.training = false;
    this.context.changed();
  }

  private draw(state: State, slots: Slot[]): void {
    cancelAnimationFrame(this.soon);
    this.soon = 0;
    this.shown = this.trainings.seen(state, slots) ?? this.shown;
    this.show();
    this.context.changed();
  }

  protected show(): void {
    if (this.shown) this.sheet.show(charts(this.shown, this.pinned), readings(this.shown));
  }
}
