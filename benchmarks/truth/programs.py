"""Training scripts composed at random out of what people do.

A program is a choice of one option for each step. The first option of a step is the plain one, and a program of plain options
trains.
The script has a line ``# train`` directly before its training. The base model lies in a folder with the name of a checkpoint.
"""

from __future__ import annotations

import random
import re
import textwrap
from typing import TYPE_CHECKING

from benchmarks.truth.program_families import (
    ANSWERS,
    BATCHES,
    CAUSAL,
    CLASSIFIER,
    FAMILIES,
    MASKED,
    SEQ2SEQ,
    SPEECH,
    TASKS,
    UNWORDED,
    Family,
)
from benchmarks.truth.program_loops import DATA, ENDS, LOOPS, TEXT_LINE, TRAINERS, Loop
from benchmarks.truth.program_options import ATTACHING, LOADING, PREPARING
from benchmarks.truth.program_trainers import OWN

if TYPE_CHECKING:
    from collections.abc import Callable

Program = dict[str, str]

FLAT, MAIN, FUNCTIONS, CLASS = "flat", "in main", "in functions", "in a class"
#: how a script names its checkpoint -> the lines that do so, and the expression
_NAMES = {
    "constant": ('MODEL = "{}"', "MODEL"),
    "literal": ("", '"{}"'),
    "argument": (
        'parser = argparse.ArgumentParser()\nparser.add_argument("--model", default="{}")\nargs = parser.parse_args()',
        "args.model",
    ),
    "in a dict": ('SETTINGS = {{"model": "{}", "rank": 4}}', 'SETTINGS["model"]'),
    "by the environment": ('MODEL = os.environ.get("BASE_MODEL", "{}")', "MODEL"),
    "in a dataclass": ('@dataclass\nclass Settings:\n    model: str = "{}"\n\nsettings = Settings()', "settings.model"),
    "in a class": ('class Settings:\n    MODEL = "{}"\n', "Settings.MODEL"),
}
#: step -> option -> lines of the script; the first option is the plain one
STEPS: dict[str, dict[str, str]] = {
    "family": dict.fromkeys(FAMILIES, ""),
    "task": dict.fromkeys(TASKS, ""),
    "style": dict.fromkeys((FLAT, MAIN, FUNCTIONS, CLASS), ""),
    "named": dict.fromkeys(_NAMES, ""),
    **LOADING,
    **PREPARING,
    **ATTACHING,
    "loop": dict.fromkeys((*LOOPS, *TRAINERS), ""),
    "end": ENDS,
}
#: steps that are seldom plain, because no option of theirs is a fault
_EVEN = ("family", "layers", "style", "named")
#: the share of plain options in the other steps
_PLAIN = 0.74
#: Trainers whose data has no row to learn from
_FAULTY_DATA = ("sft, labels ignored",)
#: loops of Trainers whose fault is in a class of the script's own
_FAULTY_CLASS = tuple(f"trainer, {name}" for name, own in OWN.items() if own.is_fault)
#: options that only PEFT's own model has a method for
_NOT_OF_PEFT = (
    "run in inference mode",
    "generated",
    "only A trains",
    "zeroed",
    "scaled to zero",
    "plain",
    "frozen",
    "frozen one by one",
    "everything trains",
    "half",
    "bfloat16",
    "in float32",
    "cast whole",
)
#: ways to attach after which the script's variable is no model of PEFT's
_OTHERS_MODEL = ("add_adapter", "dropped", "injected", "earlier by transformers")
_LORA = ("lora", "lora, some", "lora, by default", "lora, no task", "lora, a pattern", "dora")
_NO_HEAD = ("head in float32", "head trains", "generated")
#: options whose call gives a model no tokens for its decoder
_NO_DECODER = ("run in inference mode", "hidden states", "trainer, own loss, labels taken", "embeddings given")
#: what only a model that reads words has, by the text of an option
_OF_WORDS = re.compile(
    r"\{embeddings\}|input_ids|embeddings|padding|Tokens|Prompt|CPT|Prefix|tokenizer|pad_token|invocation|token_ind"
)
#: what only a model with one layer for its head has
_OF_HEAD = re.compile(r"model\.\{head\}|get_output_embeddings|\.generate\(")
#: methods of a loop that only the model itself has
_OF_MODEL = re.compile(r"\bmodel\.(?:get_input_embeddings|disable_adapter)\(")
#: loops with a batch of words alone, or a loss of logits and labels
_LOOPS_OF_WORDS = ("padded", "nothing attended", "beyond the positions", "trainer, noise")
_LIBRARIES = {
    "peft": r"prepare_model_for_\w+|[gs]et_peft_model\w*|PeftModel|inject_adapter_in_model|cast_mixed_precision_params"
    r"|AutoPeftModelForCausalLM|\w+Config(?=\()",
    "peft.tuners.lora": r"LoraLayer",
    "peft.optimizers": r"create_loraplus_optimizer",
    "transformers": r"Auto(?!Peft)\w+|BitsAndBytesConfig|Trainer|TrainerCallback|TrainingArguments|DataCollator\w+"
    r"|get_linear_\w+",
    "trl": r"(?:SFT|DPO|KTO)(?:Trainer|Config)",
    "datasets": r"Dataset",
    "accelerate": r"Accelerator",
    "torch.nn.parallel": r"DistributedDataParallel",
    "dataclasses": r"dataclass",
}


