/** Updates of elements that leave alone what has not changed: the browser then neither styles, lays out nor paints it. */

import type { BaseType, Selection } from "d3-selection";
import { write } from "./dom";

type Value = string | number | null | undefined;

/** Attributes by name; those that begin with "--" are properties of style, and "text" is what an element says. */
export type Look<Datum> = Record<string, Value | ((datum: Datum, at: number) => Value)>;

export type Layer = Selection<SVGGElement, unknown, null, undefined>;

/** Gives each element its look; null and undefined take an attribute away. */
export function put<E extends Element, Datum, P extends BaseType, Q>(
  elements: Selection<E, Datum, P, Q>,
  look: Look<Datum>,
): void {
  const parts = Object.entries(look);
  elements.each(function (datum, at) {
    for (const [name, value] of parts) set(this, name, typeof value === "function" ? value(datum, at) : value);
  });
}

/** Shows one element of a kind per datum in a layer, in their order; returns the elements. */
export function draw<Datum>(layer: Layer, tag: string, data: readonly Datum[], look: Look<Datum>) {
  const elements = layer.selectAll<SVGElement, Datum>(tag).data(data).join(tag);
  put(elements as Selection<SVGElement, Datum, SVGGElement, unknown>, look);
  return elements;
}

function set(element: Element, name: string, value: Value): void {
  if (name === "text") return write(element, String(value ?? ""));
  const text = value === null || value === undefined ? null : String(value);
  if (name.startsWith("--")) {
    const { style } = element as SVGElement;
    if (style.getPropertyValue(name) !== (text ?? "")) style.setProperty(name, text);
  } else if (text === null) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}
