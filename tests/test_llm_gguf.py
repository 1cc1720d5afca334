"""Models in GGUF files: made whole once, checked against the file, refused in one line, and then like any folder."""

import json
import multiprocessing
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("gguf")
from gguf import GGUFWriter
from pretrained import smollm2, smollm2_gguf  # noqa: F401
from safetensors.torch import load_file
from tiny_gguf import TEMPLATE, TOKENS, tiny_llama, write_gguf
from tiny_llm import tiny_settings

from gradlab.cli import main
from gradlab.doctor.training_log import read_log
from gradlab.llm.data.pairs import json_lines
from gradlab.llm.demo.token_task import token_task
from gradlab.llm.judge import evaluation_table
from gradlab.llm.judge.evaluate import evaluate
from gradlab.llm.look.inspection import inspect_data
from gradlab.llm.model import gguf_file
from gradlab.llm.model.finished import write_done
from gradlab.llm.model.gguf_file import whole_model
from gradlab.llm.model.gguf_tokens import file_tokens
from gradlab.llm.model.loading import load_model, load_tokenizer, model_hash, save_folder, weights_hash, with_lora
from gradlab.llm.model.merging import merge
from gradlab.llm.model.origins import origin, origin_note
from gradlab.llm.train.stages import train

GPT2 = "tokenizer.ggml."


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of the test's, and no bound on perplexities: the tiny models have learnt nothing."""
    monkeypatch.setenv("GRADLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(gguf_file, "MOST_PERPLEXITY", float("inf"))
    monkeypatch.setattr(gguf_file, "MOST_COPIED", float("inf"))
    return tmp_path / "cache"


def test_weights_are_whole_and_those_that_the_file_stands_for(cache, tmp_path):
    wanted = write_gguf(tmp_path / "tiny.gguf")
    folder = whole_model(tmp_path / "tiny.gguf")
    assert folder.startswith(str(cache / "models" / "tiny-"))
    got = load_file(f"{folder}/model.safetensors")
    assert got.keys() == wanted.keys()
    assert all(torch.equal(got[name], torch.from_numpy(wanted[name])) for name in wanted)
    assert {value.dtype for value in got.values()} == {torch.float32}
    config = json.loads(Path(folder, "config.json").read_text())
    assert "quantization_config" not in config
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, 2, 2)


def test_a_file_its_folder_and_the_whole_folder_are_one_model(cache, tmp_path):
    (tmp_path / "one").mkdir()
    write_gguf(tmp_path / "one" / "tiny.gguf")
    folder = whole_model(tmp_path / "one")
    assert whole_model(tmp_path / "one" / "tiny.gguf") == folder == whole_model(folder)
    for hashed in (weights_hash, model_hash):
        assert hashed(tmp_path / "one") == hashed(folder)
    tokenizer, model = load_tokenizer(tmp_path / "one"), load_model(tmp_path / "one" / "tiny.gguf")
    assert tokenizer.chat_template == TEMPLATE
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert tokenizer.encode("12 the") == [TOKENS.index("1"), TOKENS.index("2"), TOKENS.index("Ġthe")]
    assert model.config.name_or_path == folder
    assert origin(folder) == "4-bit weights (Q4_1 90%, Q8_0 10%) made whole in float32"
    assert "tiny.gguf: " in origin_note(folder)
    assert origin(tmp_path) is None


@pytest.mark.parametrize(
    ("pre", "bos", "begins"), [("llama-bpe", None, True), ("smollm", None, False), ("llama-bpe", False, False)]
)
def test_a_text_begins_with_bos_where_llama_cpp_begins_it_so(cache, tmp_path, pre, bos, begins):
    write_gguf(tmp_path / "tiny.gguf", pre=pre, bos=bos)
    ids = load_tokenizer(tmp_path / "tiny.gguf").encode(" the")
    assert (ids[0] == 1) == begins
    assert ids[begins:] == [TOKENS.index("Ġthe")]


def test_a_kept_model_is_not_made_again_unless_it_is_damaged(cache, tmp_path, capsys):
    write_gguf(tmp_path / "tiny.gguf")
    folder = whole_model(tmp_path / "tiny.gguf")
    (weights,) = cache.rglob("model.safetensors")
    before = weights.stat().st_mtime_ns
    assert whole_model(tmp_path / "tiny.gguf") == folder
    assert weights.stat().st_mtime_ns == before
    capsys.readouterr()
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert whole_model(tmp_path / "tiny.gguf") == folder
    assert "model.safetensors is damaged" in capsys.readouterr().err
    assert load_model(folder)


