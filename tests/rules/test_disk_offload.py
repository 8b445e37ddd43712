from __future__ import annotations

import pytest
import tiny
import transformers
from script_cases import ADAPTED, LOADED, LOOP, TRAINED, findings

import kbitlint
from kbitlint.context import TrainingContext

CODE = "KB707"
# accelerate's refusal and the steps of a loop of one's own are held against this rule in tests/causes/test_rank_causes.py


def found(devices, kind="nf4", **context):
    model = tiny.load(kind=kind)
    model.hf_device_map = devices
    report = kbitlint.check(model, select=CODE, context=TrainingContext(**context), trace=False)
    return [(v.at.path, v.severity.value, v.consequence.value, v.evidence) for v in report.violations]


ON_DISK = {"model": "cpu", "lm_head": "disk"}
EVIDENCE = {"devices": ["cpu", "disk"], "offloaded": 0}


def test_trainer_stops_before_the_first_step():
    assert found(ON_DISK, sets_training_mode=True) == [("", "error", "training fails", EVIDENCE)]


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_loop_of_ones_own_may_train(kind):
    fragile = "training works here and fails in other set-ups (DDP, hooks missing)"

    assert found(ON_DISK, kind) == [("", "warning", fragile, EVIDENCE)]


@pytest.mark.parametrize(
    ("devices", "kind"), [(ON_DISK, "none"), ({"model": 0, "lm_head": "cpu"}, "nf4"), ({"": "cpu"}, "nf4"), (None, "nf4")]
)
def test_what_accelerate_takes_is_fine(devices, kind):
    assert found(devices, kind, sets_training_mode=True) == []


REFUSED = "from_pretrained refuses to put a part of a quantized model on the CPU or the disk"
UNTRAINED = "a part of the model lies on disk, and accelerate refuses to train a quantized model so"
ALLOWED = LOADED.replace("BitsAndBytesConfig(", "BitsAndBytesConfig(llm_int8_enable_fp32_cpu_offload=True, ")


LOADED_LINE = LOADED.splitlines()[1].replace("quantization_config=bnb", "quantization_config=bnb, device_map=where")


def placed(devices, loaded=LOADED):
    return loaded.replace("quantization_config=bnb", f"quantization_config=bnb, device_map={devices}")


@pytest.mark.parametrize("kind", ["nf4", "int8"])
@pytest.mark.parametrize("devices", [{"model": "meta", "lm_head": "cpu"}, {"model": "cpu", "lm_head": "disk"}, {"": "disk"}])
def test_a_load_that_is_refused(devices, kind):
    arguments = {"device_map": devices, "quantization_config": tiny.quantization(kind)}
    script = placed(devices)

    assert findings(CODE, script) == [("error", script.splitlines()[1], REFUSED)]
    with pytest.raises(ValueError, match="Some modules are dispatched on the CPU or the disk"):
        transformers.LlamaForCausalLM.from_pretrained(tiny.checkpoint(), **arguments)


def test_a_map_with_disk_that_is_allowed_is_refused_by_trainer():
    script = placed(ON_DISK, ALLOWED)

    assert findings(CODE, script + ADAPTED + TRAINED) == [("error", script.splitlines()[1], UNTRAINED)]


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(placed({"": "cpu"}), id="all of it on the CPU"),
        pytest.param(placed({"": 0}), id="one GPU"),
        pytest.param(placed({"model": 0, "lm_head": 1}), id="two GPUs"),
        pytest.param(placed("'auto'"), id="auto"),
        pytest.param(placed("{'model': 0, 'lm_head': where}"), id="unknown device"),
        pytest.param(placed("{'model': 0, **rest}"), id="unknown rest"),
        pytest.param(placed({"model": 0, "lm_head": "cpu"}, ALLOWED) + ADAPTED + TRAINED, id="allowed, and trained so"),
        pytest.param(placed(ON_DISK, ALLOWED) + ADAPTED + LOOP, id="a loop of one's own"),
        pytest.param(placed(ON_DISK, ALLOWED), id="never trained"),
        pytest.param(placed(ON_DISK, LOADED.replace("load_in_4bit=True", "load_in_4bit=four")), id="perhaps not quantized"),
        pytest.param("AutoModelForCausalLM.from_pretrained('org/base', device_map={'': 'disk'})\n" + ADAPTED, id="floats"),
        pytest.param(
            "if cpu:\n    where = {'': 'cpu'}\nelse:\n    where = {'model': 0, 'lm_head': 'cpu'}\n" + placed("where"),
            id="on one path only",
        ),
    ],
)
def test_maps_that_are_taken(script):
    assert findings(CODE, script) == []


MAP = "where = {'model.embed_tokens': 0, 'model.norm': 0, 'lm_head': 0}\n"
LAYERS = "for i in range(32):\n    where[f'model.layers.{i}'] = 0 if i < 20 else 'cpu'\n"


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(MAP + LAYERS, id="a loop"),
        pytest.param(MAP + LAYERS.replace("'cpu'", "'disk'").replace("range(32)", "range(0, 32, 1)"), id="disk"),
        pytest.param(
            MAP + "for i in range(32):\n    if i >= 20:\n        where[f'{i}'] = 'cpu'\n    else:\n        where[f'{i}'] = 0\n",
            id="branches",
        ),
        pytest.param("where = {f'model.layers.{i}': 'cuda:0' if i < 20 else 'cpu' for i in range(32)}\n", id="a comprehension"),
        pytest.param(MAP + "where |= {f'layers.{i}': 'cpu' for i in range(8)}\n", id="joined"),
        pytest.param(MAP + "N = 8\nwhere.update({f'layers.{i}': 'cpu' for i in range(N)})\n", id="updated"),
        pytest.param("where = {'model': 0, 'norm': unknown, 'lm_head': 'cpu'}\n", id="beside an unknown device"),
    ],
)
def test_a_map_that_the_script_builds_is_refused(made):
    assert findings(CODE, made + placed("where")) == [("error", LOADED_LINE, REFUSED)]


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(MAP + LAYERS.replace("20", "32"), id="no layer on the CPU"),
        pytest.param(MAP + LAYERS.replace("range(32)", "range(layers)"), id="an unknown number of layers"),
        pytest.param(MAP + LAYERS.replace("20", "last"), id="an unknown last layer"),
        pytest.param(MAP + LAYERS + "for i in range(32):\n    where[f'model.layers.{i}'] = 0\n", id="set again"),
        pytest.param("where = {f'layers.{i}': 'cpu' for i in range(32)}\n", id="all of it on the CPU"),
        pytest.param(MAP + LAYERS + "where = infer_auto_device_map(model)\n", id="another map"),
    ],
)
def test_a_map_that_the_script_builds_may_be_taken(made):
    assert findings(CODE, made + placed("where")) == []
    assert findings(CODE, MAP + LAYERS + placed("where", ALLOWED) + ADAPTED + TRAINED) == []
