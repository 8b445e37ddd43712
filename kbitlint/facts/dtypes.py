"""Names of dtypes that rules compare. A file of its own: rules on scripts need no other facts of models at start-up."""

from __future__ import annotations

LOW_PRECISION = ("float16", "bfloat16")

#: the dtypes to which code casts parameters
CAST_TO = ("float16", "bfloat16", "float32")
