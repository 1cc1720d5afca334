/** Elements of a page, made in one line each. */

type Child = Node | string;

export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Partial<HTMLElementTagNameMap[K]> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Calls a function when a line was typed: at Enter, for which JupyterLab lets no "change" through, or as it is left. */
export function ontyped(field: HTMLInputElement | HTMLTextAreaElement, take: () => void): void {
  field.addEventListener("change", take);
  field.addEventListener("keydown", (event: Event) => {
    if ((event as KeyboardEvent).key !== "Enter") return;
    event.preventDefault(); // else some pages would say "change" now
    take();
  });
}

/** Writes a text where it has changed: a live region then speaks once. */
export function write(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

export interface Option {
  value: string;
  label: string;
  group?: string;
  title?: string;
  disabled?: boolean;
}

/** A named menu; options of one group stand together. */
export function menu(label: string, options: readonly Option[], choose: (value: string) => void) {
  const select = make("select", { ariaLabel: label });
  const groups = new Map<string, HTMLOptGroupElement>();
  for (const { group, ...option } of options) {
    const made = make("option", { value: option.value, textContent: option.label, title: option.title ?? "" });
    made.disabled = option.disabled ?? false;
    if (group === undefined) {
      select.append(made);
      continue;
    }
    if (!groups.has(group)) groups.set(group, make("optgroup", { label: group }));
    groups.get(group)!.append(made);
    select.append(groups.get(group)!);
  }
  select.addEventListener("change", () => choose(select.value));
  return select;
}
