"""Turn the CSV files of all parts into one Parquet file per table, with keys that were checked."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from urllib.request import pathname2url

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

KEY = "ImageNumber"
#: Columns that hold image numbers of the process that wrote them.
_NUMBERS = re.compile(r"(^|_)(First_|Second_|Parent|Lifetime)?ImageNumber(_|$)|Image Number$")
#: Columns of the Image table over all objects of an image: see aggregates.py.
AGGREGATE = re.compile(r"(Mean|Median|StDev)_")
PLANNED = ("Group_Number", "Group_Index", "Group_Length")
_BLOCK = 32 * 1024**2
_SHOWN = 4  # columns in a message


class GatherError(Exception):
    """The parts do not fit together; the text says which and how."""


@dataclass(frozen=True)
class Part:
    """What one CellProfiler process wrote.

    Attributes
    ----------
    folder : Path
    numbers : tuple of int
        ImageNumbers over the whole job, in the order of the process' own 1, 2, ...
    good : frozenset of int
        Those whose results count.
    """

    folder: Path
    numbers: tuple[int, ...]
    good: frozenset[int]


def find(parts: Sequence[Part], prefixes: Sequence[str] = ()) -> dict[str, list[tuple[Part, Path]]]:
    """Return the CSV files of each table, in order of ImageNumber.

    Parameters
    ----------
    prefixes : sequence of str
        File name prefixes that are not part of a table's name.
    """
    files: dict[str, list[tuple[Part, Path]]] = {}
    for part in sorted(parts, key=lambda part: part.numbers[:1]):
        if not part.good:
            continue
        for path in sorted(part.folder.rglob("*.csv")):
            name = path.stem
            for prefix in prefixes:
                name = name.removeprefix(prefix)
            files.setdefault(name, []).append((part, path))
    return files


def gather(
    files: Sequence[tuple[Part, Path]],
    target: Path,
    *,
    delimiter: str = ",",
    planned: Mapping[str, pa.Array] | None = None,
    memory: int = 1024**3,
    may_skip: bool = False,
) -> tuple[int, frozenset[int]]:
    """Write one Parquet file from the CSV files of a table.

    Each file is parsed once. Columns that differ in type between files get the wider type. Rows
    are in order of ImageNumber.

    Parameters
    ----------
    planned : mapping of str to Array
        What the plan knows better than a part of the images can: ``Group_Number`` and the like and
        metadata, by ImageNumber - 1. Replaces columns that are there.
    memory : int
        Bytes of tables to hold; beyond that they wait on disk.
    may_skip : bool
        Whether the pipeline may end early for an image set; what it then lacks is null.

    Returns
    -------
    int
        Rows.
    frozenset of int
        ImageNumbers that have rows.

    Raises
    ------
    GatherError
        A key is out of range or there twice, or the files have different columns.
    """
    tables: list[pa.Table | Path] = []
    schemas: list[pa.Schema] = []
    order: list[tuple[int, int]] = []
    held = 0
    for part, path in files:
        table = _read(part, path, delimiter, planned or {})
        schemas.append(table.schema)
        order.append(_span(table))
        held += table.nbytes
        if held > memory:
            tables.append(_put_aside(table, target.with_name(f".{target.name}.{len(tables)}")))
            held -= table.nbytes
        else:
            tables.append(table)
    _same_columns(target.stem, [path for _, path in files], schemas, may_skip)
    schema = _wide([s for s in schemas if len(s)])
    disjoint = all(a[1] < b[0] for a, b in pairwise(order) if b[1])
    rows, seen = _write(tables, schema, target, disjoint)
    for table in tables:
        if isinstance(table, Path):
            table.unlink()
    return rows, frozenset(seen)


def _read(part: Part, path: Path, delimiter: str, planned: Mapping[str, pa.Array]) -> pa.Table:
    """Read one CSV, its image numbers turned into those of the whole job."""
    table = _parse(path, delimiter)
    key = key_of(table.column_names)
    if key is None:
        return table
    try:
        local = table[key].cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise GatherError(f"{path}: {key} is no number: {error}") from error
    if len(local) and (local.null_count or pc.max(local).as_py() > len(part.numbers)):
        raise GatherError(f"{path} has image sets that were not planned for it")
    numbers = pa.array((0, *part.numbers), pa.int64())
    for name in table.column_names:
        if is_number(name) and not AGGREGATE.match(name):
            values = table[name].cast(pa.float64()).cast(pa.int64(), safe=False)
            # 0 and null mean "no image", and stay
            valid = pc.and_(pc.greater(values, 0), pc.less_equal(values, len(part.numbers)))
            taken = pc.take(numbers, pc.if_else(valid, values, 0))
            place = table.column_names.index(name)
            table = table.set_column(place, name, pc.if_else(valid, taken, values))
    table = _with_places(table, part.folder)
    good = pa.array(sorted(part.good), pa.int64())
    if len(part.good) < len(part.numbers):
        table = table.filter(pc.is_in(table[key], value_set=good))
    where = pc.subtract(table[key], 1)
    for name, values in planned.items():
        if name in table.column_names:
            place = table.column_names.index(name)
            table = table.set_column(place, name, pc.take(values, where))
    return table


def is_number(name: str) -> bool:
    """Return whether a column holds image numbers of the process that wrote it."""
    return bool(_NUMBERS.search(name))


# What a task had fetched from S3 lay below its temporary folder, by bucket and key.
_COPY = r"^(?:file:(?://)?)?/(?:.*/)?labkit-[^/]+-[0-9]+-[0-9]+-[0-9a-f]{12}/inputs/"


def _with_places(table: pa.Table, folder: Path) -> pa.Table:
    """Return a table whose saved images lie where they are now, no more where the task ran."""
    # the folder of an attempt, whatever the run folder was called on that node
    attempt = rf"^(file:(?://)?)?/.*/attempts/[^/]+/[0-9]+\.[0-9]+/{re.escape(folder.name)}(/.*)?$"
    for place, name in enumerate(table.column_names):
        if name.startswith(("PathName_", "URL_")) and pa.types.is_string(table[name].type):
            now = pathname2url(str(folder)) if name.startswith("URL_") else str(folder)
            now = now.replace("\\", r"\\")
            moved = pc.replace_substring_regex(table[name], attempt, rf"\1{now}\2")
            moved = pc.replace_substring_regex(moved, _COPY, "s3://")
            table = table.set_column(place, name, moved)
    return table


def key_of(names: Sequence[str]) -> str | None:
    """Return the column that tells the image set; None in tables about the whole run."""
    return next((key for key in (KEY, "First Image Number") if key in names), None)


def _span(table: pa.Table) -> tuple[int, int]:
    key = key_of(table.column_names)
    if key is None or not len(table):
        return 0, 0
    span = pc.min_max(table[key]).as_py()
    return span["min"] or 0, span["max"] or 0


def _parse(path: Path, delimiter: str) -> pa.Table:
    names, skip = _header(path, delimiter)
    if not names:
        return pa.table({})
    try:
        return pacsv.read_csv(
            path,
            read_options=pacsv.ReadOptions(column_names=names, skip_rows=skip, block_size=_BLOCK),
            parse_options=pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=False),
            convert_options=pacsv.ConvertOptions(strings_can_be_null=False),
        )
    except pa.ArrowInvalid as error:
        raise GatherError(f"{path} is damaged: {error}") from error


def _header(path: Path, delimiter: str) -> tuple[list[str], int]:
    """Return column names and how many lines they take.

    Objects that were combined in one file have two lines: the object and the feature.
    """
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.reader(file, delimiter=delimiter)
        first = next(reader, [])
        second = next(reader, [])
    if KEY not in first and KEY in second:
        joined = [
            name if obj in ("Image", "") else f"{obj}_{name}"
            for obj, name in zip(first, second, strict=True)
        ]
        return _unique(joined), 2
    return _unique(first), 1


def _unique(names: Sequence[str]) -> list[str]:
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name}.{seen[name] - 1}")
    return unique


def _same_columns(
    name: str, paths: Sequence[Path], schemas: Sequence[pa.Schema], may_skip: bool
) -> None:
    """Fail where parts measured different things: nulls would hide it, and values differ too.

    FlagImage can end the pipeline early for an image set. A part of nothing but such image sets
    lacks the columns of what follows, as they are empty in one run over everything: then the
    columns of one part are all among those of the next larger one.
    """
    kinds: dict[frozenset[str], Path] = {}
    for path, schema in zip(paths, schemas, strict=True):
        if len(schema):
            kinds.setdefault(frozenset(schema.names), path)
    nested = pairwise(sorted(kinds, key=len))
    if len(kinds) < 2 or (may_skip and all(small < large for small, large in nested)):
        return
    (first, here), (second, there) = list(kinds.items())[:2]
    lists = [
        f"{_task(path)} has {', '.join(sorted(mine - other)[:_SHOWN]) or 'nothing more'}"
        for path, mine, other in ((here, first, second), (there, second, first))
    ]
    raise GatherError(
        f"{name}: the tasks of this job wrote {len(kinds)} different sets of columns, so that they "
        f"do not fit together: {'; '.join(lists)}. Run it again in one task (chunk_size=), and "
        "tell your lab's admin: this should not happen."
    )


def _task(path: Path) -> str:
    return "/".join(path.parts[-3:])


def _wide(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Return one schema that every file's columns fit into."""
    types: dict[str, list[pa.DataType]] = {}
    for schema in schemas:
        for field in schema:
            types.setdefault(field.name, []).append(field.type)
    fields = []
    for name, kinds in types.items():
        some = [kind for kind in dict.fromkeys(kinds) if not pa.types.is_null(kind)]
        if not some:
            kind = pa.float64()
        elif len(some) == 1:
            kind = some[0]
        elif all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in some):
            kind = pa.float64()
        else:
            kind = pa.string()
        fields.append(pa.field(name, kind))
    return pa.schema(fields)


