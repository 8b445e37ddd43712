"""A script goes on without packages, data, a user at the keyboard and a Hub; what depends on them is no fault of its own."""

from __future__ import annotations

import http.server
import json
import threading

import pytest
import tiny
from transformers import AutoModelForCausalLM, LlamaConfig

import kbitlint


@pytest.fixture
def rehearse(tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    if "hub" not in request.fixturenames:  # huggingface_hub reads the endpoint once, at its import
        request.getfixturevalue("forked")

    def run(code, argv=(), **options):
        (tmp_path / "train.py").write_text(code)
        return kbitlint.rehearse("train.py", argv, timeout=300, **options)[0]

    return run


def skips(report):
    return [skip.reason for skip in report.skips if not skip.code]


def raised(report):
    return [(one.at.line, one.evidence["raised"]) for one in report.violations if "raised" in one.evidence]


ABSENT = "the package no_such_package is not installed here: an empty module takes its place"


class TestPackages:
    def test_a_script_goes_on_without_a_package(self, rehearse):
        report = rehearse(
            """import no_such_package.inner as inner
from no_such_package import Base, decorate, ready


@decorate
@decorate(size=3)
def work(number):
    return number + 1


class Made(Base, dict):
    pass


with ready() as it:
    for one in it.rows:
        raise ValueError(one)
assert work(1) == 2
assert Made(a=1)["a"] == 1
assert not inner.things["x"].y()
raise NotImplementedError("reached")
"""
        )

        assert raised(report) == [(21, "NotImplementedError: reached")]
        assert skips(report) == [f"line 1: {ABSENT}"]

    @pytest.mark.parametrize(
        "code",
        [
            "import no_such_package\nlen(no_such_package.rows)[0]\n",
            "import no_such_package\nfirst, second = no_such_package.load()\n",
            "import no_such_package\nimport torch\n\ndef f(x):\n    return torch.nn.Linear(x, 2)\n\nf(no_such_package.size)\n",
            "import no_such_package\n\nclass Made(no_such_package.Base):\n    pass\n\nMade().save()\n",
        ],
        ids=["its length", "its parts", "a library's function", "a method of its class"],
    )
    def test_what_may_come_from_the_empty_module_is_a_skip(self, rehearse, code):
        report = rehearse(code)

        assert raised(report) == []
        (_, last) = sorted(skips(report), key=lambda reason: "not rehearsed" in reason)
        assert "because it depends on a package that is not installed here (no_such_package)" in last

    def test_a_fault_beside_it_is_the_script_s_own(self, rehearse):
        report = rehearse("import no_such_package\nimport peft\npeft.LoraConfig(rank=8)\n")

        assert raised(report) == [(3, "TypeError: LoraConfig.__init__() got an unexpected keyword argument 'rank'")]

    def test_a_script_that_can_do_without_a_package_does(self, rehearse):
        report = rehearse(
            "import importlib.util\ntry:\n    import no_such_package\nexcept ImportError:\n    no_such_package = None\n"
            "assert no_such_package is None and importlib.util.find_spec('no_such_package') is None\n"
        )

        assert (raised(report), skips(report)) == ([], ["the script ended without a training step"])

    def test_a_package_that_the_script_demands_is_stood_in_for(self, rehearse):
        report = rehearse(
            "try:\n    import no_such_package\nexcept ImportError as error:\n    raise SystemExit('install it') from error\n"
        )

        assert raised(report) == []
        assert f"line 2: {ABSENT}" in skips(report)


class TestData:
    READ = """
import csv, json
import pandas
rows = json.load(open("data/train.json"))
lines = [json.loads(line) for line in open("data/more.jsonl")]
table = pandas.read_csv("data/table.csv")
with open("data/plain.txt") as file:
    text = file.read()
for row in [*rows, *lines, *table.to_dict("records")]:
    assert isinstance(row["question"], str) and row["question"] and row.get("label") in (0, 1)
assert len(text) > 1000
raise NotImplementedError(f"{len(rows)} {len(lines)} {len(table)}")
"""

    def test_files_have_the_columns_that_the_code_names(self, rehearse, tmp_path):
        report = rehearse(self.READ)

        assert raised(report) == [(12, "NotImplementedError: 16 16 16")]
        (told,) = [note for note in report.notes if note.startswith("stood in for")]
        for name in ("train.json", "more.jsonl", "table.csv", "plain.txt"):
            assert f"the data of data/{name} (16 made-up rows)" in told
        assert sorted(path.name for path in tmp_path.iterdir()) == ["train.py"]

    @pytest.mark.parametrize(
        "demand",
        ["if not os.path.exists(name):\n    sys.exit(1)", "if not Path(name).is_file():\n    raise ValueError(name)"],
    )
    def test_a_file_that_the_script_demands_is_made_up(self, rehearse, demand):
        report = rehearse(
            f"""import json, os, sys
from pathlib import Path
name = "corpus.jsonl"
{demand}
rows = [json.loads(line)["answer"] for line in open(name)]
raise NotImplementedError(len(rows))
"""
        )

        assert raised(report) == [(7, "NotImplementedError: 16")]

    def test_the_folder_of_a_known_checkpoint_that_the_script_demands_is_made_up(self, rehearse):
        report = rehearse(
            """import os
from transformers import AutoModelForCausalLM, AutoTokenizer
name = "models/Llama-3.2-1B"
if not os.path.isdir(name):
    raise ValueError(f"download {name} first")
model = AutoModelForCausalLM.from_pretrained(name)
tokenizer = AutoTokenizer.from_pretrained(name)
raise NotImplementedError(f"{model.config.hidden_size} {tokenizer.bos_token}")
"""
        )

        assert raised(report) == [(8, "NotImplementedError: 2048 <|begin_of_text|>")]

    def test_a_path_that_cannot_be_made_up_is_a_skip(self, rehearse):
        report = rehearse("import os, sys\nif not os.path.exists('corpus.bin'):\n    open('corpus.bin')\n")

        assert raised(report) == []
        assert "a file is not here" in skips(report)[0]


def test_a_question_to_the_user_gets_an_empty_line(rehearse):
    report = rehearse("answer = input('which model? ')\nraise NotImplementedError(repr(answer))\n")

    assert raised(report) == [(2, "NotImplementedError: ''")]


UNSLOTH = """
from unsloth import FastLanguageModel, is_bfloat16_supported
from unsloth.chat_templates import get_chat_template, train_on_responses_only
from datasets import load_dataset
from transformers import TrainingArguments
from trl import SFTTrainer

model, tokenizer = FastLanguageModel.from_pretrained("unsloth/Llama-3.2-1B", max_seq_length=512, load_in_4bit=True)
model = FastLanguageModel.get_peft_model(model, r=16, use_gradient_checkpointing="unsloth", random_state=1)
tokenizer = get_chat_template(tokenizer, chat_template="llama-3.1")
dataset = load_dataset("yahma/alpaca-cleaned", split="train")
dataset = dataset.map(lambda rows: {"text": rows["instruction"]}, batched=True)
trainer = SFTTrainer(
    model=model,
    tokenizer=tokenizer,
    train_dataset=dataset,
    dataset_text_field="text",
    max_seq_length=512,
    args=TrainingArguments(output_dir="out", bf16=is_bfloat16_supported(), optim="adamw_8bit", report_to="none"),
)
trainer = train_on_responses_only(trainer, instruction_part="a", response_part="b")
trainer.train()
assert trainer.args.max_length == 512
model.save_pretrained_merged("merged", tokenizer)
"""


def test_a_script_of_unsloth_reaches_its_training(rehearse):
    report = rehearse(UNSLOTH)

    assert "training reached at line 22" in report.notes
    assert raised(report) == []
    assert [reason for reason in skips(report) if "not rehearsed" in reason] == []


@pytest.fixture
def hub():
    """A Hub with the config of one model, which counts what it is asked."""
    asked = []
    content = json.dumps({"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 64}).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):  # the name that http.server calls
            asked.append(self.path)
            known = self.path == "/somebody/tiny/resolve/main/config.json"
            self.send_response(200 if known else 404)
            self.send_header("ETag", '"1"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", str(len(content) if known else 0))
            self.end_headers()

        def do_GET(self):  # see above
            self.do_HEAD()
            if self.path.endswith("/config.json"):
                self.wfile.write(content)

        def log_message(self, *_):
            """Print nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()


@pytest.mark.parametrize("allowed", [True, False])
def test_a_config_comes_from_the_hub_only_with_leave(rehearse, hub, tmp_path, monkeypatch, allowed):
    endpoint, asked = hub
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    code = """from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained("somebody/tiny")
raise NotImplementedError(model.config.n_embd)
"""

    report = rehearse(code, allow_network=allowed)

    assert bool(asked) == allowed
    assert raised(report) == ([(3, "NotImplementedError: 32")] if allowed else [])
    assert not any("safetensors" in path and "index" not in path for path in asked if path.endswith(".safetensors"))
    assert not (tmp_path / "home").exists(), "nothing is written outside"


def test_streams_and_events_of_the_gpu_answer(rehearse):
    report = rehearse(
        """import torch
start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
start.record()
end.record(torch.cuda.current_stream())
torch.cuda.synchronize()
assert start.elapsed_time(end) >= 0
with torch.cuda.device(0), torch.cuda.stream(torch.cuda.Stream()):
    assert torch.zeros(2, device="cuda").sum() == 0
assert torch.cuda.utilization() == 0
assert torch.accelerator.current_accelerator().type == "cuda"
raise NotImplementedError(torch.cuda.get_rng_state().dtype)
"""
    )

    assert raised(report) == [(11, "NotImplementedError: torch.uint8")]


def test_arguments_that_need_a_package_go_on_without_it(rehearse):
    report = rehearse(
        """from transformers import TrainingArguments
arguments = TrainingArguments(output_dir="out", deepspeed="ds.json", use_liger_kernel=True)
raise NotImplementedError(f"{arguments.deepspeed} {arguments.use_liger_kernel}")
"""
    )

    assert raised(report) == [(3, "NotImplementedError: None False")]
    assert sorted(skips(report)) == [
        "line 2: deepspeed needs deepspeed, which is not installed here: rehearsed without it",
        "line 2: use_liger_kernel needs liger_kernel, which is not installed here: rehearsed without it",
    ]


HOOKED = """import torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained("meta-llama/Llama-3.2-1B")
caught = []
model.model.register_forward_hook(lambda module, arguments, output: caught.append(output.last_hidden_state))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
tokens = torch.ones(2, 8, dtype=torch.long)
model(input_ids=tokens)
states = caught[-1]
assert states.shape == (2, 8, 2048)
logits = model.lm_head(states)[torch.ones(2, 8, dtype=torch.bool)]
assert torch.allclose(logits, logits) and logits.shape == (16, 128256)
logits.float().mean().backward()
"""


def test_a_loss_of_the_script_from_hooked_states_is_a_training_of_the_whole_model(rehearse):
    report = rehearse(HOOKED)

    assert "training reached at line 8" in report.notes
    assert raised(report) == []
    assert {one.code for one in report.violations} <= {"KB501", "KB402"}, "the optimizer holds the parameters of the model"


@pytest.mark.parametrize("argument", ["use_auth_token", "resume_download", "use_flash_attention_2", "load_in_4bit"])
@pytest.mark.skipif(not tiny.TRANSFORMERS_5, reason="transformers 4 takes them")
def test_an_argument_that_transformers_took_once_raises_as_it_does_with_weights(rehearse, tmp_path, argument):
    real = AutoModelForCausalLM.from_config(
        LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    )
    real.save_pretrained(tmp_path / "real")
    with pytest.raises(TypeError) as refused:
        AutoModelForCausalLM.from_pretrained(tmp_path / "real", **{argument: True})

    report = rehearse(
        f"from transformers import AutoModelForCausalLM\nAutoModelForCausalLM.from_pretrained('real', {argument}=True)\n"
    )

    assert raised(report) == [(2, f"TypeError: {refused.value}")]
