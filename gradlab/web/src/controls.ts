/** Controls that move a history: sliders, menus, and the places of losses. */

import { Catalogue } from "./catalogue";
import { make, menu, type Option, ontyped, write } from "./dom";
import { type ControlSpec, followers, type LossFacts, movable, sliderOf, SLOTS, slotsOf, type Spec } from "./spec";
import { Slider, type SliderOptions } from "./slider";
import { type History, refusal, type State, type Value } from "./state";

/** PPO is no loss of pairs: the menu says where it runs. */
const PPO: Option = {
  value: "ppo", label: "PPO (in Python only: gl.fit_ppo(world, world.utility))", group: "reinforcement learning", disabled: true,
};

/** A part of a page that shows a state. */
export type Show = (state: State) => void;

/** Settings that may differ while a story is still told: how one looks at it. */
export const LOOKS = ["when", "prompt", "guess", "arrows", "axes"];

/** Moves a setting by hand, with `more` that goes with it. Who moves one before guessing wants to see: nothing stays concealed. */
function move(history: History, name: string, value: Value, gesture: string | null = null, more: State = {}): void {
  const seen = history.state.guess === "none" && !LOOKS.includes(name) ? { guess: "shown" } : {};
  history.set({ [name]: value, ...more, ...seen }, gesture);
}

/** A slider of a setting; `now` says how the slider is to be in a state, where that changes. */
export function slider(
  parent: HTMLElement, history: History, name: string, options: SliderOptions, now?: (state: State) => SliderOptions,
): Show {
  const made = new Slider(parent, options, history.state[name] as number);
  made.onmove = (value, settled) => {
    move(history, name, value, name);
    if (settled) history.rest();
  };
  let ends = options;
  return (state) => {
    const wanted = now?.(state) ?? ends;
    if (JSON.stringify(wanted) !== JSON.stringify(ends)) made.range((ends = wanted));
    if (made.value !== state[name]) made.value = state[name] as number;
  };
}

/** A menu of a setting; the values of its options need not be texts, and Python may change its options. */
function choices(parent: HTMLElement, history: History, name: string, control: ControlSpec): Show {
  const { label, hint } = control;
  const listed = () => control.options ?? [];
  let drawn: ControlSpec["options"] = [];
  const made = menu(label, [], (text) => move(history, name, listed().find(({ value }) => String(value) === text)!.value));
  parent.append(make("label", { className: "gl-choice", title: hint }, make("span", { textContent: label }), made));
  return (state) => {
    if (drawn !== control.options) made.replaceChildren(...listed().map(({ label, value }) => make("option", { value: String(value), textContent: label })));
    drawn = control.options;
    made.value = String(state[name]);
  };
}

/** A tick box of a setting. */
function tick(parent: HTMLElement, history: History, name: string, { label, hint }: ControlSpec): Show {
  const box = make("input", { type: "checkbox" });
  box.onchange = () => move(history, name, box.checked);
  parent.append(make("label", { title: hint }, box, ` ${label}`));
  return (state) => {
    box.checked = state[name] as boolean;
  };
}

/** A line to type in; what a setting does not take is said under it, and what Python says of what it has taken. */
function line(parent: HTMLElement, history: History, name: string, control: ControlSpec): Show {
  const { label, hint, rows } = control;
  const named = { placeholder: hint, ariaLabel: label };
  const field = rows ? make("textarea", { ...named, rows, spellcheck: false }) : make("input", { ...named, type: "text" });
  const note = make("output", { className: "gl-note" });
  ontyped(field, () => {
    const reason = refusal(label, field.value, history.spec[name]);
    write(note, reason ?? control.note ?? "");
    if (!reason) history.set({ [name]: field.value });
  });
  parent.append(make("label", { className: "gl-choice", title: hint }, make("span", { textContent: label }), field), note);
  let drawn: Value | undefined;
  let noted: string | undefined;
  return (state) => {
    if (state[name] === drawn && control.note === noted) return; // what is being typed stays, whatever else moves
    if (state[name] !== drawn) field.value = (drawn = state[name]) as string;
    write(note, (noted = control.note) ?? "");
  };
}

/** Lays out the controls of a spec by groups, but for those that an explorer places itself; returns what shows a state. */
export function layOut(
  parent: HTMLElement,
  { groups, controls, losses: facts }: Spec,
  history: History,
  placed: readonly string[],
  hidden: (state: State) => readonly string[],
): Show {
  const shows: Show[] = [];
  const places = new Map<string, HTMLElement>();
  for (const { heading, folded, controls: all } of groups) {
    const names = all.filter((name) => !placed.includes(name) && name !== "count");
    if (!names.length) continue;
    const place = folded ? make("details", {}, make("summary", { textContent: heading })) : make("div", { className: "gl-group" });
    if (!folded && groups.length > 1) place.append(make("div", { className: "gl-heading", textContent: heading }));
    parent.append(place);
    if (names.some((name) => controls[name].loss)) shows.push(losses(place, history, facts, controls));
    let menus: HTMLElement | null = null;
    for (const name of names) {
      const control = controls[name];
      if (control.loss || control.hyper) continue;
      const short = control.kind === "choice" || control.kind === "flag";
      if (!short) menus = null;
      else if (!menus) place.append((menus = make("div", { className: "gl-choices" })));
      const box = make("div", { className: "gl-control" });
      (menus ?? place).append(box);
      places.set(name, box);
      shows.push(draw(box, history, name, control));
    }
  }
  return (state) => {
    const without = hidden(state);
    for (const [name, box] of places) box.hidden = without.includes(name);
    for (const show of shows) show(state);
  };
}

