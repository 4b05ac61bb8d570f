"""Lists of objects as `ls` and `ps` print them: Docker's columns, and --format with table, json or a template.

A `Listing` says which fields an object has, how each is made from the API's JSON, and which ones the plain table shows.
Fields are computed when they are printed and not before. Cells are padded as Docker's are: at least ten wide, three apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, TypeAlias

    from netengine.cli.engine import Json
    from netengine.cli.flags import Options

    Fields: TypeAlias = Mapping[str, tuple[str, Callable[[Json], Any]]]
    """Field name -> its heading, and how its text is made from the object. A callable result is a method such as `.Label`."""


class Listing:
    """How one kind of object is listed: all fields, the columns of the plain table, the field that -q prints."""

    __slots__ = ("columns", "fields", "quiet")

    def __init__(self, fields: Fields, columns: Sequence[str], quiet: str) -> None:
        self.fields, self.columns, self.quiet = fields, columns, quiet

    def show(self, items: Iterable[Json], options: Options, columns: Sequence[str] | None = None) -> None:
        """Print the items as --quiet and --format ask."""
        form = options.text("format")
        if options.switch("quiet") and not form:
            identify = self.fields[self.quiet][1]
            for item in items:
                print(identify(item))
        elif form in ("", "table"):
            chosen = [self.fields[name] for name in columns or self.columns]
            rows = [[heading for heading, _ in chosen]]
            rows += [[str(make(item)) for _, make in chosen] for item in items]
            print_table(rows)
        else:
            self._formatted(items, form)

    def _formatted(self, items: Iterable[Json], form: str) -> None:
        from netengine.cli.template import Template

        table = form.startswith(("table ", "table\\t"))
        source = "{{json .}}" if form == "json" else form.removeprefix("table").lstrip(" ") if table else form
        template = Template(source.replace("\\t", "\t").replace("\\n", "\n"))
        rows = [template.render(_Row(self.fields, item)) for item in items]
        if table:
            heading = template.render(_Headings(self.fields))
            print_table([line.split("\t") for line in (heading, *rows)])
            return
        for row in rows:
            print(row)


class _Row(Mapping[str, "Any"]):
    """An object's fields for a template, each computed when asked for. Methods are found by name but not walked over."""

    def __init__(self, fields: Fields, item: Json) -> None:
        self._fields, self._item = fields, item

    def __getitem__(self, name: str) -> Any:
        return self._fields[name][1](self._item)

    def __iter__(self) -> Iterator[str]:
        return (name for name in sorted(self._fields) if self._fields[name][0])

    def __contains__(self, name: object) -> bool:
        return name in self._fields

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Headings(_Row):
    """The heading row of `--format 'table ...'`: a field is its own title, `.Label "key"` is the key."""

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields, None)

    def __getitem__(self, name: str) -> Any:
        heading = self._fields[name][0]
        return heading or (lambda key: str(key))


def print_table(rows: Sequence[Sequence[str]], least: int = 10) -> None:
    """Columns padded to their widest cell plus three, at least `least`; nothing after the last cell of a row."""
    count = max((len(row) for row in rows), default=0)
    widths = [max([least, *(len(row[at]) + 3 for row in rows if at < len(row))]) for at in range(count)]
    for row in rows:
        cells = [cell.ljust(widths[at]) for at, cell in enumerate(row[:-1])]
        print("".join(cells) + (row[-1] if row else ""))


def labels(item: Json) -> str:
    """The Labels field: key=value, comma separated."""
    return ",".join(f"{key}={value}" for key, value in (item.get("Labels") or {}).items())


def label(item: Json) -> Callable[[str], str]:
    """The `.Label "key"` method."""
    found = item.get("Labels") or {}
    return lambda key: str(found.get(key, ""))
