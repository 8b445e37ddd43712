"""The real run of a generated program, beside the verdicts on it, in a process forked after the libraries are warm."""

from __future__ import annotations

import atexit
import contextlib
import copy
import functools
import gc
import io
import json
import multiprocessing
import os
import re
import resource
import sys
import tempfile
import time
import traceback
import types
import warnings
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import accelerate
import bitsandbytes
import datasets
import peft
import tokenizers
import torch
import transformers
import trl  # noqa: F401  # imported once, before the processes fork

import kbitlint
from benchmarks.truth.program_families import ANSWERS, CAUSAL, CLASSIFIER, FAMILIES, MASKED, SIZES, TASKS, TOKENS
from benchmarks.truth.program_loops import AUTOCAST, TEXT
from benchmarks.truth.program_options import EARLIER
from benchmarks.truth.programs import STEPS, Program, checkpoint_of, drawn, plain, script
from kbitlint import registry
from kbitlint.context import TrainingContext
from kbitlint.integrations import ranks

if TYPE_CHECKING:
    from collections.abc import Iterator

#: seconds of a CPU, and of any clock, after which a program is given up: beside other work a program waits
TIMEOUT, PATIENCE = 60, 600
#: what a program does
TRAINS, PARTLY, NOTHING, FAILS, NOT_MADE = "trains", "trains in part", "trains nothing", "fails", "is not made"
AFTER, LOST = "fails after its training", "trains, and what it saves cannot be loaded"
REDRAWN = "trains with gradients of another dropout mask"
CUT, IDLE_BEFORE = "trains without the gradients through its base", "trains, after a training that changes nothing"
#: the share of a gradient by which that of a repacked base may differ: its scales are rounded to bfloat16
_ROUNDED = 0.2


@functools.cache
def _root() -> Path:
    """Return the folder of all programs and their base models, removed when this process ends.

    It is the root of a repository, where the search for a script's requirements ends.
    """
    root = tempfile.TemporaryDirectory(prefix="kbitlint-generated-")
    atexit.register(root.cleanup)
    (Path(root.name) / ".git").mkdir()
    return Path(root.name)


@functools.cache
def checkpoint(family: str, task: str, layers: int, tied: bool) -> Path:  # noqa: FBT001  # a key
    """Return the folder of a tiny random model and its tokenizer, made once a process."""
    folder = tempfile.mkdtemp(prefix="base-", dir=_root())
    known = FAMILIES[family]
    listed = {"attention_types": [[["global"], layers]]} if family == "gpt_neo" else {}
    config = transformers.AutoConfig.for_model(
        family, **{**SIZES, **listed, **known.config, known.layers: layers, "tie_word_embeddings": tied, "num_labels": 2}
    )
    for name in ("bos_token_id", "eos_token_id"):
        setattr(config, name, 1)
    torch.manual_seed(0)
    made = getattr(transformers, TASKS[task][0]).from_config(config, dtype=torch.bfloat16)
    made.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return Path(folder)


def _tokenizer() -> Any:
    """Return a tokenizer whose words are the numbers of its vocabulary."""
    words = tokenizers.models.WordLevel({str(number): number for number in range(SIZES["vocab_size"])}, unk_token="0")  # noqa: S106  # a word
    made = tokenizers.Tokenizer(words)
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="0", eos_token="1")  # noqa: S106  # see above


def base_of(program: Program) -> Path:
    """Return the folder of the base model of a program. The head of a classifier is new, if its family has another one."""
    task, tasks = program["task"], FAMILIES[program["family"]].tasks
    if task in (CLASSIFIER, TOKENS, ANSWERS):
        task = CAUSAL if CAUSAL in tasks else MASKED if task != CLASSIFIER else task
    return checkpoint(program["family"], task, int(program["layers"]), program["tied"] == "yes")


def place(program: Program, folder: Path) -> Path:
    """Write a program into a folder, with its base model under the name of the checkpoint. Return the file.

    Its requirements name the installed versions, as those of a project do.
    """
    name = folder / checkpoint_of(program)
    name.parent.mkdir(parents=True)
    name.symlink_to(base_of(program))
    if EARLIER in STEPS["attached"][program["attached"]]:
        (folder / EARLIER.strip('"')).symlink_to(_adapters(base_of(program), program["family"], program["task"]))
    (folder / "requirements.txt").write_text(_requirements())
    file = folder / "train.py"
    file.write_text(script(program))
    return file