def test_equal_files_give_equal_bytes(cache, tmp_path, monkeypatch):
    write_gguf(tmp_path / "tiny.gguf")
    first = weights_hash(tmp_path / "tiny.gguf")
    monkeypatch.setenv("GRADLAB_CACHE", str(tmp_path / "other"))
    assert weights_hash(tmp_path / "tiny.gguf") == first


def _made(file, times, number):
    from gradlab.llm.model import gguf_file

    gguf_file.MOST_PERPLEXITY = gguf_file.MOST_COPIED = float("inf")
    folder = gguf_file.whole_model(file)
    times[number] = folder


@pytest.mark.slow
def test_two_processes_at_once_make_it_once(cache, tmp_path):
    write_gguf(tmp_path / "tiny.gguf")
    spawn = multiprocessing.get_context("spawn")
    with spawn.Manager() as manager:
        folders = manager.dict()
        workers = [spawn.Process(target=_made, args=(tmp_path / "tiny.gguf", folders, n)) for n in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(120)
        assert len(set(folders.values())) == 1
        assert len(folders) == 2
    assert [path.name for path in (cache / "models").iterdir() if not path.name.startswith(".")] == [
        next((cache / "models").glob("tiny-*")).name
    ]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"architecture": "made-up"}, "a GGUF file of an architecture that transformers can read.*made-up is not supp"),
        ({"pre": "made-up"}, "tokenizer.ggml.pre is 'made-up', and how that splits a text is not known"),
        ({"rest": 100}, "is cut short or damaged: its 100 bytes end"),
        ({"rest": -1000}, "is cut short or damaged"),
        ({"head": b"nope"}, "which does not begin with GGUF"),
        ({"more": True}, "the file has .* weights, and transformers reads .* of them"),
        ({"metadata": {"llama.rope.scaling.type": "yarn"}}, r"its positions are scaled \(yarn\), which transformers"),
        ({"without": "token_list"}, "with a tokenizer that transformers can read.*it has no tokenizer.ggml.tokens"),
        ({"without": "token_merges"}, "a GGUF file with a tokenizer that transformers can read"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line_and_leaves_nothing(cache, tmp_path, monkeypatch, how, words):
    file = tmp_path / "tiny.gguf"
    if "without" in how:
        monkeypatch.setattr(GGUFWriter, f"add_{how['without']}", lambda *_: None)
    given = {name: how[name] for name in ("architecture", "pre") if name in how}
    extra = [("rope_freqs.weight", torch.ones(16).numpy())] if "more" in how else []
    write_gguf(file, **given, tensors=extra, **how.get("metadata", {}))
    if "rest" in how:
        file.write_bytes(file.read_bytes()[: how["rest"]])
    if "head" in how:
        file.write_bytes(how["head"] + file.read_bytes()[4:])
    with pytest.raises((ValueError, OSError), match=words) as caught:
        whole_model(file)
    assert "\n" not in str(caught.value)
    assert [path for path in cache.rglob("*") if not path.name.endswith(".lock") and path.name != "models"] == []


def test_weights_without_sense_are_refused(cache, tmp_path, monkeypatch):
    write_gguf(tmp_path / "tiny.gguf")
    monkeypatch.undo()
    monkeypatch.setenv("GRADLAB_CACHE", str(cache))
    words = r"gives an English sentence the perplexity [\d,]+ \(at most 500\), and .*: its weights are damaged"
    with pytest.raises(ValueError, match=words):
        whole_model(tmp_path / "tiny.gguf")
    assert not list(cache.rglob("*.safetensors"))


def test_a_tokenizer_beside_the_file_must_be_the_files(cache, tmp_path):
    write_gguf(tmp_path / "tiny.gguf")
    folder = whole_model(tmp_path / "tiny.gguf")
    shutil.copy(f"{folder}/tokenizer.json", tmp_path)
    shutil.copy(f"{folder}/tokenizer_config.json", tmp_path)
    assert whole_model(tmp_path / "tiny.gguf") == folder
    page = json.loads((tmp_path / "tokenizer.json").read_text())
    page["pre_tokenizer"]["pretokenizers"] = page["pre_tokenizer"]["pretokenizers"][1:]  # numbers are no longer split
    (tmp_path / "tokenizer.json").write_text(json.dumps(page))
    with pytest.raises(ValueError, match=re.escape(f"the tokenizer in {tmp_path} differs from the tokenizer of tiny")):
        whole_model(tmp_path / "tiny.gguf")


def test_a_folder_with_several_files_is_refused(cache, tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.gguf").touch()
    with pytest.raises(ValueError, match=r"model must name one GGUF file, got .* with 2: a\.gguf, b\.gguf"):
        whole_model(tmp_path)
    with pytest.raises(FileNotFoundError, match="model must be a file that can be read"):
        whole_model(tmp_path / "none.gguf")


@pytest.mark.parametrize(
    ("pre", "wanted"),
    [
        ("smollm", ["1", "2", "Ġthe", "Ġ", "3"]),
        ("gpt-2", ["12", "Ġthe", "Ġ", "3"]),
        ("qwen2", ["1", "2", "Ġthe", "Ġ", "3"]),
    ],
)
def test_byte_level_tokens_by_the_files_own_rules(pre, wanted):
    metadata = {
        f"{GPT2}model": "gpt2", f"{GPT2}pre": pre, f"{GPT2}tokens": TOKENS, f"{GPT2}token_type": [1] * len(TOKENS),
        f"{GPT2}merges": ["Ġ t", "h e", "Ġt he", "1 2", "i n"],
    }  # fmt: skip
    assert [TOKENS[place] for place in file_tokens(metadata, "12 the 3")] == wanted


def test_sentence_piece_merges_by_score_and_spells_the_rest_in_bytes():
    tokens = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "ab", "▁a", "<user>"]
    scores = [0.0] * 257 + [-9.0, -9.0, -9.0, -2.0, -1.0, 0.0]
    metadata = {
        f"{GPT2}model": "llama", f"{GPT2}tokens": tokens, f"{GPT2}scores": scores,
        f"{GPT2}token_type": [1] * (len(tokens) - 1) + [4],
    }  # fmt: skip
    assert [tokens[place] for place in file_tokens(metadata, "ab")] == ["▁a", "b"]
    metadata[f"{GPT2}add_space_prefix"] = False
    found = [tokens[place] for place in file_tokens(metadata, "ab<user>é")]
    assert found == ["ab", "<user>", "<0xC3>", "<0xA9>"]


@pytest.mark.slow
def test_the_pretrained_model_answers(smollm2):  # noqa: F811
    model, tokenizer = load_model(smollm2).eval(), load_tokenizer(smollm2)
    assert "4-bit weights (Q4_1 79%, Q8_0 21%) made whole in float32" in origin_note(smollm2)
    assert tokenizer.encode("in 2007") == tokenizer.encode("in ") + [tokenizer.encode(digit)[0] for digit in "2007"]
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    asked = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")
    answer = model.generate(**asked, max_new_tokens=12, do_sample=False)[0, asked["input_ids"].shape[1] :]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"


@pytest.mark.slow
def test_queries_in_another_order_are_noticed(smollm2, smollm2_gguf, tmp_path, monkeypatch):  # noqa: F811
    import gguf

    monkeypatch.setenv("GRADLAB_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "other.gguf"
    shutil.copy(smollm2_gguf, file)
    with open(file, "r+b") as opened:
        for tensor in gguf.GGUFReader(smollm2_gguf).tensors:
            if ".attn_q." in tensor.name:
                rows = tensor.data.reshape(9, 2, 32, -1).swapaxes(1, 2)  # rows of Q4_1 are whole blocks
                opened.seek(int(tensor.data_offset))
                opened.write(rows.tobytes())
    with pytest.raises(ValueError, match="a text that it has just read"):
        whole_model(file)


def test_where_weights_came_from_is_known_through_adapters_merging_and_trainings(cache, tmp_path):
    write_gguf(tmp_path / "tiny.gguf")
    whole = whole_model(tmp_path / "tiny.gguf")
    words, tokenizer = origin(whole), load_tokenizer(whole)
    save_folder(tmp_path / "adapter", with_lora(load_model(whole), 2, 4.0, ["q_proj"]), tokenizer)
    assert origin(tmp_path / "adapter") == words
    assert merge([tmp_path / "adapter"], tmp_path / "merged").quantised == words
    assert origin(tmp_path / "merged") == words
    assert origin_note(tmp_path / "merged") == f"the model began as {words}"
    save_folder(tmp_path / "again", with_lora(load_model(tmp_path / "merged"), 2, 4.0, ["q_proj"]), tokenizer)
    assert merge([tmp_path / "again"], tmp_path / "twice").quantised == words
    load_model(tmp_path / "merged").save_pretrained(tmp_path / "by-others")
    assert origin(tmp_path / "by-others") == words
    for folder, page in (("said", {"model_weights": words}), ("older", {"start": whole}), ("reward", {"base": whole}),
                         ("circle", {"start": str(tmp_path / "circle" / "model")})):  # fmt: skip
        save_folder(tmp_path / folder / "model", tiny_llama(), tokenizer)
        write_done(tmp_path / folder, page)
        assert origin(tmp_path / folder / "model") == (None if folder == "circle" else words)
    assert origin("a/hub-name") is None


@pytest.mark.slow
def test_a_run_from_another_runs_model_says_what_that_began_as(cache, tmp_path):
    write_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "pairs.jsonl").write_text(json_lines(token_task(8, 0, longest=4)), encoding="utf-8")
    given = {"max_length": 128, "held_out": 2, "steps": 1, "lora_rank": 2}
    (first,) = train(tiny_settings(tmp_path, tmp_path / "one", model=str(tmp_path / "tiny.gguf"), **given))
    (second,) = train(tiny_settings(tmp_path, tmp_path / "two", model=str(first / "model"), **given))
    words = origin(whole_model(tmp_path / "tiny.gguf"))
    assert read_log(second / "log.jsonl").attrs["settings"]["model_weights"] == words
    assert f"All models began as {words}." in evaluation_table.notes(evaluate(tmp_path / "two", samples=1, length=4))
    seen = inspect_data(str(second / "model"), str(tmp_path / "pairs.jsonl"), max_length=128, precision="fp32")
    assert f"the model began as {words}" in seen.notes
    assert seen.settings["model_weights"] == words


@pytest.mark.slow
def test_a_run_on_a_gguf_file_is_one_on_its_whole_folder(cache, tmp_path, capsys):
    write_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "pairs.jsonl").write_text(json_lines(token_task(8, 0, longest=4)), encoding="utf-8")
    given = {"model": str(tmp_path / "tiny.gguf"), "max_length": 128, "held_out": 2, "steps": 1, "lora_rank": 2}
    (folder,) = train(tiny_settings(tmp_path, tmp_path / "out", **given))
    whole = whole_model(tmp_path / "tiny.gguf")
    words = "4-bit weights (Q4_1 90%, Q8_0 10%) made whole in float32"
    assert f"the model is tiny.gguf: 247,008 parameters, {words}, kept in {whole}" in capsys.readouterr().out
    assert read_log(folder / "log.jsonl").attrs["settings"]["model_weights"] == words
    assert json.loads((folder / "model" / "adapter_config.json").read_text())["base_model_name_or_path"] == whole
    done = merge([folder / "model"], tmp_path / "merged")
    assert done.quantised == words
    assert words in str(done)
    assert f"All models began as {words}." in evaluation_table.notes(evaluate(tmp_path / "out", samples=1, length=4))
    seen = inspect_data(given["model"], str(tmp_path / "pairs.jsonl"), max_length=128, precision="fp32")
    assert any(words in note for note in seen.notes)
    assert words in " ".join(str(seen).split())


