"""How a run will train, read from each ecosystem's own configuration and held against what that ecosystem does."""

from __future__ import annotations

import dataclasses
import json

import pytest
import tiny
import transformers
from peft import prepare_model_for_kbit_training

from kbitlint.audit.run import context_of
from kbitlint.context import Checkpointing, Strategy, TrainingContext
from kbitlint.errors import KbitlintError


def known(context):
    return {f.name: getattr(context, f.name) for f in dataclasses.fields(context) if getattr(context, f.name) is not None}


def arguments(tmp_path, **values):
    values = {"output_dir": str(tmp_path), "use_cpu": True, "report_to": [], **values}
    return transformers.TrainingArguments(**values)


def test_plain_training_arguments(tmp_path):
    context = TrainingContext.from_training_arguments(arguments(tmp_path, bf16=True, per_device_train_batch_size=3))

    assert known(context) == {
        "autocast_dtype": "bfloat16",
        "grad_scaler": False,
        "strategy": Strategy.SINGLE,
        "static_graph": False,
        "gradient_checkpointing": Checkpointing(enabled=False, installs_hook=tiny.TRANSFORMERS_5),
        "sets_training_mode": True,
        "optimizer": "adamw_torch_fused" if tiny.TRANSFORMERS_5 else context.optimizer,
        "learning_rate": 5e-5,
        "batch_size": 3,
        "accumulation": 1,
        "world_size": 1,
    }


def lora():
    return tiny.with_lora(tiny.load())


def checkpointing_base():
    return prepare_model_for_kbit_training(tiny.load())


def handed_to_ddp(trainer, monkeypatch):
    """transformers 5 decides where the accelerator is made, 4 where the model is wrapped for several ranks."""
    if not tiny.TRANSFORMERS_5:
        from transformers.training_args import ParallelMode

        if trainer.args.gradient_checkpointing:  # as train() does before
            trainer.model.gradient_checkpointing_enable()
        with monkeypatch.context() as ranks:
            ranks.setattr(type(trainer.args), "parallel_mode", ParallelMode.DISTRIBUTED)
            trainer._wrap_model(trainer.model)
    return trainer.accelerator.ddp_handler.find_unused_parameters


@pytest.mark.parametrize(
    ("build", "values", "find_unused"),
    [
        (lora, {}, True),
        (lora, {"gradient_checkpointing": True}, True),
        (lora, {"ddp_find_unused_parameters": False}, False),
        (tiny.load, {}, True),
        (tiny.load, {"gradient_checkpointing": True}, False),
        (tiny.load, {"gradient_checkpointing": True, "ddp_find_unused_parameters": True}, True),
        (checkpointing_base, {}, False),
    ],
)
def test_find_unused_parameters_is_what_the_real_trainer_hands_to_ddp(tmp_path, build, values, find_unused, monkeypatch):
    if tiny.TRANSFORMERS_5 and "gradient_checkpointing" in values:
        values = {**values, "activation_checkpointing": values["gradient_checkpointing"]}
        del values["gradient_checkpointing"]
    model = build()
    # quantized models without adapters are refused, by a function of 5 and by a property of 4
    monkeypatch.setattr("transformers.trainer.validate_quantization_for_training", lambda model: None, raising=False)
    monkeypatch.setattr("transformers.quantizers.base.HfQuantizer.is_qat_trainable", True)
    args = arguments(tmp_path, **values)
    trainer = transformers.Trainer(model=model, args=args)

    real = handed_to_ddp(trainer, monkeypatch)
    assert TrainingContext.from_training_arguments(args, model).find_unused_parameters is real is find_unused
    assert context_of(trainer, TrainingContext()).find_unused_parameters is find_unused
    assert (
        context_of(trainer, TrainingContext(find_unused_parameters=not find_unused)).find_unused_parameters is not find_unused
    )


def test_without_a_model_what_trainer_would_decide_is_unknown(tmp_path):
    assert TrainingContext.from_training_arguments(arguments(tmp_path)).find_unused_parameters is None


class Fields:
    def __init__(self, **values):
        self.__dict__.update(values)


@pytest.mark.parametrize(
    ("values", "strategy"),
    [
        ({}, None),
        ({"distributed_state": Fields(distributed_type="DistributedType.MULTI_GPU")}, Strategy.DDP),
        ({"distributed_state": Fields(distributed_type="MULTI_CPU")}, Strategy.DDP),
        ({"distributed_state": Fields(distributed_type="TP")}, None),
        ({"distributed_state": Fields(distributed_type="FSDP")}, Strategy.FSDP1),
        ({"fsdp": True, "fsdp_config": {"version": 2}}, Strategy.FSDP2),
        ({"fsdp": True, "fsdp_config": {"version": 1}}, Strategy.FSDP1),
        ({"fsdp": ["full_shard"], "fsdp_config": {}}, Strategy.FSDP1),
        ({"fsdp": True, "fsdp_config": {}, "activation_checkpointing": False}, Strategy.FSDP2),
        ({"fsdp": [], "fsdp_config": {}}, None),
        ({"deepspeed": {"zero_optimization": {"stage": 3}}}, Strategy.ZERO3),
        ({"deepspeed": {"zero_optimization": {"stage": 2}}}, Strategy.ZERO2),
        ({"deepspeed": {"bf16": {}}}, None),
    ],
)
def test_the_strategy_of_the_arguments(values, strategy):
    assert TrainingContext.from_training_arguments(Fields(**values)).strategy is strategy


