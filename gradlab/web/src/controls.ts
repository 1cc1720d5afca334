/** Controls that move a history: sliders, menus, and the places of losses. */

import { make, menu, type Option, write } from "./dom";
import { type Explorer, type Given, movable, type Range, sliderOf, SLOTS, slotsOf } from "./given";
import { Slider, type SliderOptions } from "./slider";
import type { History, State, Value } from "./state";

/** A part of a page that shows a state. */
export type Show = (state: State) => void;

/** A slider of a setting. */
export function slider(parent: HTMLElement, history: History, name: string, options: SliderOptions): Show {
  const made = new Slider(parent, options, history.state[name] as number);
  made.onmove = (value, settled) => {
    history.set({ [name]: value }, name);
    if (settled) history.rest();
  };
  return (state) => {
    if (made.value !== state[name]) made.value = state[name] as number;
  };
}

/** A menu of a setting. */
export function choices(parent: HTMLElement, history: History, name: string, label: string, options: readonly (string | Option)[]): Show {
  const full = options.map((one) => (typeof one === "string" ? { value: one, label: one } : one));
  const made = menu(label, full, (value) => history.set({ [name]: value }));
  parent.append(make("label", { className: "gl-choice" }, make("span", { textContent: label }), made));
  return (state) => {
    made.value = state[name] as string;
  };
}

/** Fills an explorer's element; returns places in it, and makers of controls that add to `shows`, by their short names. */
export function layOut(element: HTMLElement, explorer: Explorer, history: History, shows: Show[]) {
  const asked = make("div", { className: "gl-prediction" });
  const controls = make("div", { className: "gl-controls" });
  const stage = make("div", { className: "gl-stage-all" });
  element.append(asked, make("div", { className: "gl-sides" }, controls, stage));
  const add = (place: HTMLElement, name: string, options: SliderOptions) =>
    shows.push(slider(place, history, `${explorer}.${name}`, options));
  const pick = (place: HTMLElement, name: string, label: string, options: readonly (string | Option)[]) =>
    shows.push(choices(place, history, `${explorer}.${name}`, label, options));
  return { asked, controls, stage, add, pick };
}

/** The losses that are compared: a menu, and sliders of the numbers that the loss has. */
export function losses(parent: HTMLElement, history: History, given: Given): Show {
  const box = make("div", { className: "gl-slots", role: "group", ariaLabel: "losses" });
  const more = make("button", { type: "button", textContent: "+ loss", title: "compare one loss more" });
  const fewer = make("button", { type: "button", textContent: "− loss", title: "take the last loss away" });
  more.onclick = () => history.set({ count: (history.state.count as number) + 1 });
  fewer.onclick = () => history.set({ count: (history.state.count as number) - 1 });
  parent.append(box, make("div", { className: "gl-buttons" }, more, fewer));
  const options: Option[] = given.losses.map(({ name, label, equation, source, family, trains, reason }) => ({
    value: name, label: trains ? label : `${label} (in Python only)`, group: family, disabled: !trains,
    title: trains ? `${equation}\n${source}` : reason,
  }));
  const shows = SLOTS.map((key) => {
    const slot = make("div", { className: "gl-slot" });
    const made = menu(`loss ${key.toUpperCase()}`, options, (value) => history.set({ [`loss_${key}`]: value }));
    const chip = make("span", { className: "gl-chip gl-color", textContent: key.toUpperCase(), ariaHidden: "true" });
    const equation = make("div", { className: "gl-equation" });
    slot.append(make("div", { className: "gl-slot-head" }, chip, made), equation);
    box.append(slot);
    const sliders = Object.entries(given.hyper).map(([name, range]: [string, Range]) => {
      const place = make("div");
      slot.append(place);
      const options = sliderOf(name, range);
      return { name, place, show: slider(place, history, `${name}_${key}`, { ...options, label: `${options.label} of ${key.toUpperCase()}` }) };
    });
    return (state: State) => {
      const chosen = slotsOf(state, given.losses).find((one) => one.key === key);
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
    more.disabled = state.count === SLOTS.length;
    fewer.disabled = state.count === 2;
  };
}

/** A prediction to choose before anything is revealed; `told` says what came of it. */
export function prediction(
  parent: HTMLElement,
  history: History,
  name: string,
  question: string,
  answers: (state: State) => [value: string, label: string][],
): (state: State, told: string) => void {
  const buttons = make("span", { className: "gl-buttons" });
  const words = make("output", { className: "gl-told" });
  parent.append(make("span", { className: "gl-ask", textContent: question }), buttons, words);
  let drawn = "";
  return (state, told) => {
    const all: [Value, string][] = [...answers(state), ["shown", "just show me"]];
    const key = JSON.stringify([all, state[name]]);
    if (key !== drawn) {
      drawn = key;
      const held = [...buttons.children].indexOf(document.activeElement!);
      buttons.replaceChildren(
        ...all.map(([value, label]) => {
          const made = make("button", { type: "button", textContent: label, ariaPressed: String(state[name] === value) });
          made.onclick = () => history.set({ [name]: value });
          return made;
        }),
      );
      if (held >= 0) (buttons.children[held] as HTMLElement).focus();
    }
    write(words, told);
  };
}
