from __future__ import annotations

import pytest
from script_cases import ADAPTED, IMPORTS, LOADED, LOOP, PREPARED, TRAINED, findings, fixed_text, flagged_lines

from kbitlint.context import TrainingContext

AUTO = LOADED.replace(", dtype=", ", device_map='auto', dtype=")
LOAD = AUTO.split("\n")[1]
WRAPPED = "torch.distributed.init_process_group('nccl')\nmodel = DDP(model)\n"


def test_a_model_that_ddp_wraps_is_spread_by_every_rank():
    assert findings("KB720", AUTO + PREPARED + ADAPTED + WRAPPED + LOOP) == [
        ("error", LOAD, "every rank places the model by the same map, and init_process_group tells of several")
    ]


def test_a_script_that_reads_its_rank_is_launched_distributed():
    rank = "rank = int(os.environ['LOCAL_RANK'])\n"
    constant = AUTO.replace("'auto'", "{'': 0}")

    assert flagged_lines("KB720", rank + AUTO + PREPARED + ADAPTED + TRAINED) == [("warning", LOAD)]
    assert flagged_lines("KB720", rank + constant + ADAPTED + TRAINED) == [("warning", constant.split("\n")[1])]


def test_a_launch_with_several_processes_is_a_sign_by_itself():
    context = TrainingContext(world_size=2)

    assert findings("KB720", AUTO + PREPARED + ADAPTED + TRAINED, context=context) == [
        ("warning", LOAD, "every rank places the model by the same map, and the launch of 2 processes tells of several")
    ]
    assert findings("KB720", AUTO + PREPARED + ADAPTED + TRAINED, context=TrainingContext(world_size=1)) == []


def test_the_fix_asks_for_the_rank(tmp_path):
    body = fixed_text("KB720", AUTO + WRAPPED, tmp_path, imports="from accelerate import PartialState\n" + IMPORTS)

    assert body == (AUTO + WRAPPED).replace("'auto'", '{"": PartialState().process_index}')


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(AUTO + TRAINED, id="one process"),
        pytest.param(
            "device_map = 'auto'\n"
            "if os.environ.get('LOCAL_RANK') is not None:\n    device_map = {'': int(os.environ['LOCAL_RANK'])}\n"
            + AUTO.replace("'auto'", "device_map")
            + TRAINED,
            id="as qlora.py does",
        ),
        pytest.param(AUTO.replace("'auto'", "{'': rank}") + WRAPPED, id="the rank"),
        pytest.param(AUTO.replace("'auto'", "{'': int(os.environ.get('LOCAL_RANK', '0'))}") + WRAPPED, id="a rank by default"),
        pytest.param("assert 'LOCAL_RANK' not in os.environ\n" + AUTO + TRAINED, id="asserts one process"),
        pytest.param("assert int(os.environ.get('WORLD_SIZE', 1)) == 1\n" + AUTO + TRAINED, id="asserts a world of one"),
        pytest.param("if 'LOCAL_RANK' in os.environ:\n    raise SystemExit('one')\n" + AUTO + TRAINED, id="ends on ranks"),
        pytest.param("if os.environ.get('LOCAL_RANK'):\n    sys.exit(1)\n" + AUTO + TRAINED, id="leaves on ranks"),
        pytest.param("torch.cuda.set_device(rank)\n" + LOADED + WRAPPED, id="no map, and the device is set"),
        pytest.param(LOADED.replace("quantization_config=bnb, ", "") + WRAPPED, id="no map for a model on the CPU"),
        pytest.param(AUTO + "TrainingArguments('out', ddp_find_unused_parameters=False)\n", id="a weak sign"),
    ],
)
def test_look_alikes(script):
    assert findings("KB720", script) == []


@pytest.mark.parametrize("given", ["", ", device_map={'': torch.cuda.current_device()}"])
def test_a_quantized_model_is_loaded_before_its_rank_has_a_device(given, tmp_path):
    script = "rank = int(os.environ['LOCAL_RANK'])\n" + LOADED.replace(", dtype=", f"{given}, dtype=") + ADAPTED
    arguments = "args = TrainingArguments('out', bf16=True)\n"
    trained = "Trainer(model=model, args=args, train_dataset=data).train()\n"
    fixed = fixed_text("KB720", script + arguments + trained, tmp_path)

    assert findings("KB720", script + arguments + trained) == [
        (
            "warning",
            script.split("\n")[2],
            "every rank loads the model onto GPU 0, and LOCAL_RANK tells of several: nothing has set its device yet",
        )
    ]
    assert findings("KB720", arguments + script + trained) == []
    assert findings("KB720", "def start():\n    torch.cuda.set_device(1)\nstart()\n" + script + arguments + trained) == []
    assert findings("KB720", script + arguments.replace("bf16", "fsdp='full_shard', bf16") + trained) == []
    assert 'device_map={"": PartialState().process_index}' in fixed


def test_a_map_from_elsewhere_is_shown_only(tmp_path):
    script = "kwargs = dict(device_map='auto')\n" + LOADED.replace(", dtype=torch.bfloat16", ", **kwargs") + WRAPPED

    assert flagged_lines("KB720", script) == [("error", "kwargs = dict(device_map='auto')")]
    assert fixed_text("KB720", script, tmp_path) == script


@pytest.mark.parametrize(
    "guard",
    [
        "assert 'LOCAL_RANK' in os.environ\n",
        "if 'LOCAL_RANK' not in os.environ:\n    raise SystemExit('start it with torchrun')\n",
        "assert os.environ['LOCAL_RANK'] != ''\n",
    ],
)
def test_a_script_that_asks_for_ranks_has_several(guard):
    assert [severity for severity, _, _ in findings("KB720", guard + AUTO + TRAINED)] == ["warning"]


def test_a_strategy_of_lightning_starts_several_ranks():
    trained = "import lightning\nlightning.Trainer(devices={}, strategy='{}').fit(model)\n"

    assert [severity for severity, _, _ in findings("KB720", AUTO + trained.format(4, "ddp"))] == ["warning"]
    assert findings("KB720", AUTO + trained.format(1, "ddp")) == []
    assert findings("KB720", AUTO + trained.format(4, "auto")) == []


def test_the_default_of_a_rank_is_no_constant():
    given = "{'': int(os.environ.get('LOCAL_RANK', '0'))}"

    assert findings("KB720", AUTO.replace("'auto'", given) + PREPARED + ADAPTED + TRAINED) == []