def drawn(seed: int) -> Program:
    """Return the program of a seed. Most of its steps are plain, so that single faults and pairs are common."""
    dice = random.Random(seed)  # noqa: S311  # a sample, not a secret
    chosen = {}
    for step, options in STEPS.items():
        often = 0.0 if step in _EVEN else 0.35 if step == "loop" else _PLAIN
        chosen[step] = next(iter(options)) if dice.random() < often else dice.choice(list(options))
    return _possible(chosen)


def plain(step: str) -> str:
    """Return the plain option of a step."""
    return next(iter(STEPS[step]))


def checkpoint_of(program: Program) -> str:
    """Return the name of the checkpoint that a program loads."""
    return FAMILIES[program["family"]].checkpoint


def has_faulty_loop(program: Program) -> bool:
    """Return whether the fault of a program may be in its loop or its data, where the model does not show it."""
    loop = LOOPS.get(program["loop"])
    bare = program["adapter"] == "none" or "unloaded" in program["adapted"]
    undecoded = program["task"] == SEQ2SEQ and program["loop"] == "loss of its own"  # it gives the decoder no tokens
    # its features are float32, which the model does not show
    featured = program["task"] in UNWORDED and loop is not None
    # a method of the model, which the wrapper around it does not have
    wrapped = program["wrapped"] not in ("no", "compiled") and loop is not None and bool(_OF_MODEL.search(loop.loss))
    own = wrapped or featured or program["loaded"] == "cut" or program["loop"] in (*_FAULTY_DATA, *_FAULTY_CLASS) or undecoded
    return own or (loop is not None and (loop.own or bare))


def _possible(program: Program) -> Program:
    """Return a program without what makes no sense: what a task has no use for, and methods that an object never had."""
    made = dict(program)
    for senseless, changed in _SENSELESS:
        if senseless(made):
            made.update(changed if isinstance(changed, dict) else {step: plain(step) for step in changed})
    tasks = FAMILIES[made["family"]].tasks
    if made["task"] not in tasks:
        made["task"] = tasks[0]
    if made["task"] != CAUSAL and any(word in made["loop"] for word in ("sft", "dpo", "kto", "collator")):
        made["loop"] = "trainer"
    if made["task"] not in (CAUSAL, SEQ2SEQ):
        made.update({step: plain(step) for step in ("base", "adapted", "end") if made[step] in _NO_HEAD})
    if made["task"] in (SEQ2SEQ, SPEECH):
        made.update({step: plain(step) for step in ("base", "adapted", "loop") if made[step] in _NO_DECODER})
    made.update({step: plain(step) for step, option in made.items() if _is_of_others(made, step, option)})
    return made


