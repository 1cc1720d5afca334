/** A rater's work without any element: tasks, the answers that stand, what is next. It also runs in Node. */

/** What Python's `blind_list` says: texts and questions, and no system. */
export interface RatingList {
  study: string;
  version: number;
  rater: string;
  title: string;
  content_warning: string;
  ties: boolean;
  goals: readonly { name: string; question: string }[];
  tasks: readonly RatingTask[];
}

export interface RatingTask {
  place: number;
  item: string;
  shown: string;
  prompt: string;
  left: string;
  right: string;
}

export type Choice = "left" | "right" | "tie" | "skip";

/** A line of an answers file; Python's `answer_line` has the same keys. */
export interface Line {
  study: string;
  version: number;
  rater: string;
  place: number;
  item: string;
  shown: string;
  goal: string;
  choice: Choice | "undo";
  reason: string;
  seconds: number | null;
  time: string;
}

/** Reasons to skip that are offered; another one is typed. */
export const REASONS = [
  "I do not understand the prompt or a text",
  "I do not know the subject well enough",
  "A text is cut off or cannot be read",
  "I do not want to read this",
] as const;

/** Seconds that pass while somebody looks: it stands still while the page is hidden. */
export class Stopwatch {
  private passed = 0;
  private since: number | null = null;

  /** `now` gives milliseconds. */
  constructor(private readonly now: () => number = () => performance.now()) {}

  /** Begins again at zero. */
  restart(): void {
    this.passed = 0;
    if (this.since !== null) this.since = this.now();
  }

  /** Runs while `on`, and stands still otherwise. */
  run(on: boolean): void {
    if (on === (this.since !== null)) return;
    if (on) this.since = this.now();
    else {
      this.passed += this.now() - this.since!;
      this.since = null;
    }
  }

  get seconds(): number {
    const running = this.since === null ? 0 : this.now() - this.since;
    return Math.round(this.passed + running) / 1000;
  }
}

/** A rater's tasks, and the answers that stand. */
export class RatingSession {
  private standing = new Map<string, Line>(); // in the order in which they were given
  private taken: Line[] = [];

  /** Throws an Error of one sentence for lines of another study or rater, and for two answers to one question. */
  constructor(readonly list: RatingList, lines: readonly Line[] = []) {
    this.take(lines);
  }

  /** All lines so far, as they stand in the file. */
  get lines(): readonly Line[] {
    return this.taken;
  }

  /** The number of tasks whose questions are all answered. */
  get done(): number {
    return this.list.tasks.filter(({ place }) => this.openGoals(place).length === 0).length;
  }

  /** The first task with an open question; null once all are answered. */
  get task(): RatingTask | null {
    return this.list.tasks.find(({ place }) => this.openGoals(place).length > 0) ?? null;
  }

  /** The name of the question that is asked now; null once all are answered. */
  get goal(): string | null {
    const { task } = this;
    return task && this.openGoals(task.place)[0];
  }

  /** The names of a task's questions without an answer. */
  openGoals(place: number): string[] {
    return this.list.goals.map(({ name }) => name).filter((name) => !this.standing.has(keyOf(place, name)));
  }

  /** The choice that stands for a question; undefined while it is open. */
  choiceOf(place: number, goal: string): Line["choice"] | undefined {
    return this.standing.get(keyOf(place, goal))?.choice;
  }

  /** The choices that the plan allows. */
  get choices(): Choice[] {
    return ["left", ...(this.list.ties ? ["tie" as const] : []), "right", "skip"];
  }

  /** The line that answers the present question; it counts once it is given to `take`. */
  answer(choice: Choice, seconds: number, time: string, reason = ""): Line {
    const { task, goal } = this;
    if (!task || goal === null) throw new Error("every task is answered");
    return this.line(task, goal, choice, reason, seconds, time);
  }

  /** The lines that skip all open questions of the present task. */
  skipAll(seconds: number, time: string, reason: string): Line[] {
    const { task } = this;
    if (!task) throw new Error("every task is answered");
    return this.openGoals(task.place).map((goal, at) => this.line(task, goal, "skip", reason, at ? null : seconds, time));
  }

  /** The lines that take back all answers to the task that was answered last; none where there is none. */
  undo(time: string): Line[] {
    const last = [...this.standing.values()].at(-1);
    if (!last) return [];
    const task = this.list.tasks.find(({ place }) => place === last.place)!;
    const given = this.list.goals.filter(({ name }) => this.standing.has(keyOf(last.place, name)));
    return given.map(({ name }) => this.line(task, name, "undo", "", null, time));
  }

