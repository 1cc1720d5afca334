/** The frame of an explorer: its question, the reader's guess, controls, stories, and the tools that keep results. */

import { layOut, LOOKS, prediction, type Show } from "./controls";
import { make, write } from "./dom";
import type { Context, ExplorerKind, ExplorerView } from "./explorer";
import css from "./lab.css";
import { pngOf, style, together } from "./plot";
import { type Fetch, Shelf } from "./shelf";
import { fieldsOf, notTaken, type Spec, storyState } from "./spec";
import { copiedWords, fromFragment, History, type State, toFragment, type Value } from "./state";

/** Files that Python makes. */
export type FileKind = "python" | "csv" | "png" | "pdf";

/** What a shell stands on: a page with all data in it, or a kernel of Python. */
export interface Host {
  kernel: Fetch;
  /** The file as bytes, from Python; missing where there is none. */
  file?: (kind: FileKind) => Promise<Uint8Array>;
  /** Names of the controls without effect, as Python says. */
  hidden?: () => readonly string[];
  /** Called with each new state, before it is shown. */
  moved?: (state: State) => void;
  /** True while Python still works on what is to be shown. */
  busy?: () => boolean;
  /** A result that is kept to compare with, where Python computes. */
  pin?: (on: boolean) => void;
  /** Whether there is one. */
  pinned?: () => boolean;
  /** The address of the page that reads links. */
  page: () => string;
}

/** Elements in which Ctrl+Z belongs to the text that is typed. */
const TYPING = "input:not([type=range], [type=checkbox], [type=file]), textarea, [contenteditable]";

export class Shell {
  readonly element = make("section", { className: "gl-lab gl-explorer" });
  readonly history: History;
  readonly defaults: State;
  private readonly usual: State; // what a link leaves out
  readonly view: ExplorerView;
  private readonly notice = make("p", { className: "gl-notice", role: "status" });
  private readonly trouble = make("p", { className: "gl-trouble", role: "status" });
  private readonly show: Show;
  private readonly texts: Texts;
  private readonly ask: ReturnType<typeof prediction>;
  private readonly undo: HTMLButtonElement;
  private readonly redo: HTMLButtonElement;
  private pinButton: HTMLButtonElement | null = null;
  private readonly unwatch: () => void;
  private drawn = 0; // times that all was drawn for the last state

  /** Builds an explorer with a state to begin with; `kind` draws it. Errors in that state's values are thrown. */
  constructor(parent: HTMLElement, readonly spec: Spec, kind: ExplorerKind, private readonly host: Host, start: Partial<State> = {}) {
    const { fields, defaults, usual } = fieldsOf(spec);
    this.defaults = defaults;
    this.usual = usual;
    this.history = new History({ ...defaults, ...start } as State, { ...fields, ...kind.fields });
    this.element.ariaLabel = spec.question;
    const tools = make("div", { className: "gl-tools", role: "group", ariaLabel: "steps" });
    const keep = make("div", { className: "gl-tools", role: "group", ariaLabel: "copy and save" });
    const asked = make("div", { className: "gl-prediction" });
    const controls = make("div", { className: "gl-controls" });
    const stage = make("div", { className: "gl-stage-all" });
    const question = make("p", { className: "gl-question", textContent: spec.question });
    this.texts = new Texts(spec, this.history, usual, defaults);
    this.element.append(
      make("div", { className: "gl-top" }, question, tools), asked, this.texts.stories, this.notice,
      make("div", { className: "gl-sides" }, controls, stage), keep, this.texts.element,
    );
    parent.append(this.element);
    stage.append(this.trouble);
    const context: Context = {
      spec, losses: spec.losses, history: this.history, shelf: new Shelf(host.kernel), controls, stage,
      changed: () => this.tell(this.history.state),
    };
    const places = kind.places ?? [];
    const all = (state: State) => [...(host.hidden?.() ?? []), ...(this.view.hidden?.(state) ?? [])];
    this.show = layOut(controls, spec, this.history, [...places, "guess"], all);
    this.ask = prediction(asked, this.history, spec);
    this.view = new kind(context);
    [this.undo, this.redo] = this.tools(tools);
    this.keepers(keep);
    style(this.element, css);
    this.unwatch = this.history.watch((state) => {
      host.moved?.(state);
      this.update(state);
    });
    this.element.addEventListener("keydown", (event) => this.key(event));
    this.update(this.history.state);
  }

  /** The fragment of a link to this state, without "#". */
  fragment(): string {
    const rest = toFragment(this.history.state, this.usual, this.history.spec);
    return `view=${this.spec.name}${rest && `&${rest}`}`;
  }

