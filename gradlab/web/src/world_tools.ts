/** Tools that change the world of the grid explorer: brushes that paint on it, and files of worlds. */

import { make, menu, type Option } from "./dom";
import type { Context } from "./explorer";
import type { Cell } from "./heatmap";
import { type Part, textOfWorld, tooLarge, worldOfFile } from "./own_world";
import { BRUSHES, misfit, paintOfText, textOfPaint, unpainted } from "./paint";
import type { State } from "./state";
import { checkWorld, type World } from "./world";

const PARTS: Option[] = [
  { value: "utility", label: "a world, or its utility" },
  { value: "observed", label: "observed: 1, hidden: 0" },
  { value: "ref_logp", label: "the reference" },
];

export class WorldTools {
  readonly element: HTMLElement;
  /** Whether a stroke on the world paints. */
  painting = false;
  private brush = Object.keys(BRUSHES)[0];
  private part: Part = "utility"; // what a file is loaded as
  private readonly given = make("span"); // of a world that is not drawn
  private readonly stroke = new Set<number>(); // cells that the pointer has passed since it went down

  /**
   * Tools for the world that `shown` gives, null before there is one, and files that add to the world of a `state`;
   * `changed` is called for another brush, `say` with why a file is refused, or "".
   */
  constructor(
    private readonly context: Context,
    private readonly shown: () => World | null,
    private readonly worldOf: (state: State) => World,
    private readonly changed: () => void,
    private readonly say: (text: string) => void,
  ) {
    const summary = make("summary", { textContent: "Paint, or load a world of your own" });
    const tools = make("div", { className: "gl-brushes" }, ...this.brushes(), ...this.files());
    this.element = make("details", {}, summary, tools);
    this.acceptDrops(context.stage);
  }

  /** Whether the brush in hand paints on the reference, which is then to be seen. */
  get onReference(): boolean {
    return this.painting && this.brush.startsWith("reference");
  }

  update({ world }: State): void {
    this.given.hidden = world === "";
  }

  /** Shows a world in place of the drawn one. Throws an Error of one sentence where it is not fit. */
  loadWorld(world: World): void {
    const reason = tooLarge(world.prompts, world.responses);
    if (reason) throw new Error(reason);
    this.context.history.set({ world: textOfWorld(checkWorld(world)), painted: "" });
  }

  /** Shows the world of a file, or the shown world with a part from it; says in one sentence why a file is refused. */
  async loadFile(file: File, part: Part = this.part): Promise<void> {
    this.say("");
    try {
      const bytes = new Uint8Array(await file.arrayBuffer());
      const { state } = this.context.history; // what is shown may be of a former state that still trains
      this.loadWorld(worldOfFile(bytes, part, part === "utility" ? null : this.worldOf(state)));
    } catch (error) {
      this.say(`${file.name} was not loaded: ${(error as Error).message}.`);
    }
  }

  /** Paints on a cell; null ends the stroke, which is undone as a whole. */
  paint(cell: Cell | null): void {
    const { history } = this.context;
    if (!cell) {
      this.stroke.clear();
      return history.rest();
    }
    const world = this.shown();
    if (!world) return;
    const at = cell[0] * world.responses + cell[1];
    if (this.stroke.has(at)) return;
    this.stroke.add(at);
    const before = history.state.painted as string;
    const paint = before && !misfit(before, world) ? paintOfText(before) : unpainted(world);
    paint.marks[at] = BRUSHES[this.brush](paint.marks[at]);
    history.set({ painted: textOfPaint(paint) }, "paint");
  }

  private brushes(): HTMLElement[] {
    const on = make("input", { type: "checkbox" });
    const none = make("button", { type: "button", textContent: "wipe all paint" });
    none.onclick = () => this.context.history.set({ painted: "" });
    on.onchange = () => {
      this.painting = on.checked;
      this.changed();
    };
    const names = Object.keys(BRUSHES).map((value) => ({ value, label: value }));
    const kinds = menu("brush", names, (name) => {
      this.brush = name;
      this.changed();
    });
    return [make("label", {}, on, " paint on the world with"), kinds, none];
  }

  /** A button that loads a file, a menu of what it holds, and the way back to a drawn world. */
  private files(): HTMLElement[] {
    const file = make("input", { type: "file", accept: ".csv,.txt,.npy,.json", hidden: true, ariaLabel: "a file with a world" });
    const load = make("button", { type: "button", textContent: "load a file…", title: "CSV, .npy or JSON; also to be dropped" });
    const back = make("button", { type: "button", textContent: "back to a drawn world" });
    load.onclick = () => file.click();
    file.onchange = () => void this.loadFile(file.files![0]).then(() => (file.value = ""));
    back.onclick = () => this.context.history.set({ world: "", painted: "" });
    this.given.append("This is a world of your own. ", back);
    const kinds = menu("what a file holds", PARTS, (part) => (this.part = part as Part));
    return [kinds, load, file, this.given];
  }

  private acceptDrops(stage: HTMLElement): void {
    stage.addEventListener("dragover", (event) => event.preventDefault());
    stage.addEventListener("drop", (event) => {
      event.preventDefault();
      const dropped = event.dataTransfer?.files[0];
      if (dropped) void this.loadFile(dropped);
    });
  }
}