@functools.cache
def _adapters(base: Path, family: str, task: str) -> Path:
    """Return the folder of adapters of a base model that another run trained, made once a process."""
    folder = Path(tempfile.mkdtemp(prefix="adapters-", dir=_root()))
    model = getattr(transformers, TASKS[task][0]).from_pretrained(base, dtype=torch.bfloat16)
    config = peft.LoraConfig(
        r=4, target_modules=list(FAMILIES[family].some), init_lora_weights=False, task_type=TASKS[task][1] or None
    )
    peft.get_peft_model(model, config).save_pretrained(folder)
    told = json.loads((folder / "adapter_config.json").read_text())
    told["base_model_name_or_path"] = FAMILIES[family].checkpoint
    (folder / "adapter_config.json").write_text(json.dumps(told))
    return folder


@functools.cache
def _requirements() -> str:
    names = ("accelerate", "bitsandbytes", "datasets", "peft", "torch", "transformers", "trl")
    return "".join(f"{name}=={metadata.version(name)}\n" for name in names)


def outcome(program: Program) -> dict[str, Any]:
    """Run a program in this process, and return what it does and what kbitlint says of it."""
    with tempfile.TemporaryDirectory(prefix="program-", dir=_root()) as folder, contextlib.redirect_stdout(io.StringIO()):
        file = place(program, Path(folder))
        os.chdir(folder)
        started = time.perf_counter()
        source = said(kbitlint.check(file))
        line: dict[str, Any] = {"program": program, "source": source}
        middle = time.perf_counter()
        line |= _Run(program, source["errors"]).of(file)
        line["seconds"] = [round(middle - started, 2), round(time.perf_counter() - middle, 2)]
        os.chdir("/")
        return line