/** Draws a control by its kind. */
export function draw(parent: HTMLElement, history: History, name: string, control: ControlSpec): Show {
  if (control.kind === "choice") return choices(parent, history, name, control);
  if (control.kind === "flag") return tick(parent, history, name, control);
  if (control.kind === "text") return line(parent, history, name, control);
  return slider(parent, history, name, sliderOf(control), control.changing ? () => sliderOf(control) : undefined);
}

/** The losses that are compared: a menu, and sliders of the numbers that the loss has. */
function losses(parent: HTMLElement, history: History, facts: readonly LossFacts[], controls: Spec["controls"]): Show {
  const box = make("div", { className: "gl-slots", role: "group", ariaLabel: "losses" });
  const more = make("button", { type: "button", textContent: "+ loss", title: "compare one loss more" });
  const fewer = make("button", { type: "button", textContent: "− loss", title: "take the last loss away" });
  more.onclick = () => history.set({ count: (history.state.count as number) + 1 });
  fewer.onclick = () => history.set({ count: (history.state.count as number) - 1 });
  const counted = controls.count;
  parent.append(box, ...(counted ? [make("div", { className: "gl-buttons" }, more, fewer)] : []));
  const options: Option[] = facts.map(({ name, label, equation, source, family, reason }) => ({
    value: name, label: reason ? `${label} (in Python only: ${reason})` : label, group: family, disabled: reason !== "",
    title: reason || `${equation}\n${source}`,
  }));
  if (counted) options.push(PPO);
  const catalogue = new Catalogue(box, facts);
  const shows = SLOTS.filter((key) => `loss_${key}` in controls).map((key) => {
    const slot = make("div", { className: "gl-slot" });
    const choose = (value: string) => {
      const chosen = facts.find(({ name }) => name === value)!;
      move(history, `loss_${key}`, value, null, followers(key, chosen, history.state, facts, controls));
    };
    const made = menu(`loss ${key.toUpperCase()}`, options, choose);
    const find = make("button", { type: "button", className: "gl-find-loss", textContent: "⌕", title: "find a loss by family, formula or author" });
    find.ariaLabel = `find loss ${key.toUpperCase()}`;
    find.onclick = () => catalogue.open(history.state[`loss_${key}`] as string, choose);
    const chip = make("span", { className: "gl-chip gl-color", textContent: key.toUpperCase(), ariaHidden: "true" });
    const equation = make("div", { className: "gl-equation" });
    slot.append(make("div", { className: "gl-slot-head" }, chip, made, find), equation);
    box.append(slot);
    const sliders = Object.entries(controls).filter(([, { of }]) => of === key).map(([name, control]) => {
      const place = make("div");
      slot.append(place);
      const label = `${control.label} of ${key.toUpperCase()}`;
      const now = (state: State) => ({ ...sliderOf(control, facts.find((one) => one.name === state[`loss_${key}`])), label });
      return { name: control.hyper!, place, show: slider(place, history, name, { ...sliderOf(control), label }, now) };
    });
    return (state: State) => {
      const chosen = slotsOf(state, facts).find((one) => one.key === key);
      slot.hidden = !chosen;
      if (!chosen) return;
      chip.style.setProperty("--gl-color", chosen.color);
      made.value = chosen.loss.name;
      made.title = chosen.loss.source;
      write(equation, chosen.loss.equation);
      const names = movable(chosen.loss);
      for (const { name, place, show } of sliders) {
        place.hidden = !names.includes(name);
        show(state);
      }
    };
  });
  return (state) => {
    for (const show of shows) show(state);
    more.disabled = state.count === counted?.high;
    fewer.disabled = state.count === counted?.low;
  };
}

/** What to do first, with a prediction to choose before anything is revealed; then it says what came of it. */
export function prediction(parent: HTMLElement, history: History, { ask, firstMove }: Spec) {
  const buttons = make("span", { className: "gl-buttons" });
  const words = make("output", { className: "gl-told", textContent: firstMove });
  if (ask) parent.append(make("span", { className: "gl-ask", textContent: ask }), buttons);
  parent.append(words);
  let drawn = "";
  return (guess: Value, answers: readonly (readonly [value: string, label: string])[], outcome: readonly [string, string] | null) => {
    if (!ask) return;
    const all = [...answers, ["shown", "just show me"] as const];
    const key = JSON.stringify([all, guess]);
    if (key !== drawn) {
      drawn = key;
      const held = [...buttons.children].indexOf(document.activeElement!);
      buttons.replaceChildren(
        ...all.map(([value, label]) => {
          const made = make("button", { type: "button", textContent: label, ariaPressed: String(guess === value) });
          made.onclick = () => history.set({ guess: value });
          return made;
        }),
      );
      if (held >= 0) (buttons.children[held] as HTMLElement).focus();
    }
    write(words, guess === "none" || !outcome ? firstMove : told(guess, ...outcome));
  };
}

function told(guess: Value, truth: string, sentence: string): string {
  if (guess === "shown") return sentence;
  return `${guess === truth ? "As expected" : "Not as expected"}: ${sentence}`;
}
