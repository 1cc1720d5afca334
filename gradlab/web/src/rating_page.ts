/** A rating as a page without Python: answers stay in the browser, and leave it as a file that the rater exports. */

import { make } from "./dom";
import { RatingForm } from "./rating_form";
import { joined, type Line, linesOfText, type RatingList, RatingSession, textOfLines } from "./rating_session";

const NOT_KEPT =
  "This browser keeps nothing for this page: your answers are gone when you close it. Export them before, and import them to go on";

/** Shows a rater's list in an element of a page, once its storage may be used; returns what it is made of. */
export async function mountPage(root: HTMLElement, list: RatingList): Promise<RatingPage> {
  await takenUp();
  return new RatingPage(root, list);
}

/**
 * Waits until the browser's own process has taken this page up; its answer about a lock says so. Until then Chromium
 * (seen in 156, with files, on a busy machine) may give a page a storage that looks whole and is no one else's: what is
 * kept there is gone when the window closes.
 */
async function takenUp(): Promise<void> {
  try {
    await navigator.locks.request("gradlab page", { mode: "shared" }, () => {});
  } catch {
    await new Promise((resolve) => setTimeout(resolve, 500)); // no locks here: time is the next best
  }
}

export class RatingPage {
  readonly form: RatingForm;
  session: RatingSession;
  private readonly shelf: Shelf;
  private unkept = 0; // answers that only this page has

  constructor(root: HTMLElement, readonly list: RatingList) {
    this.shelf = new Shelf(`gradlab study ${list.study} ${list.rater}`);
    this.session = new RatingSession(list);
    const trouble = this.resume();
    this.form = new RatingForm(this.session, {
      saving: "Each answer is saved at once in this browser, and nowhere else. You may stop at any time, and open this page again.",
      farewell: "Now export your answers, and send the file to whoever gave you this page; nothing was sent anywhere.",
      tools: () => this.tools(),
      keep: (lines) => this.keep(lines),
    }, document);
    root.replaceChildren(this.form.element);
    this.form.fail(trouble);
    addEventListener("storage", ({ key }) => key === this.shelf.name && this.follow());
    addEventListener("beforeunload", (event) => this.unkept && event.preventDefault());
  }

  /** Takes up what the browser kept; returns what is wrong with it, or "". */
  private resume(): string {
    const kept = this.shelf.read();
    if (kept === null) return this.shelf.works ? "" : `${NOT_KEPT}.`;
    try {
      const { lines, torn } = linesOfText(kept);
      this.session.take(lines);
      return torn ? "The last answer that this browser kept was cut short; please give it again." : "";
    } catch (error) {
      this.shelf.setAside(kept);
      const whole = kept.split("\n").findIndex((row) => !this.taken(row));
      return (
        `What this browser had kept is damaged (${(error as Error).message}). What stands before the damage (lines: ${whole}) counts; ` +
        "all of it is kept aside, and “Export damaged answers” saves it."
      );
    }
  }

  private taken(row: string): boolean {
    try {
      this.session.take(linesOfText(row).lines);
      return row.trim() !== "";
    } catch {
      return false;
    }
  }

  private async keep(lines: Line[]): Promise<void> {
    if (this.adopt()) throw new Error("You went on in another window; this is what is open now"); // or says why it cannot
    this.session.take(lines);
    this.save(lines.length);
  }

  private save(number: number): void {
    if (this.shelf.write(textOfLines(this.session.lines))) {
      this.unkept = 0;
      this.form.fail("");
    } else {
      this.unkept += number;
      this.form.fail(`${NOT_KEPT}.`);
    }
  }

  /**
   * Takes in what another window of this browser has written meanwhile; returns whether there was something. Throws an
   * Error of one sentence where that contradicts the answers here: neither is written over.
   */
  private adopt(): boolean {
    const there = this.shelf.news();
    if (there === null) return false;
    try {
      this.replace(linesOfText(there).lines);
    } catch (error) {
      throw new Error(
        `Another window wrote something else (${(error as Error).message}): export your answers here, and open the page again`,
      );
    }
    this.shelf.known = there;
    return true;
  }

