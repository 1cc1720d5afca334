"""The lab's page where something is missing or forbidden: one sentence, and the lab goes on. Its policy, too."""

import re

import pytest
from lab_in_chromium import Lab
from web_page import note_problems

from gradlab.widgets import page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NO_SIMD = "this browser cannot run the kernel: it needs WebAssembly with SIMD, and an undamaged module."


def without(chromium, address, script):
    """Open the lab in a browser that a script has changed; return it, and the list of problems."""
    shown = chromium.new_context(viewport={"width": 1280, "height": 800}).new_page()
    shown.add_init_script(script)
    problems = []
    note_problems(shown, problems)
    shown.goto(address)
    return Lab(shown), problems


@pytest.mark.parametrize("view", ["pair", "grid"])
@pytest.mark.parametrize("workers", ["", "; delete globalThis.Worker"])
def test_a_browser_without_simd_says_so_in_one_sentence_and_controls_go_on(lab_file, chromium, view, workers):
    script = "WebAssembly.validate = () => false" + workers
    if not workers:
        script += (
            "; const Real = Blob; globalThis.Blob = function (parts, options) { return new Real("
            "['WebAssembly.validate = () => false;', ...parts], options); }"
        )  # in workers, too
    lab, problems = without(chromium, f"{lab_file.as_uri()}#view={view}&guess=shown", script)
    lab.begun()
    assert lab.trouble() == NO_SIMD
    lab.stage.get_by_role("slider", name="β of A").press("ArrowRight")
    assert lab.state("beta_a") > 1
    lab.settled()
    assert lab.trouble() == NO_SIMD
    lab.press("↶ undo")
    assert lab.state("beta_a") == 1
    lab.page.get_by_role("tab", name={"pair": "Training", "grid": "One pair"}[view]).click()
    lab.settled()
    assert lab.trouble() == NO_SIMD
    lab.page.context.close()
    assert problems == []


@pytest.mark.parametrize(
    "script",
    ["delete globalThis.Worker", "globalThis.Worker = class { constructor() { throw new Error('forbidden'); } }"],
)
def test_a_browser_that_forbids_workers_trains_in_the_page(lab_file, chromium, script):
    lab, problems = without(chromium, f"{lab_file.as_uri()}#view=grid&guess=shown", script)
    lab.begun()
    assert lab.trouble() == ""
    first = lab.numbers()
    lab.set(scale=6)
    assert lab.numbers()["a"]["utility"] > first["a"]["utility"]
    lab.page.context.close()
    assert problems == []


@pytest.mark.parametrize("view", ["pair", "grid"])
def test_a_damaged_kernel_is_said_and_the_other_losses_go_on(chromium, tmp_path, view):
    given = page.given()
    damaged = []
    for loss in given["losses"]:
        spoil = loss["name"] == "ipo"
        broken = {"slopes": {**loss["slopes"], "module": "AGFzbQ=="}} if spoil else {}
        trains = (
            {what: {**one, "module": "AGFzbQ=="} for what, one in loss["trains"].items()} if spoil else loss["trains"]
        )
        damaged.append(loss | broken | {"trains": trains})
    html = "<!doctype html><meta charset=utf-8><div id=gradlab-lab></div><script>SCRIPT</script>"
    (tmp_path / "lab.html").write_text(html.replace("SCRIPT", page.script(data=given | {"losses": damaged})), "utf-8")
    lab, problems = without(chromium, f"{(tmp_path / 'lab.html').as_uri()}#view={view}&guess=shown", "")
    lab.begun()
    picture = lab.picture()
    lab.set(loss_a="ipo")
    assert lab.trouble() == NO_SIMD
    lab.press("↶ undo")
    assert lab.trouble() == ""
    assert lab.picture() == picture
    lab.set(loss_a="nbdpo")
    assert lab.trouble() == ""
    assert lab.picture() != picture
    lab.page.context.close()
    assert problems == []


def test_the_policy_lets_in_nothing_but_the_page_itself(lab_file, chromium):
    text = lab_file.read_text("utf-8")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    rules = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert re.fullmatch(r"'sha256-[\w+/=]+' blob: 'wasm-unsafe-eval'", rules["script-src"])
    assert rules | {"script-src": ""} == {
        "default-src": "'none'", "script-src": "", "worker-src": "blob:", "style-src": "'unsafe-inline'",
        "img-src": "data: blob:", "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip
    shown = chromium.new_page()
    asked = []
    shown.on("request", lambda request: asked.append(request.url))
    shown.goto(lab_file.as_uri())
    Lab(shown).begun()
    assert all(url.startswith(("file:", "blob:", "data:")) for url in asked)
    refused = shown.evaluate(
        """() => new Promise((done) => setTimeout(async () => {
          const tried = (attempt) => { try { attempt(); return "let in"; } catch (error) { return error.name; } };
          const refused = [tried(() => new Function("return 1")()), tried(() => (0, eval)("1"))];
          const rules = new Set();
          const all = new Promise((told) => document.addEventListener("securitypolicyviolation", (event) => {
            if (rules.add(event.effectiveDirective).size === 4) told();
          }));
          await fetch("https://example.org/x").catch((error) => refused.push(error.name));
          const add = (tag, more) => document.body.append(Object.assign(document.createElement(tag), more));
          add("img", { src: "https://example.org/x.png" });
          add("script", { textContent: "globalThis.intruder = true" });
          add("script", { src: "https://example.org/x.js" });
          await Promise.race([all, new Promise((over) => setTimeout(over, 60_000))]);
          done([refused, [...rules].sort(), "intruder" in globalThis]);
        }))"""
    )
    assert refused[0] == ["EvalError", "EvalError", "TypeError"]
    assert refused[1:] == [["connect-src", "img-src", "script-src", "script-src-elem"], False]
    shown.close()
