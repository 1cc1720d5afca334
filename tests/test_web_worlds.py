"""Worlds of one's own in the page: files, texts, paint and code, in Node, held to the library's worlds."""

import base64
import io
import json

import numpy as np
import pytest
from node import needs_node, with_bundle
from rounding import rounding

from gradlab.lab.world import World, exact_pairs, gaussian_world
from gradlab.widgets import GridExplorer
from gradlab.widgets.world_texts import fits, paint_text, read_paint, read_world, world_text

pytestmark = needs_node

FILE = """
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const said = (action) => { try { return action(); } catch (error) { return error.message; } };
"""
PLAIN = {
    "seed": 0, "seeds": 1, "when": 100, "world": "", "painted": "", "pairs": "exact", "policy": "free",
    "optimizer": "adam", "learning_rate": 0.05, "steps": 20, "prompts": 20, "responses": 20, "utility": "gaussian",
    "sigma": 3, "scale": 4, "mask_rate": 0, "mask_kind": "responses", "reference": "uniform", "shift": 6,
}  # fmt: skip


def encoded(content):
    return base64.b64encode(content if isinstance(content, bytes) else content.encode()).decode()


def npy(array, version=None):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version)
    return file.getvalue()


def read(files):
    return with_bundle(
        f"{FILE} return given.map((file) => said(() => lab.readTable(bytes(file))));", [*map(encoded, files)]
    )


# --- tables ---

TABLE = np.array([[1.5, -2, 3e-9], [0, 1e300, 7]])
WHOLE = np.array([[1, -2, 3], [0, 2**31 - 1, 7]])


def test_tables_of_numpy_are_read_in_every_version_order_and_kind():
    kinds = ["<f8", "<f4", "<i8", "<i4", "|b1", "|u1"]
    arrays = [(TABLE % 100 if kind == "<f4" else TABLE if kind == "<f8" else WHOLE).astype(kind) for kind in kinds]
    arrays += [np.asfortranarray(TABLE), np.asfortranarray(WHOLE.astype("<i4"))]
    files = [npy(array) for array in arrays] + [npy(TABLE, (2, 0)), npy(TABLE, (3, 0))]
    for array, found in zip([*arrays, TABLE, TABLE], read(files), strict=True):
        assert (found["rows"], found["columns"]) == array.shape
        assert found["values"] == array.astype(float).ravel().tolist()


def test_tables_of_text_are_read_between_commas_semicolons_tabs_and_spaces():
    saved = io.StringIO()
    np.savetxt(saved, TABLE, header="as numpy writes it")
    texts = ["1,2\n3,4\n", "\ufeff1; 2\r\n\r\n3;4", "# a note\n1\t2\n 3  4", "True,False\n1e0,-0"]
    *found, own = read([*texts, saved.getvalue()])
    assert [one["values"] for one in found] == [[1, 2, 3, 4]] * 3 + [[1, 0, 1, 0]]
    assert own["values"] == TABLE.ravel().tolist()


BAD = {
    "": "the file must hold a table of numbers, but it is empty",
    " \n#1,2\n": "the file must hold a table of numbers, but it is empty",
    "1,2\n3\n": "every line must have 2 numbers as the first has, got 1 in line 2",
    "1,2\n\n3,x\n": 'every cell must be a number, got "x" in line 3',
    "1,,2\n": 'every cell must be a number, got "" in line 1',
    "response 0,response 1\n1,2": 'every cell must be a number, got "response 0" in line 1',
    "constructor,1": 'every cell must be a number, got "constructor" in line 1',
    "1,2\n3,nan": 'every cell must be a number, got "nan" in line 2',
    "1,Infinity": 'every cell must be a number, got "Infinity" in line 1',
    npy(TABLE.astype(">f8")): "a .npy file must hold one of <f8, <f4, <i8, <i4, |b1, |u1, got >f8",
    npy(TABLE.astype(complex)): "a .npy file must hold one of <f8, <f4, <i8, <i4, |b1, |u1, got <c16",
    npy(np.zeros(2, [("a", "<f8")])): "a .npy file must hold one of <f8, <f4, <i8, <i4, |b1, |u1, got a structure",
    npy(TABLE[0]): "a .npy file must have shape (prompts, responses), got (3)",
    npy(TABLE[:0]): "a .npy file must have shape (prompts, responses), got (0, 3)",
    npy(TABLE)[:-1]: "a .npy file of this shape must have 176 bytes, got 175",
    npy(TABLE)[:9]: "a .npy file must not end within its head",
    npy(TABLE)[:40]: "a .npy file must say its order and shape in its head",
    npy(TABLE).replace(b"NUMPY\x01", b"NUMPY\x07"): "a .npy file must have version 1, 2 or 3, got 7",
    npy(np.array([[1, np.nan]])): "every number must be finite, got NaN in row 0, column 1",
}  # fmt: skip