  /** Goes to the state of a fragment, and says what of it was refused; the first state of all is no step to undo. */
  read(fragment: string, first = false): void {
    const { state: found, refused } = fromFragment(fragment, this.usual, this.history.spec);
    const wrong = notTaken(found, this.spec);
    refused.push(...wrong.map(({ reason }) => reason));
    const state = { ...found, ...Object.fromEntries(wrong.map(({ name, usual }) => [name, usual])) };
    const more = refused.length > 1 ? ` (and ${refused.length - 1} more)` : "";
    this.say(refused.length ? `The link was read in part: ${refused[0].slice(0, 300)}${more}.` : "");
    if (first) this.history.amend(state);
    else this.history.set(state);
  }

  /** Says a sentence about what the reader has done; "" for none. */
  say(text: string): void {
    write(this.notice, text);
  }

  /** Says why there is nothing new to see; "" takes that back. */
  fail(text: string): void {
    write(this.trouble, text);
  }

  update(state: State): void {
    this.show(state);
    this.view.update(state);
    this.tell(state);
    this.undo.disabled = !this.history.canUndo;
    this.redo.disabled = !this.history.canRedo;
  }

  /** Forgets the explorer: nothing is left on the page. */
  close(): void {
    this.unwatch();
    this.view.close?.();
    for (const plot of this.view.plots) plot.remove();
    this.element.remove();
  }

  private tell(state: State): void {
    const answers = this.view.answers?.(state) ?? this.spec.answers;
    this.ask(state.guess, answers, this.view.outcome(state));
    this.texts.update(state);
    const pinned = this.view.pin ? this.view.hasPin : this.host.pinned?.();
    if (pinned !== undefined) this.showPin(pinned);
    const busy = Boolean(this.view.busy || this.host.busy?.());
    this.element.ariaBusy = String(busy);
    if (!busy) this.element.dataset.drawn = String(++this.drawn);
  }

  private key(event: KeyboardEvent): void {
    if (!(event.ctrlKey || event.metaKey) || (event.target as Element).matches?.(TYPING)) return;
    const key = event.key.toLowerCase();
    if (key === "z" && !event.shiftKey) this.history.undo();
    else if (key === "y" || key === "z") this.history.redo();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  private tools(place: HTMLElement): [HTMLButtonElement, HTMLButtonElement] {
    const { history } = this;
    const add = adder(place);
    const undo = add("↶ undo", "Ctrl+Z", () => history.undo());
    const redo = add("↷ redo", "Ctrl+Y", () => history.redo());
    add("reset", "as the explorer begins; undo brings this back", () => history.set({ ...this.defaults }));
    if (this.view.pin || this.host.pin) {
      const other = () => this.pin(this.pinButton!.ariaPressed !== "true");
      this.pinButton = add("pin", "keep what is shown, faintly, to compare with", other);
    }
    return [undo, redo];
  }

  private keepers(place: HTMLElement): void {
    const { history, host, view, spec } = this;
    const add = adder(place);
    const ask = (kind: FileKind, then: (bytes: Uint8Array) => void) => () =>
      void host.file!(kind).then(then, (error: Error) => this.say(`${error.message}.`));
    const save = (name: string, content: BlobPart) => download(name, new Blob([content]));
    const brings = spec.inPage ? "a link that brings this state back" : "a link that explorer.load(link) takes";
    add("copy link", brings, () => this.copy(`${host.page()}#${this.fragment()}`, copiedWords(history.state)));
    const code = (text: string) => this.copy(text, "The code is copied.");
    if (host.file) add("copy as Python", "code that computes what is shown", ask("python", (bytes) => code(new TextDecoder().decode(bytes))));
    else if (view.code) add("copy as Python", "the same computation, for gradlab", () => code(view.code!()));
    if (host.file) add("CSV", "the numbers that are shown", ask("csv", (bytes) => save(`${spec.name}.csv`, bytes as BlobPart)));
    const seen = "the pictures as they are seen";
    const saved = host.file && ask("png", (bytes) => save(`${spec.name}.png`, bytes as BlobPart)); // of what is no plot
    add("SVG", seen, () =>
      view.plots.length ? save(`${spec.name}.svg`, together(view.plots)) : this.say("There is no chart here to save as SVG."));
    add("PNG", seen, () => {
      if (!view.plots.length && saved) return saved();
      pngOf(together(view.plots)).then((blob) => download(`${spec.name}.png`, blob), (error: Error) => this.say(`${error.message}.`));
    });
    if (host.file) add("PDF", "the figure for a paper", ask("pdf", (bytes) => save(`${spec.name}.pdf`, bytes as BlobPart)));
    add("save", "a file with this state", () => save(`${spec.name}.json`, JSON.stringify({ explorer: spec.name, state: history.state }, null, 1)));
    const file = make("input", { type: "file", accept: ".json", hidden: true, ariaLabel: "a file with a state" });
    file.onchange = async () => {
      await this.load(file.files![0]);
      file.value = "";
    };
    place.append(file);
    add("load", "a state from a file", () => file.click());
  }

  /** Keeps what is shown, or lets it go; the pin is no part of the state, so that undo leaves it. */
  private pin(on: boolean): void {
    if (this.view.pin) this.view.pin(on);
    else this.host.pin!(on);
    this.showPin(this.view.hasPin ?? on);
  }

  private showPin(on: boolean): void {
    if (!this.pinButton) return;
    write(this.pinButton, on ? "unpin" : "pin");
    this.pinButton.ariaPressed = String(on);
  }

  private async load(file: File): Promise<void> {
    try {
      const state = { ...this.usual, ...stateOf(await file.text(), this.spec.name) };
      const [wrong] = notTaken(state, this.spec);
      if (wrong) throw new Error(wrong.reason);
      this.history.set(state);
      this.say("");
    } catch (error) {
      this.say(`The file was not loaded: ${(error as Error).message}.`);
    }
  }

  private copy(text: string, done: string): void {
    const shown = () => {
      const field = make("textarea", { value: text });
      this.element.append(field);
      field.select();
      const copied = document.execCommand("copy");
      field.remove();
      this.say(copied ? done : `Copy this: ${text}`);
    };
    if (!navigator.clipboard) return shown();
    navigator.clipboard.writeText(text).then(() => this.say(done), shown);
  }
}

/** Returns what adds a button to a place. */
function adder(place: HTMLElement) {
  return (label: string, title: string, onclick: () => void): HTMLButtonElement => {
    const button = make("button", { type: "button", textContent: label, title, onclick });
    place.append(button);
    return button;
  };
}

/** The state in a file's text. Throws an Error of one sentence for another explorer's, and for what is none. */
function stateOf(text: string, name: string): Record<string, Value> {
  let found: unknown;
  try {
    found = JSON.parse(text);
  } catch {
    throw new Error("it must be JSON, as the lab saves it");
  }
  const { explorer = name, state } = (typeof found === "object" && found ? found : {}) as Record<string, unknown>;
  if (explorer !== name) throw new Error(`it must be of the explorer "${name}", got "${String(explorer)}"`);
  if (typeof state !== "object" || state === null || Array.isArray(state)) throw new Error('it must have "explorer" and "state"');
  return state as Record<string, Value>;
}

/** True if all settings of a state are in another one, but for how one looks at it. */
function alike(one: State, other: State): boolean {
  return Object.keys(one).every((name) => LOOKS.includes(name) || one[name] === other[name]);
}

/** The texts of an explorer: stories, how to read it, and the takeaway after a guess. */
class Texts {
  readonly element = make("div", { className: "gl-texts" });
  readonly stories = make("div", { className: "gl-stories" });
  private readonly buttons: HTMLButtonElement[];
  private readonly words = make("span");
  private readonly gone = make("span", { className: "gl-gone", textContent: " You have left this story." });
  private readonly story = make("p", { className: "gl-story" }, this.words, this.gone);
  private readonly takeaway: HTMLDetailsElement;
  private told: number | null = null;
  private readonly first: number; // the story of the beginning, which is told when somebody asks

