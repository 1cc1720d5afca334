/** The live lab in a page without Python: explorers as tabs, each with its state, in links too. A page calls `mountLab`. */

import { AtlasLab } from "./atlas_lab";
import { make } from "./dom";
import type { ExplorerKind } from "./explorer";
import { explorerOf, type Formula } from "./formulas";
import { CREDIT, OFFLINE, SIGMOID } from "./foundations";
import { FrontierLab } from "./frontier_lab";
import { GridLab } from "./grid_lab";
import { PairLab } from "./pair_lab";
import css from "./lab.css";
import { style } from "./plot";
import { SHIFT } from "./shift";
import { type Host, Shell } from "./shell";
import type { Given, Spec } from "./spec";

/** Explorers that show formulas. */
export const FORMULAS: Record<string, Formula> = { sigmoid: SIGMOID, credit: CREDIT, offline: OFFLINE, shift: SHIFT };

/** Explorers that the page computes by itself, with the names of their tabs. */
export const KINDS: Record<string, { label: string; kind: ExplorerKind }> = {
  pair: { label: "One pair", kind: PairLab },
  grid: { label: "Training", kind: GridLab },
  frontier: { label: "Frontier", kind: FrontierLab },
  atlas: { label: "Atlas", kind: AtlasLab },
  sigmoid: { label: "A pair's pull", kind: explorerOf(SIGMOID) },
  credit: { label: "Sampled gradients", kind: explorerOf(CREDIT) },
  offline: { label: "Offline data", kind: explorerOf(OFFLINE) },
  shift: { label: "Distribution shift", kind: explorerOf(SHIFT) },
};

/** The result of `mountLab`, for tests and for those who build on it: the shells that were opened, by name. */
export interface Lab {
  shells: Record<string, Shell>;
  open: (name: string) => Shell;
}

/**
 * Shows the lab in an element, in place of what is there. Throws an Error of one sentence where the browser is not fit;
 * what was there then stays.
 */
export async function mountLab(root: HTMLElement, given: Given): Promise<Lab> {
  if (typeof WebAssembly === "undefined") throw new Error("this browser has no WebAssembly, so nothing can train here");
  const names = Object.keys(given.explorers).filter((name) => name in KINDS);
  const element = make("div", { className: "gl-lab" });
  const stages = make("div");
  const tabs = make("div", { className: "gl-tabs", role: "tablist", ariaLabel: "explorers" });
  element.append(...leadOf(given.lead), ...answerOf(given.answer), tabs, stages);
  const shells: Record<string, Shell> = {};
  let shown = "";
  let written: ReturnType<typeof setTimeout> | undefined;
  let known = location.hash.slice(1); // the address's fragment as it was last read or written
  const note = () => {
    clearTimeout(written);
    written = setTimeout(() => {
      const before = location.hash.slice(1);
      if (before !== known) return follow(); // a new link, whose event is still to come, is not written over
      const fragment = shells[shown].fragment();
      const plain = fragment === `view=${names[0]}` && !before.includes("=");
      if (before === fragment || plain) return;
      window.history.replaceState(null, "", `#${fragment}`);
      known = location.hash.slice(1);
    }, 250);
  };
  const open = (name: string): Shell => {
    shown = name;
    if (!shells[name]) {
      shells[name] = mountExplorer(stages, given, name);
      shells[name].element.setAttribute("role", "tabpanel");
      shells[name].history.watch(note);
    }
    for (const [other, shell] of Object.entries(shells)) shell.element.hidden = other !== name;
    tabOf.forEach((tab, at) => {
      tab.ariaSelected = String(names[at] === name);
      tab.tabIndex = names[at] === name ? 0 : -1;
    });
    note();
    return shells[name];
  };
  const tabOf = names.map((name) => {
    const tab = make("button", { type: "button", role: "tab", textContent: KINDS[name].label, onclick: () => open(name) });
    tabs.append(tab);
    return tab;
  });
  tabs.addEventListener("keydown", ({ key }) => {
    const by = { ArrowLeft: names.length - 1, ArrowRight: 1 }[key];
    if (!by) return;
    const next = (names.indexOf(shown) + by) % names.length;
    open(names[next]);
    tabOf[next].focus();
  });
  const follow = () => {
    const text = location.hash.slice(1);
    if (shown && text === known) return;
    known = text;
    if (!text.includes("=")) return shown || open(names[0]);
    const parts = new URLSearchParams(text);
    const view = parts.get("view") ?? names[0];
    parts.delete("view");
    const there = names.includes(view);
    const first = !(view in shells);
    const shell = open(there ? view : names[0]);
    if (there) shell.read(parts.toString(), first);
    else shell.say(`The link was not read: view must be one of ${names.join(", ")}, got "${view.slice(0, 100)}".`);
  };
  root.replaceChildren(element);
  style(element, css);
  follow();
  window.addEventListener("hashchange", () => element.isConnected && follow());
  document.addEventListener("keydown", (event) => {
    if (event.target !== document.body || !element.isConnected) return;
    // The browser's own undo would change a field in which something was typed.
    if (!shells[shown].element.dispatchEvent(new KeyboardEvent("keydown", event))) event.preventDefault();
  });
  return { shells, open };
}

/** Shows one explorer in an element, after what is there. Errors as in `mountLab`. */
export function mountExplorer(root: HTMLElement, given: Given, name: string): Shell {
  const losses = given.losses.map((loss) => ({ ...loss, reason: loss.trains && loss.slopes ? "" : loss.reason }));
  const spec = { ...given.explorers[name], losses } as Spec;
  return new Shell(root, spec, KINDS[name].kind, hostOf(given));
}

/** The host of a page that brings all kernels. */
function hostOf({ losses, page }: Given): Host {
  return {
    kernel: async (name, what) => {
      const loss = losses.find((one) => one.name === name);
      const record = what === "slopes" ? loss?.slopes : loss?.trains?.[what];
      if (!record) throw new Error(loss?.reason || `${name} has no kernel here that is called "${what}"`);
      return record;
    },
    page: () => page ?? location.href.split("#")[0],
  };
}

/** The words that a reader needs first. */
function leadOf(sentences: readonly string[]): HTMLElement[] {
  return sentences.length ? [make("p", { className: "gl-lead", textContent: sentences.join(" ") })] : [];
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