class _Run:
    """A real run.

    Args:
        program: The program.
        errors: The errors in its script, as kbitlint reports them.
    """

    def __init__(self, program: Program, errors: list[str]) -> None:
        self.program = program
        self.errors = errors
        self.model: dict[str, Any] | None = None
        self.seen: dict[str, bool] = {}
        self.trained: dict[str, torch.nn.Parameter] = {}
        self.before: dict[str, torch.Tensor] = {}
        self.is_marked = False
        self.subject: Any = None
        self.truths: list[str] = []
        self.is_first_idle = False

    def of(self, file: Path) -> dict[str, Any]:
        """Run the script, with its marks as calls, and return what it does."""
        text = file.read_text().replace("# train\n", "__mark__(locals())\n")
        text = re.sub(r"(?m)^( *first = .*)$", r"\1; __first__(model)", text)
        main = types.ModuleType("__main__")
        main.__dict__.update(__mark__=self._mark, __first__=self._note_first, __file__=str(file))
        sys.modules["__main__"], sys.argv = main, [file.name]
        error: dict[str, Any] = {"error": "", "line": None}
        try:
            exec(compile(text, str(file), "exec"), main.__dict__)  # noqa: S102  # the benchmark wrote it
        except Exception as raised:  # noqa: BLE001  # the error is the result
            own = [frame.lineno for frame in traceback.extract_tb(raised.__traceback__) if frame.filename == str(file)]
            error = {"error": _text(raised), "line": own[-1] if own else None}
        after = self._ends_at(file)
        learns, idle = self._learning()
        real = TRAINS if learns and not idle else PARTLY if learns else NOTHING
        if error["error"]:
            real = NOT_MADE if not self.is_marked else FAILS if error["line"] is None or error["line"] <= after else AFTER
        if real == TRAINS and self._told():
            real = LOST if self._loses() else next(iter(self.truths), TRAINS)
        return {"real": real, **error, "idle": idle[:3], "trained": sorted(self.trained), "model": self.model}

    def _told(self) -> list[str]:
        """Return the errors that kbitlint reports for the script or the model."""
        return [*self.errors, *(self.model or {}).get("errors", ())]

    def _note_first(self, model: torch.nn.Module) -> None:
        """Note whether an earlier training gets a gradient. A decay changes parameters without one."""
        self.is_first_idle = True
        for parameter in model.parameters():
            if parameter.requires_grad and not parameter.is_inference():
                parameter.register_hook(self._note_of_first)

    def _note_of_first(self, gradient: torch.Tensor) -> None:
        self.is_first_idle = self.is_first_idle and not bool(gradient.any())

    def _loses(self) -> bool:
        """Return whether adapters, saved and loaded into a fresh base, are not all there."""
        model = getattr(self.subject, "module", self.subject)
        model = model.model if type(model).__name__ == "Wrapped" else getattr(model, "_orig_mod", model)
        if not isinstance(model, peft.PeftModel):
            return False
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            base = getattr(transformers, TASKS[self.program["task"]][0]).from_pretrained(base_of(self.program))
            saved = folder if (Path(folder) / "adapter_config.json").exists() else next(Path(folder).iterdir())
            try:
                again = peft.PeftModel.from_pretrained(base, str(saved))
                loaded = again.load_adapter(str(saved), "again")
            except (KeyError, RuntimeError, ValueError):  # its keys fit no module
                return True
        return bool(loaded.unexpected_keys) or any("again" in key for key in loaded.missing_keys)

    def _draws_anew(self, model: Any, batch: dict[str, torch.Tensor]) -> bool:
        """Return whether the backward pass draws dropout anew: its random state changes the gradients."""
        found = [self._gradients(model, batch, seed) for seed in (1, 2)]
        return any(not torch.equal(one, found[1][name]) for name, one in found[0].items())

    def _is_cut(self, model: Any, batch: dict[str, torch.Tensor]) -> bool:
        """Return whether gradients are others than with the weights as they were before bitsandbytes repacked them."""
        packed = [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
        weights = [layer.weight for layer in packed if getattr(layer.weight.quant_state, "packing_format_for_cpu", False)]
        found = self._gradients(model, batch, 1)
        kept = [(weight.data, weight.quant_state) for weight in weights]
        for weight in weights:
            weight.data, weight.quant_state = bitsandbytes.functional._convert_weight_packed_for_cpu_inverse(  # noqa: SLF001  # there is no public one
                weight.data, copy.deepcopy(weight.quant_state)
            )
        whole = self._gradients(model, batch, 1)
        for weight, (data, state) in zip(weights, kept, strict=True):
            weight.data, weight.quant_state = data, state
        lacking = [
            name for name, one in whole.items() if name not in found or (one - found[name]).norm() > _ROUNDED * one.norm()
        ]
        return bool(lacking)

    def _gradients(self, model: Any, batch: dict[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
        """Return the gradients of a step, whose backward pass begins with a random state of its own."""
        state, was_training = torch.get_rng_state(), model.training
        torch.manual_seed(0)
        model.train()
        loss = model(**batch).loss
        torch.manual_seed(seed)
        loss.backward()
        found = {name: one.grad.clone() for name, one in self.trained.items() if one.grad is not None}
        model.zero_grad()
        model.train(was_training)
        torch.set_rng_state(state)
        return found

    def _truths(self, names: dict[str, Any], model: Any) -> Iterator[str]:
        """Yield what is wrong with a training in which every parameter learns, where kbitlint reports it."""
        told = {error.split()[0] for error in self._told()}
        batch = names.get("batch")
        if batch is None:
            tokens = torch.tensor([[int(token) for token in TEXT.split()]])
            batch = {"input_ids": tokens, "labels": tokens.clone()}
        if self.is_first_idle and told & {"KB202", "KB655"}:
            yield IDLE_BEFORE
        if "KB308" in told and self._draws_anew(model, batch):
            yield REDRAWN
        if "KB334" in told and self._is_cut(model, batch):
            yield CUT

    def _ends_at(self, file: Path) -> int:
        """Return the last line of the training."""
        lines = file.read_text().splitlines()
        last = [n for n, line in enumerate(lines, 1) if "trainer.train()" in line or line.strip().startswith("optimizer.")]
        return max(last, default=0)

    def _mark(self, names: dict[str, Any]) -> None:
        """Audit what is about to be trained, and watch its parameters."""
        self.is_marked = True
        trainer = names.get("trainer")
        model = self.subject = names["model"] if trainer is None else trainer.model
        try:
            report = self._report(model, trainer, names.get("optimizer"))
        except kbitlint.KbitlintError as error:
            report = None
            self.model = {"errors": [], "untraced": [str(error)], "crashes": []}
        if report is not None:
            self.model = said(report)
        self.trained = {name: one for name, one in model.named_parameters() if one.requires_grad}
        self.before = {name: one.detach().clone() for name, one in self.trained.items()}
        self.truths = [*self._truths(names, model)]
        for name, parameter in self.trained.items():
            if not parameter.is_inference():
                parameter.register_hook(functools.partial(self._note, name))

    def _report(self, model: Any, trainer: Any, optimizer: Any) -> Any:
        """Return the report on a Trainer, or on a model with its optimizer, as one rank sees it."""
        autocast = AUTOCAST.get(self.program["loop"], "float32")
        context = TrainingContext() if trainer is not None else TrainingContext(autocast_dtype=autocast)
        target = model if trainer is None else trainer
        report = kbitlint.check(target) if trainer is not None else kbitlint.check(target, context=context)
        seen = ranks.seen(target, report, context, optimizer, trainer)
        return ranks.over_ranks(None, lambda: seen, registry.select((), (), {})).report

    def _note(self, name: str, gradient: torch.Tensor | None) -> None:
        learns = gradient is not None and bool(gradient.any()) and bool(gradient.isfinite().all())
        self.seen[name] = self.seen.get(name, False) or learns

    def _learning(self) -> tuple[list[str], list[str]]:
        """Return the parameters that got a gradient and another value, and the others."""
        learns = [
            name
            for name, one in self.trained.items()
            if self.seen.get(name) and not torch.equal(one.detach(), self.before[name])
        ]
        return learns, [name for name in self.trained if name not in learns]


def said(report: Any) -> dict[str, Any]:
    """Return the verdicts of a report that are compared."""
    return {
        "errors": sorted({f"{v.code} {v.message}" for v in report.violations if v.severity.value == "error"}),
        "warnings": sorted({v.code for v in report.violations if v.severity.value == "warning"}),
        "untraced": [skip.reason for skip in report.skips if skip.surface.value == "trace" and not skip.code],
        "crashes": [crash.traceback for crash in report.crashes],
    }


def _text(error: BaseException) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]} [{Path(place.filename).name}:{place.lineno}]"


@functools.cache
def warm() -> None:
    """Load, once, all that a program needs, so that forked processes share it."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    usual = {step: plain(step) for step in drawn(0)}
    here = Path.cwd()
    for loop in ("plain", "trainer", "sft", "dpo"):
        outcome(usual | {"loop": loop})
        os.chdir(here)
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001  # as accelerate's own tests do
    gc.collect()
    gc.freeze()


def as_on_gpu() -> None:
    """Leave bitsandbytes' own kernel for inference on CPUs out of real runs from now on: a rehearsal is as on a GPU.

    The kernel repacks weights in a pass without gradients, through which no gradient flows afterwards (KB334).
    """
    bitsandbytes.nn.modules.has_avx512bf16 = lambda: False


def forked(program: Program) -> dict[str, Any]:
    """Return the outcome of a program that runs in a process of its own, with a limit on its time."""
    warm()
    base_of(program)
    if EARLIER in STEPS["attached"][program["attached"]]:  # made here, so that the processes share it
        _adapters(base_of(program), program["family"], program["task"])
    receive, send = multiprocessing.get_context("fork").Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_child, args=(program, send))
    process.start()
    send.close()
    line = None
    with contextlib.suppress(EOFError):
        line = receive.recv() if receive.poll(PATIENCE) else None
    process.kill()
    process.join()
    receive.close()
    return line or {"program": program, "source": None, "model": None, "real": "no answer", "error": "", "line": None}


def script_again(program: Program) -> dict[str, Any]:
    """Return the verdict on the script of a program, without running it."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="program-", dir=_root()) as folder:
        file = place(program, Path(folder))
        os.chdir(folder)
        try:
            return said(kbitlint.check(file))
        finally:
            os.chdir(before)


def _child(program: Program, send: Any) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (TIMEOUT, TIMEOUT))
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    if "ddp" in program["wrapped"]:
        port = str(20000 + os.getpid() % 20000)
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    try:
        send.send(outcome(program))
    except Exception:  # noqa: BLE001  # a crash of kbitlint itself is a result
        crashed = {"errors": [], "warnings": [], "untraced": [], "crashes": [traceback.format_exc()]}
        send.send({"program": program, "source": crashed, "model": None, "real": "crash", "error": "", "line": None})
    os._exit(0)  # without the end of the interpreter, which costs a second
