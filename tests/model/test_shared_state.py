"""An audit changes nothing that a model's functions, files and classes hold, and takes nothing from it."""

from __future__ import annotations

import collections
import csv
import functools
import gc
import io
import itertools
import queue
import random
import types
import weakref

import numpy as np
import pytest
import tiny
import torch
from torch import nn
from trace_cases import NO_AUTOCAST

import kbitlint

# ruff: noqa: PLW0108  # closures are what is tested


def adapted():
    model = tiny.with_lora(tiny.load())
    return model, model.get_base_model().model.layers


def unread(report):
    return [skip.reason for skip in report.skips if skip.surface.value == "trace" and not skip.code]


# ------------------------------------------------------------------------------------- objects that no module leads to


class Stats:
    def __init__(self):
        self.calls, self.log = 0, []

    def __call__(self, *_):
        self.calls += 1
        self.log.append(1)

    def told(self):
        return self.calls, list(self.log)


class Slotted:
    __slots__ = ("calls",)


def object_of_a_closure():
    stats = Stats()
    return lambda *_: stats.__call__(), stats.told


def slots_of_a_closure():
    held = Slotted()
    held.calls = 0

    def hook(*_):
        held.calls += 1

    return hook, lambda: held.calls


def namespace():
    held = types.SimpleNamespace(calls=0)

    def hook(*_):
        held.calls += 1

    return hook, lambda: held.calls


def long_list():
    log = [0] * 5000
    return lambda *_: log.append(1), lambda: len(log)


def long_dictionary():
    log = dict.fromkeys(range(5000), 0)
    return lambda *_: log.update({0: log[0] + 1}), lambda: log[0]


def default_of_a_function_without_a_closure():
    def hook(_module, _args, _output, seen=[]):  # noqa: B006  # a mutable default is what is tested
        seen.append(1)

    return hook, lambda: list(hook.__defaults__[0])


def array():
    counts = np.zeros(2)
    return lambda *_: counts.__setitem__(0, counts[0] + 1), counts.tolist


def generator_of_numpy():
    draws = np.random.default_rng(0)
    return lambda *_: draws.random() and None, lambda: draws.bit_generator.state


def generator_of_python():
    draws = random.Random(0)  # noqa: S311  # no secret
    return lambda *_: draws.random() and None, draws.getstate


def text():
    log = io.StringIO()
    return lambda *_: log.write("x") and None, log.getvalue


def bytes_():
    log = bytearray(2)
    return lambda *_: log.__setitem__(0, 1), lambda: bytes(log)


def put_in_a_queue():
    waiting = queue.Queue()
    return lambda *_: waiting.put(1), waiting.qsize


def count():
    counter = itertools.count()
    return lambda *_: (next(counter), None)[1], lambda: repr(counter)


def cache():
    cached = functools.lru_cache(lambda number: number)
    return lambda *_: cached(1) and None, cached.cache_info


@pytest.mark.parametrize(
    "make",
    [
        object_of_a_closure,
        slots_of_a_closure,
        namespace,
        long_list,
        long_dictionary,
        default_of_a_function_without_a_closure,
        array,
        generator_of_numpy,
        generator_of_python,
        text,
        bytes_,
        put_in_a_queue,
        count,
        cache,
    ],
)
def test_an_audit_leaves_what_a_hook_counts_or_draws_as_it_is(make):
    model, layers = adapted()
    hook, told = make()
    layers[0].register_forward_hook(hook)
    before = told()

    report = kbitlint.check(model, context=NO_AUTOCAST)

    assert told() == before
    assert unread(report) == []
    assert tiny.step(model).trains
    assert told() != before  # the hook is one that changes it


def test_a_dispatcher_runs_the_model_after_an_audit():
    """``singledispatch`` caches the function that it found: the copy's, in a cache that both shared."""
    model, layers = adapted()
    layers[0].forward = functools.singledispatch(
        functools.partial(lambda before, *args, **kw: before(*args, **kw), layers[0].forward)
    )

    assert unread(kbitlint.check(model, context=NO_AUTOCAST)) == []
    assert tiny.step(model).trains


@pytest.mark.parametrize(
    ("name", "values", "first"),
    [
        ("generator", lambda: (number for number in range(100)), 0),
        ("reader", lambda: csv.reader(["1", "2"]), ["1"]),  # a heap type that is written in C
    ],
)
def test_no_value_is_taken_from_an_iterator_of_the_model_and_the_skip_says_so(name, values, first):
    model, layers = adapted()
    values = values()
    layers[0].register_forward_hook(lambda *_: (next(values), None)[1])

    (reason,) = unread(kbitlint.check(model, context=NO_AUTOCAST))

    assert f"it takes the next value of a {name} of the model itself, which cannot be copied" in reason
    assert next(values) == first


ENDED = []


