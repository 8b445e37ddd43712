"""Reports for HTML pages, and a name that tries to leave the text of one."""

from __future__ import annotations

from kbitlint.report import Report
from kbitlint.result import ModuleOutline
from kbitlint.violation import Consequence, Edit, Fix, Location, Safety, Severity, Surface, Violation

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&{{ 7 * 7 }}{% raw %}\u2028\u202e\x00\x1b[31m\ud800"
SHOWN = "</script><img src=x onerror=alert(1)>\"'&{{ 7 * 7 }}{% raw %}\\u2028\\u202e\\x00\\x1b[31m\\ud800"


def violation(path="model.norm", severity=Severity.WARNING, code="KB101", **further):
    return Violation(
        **{
            "code": code,
            "slug": "low-precision-norm",
            "severity": severity,
            "consequence": Consequence.UNSTABLE,
            "message": "norm is bfloat16",
            "at": Location(path),
            "surface": Surface.MODEL,
            "evidence": {"dtype": "bfloat16", "bytes": 8192},
            "fix": Fix("keep it in float32", Safety.SAFE, (Edit("float32-norm", path, adds_bytes=8192),)),
            **further,
        }
    )


def report(**further):
    return Report(**({"target": "train.py:build", "ran": (("KB101", Surface.MODEL),)} | further))


def module(path, name="Linear", numel=8, **further):
    return ModuleOutline(path, name, numel=numel, **({"stored": (("bfloat16", 2 * numel),)} | further))
