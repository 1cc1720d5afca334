/** The screens around a rating: instructions with the content warning, thanks, and the reason of a skip. */

import { make } from "./dom";
import { REASONS, type RatingSession } from "./rating_session";

/** The keys of a rating, by what they do. */
export const KEYS: Record<string, string[]> = {
  left: ["ArrowLeft"], tie: ["ArrowDown"], right: ["ArrowRight"], skip: ["s", "S"], undo: ["Backspace"],
};
const SHOWN_KEYS: [key: string, says: string][] = [
  ["←", "the left response is better (on a narrow screen: the upper one)"], ["→", "the right response is better (the lower one)"], ["↓", "both are equally good, or equally bad"],
  ["S", "skip, with a reason"], ["⌫", "take the last answer back (Backspace)"],
];

/** The first screen; `begin` is called once the content warning, where there is one, was accepted. */
export function intro(session: RatingSession, saving: string, tools: Node[], begin: () => void): HTMLElement {
  const { list, done } = session;
  const start = make("button", { type: "button", className: "gl-main", textContent: done ? "Go on" : "Begin", onclick: begin });
  const screen = make("article", { className: "gl-screen" }, make("h1", { textContent: list.title }));
  if (list.content_warning) screen.append(warning(list.content_warning, start));
  screen.append(make("h2", { textContent: "What to do" }), instructions(session, saving), keys(list.ties));
  if (done) screen.append(make("p", {}, `You have answered ${done} of ${list.tasks.length}. Go on where you stopped.`));
  screen.append(make("div", { className: "gl-row" }, start, ...tools), make("p", { className: "gl-quiet" }, `You rate as ${list.rater}.`));
  return screen;
}

/** The last screen. */
export function thanks(session: RatingSession, farewell: string, tools: Node[], undo: () => void): HTMLElement {
  const back = make("button", { type: "button", textContent: "Take the last answer back", onclick: undo });
  back.setAttribute("aria-keyshortcuts", KEYS.undo.join(" "));
  return make(
    "article", { className: "gl-screen gl-thanks" },
    make("h1", { textContent: "Thank you!" }),
    make("p", {}, `You have answered all ${session.list.tasks.length} comparisons. ${farewell}`),
    make("div", { className: "gl-row" }, ...tools, back),
  );
}

function warning(text: string, start: HTMLButtonElement): HTMLElement {
  const box = make("input", { type: "checkbox" });
  start.disabled = true;
  box.onchange = () => (start.disabled = !box.checked);
  return make(
    "section", { className: "gl-warning", ariaLabel: "content warning" },
    make("h2", { textContent: "Before you begin" }),
    make("p", { className: "gl-words", textContent: text }),
    make("label", {}, box, " I have read this and want to go on."),
    make("p", { className: "gl-quiet" }, "If you do not want to, close this. You may also stop at any time, and skip any text."),
  );
}

function instructions({ list }: RatingSession, saving: string): HTMLElement {
  const number = list.tasks.length;
  const asked = list.goals.map(({ question }) => `“${question}”`).join(" and ");
  const tie = list.ties
    ? "Say that they are equally good only if you would not mind which one you get: a small difference is a difference."
    : "There is no tie: where you see little difference, take the response that is a little better.";
  return make(
    "ol", {},
    make("li", {}, `You will see ${number} prompts, each with two responses. Read both to their ends; long ones scroll.`),
    make("li", {}, `Then answer: ${asked} ${tie}`),
    make("li", {}, "Judge each pair by itself. Nothing says where a response comes from, and the sides are drawn at random."),
    make("li", {}, "Skip only what you cannot judge, or do not want to read; say why if you like."),
    make("li", {}, saving),
  );
}

function keys(ties: boolean): HTMLElement {
  const rows = SHOWN_KEYS.filter(([key]) => ties || key !== "↓").map(([key, says]) =>
    make("div", {}, make("dt", {}, make("kbd", { textContent: key })), make("dd", { textContent: says })));
  return make("dl", { className: "gl-keys", ariaLabel: "keys" }, ...rows);
}

let groups = 0; // numbers the groups of radio buttons, of which a page may have several

/** Asks why something is skipped: a short list, or a text. */
export class SkipDialog {
  readonly element = make("dialog", { className: "gl-skip" });
  private readonly choices: HTMLInputElement[];
  private readonly other = make("input", { type: "text", ariaLabel: "another reason", placeholder: "another reason", maxLength: 500 });
  private readonly all = make("input", { type: "checkbox" });
  private readonly allRow = make("label", {}, this.all, " also the other questions about this pair");
  private readonly skip = make("button", { type: "button", className: "gl-main", textContent: "Skip" });

  /** `done` gets the reason, and whether all open questions are skipped. */
  constructor(private readonly done: (reason: string, all: boolean) => void) {
    this.choices = [...REASONS, ""].map((value) => make("input", { type: "radio", name: `reason-${groups}`, value }));
    groups++;
    const typed = this.choices.at(-1)!;
    typed.ariaLabel = "another reason, which I type";
    const rows = this.choices.map((choice) => make("label", {}, choice, " ", choice.value || this.other));
    this.other.onfocus = () => (typed.checked = true);
    this.element.ariaLabel = "why do you skip this? you need not say";
    this.element.append(
      make("h2", { textContent: "Why do you skip this? You need not say." }), make("div", { className: "gl-reasons", role: "radiogroup", ariaLabel: "reason" }, ...rows),
      this.allRow,
      make("div", { className: "gl-row" }, this.skip, make("button", { type: "button", textContent: "Back", onclick: () => this.element.close() })),
    );
    this.element.addEventListener("keydown", (event) => this.key(event));
    this.skip.onclick = () => this.finish();
  }

  get open(): boolean {
    return this.element.open;
  }

  /** Opens the dialog; `several`: more than one question about the pair is open. */
  ask(several: boolean): void {
    this.choices.forEach((choice) => (choice.checked = false));
    this.other.value = "";
    this.all.checked = false;
    this.allRow.hidden = !several;
    this.element.showModal();
    this.choices[0].focus();
  }

  private get reason(): string {
    const chosen = this.choices.find(({ checked }) => checked);
    return chosen ? chosen.value || this.other.value.trim() : "";
  }

  private key(event: KeyboardEvent): void {
    event.stopPropagation(); // else the keys of the rating would answer
    if (event.key !== "Enter" || event.target instanceof HTMLButtonElement) return;
    event.preventDefault();
    this.finish();
  }

  private finish(): void {
    const { reason } = this; // "" where the rater gives none
    this.element.close();
    this.done(reason, this.all.checked);
  }
}
