"""What names, expressions and statements of a script stand for: read back from the argument of a known call."""

from __future__ import annotations

import pytest
from script_cases import NEWEST

from kbitlint.facts.source import Action
from kbitlint.facts.values import UNKNOWN, Symbol
from kbitlint.source.python import collect

HEAD = """import torch, argparse, sys
from dataclasses import dataclass, field
from transformers import *
from transformers import HfArgumentParser
from peft import *
import peft
"""
PARSER = "p = argparse.ArgumentParser()\n"
READ = "x, = HfArgumentParser(A).parse_args_into_dataclasses()\n"


def facts(script):
    return collect("f.py", HEAD + script, NEWEST)


def value(script):
    """What X is at the end of a script, where all paths agree."""
    (call,) = facts(f"{script}\nBitsAndBytesConfig(load_in_4bit=X)\n").calls_of("transformers.BitsAndBytesConfig")
    return call.value("load_in_4bit")


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("X = 1", 1),
        ("X = -1", -1),
        ("X = -'a'", UNKNOWN),
        ("X = not 0", True),
        ("X = not unknown", UNKNOWN),
        ("X = 'a' + 'b'", "ab"),
        ("X = 1 + 2", UNKNOWN),
        ("a = 'b'\nX = f'{a}-c'", "b-c"),
        ("X = f'{unknown}'", UNKNOWN),
        ("X = b'bytes'", UNKNOWN),
        ("X = unknown or 1", UNKNOWN),
        ("X = 0 or 2", 2),
        ("X = 1 and 2", 2),
        ("X = 0 and 2", 0),
        ("X = 1 if True else 2", 1),
        ("X = 1 == 1.0", True),
        ("X = 1 != 1", False),
        ("X = None is None", True),
        ("X = {} is None", False),
        ("X = None is not []", True),
        ("X = torch.float16 == torch.float16", True),
        ("X = torch.float16 == torch.bfloat16", UNKNOWN),
        ("X = unknown == 1", UNKNOWN),
        ("class A:\n  y = 3\nX = A.y", 3),
        ("class A:\n  y = 3\nclass B(A):\n  pass\nX = B.y", 3),
        ("class A:\n  pass\nX = A.y", UNKNOWN),
        ("class A:\n  pass\nX = A.y()", UNKNOWN),
        ("class A:\n  @staticmethod\n  def f(y):\n    return y\nX = A.f(4)", 4),
        ("class A:\n  @staticmethod\n  def f(y):\n    return y\nX = A().f(4)", 4),
        ("class A:\n  y = 5\n  @classmethod\n  def f(cls):\n    return cls.y\nclass B(A):\n  y = 6\nX = B.f()", 6),
        ("class A:\n  def f(self, y):\n    return y\nX = A.f(A(), 7)", 7),
        ("class A:\n  @property\n  def f(self):\n    return 8\nX = A().f", 8),
        ("class A:\n  @property\n  def f(self):\n    return lambda y: y\nX = A().f(8)", 8),
        ("class A:\n  @functools.cached_property\n  def f(self):\n    return 9\nX = A().f", 9),
        ("class A:\n  def __call__(self, y):\n    return y\nX = A()(10)", 10),
        ("class A:\n  pass\nX = A()(10)", UNKNOWN),
        ("class A(torch.nn.Module):\n  def forward(self, y):\n    return y\nX = A()(11)", 11),
        ("class A:\n  def __init__(self, y):\n    self.y = y\nclass B(A):\n  pass\nX = B(12).y", 12),
        ("class A:\n  def f(self):\n    return 13\nclass B(A):\n  def f(self):\n    return super().f()\nX = B().f()", 13),
        (
            (
                "class A:\n  def __init__(self, y):\n    self.y = y\n"
                "class B(A):\n  def __init__(self):\n    super().__init__(14)\nX = B().y"
            ),
            14,
        ),
        ("X = super()", UNKNOWN),
        ("X = {'a': 1}()", UNKNOWN),
        ("X = 1 < 2", UNKNOWN),
        ("X = 1 < 2 < 3", UNKNOWN),
        ("X = 'a' in 'abc'", True),
        ("X = 'a' in ['b']", False),
        ("X = 'a' in {'a': 1}", True),
        ("X = 'b' not in {'a': 1}", True),
        ("X = 'b' in {**unknown}", UNKNOWN),
        ("X = 1 in unknown", UNKNOWN),
        ("X = [1, 2][0]", 1),
        ("X = [1, 2][5]", UNKNOWN),
        ("X = ([1] + [2])[1]", 2),
        ("a, b = 1, 2\nX = b", 2),
        ("a, *b = unknown\nX = a", UNKNOWN),
        ("(a, b), c = (1, 2), 3\nX = b", 2),
        ("[a, b] = [1]\nX = a", UNKNOWN),
        ("X = [*unknown][0]", UNKNOWN),
        ("d = {'a': 1}\nX = d['a']", 1),
        ("d = {'a': 1}\nd['a'] = 2\nX = d['a']", 2),
        ("d = dict(a=1)\nd.update(a=3)\nX = d['a']", 3),
        ("d = dict(a=1)\nd.update({'a': 4})\nX = d['a']", 4),
        ("d = {'a': 1}\nX = d.get('a')", 1),
        ("d = {'a': 1}\nX = d.get('b', 5)", 5),
        ("d = {'a': 1}\nX = d.get('b')", None),
        ("d = {'a': 1}\nX = d.get(unknown)", UNKNOWN),
        ("d = {'a': 6}\nX = d.pop('a')", 6),
        ("d = {}\nd.setdefault('a', 7)\nX = d['a']", 7),
        ("d = {'a': 8}\ne = d.copy()\nd['a'] = 0\nX = e['a']", 8),
        ("d = {'a': 1} | {'a': 9}\nX = d['a']", 9),
        ("d = {'a': 1}\nd |= {'a': 10}\nX = d['a']", 10),
        ("d = {}\nd[unknown] = 1\nX = d.get('a')", UNKNOWN),
        ("d = {unknown: 1, **{'a': 11}}\nX = d['a']", 11),
        ("l = [1]\nl += [12]\nX = l[1]", 12),
        ("x = 1\nx += 1\nX = x", UNKNOWN),
        ("X = (y := 13)", 13),
        ("X: int = 14", 14),
        ("X: int\n", UNKNOWN),
        ("X = torch.float16", Symbol("torch.float16")),
        ("X = getattr(torch, 'float16')", Symbol("torch.float16")),
        ("def f(a, b=15):\n    return b\nX = f(1)", 15),
        ("def f(a, *, b=1):\n    return b\nX = f(1, b=16)", 16),
        ("def f(**k):\n    return k['a']\nX = f(a=17)", 17),
        ("def f(*a):\n    return a\nX = f(1)", (1,)),
        ("def f():\n    pass\nX = f()", None),
        ("def f(n):\n    return f(n)\nX = f(1)", UNKNOWN),
        ("f = lambda a: a\nX = f(18)", 18),
        ("def f():\n    for i in []:\n        return 19\nX = f()", 19),
        ("for i in range(3):\n    X = 20\n    break\nelse:\n    X = 0", 0),
        ("for X in [21]:\n    pass", 21),
        ("while True:\n    X = 22\n    continue", 22),
        ("with open('a') as f, g() as h:\n    X = 23", 23),
        ("try:\n    X = 24\nexcept E:\n    X = 0\nelse:\n    pass\nfinally:\n    pass", 24),
        ("if unknown:\n    X = 1\nelse:\n    X = 2", UNKNOWN),
        ("if False:\n    X = 1\nelse:\n    X = 25", 25),
        ("if a == 3:\n    X = a == 3\nelse:\n    X = True", True),
        ("if not (unknown and other):\n    raise E\nX = 26", 26),
        ("X = 27\nif unknown:\n    Y = 1", 27),
        ("X = 1\ndel X", UNKNOWN),
        ("Y = 1\ndef f():\n    global Y\n    return Y\nX = f()", 1),
        ("class A:\n    a = 28\nX = A().a", 28),
        ("class A:\n    def __init__(self, a):\n        self.a = a\nX = A(29).a", 29),
        ("class A:\n    def f(self, a=30):\n        return a\nX = A().f()", 30),
        ("class A:\n    def f(self):\n        return 31\nc = A()\ng = c.f\nX = g()", 31),
        ("class B:\n    b = 32\nclass A:\n    b = B()\nX = A().b.b", 32),
        ("@dataclass\nclass A:\n    a: int = field(default=33)\n    b: list = field(default_factory=list)\nX = A().a", 33),
        ("@dataclass\nclass A:\n    a: int\nX = A(34).a", 34),
        (PARSER + "p.add_argument('--a-b', default=35)\nX = p.parse_args().a_b", 35),
        (
            PARSER + "g = p.add_argument_group('g')\ng.add_argument('-a', dest='c', default=36)\nX = p.parse_args().c",
            36,
        ),
        (PARSER + "p.add_argument('--a', action='store_true')\nX = p.parse_args().a", UNKNOWN),
        (PARSER + "p.add_argument('--a', default=False)\nX = p.parse_args().a", UNKNOWN),
        (PARSER + "p.add_argument('a')\na, _ = p.parse_known_args()\np.error('x')\nX = a.b", UNKNOWN),
        (
            "@dataclass\nclass A:\n    a: int = 37\n    b: bool = False\n" + READ + "X = x.a",
            37,
        ),
        (
            "@dataclass\nclass A:\n    b: bool = False\nx, y = HfArgumentParser((A, B)).parse_args_into_dataclasses()\nX = x.b",
            UNKNOWN,
        ),
        (
            "@dataclass\nclass A:\n    a: int = 38\n" + READ + "X = argparse.Namespace(**vars(x)).a",
            38,
        ),
        (
            "async def f():\n  async with a as b:\n    async for c in d:\n      await e\n  return 39\nX = await_(f())",
            UNKNOWN,
        ),
        ("match unknown:\n    case 1:\n        X = 40\n    case _:\n        X = 41", UNKNOWN),
        ("X = unknown[0].b(c)[d]", UNKNOWN),
        ("X = [i for i in range(3)]", UNKNOWN),
        ("import fire\ndef f(a=42):\n    global X\n    return a\nX = fire.Fire(f)", 42),
    ],
)
def test_a_name_stands_for(script, expected):
    assert value(script) == expected