class Resource:
    def __init__(self, **held):
        vars(self).update(held)

    def __del__(self):
        ENDED.append(1)


class Closing(nn.Identity):
    def __del__(self):
        ENDED.append(2)


def test_a_resource_is_closed_by_its_owner_and_not_by_the_audit():
    model, layers = adapted()
    plain, leading = Resource(handle=1), Resource(model=model)
    layers[0].register_forward_hook(lambda *_: plain.handle and leading.model and None)
    layers[0].resource, layers[0].closing = Resource(handle=2), Closing()
    gc.collect()
    ENDED.clear()

    assert unread(kbitlint.check(model, context=NO_AUTOCAST)) == []
    gc.collect()
    assert ENDED == []
    del layers[0].resource, layers[0].closing
    assert ENDED == [1, 2]


# -------------------------------------------------------------------------------- modules as keys, and weak dictionaries


def weak_keys(modules):
    held = weakref.WeakKeyDictionary(dict.fromkeys(modules, 1))
    return held.__getitem__


def weak_values(modules):
    held = weakref.WeakValueDictionary(enumerate(modules))
    return lambda module: next(key for key, value in held.items() if value is module)


def keys(modules):
    return dict.fromkeys(modules, 1).__getitem__


def ids(modules):
    held = dict.fromkeys(map(id, modules), 1)
    return lambda module: held[id(module)]


def set_of_ids(modules):
    held = {id(module) for module in modules}

    def look(module):
        if id(module) not in held:
            raise KeyError(module)

    return look


def view(modules):
    held = types.MappingProxyType({"modules": modules})
    return lambda module: held["modules"].index(module)


def factory(modules):
    held = collections.defaultdict(lambda: modules)
    return lambda module: held["new"].index(module)


@pytest.mark.parametrize("make", [weak_keys, weak_values, keys, ids, set_of_ids, view, factory])
def test_a_hook_finds_the_copy_where_it_finds_the_module(make):
    model, layers = adapted()
    look = make(list(layers))
    for layer in layers:
        layer.register_forward_hook(lambda module, *_: (look(module), None)[1])

    assert unread(kbitlint.check(model, context=NO_AUTOCAST)) == []
    assert tiny.step(model).trains


# ------------------------------------------------------------------------------ caches under global names and on classes

MASKS, ROWS = {}, []


@functools.lru_cache
def like(dtype):  # the key of the cache
    return TEMPLATE[0].new_ones(1)


TEMPLATE = [None]


class Cached(nn.Module):
    mask = None

    def __init__(self, base, by):
        super().__init__()
        self.base, self.by = base, by

    def forward(self, incoming):
        return self.base(incoming * self.by(incoming))


def under_a_global_name(incoming):
    if "mask" not in MASKS:
        MASKS["mask"] = torch.ones_like(incoming[:1, :1])
    return MASKS["mask"]


def in_a_global_list(incoming):
    if not ROWS:
        ROWS.append(torch.ones_like(incoming[:1, :1]))
    return ROWS[0]


def on_the_class(incoming):
    if Cached.mask is None:
        Cached.mask = incoming.new_ones(incoming.shape[-1])
    return Cached.mask


def in_a_cached_function(incoming):
    TEMPLATE[0] = incoming
    return like(incoming.dtype)


@pytest.mark.parametrize("by", [under_a_global_name, in_a_global_list, on_the_class, in_a_cached_function])
def test_a_tensor_without_contents_stays_in_no_cache(by):
    MASKS.clear(), ROWS.clear(), like.cache_clear()
    Cached.mask = None
    model, layers = adapted()
    layers[0].mlp = Cached(layers[0].mlp, by)

    assert unread(kbitlint.check(model, context=NO_AUTOCAST)) == []
    assert (MASKS, ROWS, Cached.mask, like.cache_info().currsize) == ({}, [], None, 0)
    assert tiny.step(model).trains


# ------------------------------------------------------------------------------------------- hooks of accelerate's users


@pytest.mark.parametrize("sequential", [False, True])
def test_a_users_own_hook_of_accelerate_is_part_of_the_step(sequential):
    from accelerate.hooks import AlignDevicesHook, ModelHook, SequentialHook, add_hook_to_module

    class Cuts(ModelHook):
        def post_forward(self, _module, output):
            return output.detach() if isinstance(output, torch.Tensor) else tuple(value.detach() for value in output)

    model, layers = adapted()
    hook = SequentialHook(AlignDevicesHook(execution_device="cpu"), Cuts()) if sequential else Cuts()
    add_hook_to_module(layers[1], hook)

    report = kbitlint.check(model, context=NO_AUTOCAST, select="KB303")

    assert {(v.code, v.severity.value) for v in report.violations} == {("KB303", "error")}
    assert tiny.step(model).error == "element 0 of tensors does not require grad and does not have a grad_fn"
