"""Text of a source file, and the edits that change it.

An edit replaces a span of the text, so the text around it stays unchanged. ``kbitlint.source.edits`` applies edits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kbitlint import lazy_patterns as re
from kbitlint.facts.literals import Literal, literal, written
from kbitlint.facts.local_imports import imported_around
from kbitlint.facts.span_edits import blanks_before, bounds
from kbitlint.facts.text_lines import TextLines
from kbitlint.facts.values import Style
from kbitlint.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kbitlint.facts.values import Argument, Call, Span
    from kbitlint.violation import Edit

#: the comma, or the bracket, before an argument
_BEFORE = re.compile(r",\s*\Z|(?<=[({])\s*\Z")


@dataclass(frozen=True, slots=True)
class SourceText(TextLines):
    """The text of a file, with its imports."""

    imports: tuple[tuple[str, str], ...] = ()
    """(full name, name in the file) of each import at the file's top level."""
    import_at: int = 0
    """The offset for a new import: the start of a line, or of a statement that follows others on its line."""

    def set_argument(self, call: Call, name: str, code: str) -> tuple[Edit, ...]:
        """Return the edits that set an argument to a code text. A missing argument is appended."""
        argument = call.argument(name)
        if argument is not None:
            return self.replace(argument.span, code)
        return self._append(call, written(call, name, code))

    def set_value(self, call: Call, name: str, value: Literal) -> tuple[Edit, ...]:
        """Return the edits that set an argument to a constant, written in the language of the file."""
        return self.set_argument(call, name, literal(call, value))

    def rename_argument(self, argument: Argument, name: str) -> tuple[Edit, ...]:
        """Return the edits that rename an argument; none if its name is not found in the text."""
        stretch = self.text[argument.whole.start : argument.span.start]
        found = re.search(re.escape(argument.name), stretch)
        if found is None:
            return ()
        start = argument.whole.start + found.start()
        return (self._edit(start, start + len(argument.name), name),)

    def remove_argument(self, argument: Argument) -> tuple[Edit, ...]:
        """Return the edit that removes an argument with one comma, or with its whole line.

        Return no edit if no comma is next to the argument, or if a comment separates them.
        """
        start, end = argument.whole.start, argument.whole.end
        if start == end:
            return ()  # of a file that the script loads
        behind = re.compile(r"\s*,[ \t]*").match(self.text, end)
        before = _BEFORE.search(self.text, blanks_before(self.text, start), start)
        if behind is not None:
            line, after = self.line_start(start), self._next_line(behind.end())
            alone = not self.text[line:start].strip() and not self.text[behind.end() : after].strip()
            return (self._edit(line, after, "") if alone else self._edit(start, behind.end(), ""),)
        closes = re.compile(r"\s*[)}]").match(self.text, end)
        return (self._edit(before.start(), end, ""),) if before is not None and closes is not None else ()

    def remove_arguments(self, arguments: Iterable[Argument]) -> tuple[Edit, ...]:
        """Return the edits that remove several arguments of one call; none if one of them cannot be removed."""
        stretches: list[tuple[int, int]] = []
        for argument in sorted(arguments, key=lambda argument: argument.whole):
            edits = self.remove_argument(argument)
            if not edits:
                return ()
            start, end = bounds(edits[0])
            if stretches and start <= stretches[-1][1]:
                start = stretches.pop()[0]
                last = re.compile(r"\s*[)}]").match(self.text, end)
                comma = re.compile(r",\s*\Z").search(self.text, 0, start)
                alone = self.line_start(start) == start  # whole lines: the argument before keeps its comma
                start = comma.start() if last is not None and comma is not None and not alone else start
            stretches.append((start, end))
        return tuple(self._edit(start, end, "") for start, end in stretches)

    def remove_line(self, span: Span) -> tuple[Edit, ...]:
        """Return the edit that removes a statement with its line.

        The statement becomes ``pass`` if it shares its line with others or is the whole block. Return no edit if it
        is part of a longer statement.
        """
        start, end = self.line_start(span.start), self._line_end(span.end)
        if self._is_part(span):
            return ()
        around = self.text[start : span.start] + self.text[span.end : end]
        if (around.strip() and not around.strip().startswith("#")) or self._is_whole_block(start, end):
            return (self._edit(span.start, span.end, "pass"),)
        return (self._edit(start, self._next_line(span.end), ""),)

    def move_before(self, call: Call, other: Call) -> tuple[Edit, ...]:
        """Return the edits that move the statement ``name = call`` before the statement of another call.

        Return no edit unless all of these hold: Both statements are whole lines with equal indentation. Both bind
        the name that they take as their first argument. The moved statement uses only that name and constants.
        """
        moved, there = self._statement(call), self._statement(other)
        if moved is None or there is None or other.span.start > call.span.start:
            return ()
        code = self.text[call.span.start : call.span.end]
        function, _, inside = code.partition("(")
        given = re.match(rf"[^(]*\(\s*(?:model\s*=\s*)?{re.escape(moved[2])}\b\s*[,)]", self.code_of(other.span))
        used = set(re.findall(r"[A-Za-z_]\w*(?!\w*\s*=)", re.sub(r"'[^']*'|\"[^\"]*\"", "", inside)))
        if given is None or moved[1:] != there[1:] or not used <= {moved[2], "True", "False", "None"} or "\n" in function:
            return ()
        start, end = self.line_start(call.span.start), self._next_line(call.span.end)
        line = self.text[start:end]
        place = self.line_start(other.span.start)
        return (self._edit(place, place, line if line.endswith("\n") else f"{line}\n"), self._edit(start, end, ""))

    def _statement(self, call: Call) -> tuple[int, str, str] | None:
        start = self.line_start(call.span.start)
        head = re.fullmatch(r"([ \t]*)(\w+)\s*=\s*", self.text[start : call.span.start])
        if (
            head is None
            or self._continues(start)
            or self.text[call.span.end : self._line_end(call.span.end)].partition("#")[0].strip()
        ):
            return None
        return start, head[1], head[2]

    def _continues(self, start: int) -> bool:
        """Return whether the line at an offset belongs to a statement above it, whose brackets are open."""
        above = next((line for line in self._lines_up(start) if _is_code(line)), "")
        return _code(above).endswith(("(", "[", "{", ",", "\\"))

    def remove_comment(self, start: int, end: int) -> tuple[Edit, ...]:
        """Return the edit that removes a comment: with its line if it is alone there, else with the blanks before it."""
        first = self.line_start(start)
        head = self.text[first:start]
        if not head.strip():
            return (self._edit(first, self._next_line(end), ""),)
        return (self._edit(first + len(head.rstrip()), end, ""),)

    def name_of(self, call: Call) -> str:
        """Return the name that ``name = call`` binds; empty if the statement has another form."""
        statement = self._statement(call)
        return statement[2] if statement is not None else ""

    @property
    def adds_tokens(self) -> bool:
        """Return whether the file adds tokens to a tokenizer, other than a padding token."""
        return bool(re.search(r"\.add_tokens\(|additional_special_tokens", self.text))

    def _is_part(self, span: Span) -> bool:
        """Return whether a call belongs to a longer statement, judged by its line and the code lines around it."""
        start, end = self.line_start(span.start), self._line_end(span.end)
        head, tail = self.text[start : span.start].strip(), _code(self.text[span.end : end])
        above, below = self.text[:start].rstrip(), self.text[end:].lstrip()
        while (line := above[above.rfind("\n") + 1 :]).lstrip().startswith("#"):
            above = above[: -len(line)].rstrip()
        return (
            (bool(head) and not head.endswith((";", ":")))
            or (bool(tail) and not tail.startswith(";"))
            or _code(line).endswith(("\\", "(", "[", "{", "=", ","))
            or below.startswith((")", "]", "}", ".", ","))
        )

    def _is_whole_block(self, start: int, end: int) -> bool:
        """Return whether a line is the whole body of a block. A block must not become empty."""
        before = next(filter(_is_code, self._lines_up(start)), "")
        after = next(filter(_is_code, self._lines_down(end + 1)), "")
        indent = len(self.text[start:end]) - len(self.text[start:end].lstrip())
        opens = before.partition("#")[0].rstrip().endswith(":")
        return opens and len(after) - len(after.lstrip()) < indent

    def insert_before(self, span: Span, code: str) -> tuple[Edit, ...]:
        """Return the edit that inserts a statement on its own line, with the indentation of the statement at the span.

        Return no edit if the line has code before the span.
        """
        start = self.line_start(span.start)
        indent = self.text[start : span.start]
        if indent.strip():
            return ()
        return (self._edit(start, start, f"{indent}{code}\n"),)

    def importing(self, name: str, at: Span | None = None) -> tuple[str, tuple[Edit, ...]]:
        """Return the name by which the file calls ``module`` or ``module.name``, and the edit that adds a missing import.

        ``at`` is the place that uses the name: the function around it may import the module itself.
        """
        module, _, last = name.rpartition(".")
        known = dict(self.imports)
        if name in known:
            return known[name], ()
        if at is not None and not module and imported_around(self.text, at.start, name):
            return name, ()
        if module and module in known:
            return f"{known[module]}.{last}", ()
        statement = f"from {module} import {last}" if module else f"import {name}"
        alone = self.line_start(self.import_at) == self.import_at
        return last or name, (self._edit(self.import_at, self.import_at, f"{statement}\n" if alone else f"{statement}; "),)

    def insert_at(self, offset: int, code: str) -> tuple[Edit, ...]:
        """Return the edit that inserts code at the start of a line."""
        return (self._edit(offset, offset, code),)

    def _append(self, call: Call, code: str) -> tuple[Edit, ...]:
        if call.span.start == call.span.end:
            return ()  # made of other dicts, or of a file
        if call.style is Style.YAML:
            start = self.line_start(call.arguments[-1].whole.start) if call.arguments else call.span.start
            first = call.arguments[0].whole.start if call.arguments else call.span.start
            indent = self.text[self.line_start(first) : first].replace("-", " ")
            end = self._line_end(max(call.tail, start))
            return (self._edit(end, end, f"\n{indent}{code}"),)
        close = call.span.end - 1
        if not call.tail:
            return (self._edit(close, close, code),)
        point = call.tail
        rest = self.text[point:close]
        # a last argument in parentheses ends after its closing brackets
        brackets = re.match(r"(?:\s*\))+", rest)
        if brackets is not None:
            point += brackets.end()
            rest = self.text[point:close]
        if "\n" not in rest or "\n" not in self.text[call.span.start : point]:
            return (self._edit(point, point, f", {code}"),)
        comma = re.match(r"(?:\s|#[^\n]*\n)*,", rest)
        indent = re.match(r"[ \t]*", self.text[self.line_start(call.tail) :]).group()  # type: ignore[union-attr]  # always matches
        if comma is None and call.style is Style.JSON:
            return (self._edit(point, point, f",\n{indent}{code}"),)
        end = self._line_end(point + (comma.end() if comma else 0))
        if comma is None:
            return (self._edit(point, end, f",{self.text[point:end]}\n{indent}{code},"),)
        return (self._edit(end, end, f"\n{indent}{code},"),)


def _is_code(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _code(line: str) -> str:
    """Return a line without its comment. A ``#`` inside a string counts as a comment too."""
    return line.partition("#")[0].strip()