def test_an_fsdp_launch_of_version_2_comes_through_the_environment(monkeypatch):
    monkeypatch.setenv("FSDP_VERSION", "2")
    arguments = Fields(distributed_state=Fields(distributed_type="FSDP"))

    assert TrainingContext.from_training_arguments(arguments).strategy is Strategy.FSDP2


def test_deepspeed_casts_the_model_so_autocast_stays_unknown():
    casting = TrainingContext.from_training_arguments(Fields(deepspeed={"zero_optimization": {"stage": 3}}, bf16=True))
    not_casting = TrainingContext.from_training_arguments(Fields(deepspeed={"zero_optimization": {"stage": 3}}))

    assert (casting.autocast_dtype, not_casting.autocast_dtype) == (None, "float32")


def test_fsdp_checkpointing_of_the_arguments():
    values = {"fsdp": True, "fsdp_config": {"activation_checkpointing": "true"}}

    assert TrainingContext.from_training_arguments(Fields(**values)).fsdp_checkpointing is True


@pytest.mark.parametrize(
    ("values", "seq_len"),
    [
        ({"max_length": 512}, 512),
        ({"max_length": None, "max_seq_length": 256}, 256),
        ({"max_prompt_length": 100, "max_completion_length": 28}, 128),
        ({"max_completion_length": 28}, None),
    ],
)
def test_the_sequence_length_of_trls_configs(values, seq_len):
    assert TrainingContext.from_training_arguments(Fields(**values)).seq_len == seq_len


def test_a_real_sft_config(tmp_path):
    import trl

    args = trl.SFTConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, max_length=77, report_to=[])

    context = TrainingContext.from_training_arguments(args)

    assert (context.seq_len, context.strategy, context.gradient_checkpointing) == (
        77,
        Strategy.SINGLE,
        Checkpointing(enabled=True, use_reentrant=not tiny.TRANSFORMERS_5, installs_hook=tiny.TRANSFORMERS_5),
    )


# ---------------------------------------------------------------------------------------------- the launchers' files


ACCELERATE = {
    "distributed_type: MULTI_GPU\nnum_processes: 8\nmixed_precision: bf16\n": {
        "strategy": Strategy.DDP,
        "autocast_dtype": "bfloat16",
        "grad_scaler": False,
        "world_size": 8,
    },
    "distributed_type: MULTI_GPU\nnum_processes: 1\nmixed_precision: no\n": {"strategy": Strategy.SINGLE, "world_size": 1},
    "distributed_type: 'NO'\nmixed_precision: fp16\n": {
        "strategy": Strategy.SINGLE,
        "autocast_dtype": "float16",
        "grad_scaler": True,
    },
    "distributed_type: FSDP\nfsdp_config:\n  fsdp_version: 2\n  fsdp_activation_checkpointing: true\n": {
        "strategy": Strategy.FSDP2,
        "fsdp_checkpointing": True,
    },
    "distributed_type: FSDP\n": {"strategy": Strategy.FSDP1},
    "distributed_type: DEEPSPEED\nnum_processes: 2\ndeepspeed_config:\n  zero_stage: 3\n": {
        "strategy": Strategy.ZERO3,
        "world_size": 2,
    },
}


@pytest.mark.parametrize("content", ACCELERATE)
def test_accelerates_yaml(tmp_path, content):
    file = tmp_path / "accelerate.yaml"
    file.write_text(content)

    assert known(TrainingContext.from_accelerate_config(file)) == ACCELERATE[content]
    assert TrainingContext.from_launcher_file(file) == TrainingContext.from_accelerate_config(file)


def test_the_file_that_accelerate_writes_itself(tmp_path):
    from accelerate.commands.config.config_args import ClusterConfig

    config = ClusterConfig(
        compute_environment="LOCAL_MACHINE",
        distributed_type="FSDP",
        mixed_precision="bf16",
        use_cpu=False,
        debug=False,
        num_processes=4,
        fsdp_config={"fsdp_version": 2, "fsdp_offload_params": True},
    )
    config.to_yaml_file(tmp_path / "a.yaml")
    config.to_json_file(tmp_path / "a.json")

    for name in ("a.yaml", "a.json"):
        assert known(TrainingContext.from_launcher_file(tmp_path / name)) == {
            "strategy": Strategy.FSDP2,
            "offload": True,
            "autocast_dtype": "bfloat16",
            "grad_scaler": False,
            "world_size": 4,
        }


