/** Paint on a world, as the text that a state keeps: short enough for a link. Pure, without a page. */

import { tooLarge } from "./own_world";
import { logSoftmax, type World } from "./world";

/** The most strokes that count in a cell in which the reference is made more likely, or less. */
const MOST_STEPS = 4;

/**
 * What a cell's paint does: seen and hidden change places; the utility is the highest or lowest of the world; log π_ref
 * moves by so many nats, before its prompt is normalised again.
 */
export interface Mark {
  flip: boolean;
  utility: "" | "best" | "worst";
  steps: number;
}

/** A painted world's size, and a mark per cell, row by row. */
export interface Paint {
  prompts: number;
  responses: number;
  marks: Mark[];
}

const CLEAN: Mark = { flip: false, utility: "", steps: 0 };
const UTILITIES = ["", "best", "worst"] as const;
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-"; // one per mark, the first of none
export const PAINTED = /^(\d{1,4}x\d{1,4}:(\d{0,6}[A-Za-z_-])+)?$/;

/** Brushes by name: what a stroke makes of a cell's mark. */
export const BRUSHES: Record<string, (mark: Mark) => Mark> = {
  "hide or show": (mark) => ({ ...mark, flip: !mark.flip }),
  "best (highest u)": (mark) => ({ ...mark, utility: "best" }),
  "worst (lowest u)": (mark) => ({ ...mark, utility: "worst" }),
  "reference: more likely": (mark) => ({ ...mark, steps: Math.min(mark.steps + 1, MOST_STEPS) }),
  "reference: less likely": (mark) => ({ ...mark, steps: Math.max(mark.steps - 1, -MOST_STEPS) }),
  erase: () => CLEAN,
};

/** A world's size without paint. */
export function unpainted({ prompts, responses }: Pick<World, "prompts" | "responses">): Paint {
  return { prompts, responses, marks: Array<Mark>(prompts * responses).fill(CLEAN) };
}

/** Paint as text, such as "3x4:5AB6A": the size, then marks as letters, each after the length of its run; none: "". */
export function textOfPaint({ prompts, responses, marks }: Paint): string {
  const letters = marks.map(({ flip, utility, steps }) => {
    const moved = steps > 0 ? 2 * steps - 1 : -2 * steps;
    return LETTERS[Number(flip) + 2 * UTILITIES.indexOf(utility) + 6 * moved];
  });
  if (letters.every((letter) => letter === LETTERS[0])) return "";
  const runs = letters.join("").replace(/(.)\1*/g, (run, letter: string) => (run.length > 1 ? `${run.length}${letter}` : letter));
  return `${prompts}x${responses}:${runs}`;
}

/** The paint of a text. Throws an Error of one sentence where it has not one mark for each cell. */
export function paintOfText(text: string): Paint {
  const [, prompts, responses] = (/^(\d+)x(\d+):/.exec(text) ?? []).map(Number);
  const found = text.slice(text.indexOf(":") + 1).matchAll(/(\d*)([A-Za-z_-])/g);
  const runs = [...found].map(([, length, letter]) => [length ? Number(length) : 1, letter] as const);
  const size = runs.reduce((sum, [length]) => sum + length, 0);
  const reason = tooLarge(prompts, responses);
  if (reason) throw new Error(reason);
  if (size !== prompts * responses) {
    const wanted = `${prompts * responses} marks for ${prompts} prompts and ${responses} responses`;
    throw new Error(`painted must have ${wanted}, got ${size}`);
  }
  const marks = runs.flatMap(([length, letter]) => Array<Mark>(length).fill(markOf(LETTERS.indexOf(letter))));
  return { prompts, responses, marks };
}

/** Says why a text is no paint; null if it is. */
export function paintRefusal(text: string): string | null {
  try {
    if (text) paintOfText(text);
    return null;
  } catch (error) {
    return (error as Error).message;
  }
}

/** Says why a text's paint is not put on a world; null if it is. */
export function misfit(text: string, { prompts, responses }: World): string | null {
  if (!text || text.startsWith(`${prompts}x${responses}:`)) return null;
  const [made] = text.split(":");
  const size = made.replace("x", " prompts × ");
  return `The paint is of another world, ${size} responses, and is not put on this one of ${prompts} × ${responses}`;
}

/** A world with paint on it, which must be of its size. */
export function painted(world: World, text: string): World {
  if (!text) return world;
  const { marks } = paintOfText(text);
  const [best, worst] = highestAndLowest(world.utility);
  const utility = world.utility.map((value, at) => ({ "": value, best, worst })[marks[at].utility]);
  const observed = world.observed.map((seen, at) => seen ^ Number(marks[at].flip));
  const moved = marks.some(({ steps }) => steps !== 0);
  const logits = world.refLogp.map((value, at) => value + marks[at].steps);
  return { ...world, utility, observed, refLogp: moved ? logSoftmax(logits, world.responses) : world.refLogp };
}

function highestAndLowest(values: Float64Array): [number, number] {
  return values.reduce(([most, least], value) => [Math.max(most, value), Math.min(least, value)], [-Infinity, Infinity]);
}

function markOf(code: number): Mark {
  const moved = Math.floor(code / 6);
  return { flip: code % 2 === 1, utility: UTILITIES[Math.floor(code / 2) % 3], steps: moved % 2 ? (moved + 1) / 2 : -moved / 2 };
}