SHORTER = {  # more options, so that the commands end soon
    "train": "--steps 1 --batch 2 --micro 2 --held-out 2 --device cpu --max-length 256",
    "evaluate": "--samples 1 --length 4 --device cpu",
}


@pytest.mark.slow
def test_four_commands_lead_from_pairs_to_a_merged_model(cache, tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parent.parent / "scripts/README.md").read_text("utf-8")
    block = page.split("### From pairs to a merged model: four commands")[1].split("```bash\n")[1].split("```")[0]
    lines = [shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines()]
    commands = [line for line in lines if line]
    assert [command[:2] for command in commands] == [["gradlab", n] for n in ("inspect", "train", "evaluate", "merge")]
    write_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "pairs.jsonl").write_text(json_lines(token_task(8, 0, longest=4)), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    given = {"MODEL": "tiny.gguf", "PAIRS.jsonl": "pairs.jsonl"}
    for _, name, *words in commands:
        assert main([name, *(given.get(word, word) for word in words), *shlex.split(SHORTER.get(name, ""))]) == 0, name
    said = capsys.readouterr().out
    assert "runs/mine-merged" in said
    assert sorted(path.name for path in (tmp_path / "runs/mine").iterdir() if path.is_dir()) == [
        "bdpo", "cache", "dpo", "evaluation", "fixed-weight", "length-dpo",
    ]  # fmt: skip
    assert load_model("runs/mine-merged").config.model_type == "llama"
    assert load_tokenizer("runs/mine-merged").chat_template == TEMPLATE
