/** What a shell needs of an explorer, and what an explorer gets: its places on the page, its state, its kernels. */

import type { Plot } from "./plot";
import type { Shelf } from "./shelf";
import type { LossFacts, Spec } from "./spec";
import type { Fields, History, State } from "./state";

/** The words in a picture that answers the question of the guess. */
export const CLOSED = "opens with your guess";

/** An explorer's part of a page: charts and tables that follow a state. */
export interface ExplorerView {
  /** The pictures, for files. */
  readonly plots: Plot[];
  /** True while what is shown is not yet that of the last state. */
  readonly busy?: boolean;
  update(state: State): void;
  /** Names of the controls without effect in a state. */
  hidden?(state: State): string[];
  /** The answers to choose from; the spec's if this is missing. */
  answers?(state: State): [value: string, label: string][];
  /** The answer that is true, and one sentence; null while nothing is known. */
  outcome(state: State): [truth: string, sentence: string] | null;
  /** The same computation as Python, where the page computes. */
  code?(): string;
  /** Keeps what is shown to compare with, or lets it go. */
  pin?(on: boolean): void;
  /** True while something is kept: a view may let it go by itself. */
  readonly hasPin?: boolean;
  close?(): void;
}

/** What an explorer is built on. `controls` and `stage` are its places; `changed` says that there is news to tell. */
export interface Context {
  spec: Spec;
  losses: readonly LossFacts[];
  history: History;
  shelf: Shelf;
  controls: HTMLElement;
  stage: HTMLElement;
  changed: () => void;
}

/** An explorer's class, with the names of the controls that it places itself. */
export interface ExplorerKind {
  new (context: Context): ExplorerView;
  readonly places?: readonly string[];
  /** What some settings take, where it is more than their facts say, by name. */
  readonly fields?: Fields;
}
