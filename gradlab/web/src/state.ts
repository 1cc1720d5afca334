/** An explorer's state: what may be set, undo and redo, and a link that brings it back. Pure, without a page. */

import { spelt } from "./reading";

/**
 * A field of a state takes a number between ends, one of several names, true and false, or a text of a form, of which
 * `refuse` may say in one sentence what is not right.
 */
export type Field =
  | { kind: "number"; low: number; high: number; whole?: boolean }
  | { kind: "choice"; options: readonly Value[] }
  | { kind: "flag" }
  | { kind: "text"; pattern: RegExp; form: string; refuse?: (text: string) => string | null };

/** The longest text that a link carries, in characters; in place of another it has the word `LEFT_OUT`. */
const LONGEST = 4000;
const LEFT_OUT = "left-out";

export type Value = number | string | boolean;
export type State = Readonly<Record<string, Value>>;
export type Fields = Readonly<Record<string, Field>>;

/** Says in one sentence why a field does not take a value, which may have been typed as `text`; null if it does. */
export function refusal(name: string, value: unknown, field: Field | undefined, text = value): string | null {
  if (!field) return `there is no setting "${name.slice(0, 60)}" here`;
  const got = typeof text === "string" ? `"${text.slice(0, 60)}${text.length > 60 ? "…" : ""}"` : String(text);
  if (field.kind === "flag") return typeof value === "boolean" ? null : `${name} must be true or false, got ${got}`;
  if (field.kind === "text") {
    if (value === LEFT_OUT) return `${name} was too long for a link, which goes without it: load it from a file`;
    if (typeof value !== "string" || !field.pattern.test(value)) return `${name} must be ${field.form}, got ${got}`;
    const reason = field.refuse?.(value) ?? null;
    return reason && `${name} is refused: ${reason}`;
  }
  if (field.kind === "choice") {
    const known = field.options.some((option) => Object.is(option, value));
    return known ? null : `${name} must be one of ${field.options.join(", ")}, got ${got}`;
  }
  const within = typeof value === "number" && Number.isFinite(value) && value >= field.low && value <= field.high;
  const fits = within && (!field.whole || Number.isInteger(value));
  if (fits) return null;
  const kind = field.whole ? "whole number" : "number";
  return `${name} must be a ${kind} from ${spelt(field.low)} to ${spelt(field.high)}, got ${got}`;
}

/** The field of a name, if there is one. */
function fieldIn(fields: Fields, name: string): Field | undefined {
  return Object.hasOwn(fields, name) ? fields[name] : undefined;
}

/** A state with its past and its future. */
export class History {
  private past: State[] = [];
  private future: State[] = [];
  private gesture: string | null = null;
  private readonly listeners = new Set<(state: State) => void>();

  constructor(
    private current: State,
    readonly spec: Fields,
  ) {
    for (const [name, value] of Object.entries(current)) {
      const reason = refusal(name, value, spec[name]);
      if (reason) throw new Error(reason);
    }
  }

  get state(): State {
    return this.current;
  }

  get canUndo(): boolean {
    return this.past.length > 0;
  }

  get canRedo(): boolean {
    return this.future.length > 0;
  }

  /**
   * Changes some fields. All moves of one gesture, such as a drag, are undone together: they pass the same name until
   * `rest` ends it. Throws an Error of one sentence for a value that a field does not take; nothing is changed then.
   */
  set(changes: Partial<Record<string, Value>>, gesture: string | null = null): void {
    const next = this.changed(changes);
    if (!next) return;
    if (gesture === null || gesture !== this.gesture) this.past.push(this.current);
    this.gesture = gesture;
    this.future = [];
    this.move(next);
  }

  /** Changes some fields as a part of the last step, which they follow from; a step that leads back is none. Errors as in `set`. */
  amend(changes: Partial<Record<string, Value>>): void {
    const next = this.changed(changes);
    if (!next) return;
    if (this.isBefore(next)) {
      this.past.pop();
      this.gesture = null;
    }
    this.move(next);
  }

  /** True for the state before the last step. */
  isBefore(state: State): boolean {
    const before = this.past.at(-1);
    return before !== undefined && same(before, state);
  }

  /** The state with changes, or null where nothing changes. */
  private changed(changes: Partial<Record<string, Value>>): State | null {
    for (const [name, value] of Object.entries(changes)) {
      const reason = refusal(name, value, fieldIn(this.spec, name));
      if (reason) throw new Error(reason);
    }
    const next = { ...this.current, ...changes } as State;
    return same(next, this.current) ? null : next;
  }

  /** Ends a gesture. One that has come back to where it began leaves no step to undo. */
  rest(): void {
    if (this.gesture !== null && this.isBefore(this.current)) this.past.pop();
    this.gesture = null;
  }

  undo(): void {
    this.step(this.past, this.future);
  }

  redo(): void {
    this.step(this.future, this.past);
  }

  /** Calls a listener with each new state; returns how to stop it. */
  watch(listener: (state: State) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Moves to the last state of one list; the present one joins the other. Without one, nothing is done. */
  private step(from: State[], to: State[]): void {
    const state = from.pop();
    if (!state) return;
    this.gesture = null;
    to.push(this.current);
    this.move(state);
  }

  private move(state: State): void {
    this.current = state;
    for (const listener of this.listeners) listener(state);
  }
}

/** The settings that a link does not carry, since their texts are too long. */
function leftOut(state: State): string[] {
  return Object.keys(state).filter((name) => String(state[name]).length > LONGEST);
}

/** What is said when a link has been copied. */
export function copiedWords(state: State): string {
  const names = leftOut(state);
  if (!names.length) return "The link is copied.";
  return `The link is copied, without ${names.join(" and ")}, too long for a link: save a file, which has all.`;
}

/** A state as the fragment of a link, without "#": what differs from the defaults, in the order of the spec. */
export function toFragment(state: State, defaults: State, spec: Fields): string {
  const parts = new URLSearchParams();
  const omitted = leftOut(state);
  for (const name of Object.keys(spec)) {
    if (!(name in state) || Object.is(state[name], defaults[name])) continue;
    parts.append(name, omitted.includes(name) ? LEFT_OUT : String(state[name]));
  }
  return parts.toString();
}

/** The state of a fragment, and a sentence for each part of it that was refused; those keep their defaults. */
export function fromFragment(fragment: string, defaults: State, spec: Fields): { state: State; refused: string[] } {
  const changes: Record<string, Value> = {};
  const refused: string[] = [];
  for (const [name, text] of new URLSearchParams(fragment.replace(/^#/, ""))) {
    const field = fieldIn(spec, name);
    let value: Value = text;
    if (field?.kind === "number" && text.trim() !== "" && !Number.isNaN(Number(text))) value = Number(text);
    if (field?.kind === "choice") value = field.options.find((option) => String(option) === text) ?? text;
    if (field?.kind === "flag" && (text === "true" || text === "false")) value = text === "true";
    const reason = refusal(name, value, field);
    if (reason) refused.push(reason);
    else changes[name] = value;
  }
  return { state: { ...defaults, ...changes }, refused };
}

function same(one: State, other: State): boolean {
  return Object.keys(one).every((name) => Object.is(one[name], other[name]));
}
