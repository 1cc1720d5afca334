"""A page of samples to read: one file of HTML that needs nothing else, with every text escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_STYLE = """
:root { color-scheme: light dark; --line: light-dark(#d0d4da, #3a4048); --soft: light-dark(#f4f5f7, #20242a);
  --faint: light-dark(#5a626d, #9aa4b1); --warn: light-dark(#7a3b00, #ffc58a); --warned: light-dark(#fff1e0, #3a2812); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem;
  background: light-dark(#fff, #16191d); color: light-dark(#1b1f24, #e4e8ee); }
h1 { font-size: 1.5rem; } h2 { font-size: 1rem; color: var(--faint); margin: 2.5rem 0 .5rem; }
h3 { font-size: .95rem; margin: 0 0 .4rem; }
.warning { background: var(--warned); color: var(--warn); border: 1px solid; border-radius: .4rem; padding: .7rem 1rem;
  font-weight: 600; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font: inherit; }
.table { font: .85rem/1.5 ui-monospace, monospace; overflow-x: auto; white-space: pre; padding: .8rem;
  background: var(--soft); border-radius: .4rem; }
.prompt { background: var(--soft); border-left: 3px solid var(--faint); padding: .6rem .9rem; max-height: 16rem;
  overflow-y: auto; }
.systems { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: .8rem; margin-top: .8rem; }
.system { border: 1px solid var(--line); border-radius: .4rem; padding: .7rem .9rem; }
.about { color: var(--faint); font-size: .82rem; margin: .3rem 0 .6rem; }
summary { color: var(--faint); font-size: .85rem; cursor: pointer; }
"""


@dataclass(frozen=True)
class Shown:
    """A sample with its length, and its reward and cost where they are known."""

    text: str
    tokens: int
    finished: bool
    reward: float | None = None
    cost: float | None = None


def samples_page(
    title: str, prompts: Sequence[str], systems: Mapping[str, Sequence[Sequence[Shown]]], table: str,
    notes: Sequence[str] = (), *, warning: str = "", left_out: int = 0,
) -> str:  # fmt: skip
    """Return the page: the table of results, notes on it, then each prompt with every system's samples, the first open.

    systems   by name of the system, the samples of each prompt.
    warning   the text of a banner at the top.
    left_out  how many prompts are not on the page; it says so.
    """
    parts = [
        "<!DOCTYPE html>", '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src \'unsafe-inline\'">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f'<p class="warning" role="alert">{escape(warning)}</p>' if warning else "",
        f"<h1>{escape(title)}</h1>", f'<div class="table" tabindex="0">{escape(table)}</div>',
        *(f'<p class="about">{escape(note)}</p>' for note in notes),
    ]  # fmt: skip
    for index, prompt in enumerate(prompts):
        parts.append(f'<section><h2>Prompt {index + 1}</h2><pre class="prompt" tabindex="0">{escape(prompt)}</pre>')
        parts.append('<div class="systems">')
        parts += [_system(name, samples[index]) for name, samples in systems.items()]
        parts.append("</div></section>")
    if left_out:
        parts.append(f'<p class="about">{left_out} more prompts are not shown.</p>')
    return "\n".join([*filter(None, parts), "</body></html>", ""])


def _system(name: str, samples: Sequence[Shown]) -> str:
    first, *more = map(_sample, samples)
    rest = f"<details><summary>{len(more)} more</summary>{''.join(more)}</details>" if more else ""
    return f'<div class="system"><h3>{escape(name)}</h3>{first}{rest}</div>'


def _sample(shown: Shown) -> str:
    scores = {"reward": shown.reward, "cost": shown.cost}
    about = [f"{shown.tokens} tokens", *([] if shown.finished else ["cut"])]
    about += [f"{name} {value:.3g}" for name, value in scores.items() if value is not None]
    return f'<pre>{escape(shown.text) or "(empty)"}</pre><p class="about">{" · ".join(about)}</p>'