  /** Lets the lines of a file count, all of them or none. Throws an Error of one sentence that says where it goes wrong. */
  take(lines: readonly Line[]): void {
    const before = new Map(this.standing);
    const known = new Set(this.taken.map(textOf));
    const fresh: Line[] = [];
    const here = new Set<string>(); // the lines of this file so far
    const own = new Map<string, Line>(); // the answers that stand by these alone
    try {
      lines.forEach((line, at) => {
        const [text, where, key] = [textOf(line), `line ${at + 1}`, keyOf(line.place, line.goal)];
        this.check(line, where);
        if (here.has(text)) return; // it stands twice, and counts once
        here.add(text);
        const former = own.get(key);
        if (line.choice === "undo") own.delete(key);
        else own.set(key, line);
        if (known.has(text)) return;
        known.add(text);
        this.settle(line, where, former);
        fresh.push(line);
      });
    } catch (error) {
      this.standing = before;
      throw error;
    }
    this.taken = [...this.taken, ...fresh];
  }

  /** Lets a line count; `former` is the answer that its own file has there. */
  private settle(line: Line, where: string, former?: Line): void {
    const key = keyOf(line.place, line.goal);
    const there = this.standing.get(key);
    if (line.choice === "undo") {
      if (former && there && textOf(former) !== textOf(there))
        throw new Error(`${where}: ${former.choice} is taken back at place ${line.place}, where another file has ${there.choice}`);
      this.standing.delete(key);
    } else if (!there) this.standing.set(key, line);
    else throw new Error(`${where}: place ${line.place} has an answer to "${line.goal}" already, ${there.choice}; got ${line.choice}`);
  }

  private check(line: Line, where: string): void {
    const { study, version, rater, goals } = this.list;
    const must = (name: string, wanted: string, got: unknown, note = "") => {
      throw new Error(`${where}: ${name} must be ${wanted}, got ${shortOf(got)}${note}`);
    };
    if (line.study !== study) must("study", shortOf(study), line.study, ": answers of another study");
    if (line.version !== version) must("version", String(version), line.version, ": a file of another version");
    if (line.rater !== rater) must("rater", JSON.stringify(rater), line.rater, ": answers of another rater");
    const task = this.list.tasks.find(({ place }) => place === line.place);
    if (!task) return must("place", `0 to ${this.list.tasks.length - 1}`, line.place);
    if (line.item !== task.item || line.shown !== task.shown) must("item", "the one assigned there", line.item);
    if (!goals.some(({ name }) => name === line.goal)) must("goal", goals.map(({ name }) => name).join(", "), line.goal);
    const allowed = [...this.choices, "undo"];
    if (!allowed.includes(line.choice)) must("choice", allowed.join(", "), line.choice);
    if (line.seconds !== null && !(typeof line.seconds === "number" && line.seconds >= 0)) must("seconds", "0 or more, or null", line.seconds);
    for (const name of ["reason", "time"] as const) if (typeof line[name] !== "string") must(name, "a text", line[name]);
  }

  private line(task: RatingTask, goal: string, choice: Line["choice"], reason: string, seconds: number | null, time: string): Line {
    const { study, version, rater } = this.list;
    const { place, item, shown } = task;
    return { study, version, rater, place, item, shown, goal, choice, reason, seconds, time };
  }
}

/**
 * The session of two files of one rater's answers, in the order in which they fit: each may have gone on from the other.
 *
 * Throws an Error of one sentence where they answer a question differently, also where one took back what the other kept.
 */
export function joined(list: RatingList, here: readonly Line[], there: readonly Line[]): RatingSession {
  const read = (first: readonly Line[], second: readonly Line[]) => {
    const session = new RatingSession(list, first);
    session.take(second);
    return session;
  };
  try {
    return read(here, there);
  } catch {
    return read(there, here);
  }
}

/** The text of a file of answers. */
export function textOfLines(lines: readonly Line[]): string {
  return lines.map((line) => `${textOf(line)}\n`).join("");
}

/**
 * The lines in a file's text, and whether the last one was cut short, which counts as not written.
 *
 * Throws an Error of one sentence for a line that is no object.
 */
export function linesOfText(text: string): { lines: Line[]; torn: boolean } {
  const rows = text.replace(/^\uFEFF/, "").split("\n");
  const lines: Line[] = [];
  for (const [at, row] of rows.entries()) {
    if (!row.trim()) continue;
    let found: unknown;
    try {
      found = JSON.parse(row);
    } catch {
      if (at > 0 && at === rows.length - 1 && row.startsWith("{")) return { lines, torn: true };
    }
    if (typeof found !== "object" || found === null || Array.isArray(found))
      throw new Error(`line ${at + 1} is no JSON object; a file of answers has one per line`);
    lines.push(found as Line);
  }
  return { lines, torn: false };
}

/** A line as JSON with its keys in order, so that equal lines have equal texts whoever wrote them. */
function textOf(line: Line): string {
  const { study, version, rater, place, item, shown, goal, choice, reason, seconds, time } = line;
  return JSON.stringify({ study, version, rater, place, item, shown, goal, choice, reason, seconds, time });
}

function keyOf(place: number, goal: string): string {
  return JSON.stringify([place, goal]);
}

function shortOf(value: unknown): string {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length > 16 ? `${text.slice(0, 13)}…"` : text;
}
