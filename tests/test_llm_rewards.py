"""Rewards: what each kind reads and gives, what is refused in one line, and a small reward model that learns."""

import json
import math
import os
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForSequenceClassification,
    LlamaModel,
    PreTrainedTokenizerFast,
)

from gradlab.doctor.training_log import read_log
from gradlab.llm.data.pairs import Pair
from gradlab.llm.demo.token_task import task_tokenizer
from gradlab.llm.model.loading import save_folder, small_llama
from gradlab.llm.model.reward_accuracy import held_out_accuracy
from gradlab.llm.model.reward_models import Scorer
from gradlab.llm.model.rewards import CheckedReward, check_reward, load_reward, reward_hash
from gradlab.llm.model.score_head import LlamaForScore
from gradlab.llm.train.reward_training import train_reward
from gradlab.llm.train.trained_model import TrainedModel

OPENING = ("BEGINNING", "OF", "CONVERSATION:", "USER:", "ASSISTANT:")
WORDS = ("good", "bad", "day", "night", "hello", "there", "[user]", "[assistant]", *OPENING)
HELLO = "BEGINNING OF CONVERSATION: USER: hello ASSISTANT:"
DIALOGUE = "\n\nHuman: hello\n\nAssistant:"


def words():
    """A token a word; a text begins with <s>."""
    names = ["<s>", "</s>", "<pad>", "<unk>", *WORDS]
    own = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
    own.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("ASSISTANT:", "isolated")]
    )
    own.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=own, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
                                   unk_token="<unk>")  # fmt: skip


TOKENIZER = words()


def ids(text, *, end=False):
    return TOKENIZER(text)["input_ids"] + [1] * end


def config(**more):
    return LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
                       max_position_embeddings=32, bos_token_id=0, eos_token_id=1, pad_token_id=2,
                       **more)  # fmt: skip


def classifier(folder, *, labels=1, tokenizer=TOKENIZER, **more):
    torch.manual_seed(1)
    names = dict(enumerate(["bad", "fine", "great"][:labels]))
    model = LlamaForSequenceClassification(
        config(num_labels=labels, id2label=names, label2id={name: index for index, name in names.items()}, **more)
    )
    save_folder(folder, model, tokenizer)
    return model.eval()