def actions(script):
    return [step.action for path in facts(script).paths for step in path.steps]


@pytest.mark.parametrize(
    "script",
    [
        "sys.exit()\nget_peft_model(m, c)",
        "raise SystemExit\nget_peft_model(m, c)",
        "def f():\n    exit()\nf()\nget_peft_model(m, c)",
    ],
)
def test_nothing_follows_where_the_script_ends(script):
    assert actions(script) == []


@pytest.mark.parametrize(
    "script",
    [
        "get_peft_model(m, c)",
        "peft.get_peft_model(m, c)",
        "from peft.mapping import get_peft_model as g\ng(m, c)",
        "import peft as p\np.mapping_func.get_peft_model(m, c)",
        "if __name__ == '__main__':\n    get_peft_model(m, c)",
        "def unused(m):\n    return get_peft_model(m, c)",
        "class Unused:\n    def f(self, m):\n        return get_peft_model(m, c)",
        "class Used:\n    def g(self):\n        pass\n    def f(self, m):\n        return get_peft_model(m, c)\nUsed().f(1)",
        "m.add_module(get_peft_model(m, c))",
        "with a:\n  for b in c:\n    while d:\n      try:\n        get_peft_model(m, c)\n      finally:\n        pass",
        "X = [get_peft_model(m, c)]",
        "(lambda: get_peft_model(m, c))()",
    ],
)
def test_a_call_is_seen_wherever_it_stands(script):
    assert set(actions(script)) == {Action.ATTACH}


