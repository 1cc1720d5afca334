/** The form by which somebody rates: two texts side by side, blind, with a key per answer. A host keeps the answers. */

import { make, write } from "./dom";
import { intro, KEYS, SkipDialog, thanks } from "./rating_screens";
import { type Choice, type Line, type RatingSession, Stopwatch } from "./rating_session";

/** Where a form stands: a page that keeps answers in the browser, or a notebook with Python behind it. */
export interface RatingHost {
  /** One sentence of the instructions: where answers are kept. */
  saving: string;
  /** One sentence at the end: what happens now. */
  farewell: string;
  /** Buttons of the host. */
  tools: () => Node[];
  /** Keeps lines; they count once it is done. Fails with an Error of one sentence where they do not. */
  keep(lines: Line[]): Promise<void>;
}

const FIELDS = "input, textarea, select, [contenteditable='true']";
/** By choice: the button's text where texts stand side by side, and where one is above the other. */
const BUTTONS: Record<Choice, [wide: string, narrow: string]> = {
  left: ["← Left is better", "← Upper is better"], tie: ["↓ Equally good", "↓ Equally good"],
  right: ["Right is better →", "Lower is better →"], skip: ["Skip…", "Skip…"],
};
/** By choice: how an answer is told, likewise. */
const SAID: Record<Choice, [wide: string, narrow: string]> = {
  left: ["left", "upper"], tie: ["equally good", "equally good"], right: ["right", "lower"], skip: ["skip", "skip"],
};

const STILL = "The last answer is still being kept; this one does not count.";

let sheets = 0; // numbers the questions, of which a page may have several

export class RatingForm {
  readonly element = make("section", { className: "gl-rating", tabIndex: -1, ariaLabel: "rating" });
  private readonly watch = new Stopwatch();
  private readonly skipDialog = new SkipDialog((reason, all) => this.answer("skip", reason, all));
  private readonly sheet: TaskSheet;
  private readonly status = make("p", { className: "gl-status", role: "status" });
  private readonly trouble = make("p", { className: "gl-trouble", role: "alert" });
  private readonly stage = make("div", { className: "gl-stage" });
  private begun = false;
  private busy = false;
  private shown: string | null = null; // the question on the screen

  /** `keys` hears the keys: the whole page, or the form's own element. */
  constructor(private session: RatingSession, private readonly host: RatingHost, private readonly keys?: Document) {
    this.sheet = new TaskSheet(session, (choice) => this.choose(choice), () => this.undo());
    this.element.append(this.trouble, this.stage, this.status, this.skipDialog.element);
    (keys ?? this.element).addEventListener("keydown", this.key as EventListener);
    document.addEventListener("visibilitychange", this.look);
    this.present();
  }

  close(): void {
    (this.keys ?? this.element).removeEventListener("keydown", this.key as EventListener);
    document.removeEventListener("visibilitychange", this.look);
    this.element.remove();
  }

  /** Goes on with the answers of another session, such as those of a file; after the answer that is being kept. */
  show(session: RatingSession): void {
    this.session = session;
    if (!this.busy) this.present(); // who sees the next task may answer it at once
  }

  /** Says something once. */
  say(text: string): void {
    write(this.status, text);
  }

  /** Says what is wrong until it is said anew; "" for nothing. */
  fail(text: string): void {
    write(this.trouble, text);
  }

  private readonly look = () => this.watch.run(this.begun && !document.hidden);

  private present(): void {
    const { session } = this;
    const { task, goal } = session;
    const mine = this.keys !== undefined || this.element.contains(document.activeElement); // a notebook has other places to type
    this.element.dataset.done = String(session.done);
    if (!this.begun) {
      const begin = () => {
        this.begun = true;
        this.look();
        this.present();
      };
      this.stage.replaceChildren(intro(session, this.host.saving, this.host.tools(), begin));
    } else if (!task || goal === null) {
      this.stage.replaceChildren(thanks(session, this.host.farewell, this.host.tools(), () => this.undo()));
    } else {
      if (this.sheet.element.parentNode !== this.stage) this.stage.replaceChildren(this.sheet.element);
      this.sheet.show(session, this.host.tools);
    }
    const shown = this.begun && task ? JSON.stringify([task.place, goal]) : null;
    if (shown !== this.shown) {
      this.watch.restart();
      this.skipDialog.element.close(); // it asked about another question
    }
    if (this.begun && mine && !this.element.contains(document.activeElement)) this.element.focus({ preventScroll: true });
    this.shown = shown;
  }

  private choose(choice: Choice): void {
    if (this.busy) this.say(STILL);
    else if (choice === "skip") this.skipDialog.ask(this.session.openGoals(this.session.task!.place).length > 1);
    else this.answer(choice, "", false);
  }

  private answer(choice: Choice, reason: string, all: boolean): void {
    const { seconds } = this.watch;
    const time = new Date().toISOString();
    const lines = all ? this.session.skipAll(seconds, time, reason) : [this.session.answer(choice, seconds, time, reason)];
    void this.keep(lines, "Saved.");
  }

  private undo(): void {
    const lines = this.session.undo(new Date().toISOString());
    if (!lines.length) return this.say("There is no answer to take back.");
    void this.keep(lines, "Your answers to the last pair are taken back; answer them again.");
  }