def test_a_file_that_is_no_table_is_refused_in_one_sentence():
    assert read(BAD) == list(BAD.values())


# --- worlds ---


def part_files():
    mask = {"mask_rate": 0.25, "mask_kind": "pairs"}
    world = gaussian_world(3, 4, reference="random", length=9, length_spread=0.5, seed=2, **mask)
    assert world.hidden_pairs is not None
    assert world.lengths is not None
    return world, json.dumps({
        "utility": world.utility.tolist(), "observed": world.observed.tolist(), "ref_logp": world.ref_logp.tolist(),
        "hidden_pairs": world.hidden_pairs.tolist(), "lengths": world.lengths.tolist(),
    })  # fmt: skip


def test_a_world_goes_through_a_file_and_through_a_text_bit_for_bit():
    world, file = part_files()
    assert world.hidden_pairs is not None
    assert world.lengths is not None
    body = f"""
      {FILE}
      const world = lab.worldOfFile(bytes(given[0]), "utility", null);
      const again = lab.worldOfText(lab.textOfWorld(world));
      const plain = lab.textOfWorld(lab.worldOfFile(bytes(given[1]), "utility", null));
      const parts = [["observed", given[2]], ["ref_logp", given[3]], ["ref_logp", given[4]]];
      const changed = parts.map(([part, file]) => lab.worldOfFile(bytes(file), part, world));
      return [world, again, plain, ...changed];
    """
    observed = np.array([[1, 1, 0, 1]] * 3)
    probabilities = np.array([[0.5, 0.25, 0.125, 0.125]] * 3)
    given = [file, "1,2\n3,4", npy(observed), npy(probabilities), npy(np.log(probabilities))]
    first, again, plain, hidden, reference, logarithms = with_bundle(body, [*map(encoded, given)])
    for found in (first, again):
        assert (found["prompts"], found["responses"]) == (3, 4)
        assert found["utility"] == world.utility.ravel().tolist()
        assert found["refLogp"] == world.ref_logp.ravel().tolist()
        assert found["observed"] == world.observed.ravel().tolist()
        assert found["hiddenPairs"] == world.hidden_pairs.ravel().tolist()
        assert found["lengths"] == world.lengths.ravel().tolist()
    assert plain == '{"utility":[[1,2],[3,4]]}'
    assert hidden["observed"] == observed.ravel().tolist()
    assert hidden["utility"] == first["utility"]
    for found in (reference, logarithms):
        np.testing.assert_allclose(found["refLogp"], np.log(probabilities).ravel(), rtol=rounding(1))


