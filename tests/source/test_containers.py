"""What dicts, lists, texts, partial functions, mixins and files beside a script hold when they reach a call."""

from __future__ import annotations

import json

import pytest
import yaml

from kbitlint.facts.values import UNKNOWN
from kbitlint.source import python

MARK = """from peft import LoraConfig
from dataclasses import asdict, dataclass, field
from functools import partial
import copy, json, os
"""
TABLE = {"lora": {"r": 8, "target_modules": ["q_proj"]}, "rate": "2e-4"}


def value(script, beside=None):
    """Return what the script's name X holds where a LoraConfig gets it as its rank."""
    facts = python.collect("train.py", f"{MARK}{script}\nLoraConfig(r=X)\n", beside=beside)
    found = [call.value("r", UNKNOWN) for call in facts.calls if call.callee == "peft.LoraConfig"]
    return found[-1] if found else UNKNOWN


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("base = {'a': 1}\nd = dict(base, **{'b': 2})\nX = d['b']", 2),
        ("base = {'a': 1}\nd = dict(base, a=3)\nX = d['a'], base['a']", (3, 1)),
        ("d = dict([('a', 1), ('b', 4)])\nX = d['b']", 4),
        ("d = dict(zip(['a', 'b'], [1, 5]))\nX = d['b']", 5),
        ("d = dict.fromkeys(['a', 'b'], 6)\nX = d['b']", 6),
        ("d = {'a': {'b': 1}}\ne = copy.deepcopy(d)\ne['a']['b'] = 7\nX = d['a']['b'], e['a']['b']", (1, 7)),
        ("d = {'a': 1}\nd.update([('a', 8)])\nX = d['a']", 8),
        ("d = {'a': 1}\nX = d.setdefault('b', 9), d['b']", (9, 9)),
        ("d = {'a': 1, 'b': None}\ne = {k: v for k, v in d.items() if v is not None}\nX = 'b' in e", False),
        ("d = {'a': 1}\ne = {k: v for k, v in d.items() if unknown(k)}\nX = e.get('a')", UNKNOWN),
        ("from collections import defaultdict\nd = defaultdict(dict)\nd['a'] = 10\nX = d['a']", 10),
        ("from collections import ChainMap\nX = ChainMap({'a': 11}, {'a': 1})['a']", 11),
        ("d = {'a': 1}\nif unknown:\n    d.update(a=2)\nX = d['a']", UNKNOWN),
        ("def f(**k):\n    k['a'] = 12\n    return k\nd = {'a': 1}\nX = f(**d)['a'], d['a']", (12, 1)),
        ("l = []\nl.append('a')\nl.extend(['b', 'c'])\nX = l", ("a", "b", "c")),
        ("l = ['a', 'b']\nl.remove('a')\nX = l", ("b",)),
        ("l = ['a']\nif unknown:\n    l.append('b')\nX = l", UNKNOWN),
        ("l = ['a']\nfor i in unknown:\n    l.append('b')\nX = l", ("a", "b", UNKNOWN)),
        ("l = ['a']\nm = list(l)\nm.append('b')\nX = l", ("a",)),
        ("X = [*['a', 'b'], 'c']", ("a", "b", "c")),
        ("X = [f'{x}_proj' for x in 'q,k'.split(',')]", ("q_proj", "k_proj")),
        ("X = [x for x in ['a', 'b'] if x != 'a']", ("b",)),
        ("X = [x for x in ['a', 'b'] if unknown(x)]", UNKNOWN),
        ("X = '-'.join(['a', 'b']).upper().replace('A', 'c')", "c-B"),
        ("X = int('16')", 16),
        ("def f(a, *b, c=1):\n    return b, c\nX = f(*[1, 2, 3], c=4)", ((2, 3), 4)),
        ("def f(a, *b):\n    return b\nX = f(*unknown)", UNKNOWN),
        ("def f(a, b, c=1):\n    return a, b, c\nX = partial(f, 1, c=3)(2)", (1, 2, 3)),
        ("def f(a, b, c):\n    return a, b, c\nX = partial(partial(f, 1), 2)(3)", (1, 2, 3)),
        ("class A:\n  def f(self):\n    return 1\nclass B:\n  pass\nclass C(A, B):\n  pass\nX = C().f()", 1),
        ("class A:\n  a = 1\nclass B:\n  b = 2\nclass C(A, B):\n  pass\nX = C().a, C().b", (1, 2)),
        ("@dataclass\nclass A:\n  a: list = field(default_factory=lambda: ['q'])\nX = A().a", ("q",)),
        ("@dataclass\nclass A:\n  a: dict = field(default_factory=dict)\nx = A()\nx.a['b'] = 1\nX = A().a.get('b')", None),
        ("@dataclass\nclass A:\n  a: int = 1\n  def __post_init__(self):\n    self.a = 13\nX = A().a", 13),
        ("@dataclass\nclass A:\n  a: int = 14\nX = asdict(A())['a'], A().__dict__['a']", (14, 14)),
        ("class A:\n  def __enter__(self):\n    return 15\n  def __exit__(self, *a):\n    pass\nwith A() as a:\n  X = a", 15),
        ("OPTIONS = {'a': 16}\nX = globals()['OPTIONS']['a']", 16),
        ("X = getattr(argparse.Namespace(a=17), 'a', 1)", UNKNOWN),
        ("from argparse import Namespace\nX = getattr(Namespace(a=17), 'a', 1)", 17),
        ("X = json.loads('{\"a\": [1, 2]}')['a']", (1, 2)),
        ("from omegaconf import OmegaConf\nX = OmegaConf.create({'a': {'b': 18}}).a.b", 18),
        # what a branch that is not followed may return hides the constant behind it
        (("def get(c, *names, default=None):\n  for n in names:\n    if hasattr(c, n):\n      return c.n\n"
         "  return default\n"
         "X = get(unknown, 'a', default=1)"), UNKNOWN),
        ("def f(n):\n  if n in unknown:\n    return ['a']\n  return ['b']\nX = f('c')", UNKNOWN),
    ],
)  # fmt: skip
def test_what_a_name_holds(script, expected):
    assert value(script) == expected


@pytest.mark.parametrize(
    "load",
    [
        "json.load(open('c.json'))",
        "json.loads(open('c.json').read())",
        "json.loads(Path('c.json').read_text())",
        "json.loads((Path(__file__).parent / 'c.json').read_text())",
        "json.load(open(os.path.join(os.path.dirname(__file__), 'c.json')))",
        "yaml.safe_load(open('c.yaml'))",
        "yaml.safe_load(Path('c.yaml').open())",
        "OmegaConf.load('c.yaml')",
    ],
)
def test_a_file_beside_the_script_tells_its_values(load, tmp_path):
    (tmp_path / "c.json").write_text(json.dumps(TABLE))
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(TABLE))
    start = "import yaml\nfrom pathlib import Path\nfrom omegaconf import OmegaConf\n"

    found = value(f"{start}c = {load}\nX = c['lora']['r'], c['lora']['target_modules'], c['rate']", tmp_path)

    assert found == (8, ("q_proj",), "2e-4")


def test_a_file_that_the_script_writes_or_that_is_not_here_tells_nothing(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps(TABLE))

    assert value("X = json.load(open('c.json', 'w'))['rate']", tmp_path) is UNKNOWN
    assert value("X = json.load(open('d.json'))['rate']", tmp_path) is UNKNOWN