def _is_of_others(program: Program, step: str, option: str) -> bool:
    """Return whether an option is for models of other tasks than that of a program."""
    task, lines = program["task"], STEPS[step][option]
    if step == "loop":
        loop = LOOPS.get(option)
        lines = str(loop) if loop else " ".join(TRAINERS[option])
        words = option in _LOOPS_OF_WORDS or "labels" in option or bool(_OF_WORDS.search(lines))
        of_causal = option in ("embeddings given", "trainer, tokenizer") and task != CAUSAL
        return of_causal or (task in UNWORDED and words) or (task == ANSWERS and ("labels" in lines or "loss" in option))
    if "AutoPeftModelForCausalLM" in lines:
        return task != CAUSAL
    other_head = task not in (CAUSAL, CLASSIFIER, SEQ2SEQ) and bool(_OF_HEAD.search(lines))
    return other_head or (task in UNWORDED and bool(_OF_WORDS.search(lines)))


#: (whether a program has something senseless, steps that become plain or what they become instead), in this order
_SENSELESS: tuple[tuple[Callable[[Program], bool], tuple[str, ...] | Program], ...] = (
    (lambda made: made["attached"] in ("add_adapter", "injected") and made["adapted"] not in _NOT_OF_PEFT, ("attached",)),
    (lambda made: made["adapter"] == "none" and "config" in made["loop"], ("adapter",)),
    (lambda made: made["adapter"] == "none" or "config" in made["loop"], ("attached", "adapted")),
    (lambda made: made["loop"] in TRAINERS, ("wrapped",)),
    (lambda made: made["loop"] == "optimizer first", {"style": FLAT}),
    # one rank on a CPU cannot show that all ranks would load on the same GPUs
    (lambda made: "ddp" in made["wrapped"] and made["placed"] == "automatically", ("placed",)),
    (lambda made: made["loop"] not in TRAINERS and made["end"] == "trainer saved", {"end": "saved"}),
    (lambda made: made["loop"] != "trainer, saved" and made["end"] == "resumed", ("end",)),
    (lambda made: made["wrapped"] == "in a module" and made["loop"] not in LOOPS, ("wrapped",)),
    (lambda made: made["wrapped"] != "no" or made["adapter"] == "none" or made["attached"] in _OTHERS_MODEL, ("end",)),
    (lambda made: "unloaded" in made["adapted"] and made["end"] != "trainer saved", ("end",)),
    (lambda made: made["adapter"] not in _LORA, ("further",)),
    (lambda made: made["adapter"] == "none" or "config" in made["loop"], {"earlier": "nothing"}),
    (lambda made: made["attached"] in _OTHERS_MODEL and "model." in STEPS["earlier"][made["earlier"]], ("earlier",)),
    (lambda made: "config" in STEPS["earlier"][made["earlier"]], {"style": FLAT}),
    (lambda made: "beside its base" in made["loop"] and made["attached"] in _OTHERS_MODEL, ("loop",)),
    (lambda made: "beside its base" in made["loop"] and made["adapter"] == "none", ("loop",)),
)


def script(program: Program) -> str:
    """Return the text of a program."""
    family = FAMILIES[program["family"]]
    parts = _Parts(program, family)
    style = program["style"]
    if style == FLAT:
        body = [*parts.load(), *parts.adapt(), *parts.train()]
    elif style == MAIN:
        body = ["def main():", *_indented([*parts.load(), *parts.adapt(), *parts.train()]), "", *_CALL]
    elif style == CLASS:
        kept = ("model = self.model", "self.model = model")
        body = [
            "class Run:",
            *_method("load", [*parts.load(), kept[1]]),
            *_method("adapt", [kept[0], *parts.adapt(), kept[1]]),
            *_method("train", [kept[0], *parts.train()]),
            "run = Run()",
            "run.load()",
            "run.adapt()",
            "run.train()",
        ]
    else:
        body = [
            "def load_model():",
            *_indented([*parts.load(), "return model"]),
            "",
            "def add_adapters(model):",
            *_indented([*parts.adapt(), "return model"]),
            "",
            "def main():",
            *_indented(["model = add_adapters(load_model())", *parts.train()]),
            "",
            *_CALL,
        ]
    text = "\n".join([*parts.settings(), *body]) + "\n"
    return "\n".join([*_imports(text), "", text])


