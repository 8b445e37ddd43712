"""What a rank writes for the others is data."""

from __future__ import annotations

import json
import pickle

import pytest
import tiny

import kbitlint
from kbitlint.context import TrainingContext
from kbitlint.integrations import records
from kbitlint.integrations.ranks import RankAudit, seen


def test_a_record_with_all_facts_of_a_model_is_restored_exactly():
    model = tiny.with_lora(tiny.load())
    record = seen(model, kbitlint.check(model), TrainingContext())

    assert record.facts is not None
    assert records.loads(records.dumps(record)) == record


def test_a_failed_audit_is_restored_exactly():
    record = RankAudit(None, error="OSError: \udcff is no name")

    assert records.loads(records.dumps(record)) == record


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(RankAudit(None)),
        json.dumps(["object", "subprocess:Popen", {"args": "true"}]).encode(),
        json.dumps(["object", "kbitlint.runtime.processes:subprocess", {}]).encode(),
        json.dumps(["object", "kbitlint.errors:KbitlintError", {}]).encode(),
        json.dumps(["object", "kbitlint.api:check", {"target": "x"}]).encode(),
        json.dumps(["object", "kbitlint.nowhere:Thing", {}]).encode(),
    ],
)
def test_what_is_no_record_is_refused(data):
    with pytest.raises((ValueError, LookupError, AttributeError, ImportError)):
        records.loads(data)


def test_an_object_of_another_library_is_not_sent():
    with pytest.raises(TypeError, match=r"a record of a rank holds a re:Pattern"):
        records.dumps(RankAudit(None, aspects={"a": __import__("re").compile("x")}))