  private follow(): void {
    try {
      this.adopt();
    } catch (error) {
      this.form.fail(`${(error as Error).message}.`);
    }
  }

  /** Goes on with these lines and those of this page. */
  private replace(lines: readonly Line[]): void {
    this.session = joined(this.list, this.session.lines, lines);
    this.form.show(this.session);
  }

  private tools(): Node[] {
    const file = make("input", { type: "file", accept: ".jsonl", hidden: true, ariaLabel: "a file of answers" });
    file.onchange = async () => {
      await this.bring(file.files![0]);
      file.value = "";
    };
    const button = (textContent: string, title: string, onclick: () => void) => make("button", { type: "button", textContent, title, onclick });
    const { rater } = this.list;
    const damaged = this.shelf.aside;
    return [
      ...(this.session.lines.length ? [button("Export answers", `saves ${rater}.answers.jsonl`, () => this.export())] : []),
      button("Import answers", "goes on with a file that another browser exported", () => file.click()),
      file,
      ...(damaged ? [button("Export damaged answers", "saves what this browser had kept", () => download(`${rater}.damaged.jsonl`, damaged))] : []),
    ];
  }

  private export(): void {
    const { lines, list } = this.session;
    download(`${list.rater}.answers.jsonl`, textOfLines(lines));
    this.unkept = 0;
    this.form.say(`${list.rater}.answers.jsonl is saved among your downloads.`);
  }

  private async bring(file: File): Promise<void> {
    try {
      const { lines, torn } = linesOfText(await file.text());
      this.adopt();
      const before = this.session;
      if (!lines.length) throw new Error("it holds no answers");
      new RatingSession(this.list, lines);
      try {
        this.replace(lines);
      } catch (error) {
        throw new Error(`it differs from the answers here (${(error as Error).message}); take back those here first`);
      }
      this.save(this.session.lines.length - before.lines.length);
      const cut = torn ? " Its last line was cut short, and does not count." : "";
      this.form.say(`${file.name} is imported: ${this.session.done} of ${this.list.tasks.length} are done.${cut}`);
    } catch (error) {
      this.form.fail(`${file.name} was not imported: ${(error as Error).message}.`);
    }
  }
}

/** A place in the browser's storage, which may be closed to the page, or full. */
class Shelf {
  known: string | null = null; // what this page has taken up or written last
  works = true;
  aside: string | null = null;

  constructor(readonly name: string) {}

  /** What is kept, or null. */
  read(): string | null {
    try {
      this.aside = localStorage.getItem(`${this.name} damaged`);
      this.known = localStorage.getItem(this.name);
      this.write(this.known ?? ""); // tries whether it takes anything
    } catch {
      this.works = false;
    }
    return this.known || null;
  }

  /** Keeps a text; returns whether that worked. */
  write(text: string): boolean {
    try {
      localStorage.setItem(this.name, text);
      this.works = localStorage.getItem(this.name) === text;
      if (this.works) this.known = text;
    } catch {
      this.works = false;
    }
    return this.works;
  }

  /** What another window has written since; null where it wrote nothing. */
  news(): string | null {
    try {
      const there = localStorage.getItem(this.name);
      return there && there !== this.known ? there : null;
    } catch {
      return null;
    }
  }

  /** Keeps a damaged text apart, after what was kept there before. */
  setAside(text: string): void {
    if (this.aside === text || this.aside?.endsWith(`\n${text}`)) return;
    text = this.aside ? `${this.aside}\n${text}` : text;
    this.aside = text;
    try {
      localStorage.setItem(`${this.name} damaged`, text);
    } catch {
      this.works = false;
    }
  }
}

function download(name: string, text: string): void {
  const url = URL.createObjectURL(new Blob([text], { type: "application/jsonl" }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