  private async keep(lines: Line[], done: string): Promise<void> {
    if (this.busy) return this.say(STILL);
    this.busy = true;
    this.element.ariaBusy = "true";
    try {
      await this.host.keep(lines);
      const { session } = this;
      this.say(`${done} ${session.done} of ${session.list.tasks.length} are done.`);
    } catch (error) {
      this.fail(`${(error as Error).message}.`);
    } finally {
      this.busy = false;
      this.element.ariaBusy = "false";
    }
    this.present();
  }

  private readonly key = (event: KeyboardEvent) => {
    const target = event.target as Element;
    if (event.repeat && event.key === "Enter" && target.closest?.("button")) return event.preventDefault(); // a key that is held
    const plain = !event.repeat && !event.ctrlKey && !event.altKey && !event.metaKey && !event.isComposing;
    if (!plain || !this.begun || this.skipDialog.open || target.matches?.(FIELDS)) return;
    if (event.shiftKey && event.key.startsWith("Arrow")) return; // selects text
    const [does] = Object.entries(KEYS).find(([, keys]) => keys.includes(event.key)) ?? [];
    if (!does || (event.key === "ArrowDown" && scrolls(target))) return;
    event.preventDefault();
    event.stopPropagation();
    if (does === "undo") this.undo();
    else if (this.session.task && this.session.choices.includes(does as Choice)) this.choose(does as Choice);
  };
}

/** A task on the screen: prompt, two texts, the question and the buttons. */
class TaskSheet {
  readonly element = make("div", { className: "gl-task" });
  private readonly count = make("span", { className: "gl-count" });
  private readonly progress = make("progress", { ariaLabel: "progress" });
  private readonly prompt = text("prompt");
  private readonly left = text("left response");
  private readonly right = text("right response");
  private readonly question = make("p", { className: "gl-question", id: `gl-question-${sheets++}` });
  private readonly given = make("p", { className: "gl-quiet gl-given" });
  private readonly tools = make("div", { className: "gl-row gl-tools" });
  private readonly back: HTMLButtonElement;
  private place: number | null = null;

  constructor(session: RatingSession, choose: (choice: Choice) => void, undo: () => void) {
    const button = (choice: Choice) => {
      const made = make("button", { type: "button", className: "gl-choice", onclick: ({ detail }) => detail < 2 && choose(choice) }, ...either(BUTTONS[choice]));
      made.dataset.choice = choice;
      made.setAttribute("aria-keyshortcuts", KEYS[choice].join(" "));
      return made;
    };
    this.back = make("button", { type: "button", textContent: "⌫ Undo", onclick: undo });
    this.back.setAttribute("aria-keyshortcuts", KEYS.undo.join(" "));
    const group = make("div", { className: "gl-answers", role: "group" }, ...session.choices.filter((one) => one !== "skip").map(button));
    group.setAttribute("aria-labelledby", this.question.id);
    const side = (label: [string, string], box: HTMLElement) =>
      make("div", { className: "gl-side" }, heading(...label), box);
    this.element.append(
      make("header", { className: "gl-head" }, make("span", { className: "gl-title", textContent: session.list.title }), this.count, this.progress),
      make("div", { className: "gl-prompt" }, heading("Prompt", "Prompt"), this.prompt),
      make("div", { className: "gl-pair" }, side(["Left", "Upper"], this.left), side(["Right", "Lower"], this.right)),
      make("footer", { className: "gl-foot" }, this.given, this.question, group, make("div", { className: "gl-row gl-small" }, button("skip"), this.back, this.tools)),
    );
  }

  show(session: RatingSession, tools: () => Node[]): void {
    const { task, goal, list } = session;
    const at = list.goals.findIndex(({ name }) => name === goal);
    write(this.count, `${session.done + 1} of ${list.tasks.length}`);
    Object.assign(this.progress, { max: list.tasks.length, value: session.done });
    write(this.prompt, task!.prompt);
    write(this.left, task!.left);
    write(this.right, task!.right);
    const several = list.goals.length > 1 ? `Question ${at + 1} of ${list.goals.length}: ` : "";
    write(this.question, `${several}${list.goals[at].question}`);
    this.given.replaceChildren(...list.goals.flatMap(({ name, question }) => {
      const choice = session.choiceOf(task!.place, name);
      return choice && choice !== "undo" ? [`${question} You said: `, ...either(SAID[choice]), ". "] : [];
    }));
    this.back.disabled = session.undo("").length === 0;
    if (!this.tools.contains(document.activeElement)) this.tools.replaceChildren(...tools());
    if (task!.place !== this.place) for (const box of [this.prompt, this.left, this.right]) box.scrollTop = 0;
    this.place = task!.place;
    for (const box of [this.prompt, this.left, this.right]) box.parentElement!.classList.toggle("gl-long", box.scrollHeight > box.clientHeight + 1);
  }
}

/** A box with a text, shown as it is written and never as HTML; the keyboard can scroll it. */
function text(label: string): HTMLElement {
  return make("div", { className: "gl-words", tabIndex: 0, role: "region", ariaLabel: label });
}

function heading(wide: string, narrow: string): HTMLElement {
  return make("h2", { className: "gl-label" }, ...either([wide, narrow]));
}

/** Two words for one thing, of which the style shows the one that fits the screen. */
function either([wide, narrow]: [wide: string, narrow: string]): HTMLElement[] {
  return [make("span", { className: "gl-beside", textContent: wide }), make("span", { className: "gl-below", textContent: narrow })];
}

/** True where the down key moves a long text that has the focus. */
function scrolls(target: Element): boolean {
  return target.matches(".gl-words") && target.scrollHeight > target.clientHeight + 1;
}