BAD_WORLDS = {
    ("utility", "{"): "a world must be JSON: ",
    ("utility", '{"utility": [[1, 2], [3]]}'): "utility must be a list of rows of one length",
    ("utility", '{"observed": [[1, 1]]}'): "utility must be a list of rows of one length",
    ("utility", '{"utility": [[1, "2"]]}'): 'utility must be numbers, got "2"',
    ("utility", '{"utility": [[1, null]]}'): "utility must be numbers, got null",
    ("utility", '{"utility": [[1, 2]], "mask": 1}'):
        'a world must have no other parts than utility, observed, ref_logp, hidden_pairs, lengths, got "mask"',
    ("utility", '{"utility": [[1, 2]], "observed": [[1]]}'): "observed must have 1 rows of 2 numbers, got 1 of 1",
    ("utility", '{"utility": [[1, 2]], "observed": [[1, 2]]}'): "observed must be 0 or 1, or false or true, got 2",
    ("utility", '{"utility": [[1, 2]], "observed": [[true, false]]}'):
        "every prompt must keep a pair, but prompt 0 has none",
    ("utility", '{"utility": [[1, 2]], "ref_logp": [[0, 0]]}'):
        "ref_logp must sum to one over responses in every prompt, got a sum of 2.00000",
    ("utility", '{"utility": [[1, 2, 3]], "hidden_pairs": [[[0, 1, 0], [0, 0, 0], [0, 0, 0]]]}'):
        "hidden_pairs must be symmetric",
    ("utility", '{"utility": [[1, 2]], "lengths": [[1, 0.5]]}'): "lengths must be finite and 1 or more, got 0.5",
    ("utility", '{"utility": [[1, 2]], "lengths": [[1]]}'): "lengths must have 1 rows of 2 numbers, got 1 of 1",
    ("utility", "1\n2"): "a world must have at least 2 responses, got 1",
    ("utility", npy(np.zeros((200, 200)))):
        "prompts × responses² must be at most 1,000,000 in a page, got 200 × 200²; Python takes more",
    ("utility", npy(np.zeros((2000, 3)))): "prompts must be at most 1,000 in a page, got 2000; Python takes more",
    ("observed", "1,1,1"): "observed must have 2 rows of 3, as the world has, got 1 of 3",
    ("observed", "1,1,0.5\n1,1,1"): "observed must be 0 or 1, or false or true, got 0.5",
    ("ref_logp", "0.5,0.5,0.5\n0.4,0.3,0.3"):
        "a reference must sum to one in every prompt, got a sum of 1.50000 in prompt 0",
    ("ref_logp", "0.5,0.5,0\n0.4,0.3,0.3"): "a reference must have probabilities above 0, or their logarithms, got 0",
    ("observed", "{}"): "a JSON file must be loaded as a world",
}  # fmt: skip


def test_a_file_that_is_no_world_is_refused_in_one_sentence():
    body = f"""
      {FILE}
      const shown = lab.gaussianWorld({{ prompts: 2, responses: 3 }});
      return given.map(([part, file]) => said(() => lab.worldOfFile(bytes(file), part, shown)));
    """
    told = with_bundle(body, [[part, encoded(file)] for part, file in BAD_WORLDS])
    for there, wanted in zip(told, BAD_WORLDS.values(), strict=True):
        assert there == wanted or (wanted.endswith(": ") and there.startswith(wanted))


# --- states ---


def test_a_state_refuses_a_world_or_paint_that_is_none_and_a_link_leaves_out_what_is_long():
    body = """
      const spec = lab.KINDS.grid.kind.fields;
      const defaults = { painted: "", world: "" };
      const history = new lab.History(defaults, spec);
      const said = (changes) => { try { history.set(changes); return ""; } catch (error) { return error.message; } };
      const long = lab.textOfWorld(lab.gaussianWorld());
      const refused = [
        said({ "world": '{"utility":[[1,2],[3]]}' }), said({ "world": "x" }),
        said({ "painted": "2x3:5A" }), said({ "painted": "0".repeat(400) }),
        said({ "painted": "9999x9999:A" }), said({ "world": long }),
      ];
      const link = lab.toFragment(history.state, defaults, spec);
      const told = [lab.copiedWords(history.state), lab.copiedWords(defaults)];
      history.undo();
      history.set({ "world": '{"utility":[[1,2],[3,4]]}' });
      const short = lab.toFragment(history.state, defaults, spec);
      return [refused, link, told, lab.fromFragment(link, defaults, spec).refused,
              lab.fromFragment(short, defaults, spec).state["world"]];
    """
    refused, link, told, opened, short = with_bundle(body, None)
    assert refused == [
        "world is refused: utility must be a list of rows of one length",
        'world must be a world as JSON, or nothing, got "x"',
        "painted is refused: painted must have 6 marks for 2 prompts and 3 responses, got 5",
        'painted must be a size and marks of paint, such as 2x3:5AB, or nothing, got "' + "0" * 60 + '…"',
        "painted is refused: prompts must be at most 1,000 in a page, got 9999; Python takes more",
        "",
    ]
    assert link == "world=left-out"
    assert told == [
        "The link is copied, without world, too long for a link: save a file, which has all.",
        "The link is copied.",
    ]
    assert opened == ["world was too long for a link, which goes without it: load it from a file"]
    assert short == '{"utility":[[1,2],[3,4]]}'