def alone(model, text, **how):
    """The logits of one text, without any padding."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids(text, **how)])).logits[0]


def cut_short(source, folder):
    """A copy of a model whose weights end too early, as where a disk was full."""
    file = shutil.copytree(source, folder) / "model.safetensors"
    os.truncate(file, file.stat().st_size - 100)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("rewards")


@pytest.fixture(scope="module")
def one_output(folder):
    return classifier(folder / "one"), str(folder / "one")


# Sequence classifiers


def test_a_classifier_reads_prompt_and_response_as_one_text_and_padding_changes_nothing(one_output):
    model, spec = one_output
    prompts, responses = ["hello", "hello there", "good"], [" good day", "", " bad night there hello"]
    rewards = load_reward(spec, batch=2)(prompts, responses)
    expected = [float(alone(model, a + b)[0]) for a, b in zip(prompts, responses, strict=True)]
    assert rewards == pytest.approx(expected, abs=1e-6)
    assert len(set(np.round(expected, 4))) == 3
    assert rewards == pytest.approx(load_reward(spec, batch=16)(prompts, responses), abs=1e-6)


def test_of_several_labels_one_must_be_named(folder):
    model = classifier(folder / "three", labels=3)
    spec = str(folder / "three")
    with pytest.raises(ValueError, match=r"must have one output, got 3; name one of bad, fine, great as .*#LABEL"):
        load_reward(spec)
    with pytest.raises(ValueError, match=r"label of reward .* must be one of bad, fine, great; got 'greet'"):
        load_reward(spec, label="greet")
    reward = load_reward(f"{spec}#great")(["hello"], [" there"])
    p = alone(model, "hello there").softmax(0)[2].double()
    assert reward == pytest.approx([float(torch.log(p / (1 - p)))], abs=1e-5)
    assert reward == pytest.approx(load_reward(spec, label="great")(["hello"], [" there"]))


def test_independent_labels_have_log_odds_of_their_own(folder):
    model = classifier(folder / "many", labels=2, problem_type="multi_label_classification")
    found = load_reward(str(folder / "many"), label="fine")(["hello"], [" there"])
    assert found == pytest.approx([float(alone(model, "hello there")[1])], abs=1e-6)


def test_outputs_of_a_regression_are_the_rewards(folder):
    model = classifier(folder / "regression", labels=3, problem_type="regression")
    found = load_reward(str(folder / "regression"), label="fine")(["hello"], [" there"])
    assert found == pytest.approx([float(alone(model, "hello there")[1])], abs=1e-6)


@pytest.mark.parametrize("pad", [None, -1])
def test_without_a_padding_token_a_text_is_read_at_the_end_that_its_template_writes(folder, pad):
    tokenizer = words()
    tokenizer.pad_token = None
    tokenizer.chat_template = "<s>{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}</s>"
    spec = folder / f"ends-{pad}"
    model = classifier(spec, tokenizer=tokenizer)
    page = json.loads((spec / "config.json").read_text()) | {"pad_token_id": pad}
    (spec / "config.json").write_text(json.dumps(page))
    hello = ({"role": "user", "content": "hello"},)
    answers = ["good day", "bad night there hello", "day", "<unk>"]
    found = load_reward(str(spec), template="chat")([hello] * 4, answers)
    expected = [float(alone(model, f"[user] hello [assistant] {answer} </s>")[0]) for answer in answers]
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_long_text_loses_its_beginning(one_output):
    model, spec = one_output
    reward = load_reward(spec)  # 32 positions: <s> and the last 31 words
    found = reward(["hello " * 40], ["good bad day"])
    assert found == pytest.approx([float(alone(model, "hello " * 28 + "good bad day")[0])], abs=1e-6)
    assert reward.function.cut == 1


def test_a_text_begins_once_where_a_chat_template_has_written_its_beginning(one_output):
    model, spec = one_output
    reward = load_reward(spec)
    with torch.no_grad():
        expected = [float(model(input_ids=torch.tensor([ids("hello good day")])).logits[0, 0])]
    assert reward(["hello"], [" good day"]) == pytest.approx(expected, abs=1e-6)
    assert reward(["<s>hello"], [" good day"]) == pytest.approx(expected, abs=1e-6)
    long = reward(["<s>" + "hello " * 40], ["good bad day"])
    assert long == pytest.approx([float(alone(model, "hello " * 28 + "good bad day")[0])], abs=1e-6)


def test_messages_are_written_by_the_rewards_own_chat_template(folder, one_output):
    tokenizer = words()
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}"
    model = classifier(folder / "chat", tokenizer=tokenizer)
    reward = load_reward(str(folder / "chat"), template="chat")
    read = reward.prompts([DIALOGUE, "hello"], "plain", None)
    assert read == [({"role": "user", "content": "hello"},)] * 2
    text = "[user] hello [assistant] good day "
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([ids(text)[1:]])).logits[0, 0]
    assert reward(read[:1], ["good day"]) == pytest.approx([float(expected)], abs=1e-6)
    with pytest.raises(ValueError, match="has no chat template, got 'chat'"):
        load_reward(one_output[1], template="chat")


def test_a_reward_reads_prompts_as_the_model_saw_them(one_output):
    reward = load_reward(one_output[1])
    assert reward.prompts([DIALOGUE], "plain", TOKENIZER) == [DIALOGUE]
    assert reward.prompts([DIALOGUE], "beaver", TOKENIZER) == [HELLO]


# Models of safe-rlhf


def score_model(folder, name="LlamaModelForScore", *, bias=None, **said):
    """A checkpoint as safe-rlhf writes it, made without our class; backbone and head."""
    torch.manual_seed(2)
    backbone = LlamaModel(config()).eval()
    weights = {f"model.{key}": value for key, value in backbone.state_dict().items()}
    weights["score_head.weight"] = torch.randn(1, 16)
    if bias is not None:
        weights["score_head.bias"] = torch.tensor([bias])
    folder.mkdir()
    save_file({**weights, "normalizer.mean": torch.ones(1)}, folder / "model.safetensors", {"format": "pt"})
    page = config().to_dict() | {"architectures": [name], "score_dim": 1, **said}
    (folder / "config.json").write_text(json.dumps(page))
    TOKENIZER.save_pretrained(folder)
    return backbone, weights["score_head.weight"][0]


def test_a_score_model_is_read_at_the_eos_of_its_own_template(folder):
    backbone, head = score_model(folder / "beaver")
    reward = load_reward(str(folder / "beaver"), batch=3)
    texts = [HELLO + "good day", HELLO + "bad"]
    with torch.no_grad():
        expected = [float(backbone(torch.tensor([ids(t, end=True)])).last_hidden_state[0, -1] @ head) for t in texts]
    answers = ["good day", "bad"]
    assert reward([HELLO] * 2, answers) == pytest.approx(expected, abs=1e-5)
    for prompt in ("hello", DIALOGUE, ({"role": "user", "content": "hello"},)):
        assert reward([prompt] * 2, [f" {answer}" for answer in answers]) == pytest.approx(expected, abs=1e-5)
    assert reward.template == "beaver"
    assert reward.prompts([DIALOGUE], "chat", None) == [DIALOGUE]


@pytest.mark.parametrize(
    ("kind", "made"), [("reward", lambda x: (x - 3) / 2), ("cost", lambda x: x / 2), ("critic", lambda x: x)]
)
def test_newer_score_models_have_a_bias_and_may_be_normalised(folder, kind, made):
    own = folder / kind
    backbone, head = score_model(
        own, "LlamaForScore", bias=0.5, score_bias=True, score_type=kind, do_normalize=True, mean=[3.0], var=[4.0]
    )
    with torch.no_grad():
        raw = float(backbone(torch.tensor([ids(HELLO + "bad", end=True)])).last_hidden_state[0, -1] @ head) + 0.5
    assert load_reward(str(own))([HELLO], ["bad"]) == pytest.approx([made(raw)], abs=1e-5)


def test_score_models_that_are_none_are_refused_in_one_line(folder):
    score_model(folder / "gpt", "GPT2ForScore")
    with pytest.raises(OSError, match="only Llamas are known, this is GPT2ForScore"):
        load_reward(str(folder / "gpt"))
    score_model(folder / "wide", score_dim=2)
    with pytest.raises(OSError, match="score_dim of a score model must be 1, got 2"):
        load_reward(str(folder / "wide"))
    score_model(folder / "headless")
    file = folder / "headless" / "model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if "score" not in k}, file, {"format": "pt"})
    with pytest.raises(OSError, match=r"reward must be .*headless' \(it lacks score_head.weight of its config's"):
        load_reward(str(folder / "headless"))


# Callables


def test_a_reward_may_be_a_function_of_a_module_or_a_file(tmp_path, monkeypatch):
    (tmp_path / "own_reward.py").write_text("def longer(prompts, responses):\n    return [len(r) for r in responses]\n")
    monkeypatch.chdir(tmp_path)
    for spec in ("own_reward:longer", "own_reward.py:longer", f"{tmp_path}/own_reward.py:longer"):
        assert load_reward(spec)(["a", "b"], ["xyz", ""]).tolist() == [3.0, 0.0]
    sys.modules.pop("own_reward")
    assert load_reward(lambda prompts, responses: torch.ones(len(prompts)))(["a"], ["b"]).tolist() == [1.0]
    assert load_reward(lambda prompts, responses: 1 / 0)([], []).tolist() == []


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("no_such_module:reward", "no module 'no_such_module'; or give FILE.py:FUNCTION"),
        ("json.no_such:reward", "no module 'json.no_such'"),
        ("json:no_such", "json has no 'no_such'; it has "),
        ("json:__name__", "must be a function of prompts and responses, got str"),
        ("no_such.py:reward", "no_such.py is no file"),
        ("broken.py:reward", "broken.py cannot be imported .NameError: name 'nothing' is not defined"),
        ("needs:reward", "needs needs no_such_package, which is not installed"),
        (":reward", "reward must be a folder or hub name .*; got ':reward'"),
        ("no/such/model", "reward must be a folder or hub name .*got 'no/such/model'"),
    ],
)
def test_what_is_no_reward_is_said_in_one_line(tmp_path, monkeypatch, spec, words):
    (tmp_path / "broken.py").write_text("nothing")
    (tmp_path / "needs.py").write_text("import no_such_package")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises((ValueError, OSError), match=words) as caught:
        load_reward(spec)
    assert "\n" not in str(caught.value)
    assert "" not in sys.path[1:]


@pytest.mark.parametrize("path", [["", "a"], ["a", ""], ["a"]], ids=repr)
def test_the_path_of_imports_is_as_it_was(tmp_path, monkeypatch, path):
    (tmp_path / "lies_here.py").write_text("def reward(prompts, responses): return [1.0 for _ in responses]")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*path, *filter(None, sys.path)])
    before = list(sys.path)
    load_reward("lies_here:reward")
    monkeypatch.delitem(sys.modules, "lies_here")
    assert sys.path == before


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([1.0], r"must give one number per response, got shape \(1,\) for 2"),
        ([[1.0], [2.0]], r"got shape \(2, 1\) for 2"),
        ([1.0, math.nan], "must give finite numbers, got nan for response 2 of 2"),
        ([math.inf, 1.0], "got inf for response 1 of 2"),
        (["good", "bad"], "must give one number per response, got .*good"),
        (np.ma.array([1.0, 2.0], mask=[False, True]), "must give one number per response, got masked_array"),
        (None, r"must give"),
        ([10**400, 1], "must give one number per response"),
        ([torch.ones((), requires_grad=True), 1.0], "must give one number per response"),
    ],
)
def test_what_a_reward_gives_is_checked(given, words):
    with pytest.raises(ValueError, match=f"reward mine .*{words}"):
        CheckedReward(lambda prompts, responses: given, "mine")(["a", "b"], ["c", "d"])


def test_a_function_that_fails_is_named_and_a_full_memory_is_no_fault_of_its():
    def failing(error):
        def boom(prompts, responses):
            raise error

        return CheckedReward(boom, "mine")

    with pytest.raises(ValueError, match=r"^reward mine failed: KeyError: 'no'$"):
        failing(KeyError("no"))(["a"], ["b"])
    for full in (MemoryError(), torch.OutOfMemoryError(), RuntimeError("you tried to allocate 8 bytes")):
        with pytest.raises(type(full)):
            failing(full)(["a"], ["b"])


def test_a_reward_is_checked_without_its_weights(folder, one_output, monkeypatch, tmp_path):
    spec = str(folder / "labels")
    classifier(folder / "labels", labels=3)
    score_model(folder / "checked")
    for kind in (AutoModelForSequenceClassification, LlamaForScore):
        monkeypatch.setattr(kind, "from_pretrained", lambda *_, **__: pytest.fail("loaded"))
    for good in (one_output[1], f"{spec}#great", str(folder / "checked"), f"{__name__}:shorter"):
        check_reward(good)
    with pytest.raises(ValueError, match="must have one output, got 3; name one of bad, fine, great"):
        check_reward(spec)
    with pytest.raises(ValueError, match=r"label of reward .* must be one of bad, fine, great; got 'greet'"):
        check_reward(f"{spec}#greet")
    with pytest.raises(ValueError, match=r"^reward no\.such:one: there is no module 'no'"):
        check_reward("no.such:one")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(OSError, match=r"^reward must be a folder or hub name"):
        check_reward(str(tmp_path))


def test_a_text_that_is_cut_ends_with_one_eos_where_the_tokenizer_adds_it_too():
    tokenizer = task_tokenizer()
    start, end = tokenizer.bos_token, tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(one, tokenizer.convert_tokens_to_ids(one)) for one in (start, end)]
    )
    of_text = SimpleNamespace(pad_token_id=None, vocab_size=len(tokenizer))
    model = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: of_text))
    scorer = Scorer(model, tokenizer, batch=2, reads=None, ends=True, max_length=6, column=0)
    ids = scorer.encoded(["cold high", "cold high warm quick bitter low new old"])
    assert [tokenizer.convert_ids_to_tokens(text)[-2:] for text in ids] == [["high", end], ["old", end]]
    assert scorer.cut == 1


def test_weights_and_label_tell_a_reward_model_from_another(folder, one_output, tmp_path):
    _, source = one_output
    known = reward_hash(source)
    shutil.copytree(source, tmp_path / "moved")
    assert reward_hash(str(tmp_path / "moved")) == known
    tensors = load_file(tmp_path / "moved" / "model.safetensors")
    save_file({name: value + 1 for name, value in tensors.items()}, tmp_path / "moved" / "model.safetensors")
    assert len({known, reward_hash(str(tmp_path / "moved")), reward_hash(f"{source}#good")}) == 3
    assert reward_hash("some.module:function") == "some.module:function"


def test_a_reward_cut_short_is_one_line(one_output, tmp_path):
    cut_short(one_output[1], tmp_path / "cut")
    with pytest.raises(OSError, match=r"^reward must be a folder or hub name .*cut' \(.*incomplete") as caught:
        load_reward(str(tmp_path / "cut"))
    assert "\n" not in str(caught.value)


def test_the_template_is_checked(one_output):
    for spec in (one_output[1], shorter):
        with pytest.raises(ValueError, match=r"^template must be chat or None, got 'chatt'$"):
            load_reward(spec, template="chatt")


def test_a_language_model_is_no_reward_and_neither_is_an_adapter(tmp_path):
    save_folder(tmp_path / "lm", small_llama(32, width=16, layers=1, heads=2, longest=32, seed=0), TOKENIZER)
    with pytest.raises(OSError, match="LlamaForCausalLM is no sequence classifier"):
        load_reward(str(tmp_path / "lm"))
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="is a LoRA adapter: `gradlab merge` makes a whole model"):
        load_reward(str(tmp_path / "lora"))
    with pytest.raises(ValueError, match=r"base must be a whole model, got .*, a LoRA adapter"):
        train_reward(tmp_path / "lora", [Pair("a", "b", "c", "")], tmp_path / "out")


# How good a reward is


def shorter(prompts, responses):
    return [-float(len(one)) for one in responses]


def test_accuracy_counts_ties_half_and_stands_beside_that_of_length():
    pairs = [Pair("p", "a", "bb", "1"), Pair("p", "cc", "d", "2"), Pair("p", "e", "ff", "3"), Pair("p", "g", "h", "4")]
    scores = {"a": 1, "bb": 0, "cc": 1, "d": 0, "e": 0, "ff": 0, "g": 0, "h": 1}
    found = held_out_accuracy(lambda prompts, responses: [scores[one] for one in responses], pairs)
    assert (found.pairs, found.accuracy, found.shorter) == (4, 0.625, 0.625)
    assert found.gain == 0.0
    assert found.low < 0.625 < found.high
    assert not found.beats_length
    of_tokens = held_out_accuracy(lambda p, r: [scores[one] for one in r], pairs, lengths=[(2, 1)] * 4)
    assert (of_tokens.shorter, of_tokens.gain) == (0.0, 0.625 - 1.0)  # always the longer: that would be right
    as_cost = held_out_accuracy(lambda prompts, responses: [scores[one] for one in responses], pairs, sign=-1)
    assert as_cost.accuracy == 0.375
    with pytest.raises(ValueError, match="pairs must hold at least one pair"):
        held_out_accuracy(lambda p, r: r, [])


def test_a_reward_beats_length_where_both_intervals_say_so():
    pairs = [Pair("p", f"good {'x' * (n % 3)}", "bad x", str(n)) for n in range(60)]
    found = held_out_accuracy(lambda prompts, responses: [float("good" in one) for one in responses], pairs)
    assert found.accuracy == 1.0
    assert found.beats_length
    by_length = held_out_accuracy(shorter, pairs)
    assert by_length.accuracy == by_length.shorter
    assert not by_length.beats_length


# Training a small one


def preferences(number, seed):
    """ "good" is preferred to "bad", among other words and whatever the length."""
    rng = np.random.default_rng(seed)

    def text(word):
        others = rng.choice(["day", "night", "there"], size=rng.integers(1, 5)).tolist()
        others.insert(rng.integers(len(others) + 1), word)
        return " ".join(others)

    return [Pair("hello ", text("good"), text("bad"), str(index)) for index in range(number)]


HOW = {"epochs": 3, "learning_rate": 1e-2, "batch": 8, "micro": 3, "max_length": 32}


@pytest.fixture(scope="module")
def trained(folder):
    save_folder(folder / "lm", small_llama(32, width=16, layers=1, heads=2, longest=64, seed=0), TOKENIZER)
    made = train_reward(folder / "lm", preferences(64, 0), folder / "rm", held_out=preferences(60, 1), **HOW)
    return folder / "lm", made


def test_a_trained_reward_model_starts_at_ln_2_and_knows_what_is_preferred(trained, folder):
    log = read_log(folder / "rm" / "log.jsonl")
    assert log["loss"].iloc[0] == pytest.approx(math.log(2), abs=1e-6)
    assert log["accuracy"].iloc[0] == 0.5  # all are ties
    assert log["step"].tolist() == list(range(1, 25))
    page = json.loads((folder / "rm" / "done.json").read_text())
    found = held_out_accuracy(trained[1], preferences(60, 1))
    assert found.accuracy > 0.95
    assert page["held_out"]["accuracy"] == found.accuracy
    assert page["validation_pairs_seen"] == log.attrs["settings"]["validation_pairs_seen"] == 60  # all of one prompt
    assert found.beats_length


def test_transformers_reads_the_folder_and_our_reward_adds_eos(trained):
    model = AutoModelForSequenceClassification.from_pretrained(trained[1]).eval()
    assert type(model).__name__ == "LlamaForSequenceClassification"
    assert load_reward(trained[1])(["hello "], ["good day"]) == pytest.approx(
        [float(alone(model, "hello good day", end=True)[0])], abs=1e-5
    )
    reward = load_reward(trained[1])
    assert reward.function.max_length == 32  # as it was trained, not what the model could take


def test_equal_seeds_give_equal_weights_and_micro_batches_only_round(trained, tmp_path):
    base, made = trained
    again = train_reward(base, preferences(64, 0), tmp_path / "again", **HOW)
    other = train_reward(base, preferences(64, 0), tmp_path / "other", **HOW, seed=1)
    whole = train_reward(base, preferences(64, 0), tmp_path / "whole", **(HOW | {"micro": 8, "epochs": 0.25}))
    parts = train_reward(base, preferences(64, 0), tmp_path / "parts", **(HOW | {"micro": 3, "epochs": 0.25}))
    first, same, unlike, one, more = (load_file(f"{folder}/model.safetensors") for folder in
                                      (made, again, other, whole, parts))  # fmt: skip
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], unlike[name]) for name in first)
    for name in one:
        torch.testing.assert_close(one[name], more[name], atol=1e-4, rtol=1e-3)


def test_a_reward_model_that_was_stopped_goes_on_with_equal_numbers(trained, tmp_path):
    base, made = trained
    step = TrainedModel.step

    def stopped(model, number, norm):
        if number == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return step(model, number, norm)

    with patch.object(TrainedModel, "step", stopped), pytest.raises(KeyboardInterrupt):
        train_reward(base, preferences(64, 0), tmp_path / "rm", **HOW)
    again = train_reward(base, preferences(64, 0), tmp_path / "rm", **HOW)
    assert json.loads((tmp_path / "rm" / "done.json").read_text())["resumed_at"] == 5
    assert not (tmp_path / "rm" / "checkpoints").exists()
    files = [Path(folder) / "model.safetensors" for folder in (made, again)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_cut_texts_are_those_trained_on(trained, tmp_path):
    pairs = [Pair("hello ", "good " * 40, "bad", "long"), *preferences(7, 0)]
    train_reward(trained[0], pairs, tmp_path, held_out=pairs, **(HOW | {"epochs": 0.5}))
    assert json.loads((tmp_path / "done.json").read_text())["cut"] == 1


def test_a_finished_reward_model_is_not_trained_again_and_another_is_not_overwritten(trained, folder, capsys):
    base, made = trained
    before = (folder / "rm" / "log.jsonl").stat().st_mtime_ns
    assert train_reward(base, preferences(64, 0), folder / "rm", **HOW) == made
    assert "done before" in capsys.readouterr().out
    assert (folder / "rm" / "log.jsonl").stat().st_mtime_ns == before
    for pairs, how in ((preferences(64, 0), HOW | {"seed": 5}), (preferences(63, 0), HOW)):
        with pytest.raises(ValueError, match="was trained with other settings, data or model"):
            train_reward(base, pairs, folder / "rm", **how)
    (folder / "torn").mkdir()
    (folder / "torn" / "done.json").write_text("{")
    with pytest.raises(ValueError, match=r"done.json is damaged, .*; remove .*torn"):
        train_reward(base, preferences(64, 0), folder / "torn", **HOW)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"batch": 0}, "batch must be a whole number ≥ 1, got 0"),
        ({"learning_rate": -1.0}, "learning_rate must be finite and > 0"),
        ({"precision": "fp16"}, "precision must be one of fp32, bf16"),
        ({"warmup": 1.5}, r"warmup must be finite and lie in \[0, 1\], got 1.5"),
        ({"max_norm": 0.0}, "max_norm must be finite and > 0, got 0.0"),
        ({"weight_decay": -0.1}, r"weight_decay must be finite and lie in \[0, inf\), got -0.1"),
        ({"template": "chatt"}, "template must be one of plain, chat, beaver; got 'chatt'"),
    ],
)
def test_wrong_settings_are_named(trained, tmp_path, how, words):
    with pytest.raises(ValueError, match=words):
        train_reward(trained[0], preferences(4, 0), tmp_path / "x", **how)


def test_a_base_that_lacks_weights_is_refused(trained, tmp_path):
    base = shutil.copytree(trained[0], tmp_path / "base")
    page = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(page | {"num_hidden_layers": 2}))
    with pytest.raises(OSError, match=r"^base must be .*base' \(it lacks model.layers.1\.") as caught:
        train_reward(base, preferences(4, 0), tmp_path / "x", **HOW)
    assert "\n" not in str(caught.value)
    (base / "config.json").write_text(json.dumps(page | {"vocab_size": 40}))
    with pytest.raises(OSError, match=r"^base must be .*base' \(it lacks model.embed_tokens.weight of its config's"):
        train_reward(base, preferences(4, 0), tmp_path / "x", **HOW)
    assert not (tmp_path / "x").exists()


def test_a_base_cut_short_is_one_line(trained, tmp_path):
    cut_short(trained[0], tmp_path / "cut")
    with pytest.raises(OSError, match=r"^base must be a causal .*cut' \(.*incomplete") as caught:
        train_reward(tmp_path / "cut", preferences(4, 0), tmp_path / "x", **HOW)
    assert "\n" not in str(caught.value)


def test_a_base_that_is_no_decoder_is_refused(tmp_path):
    made = BertConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    save_folder(tmp_path / "bert", BertModel(made), TOKENIZER)
    with pytest.raises(OSError, match=r"^base must be a causal .*bert' \(type bert is no decoder such as Llama\)"):
        train_reward(tmp_path / "bert", preferences(4, 0), tmp_path / "x", **HOW)


def test_a_training_that_is_not_finite_stops(trained, tmp_path):
    model = small_llama(32, width=16, layers=1, heads=2, longest=64, seed=0)
    torch.nn.init.constant_(model.model.norm.weight, math.nan)
    save_folder(tmp_path / "broken", model, TOKENIZER)
    with pytest.raises(
        FloatingPointError, match="reward model, step 1: the gradient is not finite; try a lower learning_rate"
    ):
        train_reward(tmp_path / "broken", preferences(64, 0), tmp_path / "x", **HOW)
    assert not (tmp_path / "x" / "model").exists()
    with pytest.raises(ValueError, match="pairs must hold at least one pair"):
        train_reward(trained[0], [], tmp_path / "y")
    with pytest.raises(OSError, match=r"got '.*nowhere'"):
        train_reward(tmp_path / "nowhere", preferences(4, 0), tmp_path / "z")