_CALL = ('if __name__ == "__main__":', "    main()")


def _method(name: str, lines: list[str]) -> list[str]:
    return _indented([f"def {name}(self):", *_indented(lines), ""])


def _indented(lines: list[str]) -> list[str]:
    return textwrap.indent("\n".join(lines), "    ").split("\n")


def _imports(text: str) -> list[str]:
    """Return the imports of the names that a script uses."""
    modules = ("argparse", "copy", "functools", "os", "bitsandbytes")
    lines = [*(f"import {name}" for name in modules if re.search(rf"(?<!\.)\b{name}\.", text)), "import torch"]
    taken: set[str] = {"BitsAndBytesConfig", "SFTConfig", "DPOConfig", "KTOConfig"}
    for library, pattern in _LIBRARIES.items():
        found = {name for name in re.findall(rf"(?<![\w.])(?:{pattern})\b", text) if name in text}
        if library == "peft":
            found -= {name for name in found if name in taken or name == "AutoConfig"}
        if found:
            lines.append(f"from {library} import {', '.join(sorted(found))}")
    return lines


class _Parts:
    """The parts of the script of a program.

    Args:
        program: The program.
        family: Its family.
    """

    def __init__(self, program: Program, family: Family) -> None:
        self.program = program
        task = program["task"]
        head = family.head
        if task not in (CAUSAL, SEQ2SEQ, *UNWORDED):
            head = {MASKED: "decoder", ANSWERS: "qa_outputs"}.get(task, "score" if CAUSAL in family.tasks else "classifier")
        dtype = program["dtype"] if program["dtype"] in ("float16", "float32") else "bfloat16"
        self.values = {
            "some": str(list(family.some)),
            "some0": family.some[0],
            "some_pattern": "|".join(family.some),
            "head": head,
            "embeddings": family.embeddings,
            "class": TASKS[task][0],
            "task": TASKS[task][1],
            "dtype": dtype,
        }
        self.name = self.values["name"] = _NAMES[program["named"]][1].format(family.checkpoint)
        self.is_given_config = "config" in program["loop"]

    def text(self, step: str) -> list[str]:
        """Return the lines of a step."""
        lines = STEPS[step][self.program[step]]
        if step == "adapter":
            lines = lines.replace("{further}", STEPS["further"][self.program["further"]])
        if step == "quantization":
            lines = lines.replace("{compute}", STEPS["compute"][self.program["compute"]])
        for name, value in self.values.items():
            lines = lines.replace(f"{{{name}}}", value)
        lines = re.sub(r'(, )?task_type=""', "", lines)
        return lines.split("\n") if lines else []

    def settings(self) -> list[str]:
        """Return the lines before the parts: names and arguments."""
        checkpoint, named = checkpoint_of(self.program), self.program["named"]
        made = ["torch.manual_seed(0)", 'folder = "out"', *_NAMES[named][0].format(checkpoint).split("\n")]
        own = OWN.get(self.program["loop"].removeprefix("trainer, "))
        return [*made, "", *(own.lines.split("\n") if own is not None else []), ""]

    def load(self) -> list[str]:
        """Return the lines that load and prepare the model."""
        chosen, quantization = self.program, self.text("quantization")
        kind = chosen["quantization"]
        given = ", load_in_4bit=True" if kind == "by the old argument" else ", quantization_config=quantization"
        given = "" if kind == "none" else given
        further = "".join("".join(self.text(step)) for step in ("dtype", "placed", "attention"))
        heads = ", num_labels=2" if "Classification" in self.values["class"] else ""
        load = f"model = {self.values['class']}.from_pretrained({self.name}{given}{further}{heads})"
        if chosen["loaded"] == "under inference mode":
            load = f"with torch.inference_mode():\n    {load}"
        first = "optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)" if chosen["loop"] == "optimizer first" else ""
        return [
            *(quantization if kind != "none" else []),
            *load.split("\n"),
            *self.text("loaded"),
            *self.text("prepared"),
            *self.text("checkpointing"),
            *self.text("base"),
            *([first] if first else []),
        ]

    def adapt(self) -> list[str]:
        """Return the lines that attach and change the adapters."""
        late = "after the adapters" in self.program["prepared"]
        after = [PREPARING["prepared"][plain("prepared")].replace("{{", "{")] if late else []
        if self.program["adapter"] == "none" or self.is_given_config:
            return after or ["pass" if self.program["style"] == FUNCTIONS else ""]
        return [*self.text("adapter"), *self.text("attached"), *self.text("adapted"), *after]

    def train(self) -> list[str]:
        """Return the lines that wrap and train the model."""
        given = self.text("adapter") if self.is_given_config else []
        process = ['torch.distributed.init_process_group("gloo")'] if "ddp" in self.program["wrapped"] else []
        loop = self.program["loop"]
        lines = _trainer(self, loop) if loop in TRAINERS else _loop(self, LOOPS[loop])
        earlier = self.text("earlier")
        before = [*BATCHES[self.program["task"]].split("\n"), *earlier] if earlier else []
        return [*before, *given, *process, *self.text("wrapped"), *lines, *self.text("end")]