# --- paint ---


def test_paint_goes_through_its_text_whatever_it_is():
    body = """
      const marks = [];
      for (const flip of [false, true]) for (const utility of ["", "best", "worst"]) {
        for (let steps = -4; steps <= 4; steps++) marks.push({ flip, utility, steps });
      }
      const text = lab.paint.textOfPaint({ prompts: 2, responses: 27, marks });
      const clean = lab.paint.unpainted({ prompts: 20, responses: 20 });
      clean.marks[399] = marks[9];
      const back = lab.paint.paintOfText(text);
      const none = lab.paint.textOfPaint(lab.paint.unpainted({ prompts: 2, responses: 3 }));
      return [JSON.stringify(back.marks) === JSON.stringify(marks), lab.paint.PAINTED.test(text), none,
              lab.paint.textOfPaint(clean)];
    """
    *fine, short = with_bundle(body, None)
    assert fine == [True, True, ""]
    assert len(short) == len("20x20:399Ax")


SIZED = [
    gaussian_world(3, 4, reference="random", mask_rate=0.25, mask_kind="pairs", seed=2),
    gaussian_world(5, 7, utility="independent", mask_rate=0.3),
    gaussian_world(2, 3, reference="random", length=40, length_spread=0.3),
    World(np.array([[1.0, 2.0], [1e-7, 1e300]]), np.ones((2, 2), bool), np.log(np.full((2, 2), 0.5))),
]


def test_texts_of_worlds_and_paint_are_those_of_the_explorer_in_python():
    texts = [world_text(world) for world in SIZED]
    paints = ["2x3:BCEGMA", "2x4:MGYASk2A", "20x20:62A5B133A3Y177A2C18A"]
    body = """
      const { paintOfText, textOfPaint } = lab.paint;
      const worlds = given.texts.map(lab.worldOfText);
      return [worlds.map((world) => lab.textOfWorld(world)), worlds,
              given.paints.map((text) => [textOfPaint(paintOfText(text)), paintOfText(text).marks])];
    """
    again, worlds, paints_there = with_bundle(body, {"texts": texts, "paints": paints})
    for world, there, text in zip(SIZED, worlds, again, strict=True):
        assert there["utility"] == world.utility.ravel().tolist()
        assert there["refLogp"] == world.ref_logp.ravel().tolist()
        back = read_world(text)
        for name in ("utility", "observed", "ref_logp"):
            assert np.array_equal(getattr(back, name), getattr(world, name))
        assert (back.hidden_pairs is None) == (world.hidden_pairs is None)
        assert np.array_equal(back.token_counts, world.token_counts)
    for text, (same, marks) in zip(paints, paints_there, strict=True):
        paint = read_paint(text)
        assert text == same == paint_text(paint)
        assert [one["flip"] for one in marks] == paint.flips.ravel().tolist()
        assert [one["steps"] for one in marks] == paint.steps.ravel().tolist()
        assert [{"": 0, "best": 1, "worst": -1}[one["utility"]] for one in marks] == paint.levels.ravel().tolist()
    assert fits(paints[2], gaussian_world())