def _put_aside(table: pa.Table, path: Path) -> Path:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return path


def _load(table: pa.Table | Path) -> pa.Table:
    if isinstance(table, Path):
        with pa.memory_map(str(table)) as source:
            return pa.ipc.open_file(source).read_all()
    return table


def _fit(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = []
    for field in schema:
        if field.name in table.column_names:
            columns.append(table[field.name].cast(field.type))
        else:
            columns.append(pa.nulls(len(table), field.type))
    return pa.table(columns, schema=schema)


def _write(
    tables: Sequence[pa.Table | Path], schema: pa.Schema, target: Path, disjoint: bool
) -> tuple[int, set[int]]:
    key = key_of(schema.names)
    pieces: Iterable[pa.Table] = (_fit(_load(table), schema) for table in tables)
    if key is None:  # about the whole run, the same from every process
        whole = pa.concat_tables(list(pieces))
        pieces = [whole.group_by(schema.names, use_threads=False).aggregate([])]
    elif not disjoint:
        whole = pa.concat_tables(list(pieces))
        keys = [(key, "ascending")]
        if "ObjectNumber" in schema.names:
            keys.append(("ObjectNumber", "ascending"))
        pieces = [whole.sort_by(keys)]
    texts = [f.name for f in schema if pa.types.is_string(f.type)]
    rows = 0
    seen: set[int] = set()
    with pq.ParquetWriter(target, schema, compression="zstd", use_dictionary=texts) as writer:
        for piece in pieces:
            if not len(piece):
                continue
            writer.write_table(piece)
            rows += len(piece)
            if key is not None:
                here = set(pc.unique(piece[key]).to_pylist())
                if twice := here & seen:
                    raise GatherError(
                        f"{target.stem}: image sets {sorted(twice)[:5]} are there twice"
                    )
                seen |= here
    if target.stem == "Image" and rows != len(seen):
        raise GatherError(f"{target.stem}: {rows} rows for {len(seen)} image sets")
    return rows, seen