@pytest.mark.parametrize(
    ("script", "trained"),
    [
        ("loss = m(x).loss\nloss.backward()", True),
        ("out = m(x)\n(out['loss'] / 2).backward()", True),
        ("loss = f(m(x).logits)\nloss.backward()", True),
        ("loss.backward()", False),
        ("m.forward(x).loss.mean().backward()", True),
        ("scaler.scale(m(x).loss).backward()", True),
        ("engine.backward(m(x).loss)", True),
        ("Trainer(model=m).evaluate()", False),
        ("Trainer(model=m)", True),
        ("Trainer(model=m).train()", True),
        ("class T(Trainer):\n    pass\nT(m).train()", True),
        ("class T(Trainer):\n    def compute_loss(self):\n        pass\nclass U(T):\n    pass\nU(m).train()", True),
        ("t = Trainer(model=m)\nt.model.eval()\nt.train()", True),
        ("from trl import SFTTrainer\nSFTTrainer('a/b').train()", True),
        ("Trainer(model_init=f).train()", False),
    ],
)
def test_a_training_is_recognised(script, trained):
    load = "m = AutoModelForCausalLM.from_pretrained('a/b', quantization_config=BitsAndBytesConfig(load_in_4bit=True))\n"

    assert any(path.trainings for path in facts(load + script).paths) is trained


def test_unknown_conditions_are_followed_both_ways_and_the_same_one_only_once():
    script = (
        "if a:\n    get_peft_model(m, c)\nif a:\n    get_peft_model(m, d)\nif not a:\n    prepare_model_for_kbit_training(m)\n"
    )

    found = sorted([step.action.value for step in path.steps] for path in facts(script).paths)

    assert found == [["attach adapters", "attach adapters"], ["prepare"]]


def test_paths_and_steps_are_bounded():
    script = "".join(f"if a{i}:\n    m = get_peft_model(m, c)\n" for i in range(200))

    assert len(facts(script).paths) <= 40


def test_functions_that_double_at_each_level_end():
    script = "".join(
        f"def f{i}(m):\n    " + (f"f{i - 1}(m)\n    f{i - 1}(m)\n" if i else "get_peft_model(m, c)\n") for i in range(60)
    )

    assert facts(script + "f59(x)\n").paths


def test_a_class_of_the_file_loads_as_the_class_that_it_extends():
    script = (
        "from transformers import LlamaForCausalLM\n"
        "class A(LlamaForCausalLM):\n  pass\nA.from_pretrained('x', quantization_config=BitsAndBytesConfig())\n"
    )
    (step,) = (step for path in facts(script).paths for step in path.steps)

    assert (step.action, step.call.callee) == (Action.LOAD, "transformers.LlamaForCausalLM.from_pretrained")
