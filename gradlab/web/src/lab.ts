/** The live lab: two explorers on one state, with undo, links, files and code. A page calls `mountLab`. */

import { make, write } from "./dom";
import { type Explorer, type Given, specOf, storyState } from "./given";
import { GridLab, READING as GRID } from "./grid_lab";
import css from "./lab.css";
import { PairLab, READING as PAIR } from "./pair_lab";
import { pngOf, style, together } from "./plot";
import { fromFragment, History, type State, toFragment } from "./state";

const TABS: [Explorer, string][] = [
  ["pair", "One pair"],
  ["grid", "Training"],
];

/** Elements in which Ctrl+Z belongs to the text that is typed. */
const TYPING = "input:not([type=range], [type=checkbox], [type=file]), textarea, [contenteditable]";

/** The result of `mountLab`, for tests and for those who build on it. */
export interface Lab {
  history: History;
  pair: PairLab;
  grid: GridLab;
}

/**
 * Shows the lab in an element, in place of what is there. Throws an Error of one sentence where the browser is not fit;
 * what was there then stays.
 */
export async function mountLab(root: HTMLElement, given: Given): Promise<Lab> {
  const { spec, defaults } = specOf(given);
  const { state, refused } = fromFragment(location.hash.includes("=") ? location.hash : "", defaults, spec);
  const history = new History(state, spec);
  const element = make("div", { className: "gl-lab" });
  const top = make("div", { className: "gl-top" });
  const stages = make("div");
  const pair = new PairLab(stages, history, given);
  const grid = new GridLab(stages, history, given);
  await pair.load();
  const explorers = { pair, grid };
  const notice = make("p", { className: "gl-notice", role: "status" });
  const say = (text: string) => write(notice, text);
  const texts = Object.fromEntries(TABS.map(([name]) => [name, new Texts(name, given, history, defaults)]));
  for (const [name] of TABS) explorers[name].element.append(texts[name].element);

  const tabs = make("div", { className: "gl-tabs", role: "tablist", ariaLabel: "explorers" });
  const tabOf = TABS.map(([name, label]) => {
    const tab = make("button", { type: "button", role: "tab", textContent: label, onclick: () => history.set({ view: name }) });
    tabs.append(tab);
    return tab;
  });
  tabs.addEventListener("keydown", ({ key }) => {
    if (key !== "ArrowLeft" && key !== "ArrowRight") return;
    const other = 1 - TABS.findIndex(([name]) => name === history.state.view);
    history.set({ view: TABS[other][0] });
    tabOf[other].focus();
  });
  const undo = make("button", { type: "button", textContent: "↶ undo", title: "Ctrl+Z", onclick: () => history.undo() });
  const redo = make("button", { type: "button", textContent: "↷ redo", title: "Ctrl+Y", onclick: () => history.redo() });
  const reset = make("button", { type: "button", textContent: "reset", title: "as the lab begins; undo brings this back" });
  reset.onclick = () => history.set({ ...defaults, view: history.state.view });
  const fragment = () => toFragment(history.state, defaults, spec);
  const link = make("button", { type: "button", textContent: "copy link", title: "a link that brings this state back" });
  link.onclick = () => copy(`${location.href.split("#")[0]}#${fragment()}`, "The link is copied.", say);
  const python = make("button", { type: "button", textContent: "copy as Python", title: "the same computation, for gradlab" });
  python.onclick = () => copy(explorers[history.state.view as Explorer].code(), "The code is copied.", say);
  const save = make("button", { type: "button", textContent: "save", title: "a file with this state" });
  save.onclick = () => download("gradlab-lab.json", new Blob([JSON.stringify(history.state, null, 1)]));
  const picture = () => together(explorers[history.state.view as Explorer].plots);
  const svg = make("button", { type: "button", textContent: "SVG", title: "the pictures as they are seen" });
  svg.onclick = () => download("gradlab-lab.svg", new Blob([picture()]));
  const png = make("button", { type: "button", textContent: "PNG", title: "the pictures as they are seen" });
  png.onclick = () => pngOf(picture()).then((blob) => download("gradlab-lab.png", blob), (error: Error) => say(`${error.message}.`));
  const file = make("input", { type: "file", accept: ".json", hidden: true, ariaLabel: "a file with a state" });
  const load = make("button", { type: "button", textContent: "load", title: "a state from a file", onclick: () => file.click() });
  file.onchange = async () => {
    try {
      const found = JSON.parse(await file.files![0].text());
      if (typeof found !== "object" || found === null || Array.isArray(found)) throw new Error("a state must be an object of settings");
      history.set(found);
      say("");
    } catch (error) {
      say(`The file was not loaded: ${(error as Error).message}.`);
    }
    file.value = "";
  };
  top.append(tabs, make("div", { className: "gl-tools" }, undo, redo, reset, link, python, svg, png, save, load, file));
  element.append(...answerOf(given.answer), top, notice, stages);
  root.replaceChildren(element);
  style(element, css);

  let shown = "";
  let written: ReturnType<typeof setTimeout> | undefined;
  const update = (next: State) => {
    const view = next.view as Explorer;
    TABS.forEach(([name], at) => {
      explorers[name].element.hidden = name !== view;
      tabOf[at].ariaSelected = String(name === view);
      tabOf[at].tabIndex = name === view ? 0 : -1;
    });
    undo.disabled = !history.canUndo;
    redo.disabled = !history.canRedo;
    explorers[view].update(next);
    texts[view].update(next);
    clearTimeout(written);
    written = setTimeout(() => {
      shown = fragment();
      const before = location.hash.replace(/^#/, "");
      if (before !== shown && (shown || before.includes("="))) window.history.replaceState(null, "", `#${shown}`);
    }, 250);
  };
  history.watch(update);
  document.addEventListener("keydown", (event) => {
    const typing = (event.target as Element).matches?.(TYPING);
    if (!(event.ctrlKey || event.metaKey) || typing || !element.isConnected) return;
    const key = event.key.toLowerCase();
    if (key === "z" && !event.shiftKey) history.undo();
    else if (key === "y" || key === "z") history.redo();
    else return;
    event.preventDefault();
  });
  window.addEventListener("hashchange", () => {
    if (!location.hash.includes("=") || location.hash.slice(1) === shown) return;
    const found = fromFragment(location.hash, defaults, spec);
    say(refusedWords(found.refused));
    history.set(found.state);
  });
  say(refusedWords(refused));
  update(history.state);
  return { history, pair, grid };
}

function refusedWords(refused: readonly string[]): string {
  if (!refused.length) return "";
  const more = refused.length > 1 ? ` (and ${refused.length - 1} more)` : "";
  return `The link was read in part: ${refused[0].slice(0, 300)}${more}.`;
}

/** The answer in one sentence, and the rest of the report's sentences for those who ask. */
function answerOf([first, ...rest]: readonly string[]): HTMLElement[] {
  if (!first) return [];
  const more = make("p", { textContent: rest.join(" "), hidden: true, id: "gl-answer-more" });
  const open = make("button", { type: "button", className: "gl-plain", textContent: "elsewhere, and why", ariaExpanded: "false" });
  open.onclick = () => {
    more.hidden = !more.hidden;
    open.ariaExpanded = String(!more.hidden);
  };
  return [make("div", { className: "gl-answer" }, make("p", {}, `${first} `, ...(rest.length ? [open] : [])), more)];
}

/** The texts of an explorer: its question, how to read it, stories, and the takeaway after a prediction. */
class Texts {
  readonly element = make("div", { className: "gl-texts" });
  private readonly stories: HTMLButtonElement[] = [];
  private readonly story = make("p", { className: "gl-story" });
  private readonly takeaway: HTMLDetailsElement;
  private told: number | null = null;

  constructor(
    private readonly name: Explorer,
    private readonly given: Given,
    history: History,
    private readonly defaults: State,
  ) {
    const { question, takeaway, stories } = given[name];
    const row = make("div", { className: "gl-buttons", role: "group", ariaLabel: "stories" });
    this.stories = stories.map((story, at) => {
      const made = make("button", { type: "button", textContent: story.title });
      made.onclick = () => {
        this.told = at;
        history.set(storyState(story, name, defaults, history.state));
        this.update(history.state);
      };
      row.append(made);
      return made;
    });
    const part = (title: string, text: string) => make("details", {}, make("summary", { textContent: title }), make("p", { textContent: text }));
    this.takeaway = part("What to take away", takeaway);
    this.element.append(make("p", { className: "gl-question", textContent: question }), row, this.story, part("How to read it", name === "pair" ? PAIR : GRID), this.takeaway);
  }

  update(state: State): void {
    const { stories } = this.given[this.name];
    const open = state[`${this.name}.guess`] !== "none";
    this.takeaway.hidden = !open;
    const look = new Set(["when", "prompt", "guess", "arrows", "axes"].map((name) => `${this.name}.${name}`));
    const at = stories.findIndex((story) => {
      const told = storyState(story, this.name, this.defaults, state);
      return Object.keys(told).every((name) => look.has(name) || told[name] === state[name]);
    });
    if (at >= 0 && open) this.told = at;
    this.stories.forEach((button, number) => (button.ariaPressed = String(number === at)));
    if (this.told !== null && !open) return write(this.story, "Choose what you expect, above; then the story is told.");
    const shown = this.told === null ? null : stories[this.told];
    this.story.classList.toggle("gl-left", shown !== null && at !== this.told);
    write(this.story, !shown ? "" : `${at === this.told ? "" : "You have left this story. "}${shown.title}: ${shown.lookAt}`);
  }
}

function copy(text: string, done: string, say: (text: string) => void): void {
  const shown = () => {
    const field = make("textarea", { value: text });
    document.body.append(field);
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    say(copied ? done : `Copy this: ${text}`);
  };
  if (!navigator.clipboard) return shown();
  navigator.clipboard.writeText(text).then(() => say(done), shown);
}

function download(name: string, content: Blob): void {
  const url = URL.createObjectURL(content);
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