def test_a_deepspeed_file_and_accelerates_pointer_to_it(tmp_path):
    zero = {
        "zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}},
        "bf16": {"enabled": "auto"},
        "train_micro_batch_size_per_gpu": "auto",
    }
    (tmp_path / "zero3.json").write_text(json.dumps(zero))
    (tmp_path / "a.yaml").write_text(
        "distributed_type: DEEPSPEED\nnum_processes: 4\ndeepspeed_config:\n  deepspeed_config_file: zero3.json\n"
    )
    plain = {"zero_optimization": {"stage": 1}, "train_micro_batch_size_per_gpu": 4, "optimizer": {"type": "AdamW"}}
    (tmp_path / "plain.json").write_text(json.dumps(plain))

    zero3 = {"strategy": Strategy.ZERO3, "offload": True}
    assert known(TrainingContext.from_deepspeed_config(tmp_path / "zero3.json")) == zero3
    assert known(TrainingContext.from_launcher_file(tmp_path / "a.yaml")) == zero3 | {"world_size": 4}
    assert known(TrainingContext.from_launcher_file(tmp_path / "plain.json")) == {
        "strategy": Strategy.ZERO2,
        "autocast_dtype": "float32",
        "optimizer": "AdamW",
        "batch_size": 4,
    }


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.yaml", "a: [", "the file is not valid YAML: while parsing a flow node expected"),
        (
            "a.json",
            '{"zero_optimization": {"offload_param": "cpu"}}',
            "zero_optimization.offload_param: must be a table, not 'cpu'",
        ),
        ("a.yaml", "- 1", "must hold a table of keys, not a list"),
        ("a.yaml", "a: 1", "is neither an accelerate configuration (it has no distributed_type)"),
        ("a.json", "{", "the file is not valid JSON: Expecting property name"),
        ("a.yaml", "distributed_type: MULTI_GPUS", "distributed_type: 'MULTI_GPUS' is none of NO, MULTI_GPU"),
        ("a.yaml", "distributed_type: FSDP\nmixed_precision: bf8", "mixed_precision: 'bf8' is none of bf16, fp16, no, fp8"),
        ("a.yaml", "distributed_type: FSDP\nnum_processes: -1", "num_processes: must be a positive number, not -1"),
        ("a.yaml", "distributed_type: FSDP\nfsdp_config: 3", "fsdp_config: must be a table, not 3"),
        ("a.yaml", "distributed_type: FSDP\nfsdp_config: {fsdp_version: 3}", "fsdp_config.fsdp_version: '3' is none of 1, 2"),
        (
            "a.yaml",
            "distributed_type: FSDP\nfsdp_config: {fsdp_activation_checkpointing: maybe}",
            "fsdp_config.fsdp_activation_checkpointing: must be true or false, not 'maybe'",
        ),
        ("a.json", '{"zero_optimization": {"stage": 4}}', "zero_optimization.stage: 4 is none of 0, 1, 2, 3"),
        ("a.json", '{"zero_optimization": [], "bf16": 3}', "zero_optimization: must be a table, not []"),
        ("a.json", '{"bf16": {"enabled": "yes"}}', "bf16.enabled: must be true or false, not 'yes'"),
    ],
)
def test_a_wrong_file_names_file_and_key(run, tmp_path, name, content, problem):
    (tmp_path / name).write_text(content)

    result = run("check", "plants:clean", "--training", name)

    assert result.exit_code == 2
    assert result.stderr.startswith(f"kbitlint: --training {name}: {problem}")
    assert result.stderr.count("\n") == 1


def test_yaml_without_pyyaml_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.yaml").write_text("distributed_type: FSDP")
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)

    with pytest.raises(KbitlintError, match="reading YAML needs PyYAML: pip install pyyaml"):
        TrainingContext.from_launcher_file(tmp_path / "a.yaml")


def test_the_configuration_can_name_the_file_and_amp_wins(run, tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.kbitlint]\ntraining = "zero3.json"\nselect = ["KB401"]\n')
    (tmp_path / "zero3.json").write_text('{"zero_optimization": {"stage": 3}}')

    result = run("check", "plants:unprepared", "--amp", "bf16")

    assert "skipped KB401: ZeRO-3 needs reentrant checkpointing" in result.stdout


def test_a_context_takes_over_only_what_the_other_knows():
    one, other = TrainingContext(strategy=Strategy.DDP, world_size=2), TrainingContext(strategy=Strategy.FSDP2)

    assert one.updated(other) == TrainingContext(strategy=Strategy.FSDP2, world_size=2)