  /** `usual` are the settings for which stories are written, `start` those with which the explorer begins. */
  constructor(private readonly spec: Spec, history: History, private readonly usual: State, private readonly start: State) {
    const row = make("div", { className: "gl-buttons", role: "group", ariaLabel: "stories" });
    this.first = this.find(start);
    this.buttons = spec.stories.map((story, at) => {
      const made = make("button", { type: "button", textContent: story.title });
      made.onclick = () => {
        this.told = at;
        history.set(storyState(story, usual, history.state));
        this.update(history.state);
      };
      row.append(made);
      return made;
    });
    const part = (title: string, text: string) => make("details", {}, make("summary", { textContent: title }), make("p", { textContent: text }));
    this.takeaway = part("What to take away", spec.takeaway);
    if (spec.stories.length) this.stories.append(make("span", { className: "gl-heading", textContent: "Stories" }), row, this.story);
    this.element.append(part("How to read it", spec.reading), part("A prediction to test", spec.prediction), this.takeaway);
  }

  /** The number of the story that a state tells, or −1. */
  private find(state: State): number {
    return this.spec.stories.findIndex((story) => alike(storyState(story, this.usual, state), state));
  }

  update(state: State): void {
    const { stories } = this.spec;
    const open = state.guess !== "none";
    this.takeaway.hidden = !open;
    const at = this.find(state);
    if (at >= 0 && open && at !== this.first) this.told = at;
    else if (this.told !== this.first && alike(this.start, state)) this.told = null;
    this.buttons.forEach((button, number) => (button.ariaPressed = String(number === at)));
    const shown = this.told === null ? null : stories[this.told];
    this.story.hidden = !shown;
    this.story.classList.toggle("gl-left", open && at !== this.told);
    const text = shown && `${shown.title}: ${shown.lookAt}`;
    write(this.words, open ? (text ?? "") : "Choose what you expect, above; then the story is told.");
  }
}

function download(name: string, content: Blob): void {
  const url = URL.createObjectURL(content);
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
