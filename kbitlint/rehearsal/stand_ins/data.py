"""Data sets: a few rows of the real one where it is at hand, else made-up rows whose columns the script asks for."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kbitlint.rehearsal.inside.imports import replace
from kbitlint.rehearsal.stand_ins.rows import ROWS, known_columns, value_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kbitlint.rehearsal.inside.record import Record

#: builders of ``datasets`` that read files
_FILES = ("json", "csv", "parquet", "text", "arrow", "imagefolder", "audiofolder", "pandas", "xml", "webdataset")
#: exceptions of ``datasets`` for files that are not here, or only on the network
_NOT_HERE = (
    *("FileNotFoundError", "DataFilesNotFoundError", "EmptyDatasetError", "OfflineModeIsEnabled", "ConnectionError"),
    "LocalEntryNotFoundError",
)
#: methods that return a data set, or several
_MAKING = (
    *("map", "filter", "select", "shuffle", "train_test_split", "remove_columns", "rename_column", "rename_columns"),
    *("select_columns", "shard", "take", "skip", "add_column", "cast_column", "cast", "with_format", "with_transform", "sort"),
    *("flatten", "class_encode_column", "repeat"),
)


def install(record: Record, datasets: Any) -> None:
    """Replace the loading of data sets, until the process ends."""
    staged = staged_class(datasets)
    datasets.disable_caching()
    replace(datasets, "load_dataset", lambda original: _loading(record, original, staged, datasets))
    datasets.load.load_dataset = datasets.load_dataset
    replace(datasets, "load_from_disk", lambda original: _loading(record, original, staged, datasets, either=True))


def _loading(record: Record, original: Any, staged: Any, datasets: Any, *, either: bool = False) -> Any:
    """Return a function that loads data. ``either``: a folder may hold a data set or several, and made-up data is both."""

    @functools.wraps(original)
    def load(path: Any, *arguments: Any, **options: Any) -> Any:
        if record.paused:
            return original(path, *arguments, **options)
        name = str(path)
        local = name in _FILES or Path(name).exists()
        if local:
            try:
                return _limited(record, original(path, *arguments, **options), staged)
            except (FileNotFoundError, OSError) as error:
                if type(error).__name__ not in _NOT_HERE:
                    raise
                name = _named(options) or name
        record.synthetic_data = True
        record.stand_in(f"the data of {name} ({ROWS} made-up rows)")
        return _made_up(name, options.get("split"), staged, datasets, either=either)

    return load


def _named(options: dict[str, Any]) -> str:
    files = options.get("data_files")
    if isinstance(files, dict):
        files = next(iter(files.values()), None)
    if isinstance(files, (list, tuple)):
        files = files[0] if files else None
    return str(files) if files else ""


def _made_up(name: str, split: Any, staged: Any, datasets: Any, *, either: bool = False) -> Any:
    columns, splits = known_columns(name)

    def one(part: str) -> Any:
        held = {column.partition("@")[0]: [value_of(column, number) for number in range(ROWS)] for column in columns}
        made = datasets.Dataset.from_dict(held, split=datasets.NamedSplit(part))
        return staged.of(made, learns=True)

    if split is None:
        return _splits_class(datasets, one, either=either)({part: one(part) for part in splits})
    if isinstance(split, (list, tuple)):
        return [one(str(part).partition("[")[0]) for part in split]
    return one(str(split).partition("[")[0].partition("+")[0])


def _splits_class(datasets: Any, make: Callable[[str], Any], *, either: bool) -> Any:
    class Splits(datasets.DatasetDict):  # type: ignore[misc,name-defined]  # datasets is Any
        """A dictionary of splits that makes up the one that is asked for."""

        def __missing__(self, split: Any) -> Any:
            if either and not isinstance(split, str):
                return self["train"][split]
            if split not in ("test", "validation", "eval", "dev", "val", "train") and not split.startswith(("train", "test")):
                raise KeyError(split)
            self[split] = make(split)
            return self[split]

        def __getitem__(self, split: Any) -> Any:
            return dict.__getitem__(self, split)

        def __getattr__(self, name: str) -> Any:
            if not either or name.startswith("__"):
                raise AttributeError(f"'DatasetDict' object has no attribute '{name}'", name=name, obj=self)
            return getattr(self["train"], name)

    Splits.__name__ = Splits.__qualname__ = "DatasetDict"
    return Splits


def _limited(record: Record, made: Any, staged: Any) -> Any:
    """Return the first rows of a real data set, or of each split."""
    if isinstance(made, dict):
        for split in made:
            made[split] = _limited(record, made[split], staged)
        return made
    most = record.request.rows
    if not hasattr(made, "select") or len(made) <= most:  # a stream is read no further than it is asked for
        return made
    record.note(f"the first {most} of {len(made)} rows of the data are read")
    return staged.of(made.select(range(most)), learns=False)


def staged_class(datasets: Any) -> Any:
    """Return a subclass of ``datasets.Dataset`` with few rows, which answers for a data set with many."""

    class Dataset(datasets.Dataset):  # type: ignore[misc,name-defined]  # datasets is Any
        """A data set with few rows. If it learns, a column that is asked for is made up."""

        _learns = False

        @classmethod
        def of(cls, made: Any, *, learns: bool) -> Any:
            made.__class__ = cls
            made._learns = learns  # noqa: SLF001  # its own
            return made

        def learn(self, column: str) -> None:
            """Add a made-up column, in place."""
            if self._learns and isinstance(column, str) and column not in self.column_names:
                values = [value_of(column, number) for number in range(len(self))]
                longer = datasets.Dataset.add_column(self, column, values)
                self.__dict__.update(longer.__dict__)

        def __getitem__(self, key: Any) -> Any:
            if isinstance(key, str):
                self.learn(key)
                return super().__getitem__(key)
            if isinstance(key, int) and key >= len(self):
                key %= len(self)
            found = super().__getitem__(key)
            return Row(found, self.learn, key) if self._learns and type(found) is dict and isinstance(key, int) else found

        def __iter__(self) -> Iterator[Any]:
            for number, row in enumerate(super().__iter__()):
                yield Row(row, self.learn, number) if self._learns and type(row) is dict else row

    for name in _MAKING:
        setattr(Dataset, name, _making(name, getattr(datasets.Dataset, name), Dataset))
    Dataset.__qualname__ = "Dataset"
    return Dataset


class Row(dict):  # type: ignore[type-arg]  # of strings and anything
    """A row, or a batch of rows, in which a column that is asked for is made up and learned.

    Args:
        held: The values.
        learn: Receives the name of a column that was asked for.
        number: The number of the row; None for a batch, whose values are lists.
        size: The rows of a batch.
    """

    def __init__(self, held: Any, learn: Callable[[str], None], number: int | None = None, size: int = 1) -> None:
        super().__init__(held)
        self._learn, self._number, self._size = learn, number, size

    def __missing__(self, column: str) -> Any:
        if not isinstance(column, str):
            raise KeyError(column)
        self._learn(column)
        rows = range(self._size)
        self[column] = value_of(column, self._number) if self._number is not None else [value_of(column, row) for row in rows]
        return self[column]


def _making(name: str, original: Any, staged: Any) -> Any:
    prepare = _PREPARE.get(name, _as_given)

    @functools.wraps(original)
    def method(self: Any, *arguments: Any, **options: Any) -> Any:
        arguments, options = prepare(self, arguments, options)
        made = original(self, *arguments, **options)
        for one in made.values() if isinstance(made, dict) else [made]:
            staged.of(one, learns=self._learns)
        return made

    return method


def _as_given(_: Any, arguments: Any, options: Any) -> Any:
    return arguments, options


def _map(self: Any, arguments: Any, options: Any) -> Any:
    """Learn the columns that a function reads, by one call on the first row."""
    if options.get("num_proc"):
        options = {**options, "num_proc": None}
    function = arguments[0] if arguments else options.get("function")
    for key in ("remove_columns", "input_columns"):
        names = options.get(key) or ()
        for column in [names] if isinstance(names, str) else list(names):
            self.learn(column)
    if self._learns and callable(function) and not options.get("input_columns"):
        _try_once(self, function, options)
    return arguments, options


def _try_once(self: Any, function: Any, options: Any) -> None:
    plain, learned = next(iter(self)), list[str]()
    if not isinstance(plain, dict):  # a table of Arrow's, as TRL packs them
        return
    batched = bool(options.get("batched"))
    row = Row({key: [one] for key, one in plain.items()} if batched else plain, learned.append, None if batched else 0)
    further = [[0] if batched else 0] if options.get("with_indices") else []
    with contextlib.suppress(Exception):  # the real call raises it again, where the script sees it
        function(row, *further, **(options.get("fn_kwargs") or {}))
    for column in learned:
        self.learn(column)


def _select(self: Any, arguments: Any, options: Any) -> Any:
    indices = list(arguments[0] if arguments else options["indices"])
    kept = [index for index in indices if index < len(self)]
    return (kept or [index % len(self) for index in indices[: len(self)]],), {}


def _rename(self: Any, arguments: Any, options: Any) -> Any:
    given = [*arguments, *options.values()]
    for column in given[0] if isinstance(given[0], dict) else given[:1]:
        self.learn(column)
    return arguments, options


def _columns(self: Any, arguments: Any, options: Any) -> Any:
    names = arguments[0] if arguments else options.get("column_names") or ()
    for column in [names] if isinstance(names, str) else list(names):
        self.learn(column)
    return arguments, options


def _split(self: Any, arguments: Any, options: Any) -> Any:
    """Return sizes that few rows have: a number of rows becomes a share of them."""
    share = {"test_size": 0.25, "train_size": 0.75}
    kept = {
        key: share[key] if key in share and type(one) is int and one >= len(self) // 2 else one for key, one in options.items()
    }
    for key in ("test_size", "train_size"):
        if type(kept.get(key)) is float and kept[key] * len(self) < 1:
            kept[key] = 0.25
    if len({"test_size", "train_size"} & set(kept)) > 1:
        kept.pop("train_size")
    kept.pop("stratify_by_column", None)
    return [0.25] if arguments and type(arguments[0]) is int and arguments[0] >= len(self) // 2 else arguments, kept


def _shuffle(_: Any, arguments: Any, options: Any) -> Any:
    return arguments, {key: one for key, one in options.items() if key != "buffer_size"}


def _part(self: Any, arguments: Any, options: Any) -> Any:
    count = arguments[0] if arguments else options.get("n", 0)
    return (min(int(count), max(1, len(self) - 4)),), {}


_PREPARE: dict[str, Callable[[Any, Any, Any], Any]] = {
    "map": _map,
    "filter": _map,
    "select": _select,
    "rename_column": _rename,
    "rename_columns": _rename,
    "remove_columns": _columns,
    "select_columns": _columns,
    "class_encode_column": _columns,
    "sort": _columns,
    "train_test_split": _split,
    "shuffle": _shuffle,
    "take": _part,
    "skip": _part,
}
