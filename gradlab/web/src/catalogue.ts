/** A list of all losses to look through: by family, with a field that keeps those in which all typed words occur. */

import { make, write } from "./dom";
import type { LossFacts } from "./spec";

/** The losses in which every word of a text occurs: in name, label, equation, source or family. */
export function found(losses: readonly LossFacts[], text: string): LossFacts[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return losses.filter(({ name, label, equation, source, family }) => {
    const all = [name, label, equation, source, family].join("\n").toLowerCase();
    return words.every((word) => all.includes(word));
  });
}

/** A dialog that asks for a loss; it is built when it is opened for the first time. */
export class Catalogue {
  private readonly dialog = make("dialog", { className: "gl-catalogue", ariaLabel: "all losses" });
  private readonly field = make("input", { type: "search", placeholder: "name, formula, author or family", ariaLabel: "find a loss" });
  private readonly count = make("output", { className: "gl-soft" });
  private readonly entries = new Map<string, HTMLButtonElement>();
  private readonly groups: HTMLElement[] = [];
  private choose: (name: string) => void = () => {};

  constructor(private readonly parent: HTMLElement, private readonly losses: readonly LossFacts[]) {}

  /** Opens the list with the present loss marked; calls `choose` with the name that is picked, if one is. */
  open(present: string, choose: (name: string) => void): void {
    if (!this.entries.size) this.build();
    this.choose = choose;
    for (const [name, entry] of this.entries) entry.ariaPressed = String(name === present);
    this.field.value = "";
    this.filter();
    this.dialog.showModal();
    this.entries.get(present)?.scrollIntoView({ block: "nearest" });
  }

  private build(): void {
    const list = make("div", { className: "gl-families" });
    for (const family of new Set(this.losses.map((loss) => loss.family))) {
      const group = make("div", { className: "gl-family", role: "group", ariaLabel: family });
      group.append(make("div", { className: "gl-heading", textContent: family }));
      group.append(...this.losses.filter((loss) => loss.family === family).map((loss) => this.entry(loss)));
      this.groups.push(group);
      list.append(group);
    }
    const close = make("button", { type: "button", textContent: "×", title: "close (Esc)", ariaLabel: "close", onclick: () => this.dialog.close() });
    this.dialog.append(make("div", { className: "gl-find" }, this.field, this.count, close), list);
    this.parent.append(this.dialog);
    this.field.addEventListener("input", () => this.filter());
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    this.dialog.addEventListener("click", ({ target }) => target === this.dialog && this.dialog.close()); // beside it
  }

  private entry({ name, label, equation, source, reason }: LossFacts): HTMLButtonElement {
    const entry = make("button", { type: "button", disabled: reason !== "", title: reason || source });
    entry.append(make("span", { className: "gl-entry", textContent: label }), make("span", { className: "gl-equation", textContent: equation }));
    entry.onclick = () => {
      this.dialog.close();
      this.choose(name);
    };
    this.entries.set(name, entry);
    return entry;
  }

  private filter(): void {
    const kept = new Set(found(this.losses, this.field.value).map(({ name }) => name));
    for (const [name, entry] of this.entries) entry.hidden = !kept.has(name);
    for (const group of this.groups) group.hidden = !group.querySelector("button:not([hidden])");
    write(this.count, `${kept.size} of ${this.losses.length}`);
  }

  /** Enter in the field takes the first loss that is left; the arrows go from one to the next. */
  private key(event: KeyboardEvent): void {
    event.stopPropagation(); // Ctrl+Z and the arrows belong to what is under the list
    const shown = [...this.entries.values()].filter((entry) => !entry.hidden && !entry.disabled);
    const at = shown.indexOf(document.activeElement as HTMLButtonElement);
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Enter" && at < 0 && event.target === this.field) shown[0]?.click();
    else if (by) (shown[at + by] ?? this.field).focus();
    else return;
    event.preventDefault();
  }
}