def test_brushes_hide_set_utilities_and_move_a_reference_that_stays_one():
    body = """
      const world = lab.gaussianWorld({ prompts: 2, responses: 3, utility: "log-gaussian" });
      const { BRUSHES, unpainted, painted, textOfPaint } = lab.paint;
      const strokes = ["hide or show", "best (highest u)", "worst (lowest u)", "reference: more likely"];
      return strokes.map((name) => {
        const paint = unpainted(world);
        for (let stroke = 0; stroke < 9; stroke++) paint.marks[4] = BRUSHES[name](paint.marks[4]);
        return painted(world, textOfPaint(paint));
      });
    """
    hidden, best, worst, moved = with_bundle(body, None)
    world = gaussian_world(2, 3, utility="log-gaussian")
    assert hidden["observed"] == [1, 1, 1, 1, 0, 1]
    assert best["utility"][4] == pytest.approx(world.utility.max())
    assert worst["utility"][4] == pytest.approx(world.utility.min())
    wanted = np.exp(world.ref_logp[1] + np.array([0, 4, 0]))
    np.testing.assert_allclose(np.exp(moved["refLogp"]), [*[1 / 3] * 3, *wanted / wanted.sum()], rtol=rounding(20))


# --- code ---


def states():
    """States of the explorer, by what is special about them."""
    own = {"utility": [[0.1, -1e-7, 3], [1e3, 5, 2]], "observed": [[1, 1, 0], [1, 1, 1]],
           "ref_logp": np.log([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]).tolist()}  # fmt: skip
    hidden = np.zeros((2, 3, 3), int)
    hidden[0, 0, 1] = hidden[0, 1, 0] = 1
    return {
        "sizes": {"prompts": 3, "responses": 30, "mask_rate": 0.3, "seed": 4},
        "normal numbers": {"utility": "independent", "reference": "random", "prompts": 5, "responses": 2, "seed": 2},
        "own": {"world": json.dumps(own)},
        "own, plain": {"world": '{"utility":[[1,2],[3,4]]}', "seed": 3},
        "own, hidden pairs": {"world": json.dumps({"utility": own["utility"], "hidden_pairs": hidden.tolist()})},
        "own, lengths": {"world": json.dumps({**own, "lengths": [[1, 2, 3], [4, 5, 6.5]]}), "painted": "2x3:DAFGAy"},
        "painted": {"prompts": 2, "responses": 3, "painted": "2x3:BCEGMA"},
        "painted references": {"prompts": 2, "responses": 4, "reference": "random", "painted": "2x4:MGYASk2A"},
        "own, painted": {"world": json.dumps(own), "painted": "2x3:DAFGAy"},
        "pairs hidden, painted": {"mask_kind": "pairs", "mask_rate": 0.4, "painted": "20x20:5B395A"},
        "paint of another size": {"prompts": 4, "painted": "20x20:5B395A"},
    }  # fmt: skip


def test_the_copied_python_makes_the_world_that_is_seen():
    body = """
      const code = (part) => lab.python.filled(given.template, part, lab.python.gridParts(part, []));
      return given.parts.map((part) => [lab.worldOf(part, part.seed), code(part)]);
    """
    parts = [PLAIN | part for part in states().values()]
    made = with_bundle(body, {"template": GridExplorer.template, "parts": parts})
    for name, (there, code) in zip(states(), made, strict=True):
        found = {}
        exec(code, found)
        (world,) = found["worlds"]
        assert isinstance(world, World)
        assert world.utility.shape == (there["prompts"], there["responses"]), name
        for here, key in ((world.utility, "utility"), (world.ref_logp, "refLogp")):
            size = max(np.abs(here).max(), 1.0)
            np.testing.assert_allclose(there[key], here.ravel(), rtol=0, atol=rounding(40, 3 * size), err_msg=name)
        assert there["observed"] == world.observed.ravel().tolist(), name
        assert (world.hidden_pairs is None) == (there.get("hiddenPairs") is None), name
        assert there.get("lengths", np.ones_like(world.utility).ravel().tolist()) == world.token_counts.ravel().tolist()
        assert exact_pairs(world).shape[1] == there["responses"]
        assert found["training"].steps == 20
