"""A page that trains and draws, in one file without a server, for tests in Chromium."""

import base64
import json

from node import WEB

from gradlab.lab.engine.webassembly import training_kernel
from gradlab.lab.training import Training
from gradlab.losses import DPO, BalancedDPO

STEPS = [0, 1, 2, 5, 10, 20, 50, 100, 200, 500]
SCRIPT = """
  const lab = await import(URL.createObjectURL(new Blob([atob(CODE)], { type: "text/javascript" })));
  const began = performance.now();
  const world = lab.gaussianWorld({ maskRate: 0.2 });
  const weights = lab.exactPairs(world);
  const columns = { count: world.prompts, responses: world.responses, weights, reference: world.refLogp };
  const size = world.utility.length;
  const trained = {};
  for (const [name, record] of Object.entries(KERNELS)) {
    const kernel = await lab.Kernel.load(record);
    const logp = lab.train(kernel, { ...columns, start: world.refLogp }, 0.05, STEPS);
    trained[name] = STEPS.map((_, at) => logp.subarray(at * size, (at + 1) * size));
  }
  const stage = document.querySelector("main");
  const top = Math.max(...world.utility);
  const curves = new lab.CurvePlot(stage, {
    title: "Expected utility", description: "Expected utility of both policies over training", height: 260,
    x: { label: "step", domain: [0, 500], kind: "symlog" }, y: { label: "E[u], nats", domain: [0, top] },
  });
  const colors = lab.palette.CHOSEN;
  const utility = (steps) => lab.metricsOf(steps, world).map((one) => one.utility);
  const lines = Object.entries(trained).map(([name, steps], at) => (
    { name, color: colors[at], dash: at ? "6 3" : undefined, x: STEPS, y: utility(steps) }
  ));
  lines[1].low = lines[1].y.map((value) => value - 0.2);
  lines[1].high = lines[1].y.map((value) => value + 0.2);
  const handle = { name: "the point", color: colors[2], at: [100, 2], move: (at) => { handle.at = at; show(); } };
  const show = () => curves.show(lines, [handle]);
  show();
  const map = (title, options) => new lab.HeatMap(stage, {
    title, description: `${title} by prompt and response`, rows: world.prompts, columns: world.responses, height: 260,
    names: ["prompt", "response"], ...options,
  });
  const hidden = world.observed.map((seen) => 1 - seen);
  const policy = { quantity: "π", colors: "cividis", ends: [lab.palette.LEAST, 1], logarithmic: true };
  const maps = Object.entries(trained).map(([name, steps]) => {
    const made = map(`π of ${name}`, policy);
    made.show(steps.at(-1).map(Math.exp), hidden);
    return made;
  });
  for (const one of maps) one.onhover = (cell) => maps.forEach((other) => other !== one && other.mark(cell));
  const chosen = [];
  maps[0].onchoose = (cell) => chosen.push(cell);
  const job = (name) => (
    { kernel: KERNELS[name], columns: { ...columns, start: world.refLogp }, learningRate: 0.05, wanted: STEPS }
  );
  const took = performance.now() - began;
  Object.assign(globalThis, { lab, job, world, trained, curves, maps, chosen, handle, took });
  document.body.dataset.ready = "yes";
"""


def write_page(file):
    """Write the page to a file, with the kernels of two losses in it."""
    losses = {"DPO": DPO(), "bDPO": BalancedDPO()}
    kernels = {name: training_kernel(loss, Training(dtype="float32")).record() for name, loss in losses.items()}
    code = base64.b64encode((WEB / "gradlab.js").read_bytes()).decode()
    given = {"CODE": code, "KERNELS": kernels, "STEPS": STEPS}
    constants = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in given.items())
    style = ":root { color-scheme: light dark } body { margin: 8px } main { display: grid; gap: 8px; "
    style += "grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); }"
    file.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>A page that trains</title><style>{style}</style><main></main>"
        f'<script type="module">{constants}{SCRIPT}</script></html>',
        "utf-8",
    )


def note_problems(page, problems):
    """Append a page's messages, its errors, and the addresses outside the file that it asks for."""
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text))
    page.on("request", lambda asked: asked.url.startswith(("file:", "blob:", "data:")) or problems.append(asked.url))