def _loop(parts: _Parts, loop: Loop) -> list[str]:
    """Return the lines that train a model for two steps."""
    first = parts.program["loop"] == "optimizer first"
    wrapped = [
        f"accelerator = Accelerator({loop.accelerator})",
        "model, optimizer = accelerator.prepare(model, optimizer)",
    ]
    call = loop.loss.split("\n")
    backward = ["accelerator.backward(loss)" if loop.accelerator and "backward" in line else line for line in loop.backward]
    return [
        *BATCHES[parts.program["task"]].split("\n"),
        *([loop.batch] if loop.batch else []),
        *([] if first else [f"optimizer = {loop.optimizer}"]),
        *(wrapped if loop.accelerator else []),
        loop.mode,
        "# train",
        "for _ in range(2):",
        *_indented([loop.opened, *_indented(call)] if loop.opened else call),
        *_indented(backward),
    ]


def _trainer(parts: _Parts, loop: str) -> list[str]:
    """Return the lines that train a model with a Trainer for two steps."""
    name, further, own = TRAINERS[loop]
    arguments = "TrainingArguments" if name == "Trainer" else name.replace("Trainer", "Config")
    defined = OWN.get(loop.removeprefix("trainer, "))
    used = "OwnTrainer" if defined is not None and "OwnTrainer" in defined.lines else name
    words = name != "Trainer" or "tokenizer" in own
    given = "processing_class=tokenizer" if words and "tokenizer=" not in own else ""
    rest = "".join(f", {one}" for one in (given, own) if one)
    common = 'output_dir=folder, per_device_train_batch_size=2, max_steps=2, use_cpu=True, report_to="none"' + "".join(
        f", {setting}" for setting in ('save_strategy="no"', "learning_rate=1e-2") if setting.partition("=")[0] not in further
    )
    return [
        *(BATCHES[parts.program["task"]].split("\n") if name == "Trainer" else [TEXT_LINE]),
        DATA.get(loop, DATA[name]),
        *([f"tokenizer = AutoTokenizer.from_pretrained({parts.name})"] if words else []),
        f"arguments = {arguments}({common}{', ' if further else ''}{further})",
        f"trainer = {used}(model=model, args=arguments, train_dataset=data{rest})",
        "# train",
        "trainer.train()",
    ]
