/** A rating in a notebook: Python holds each answer against the study, and appends it to the file. */

import { type Answer, GONE, keepShortcutsAway, LATE, Link, type Model } from "./link";
import { RatingForm } from "./rating_form";
import { type Line, type RatingList, RatingSession } from "./rating_session";

/** Shows a widget's rating; returns how to take it away. */
export function render({ model, el }: { model: Model; el: HTMLElement }): () => void {
  const link = new Link<Answer>(model);
  const list = model.get("given") as RatingList;
  const session = () => new RatingSession(list, model.get("lines") as Line[]);
  const form = new RatingForm(session(), {
    saving: `Each answer is appended to ${model.get("file")} at once. You may stop at any time, and run the cell again.`,
    farewell: `Your answers are in ${model.get("file")}.`,
    tools: () => [],
    keep: async (lines) => {
      await link.ask({ lines }, () => form.fail(LATE));
      form.fail("");
    },
  });
  const follow = () => form.show(session());
  const lost = () => {
    link.break();
    form.fail(`${GONE}.`);
  };
  keepShortcutsAway(el);
  el.append(form.element);
  model.on("change:lines", follow);
  model.on("comm_live_update", lost);
  return () => {
    model.off("change:lines", follow);
    model.off("comm_live_update", lost);
    form.close();
    link.close();
  };
}
