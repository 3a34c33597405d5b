"""Numbers that the prose of a chapter quotes from stored results, and whether they are still what the files say.

A cell that prints a stored number is executed again and again; a sentence is not. So a sentence that quotes one carries
a comment, which no reader sees:

    First in 8 of 32.<!-- stored: 8 of 32 = leakyema/fig03_choices: counts.steps_to_half counts.readings -->

Left of the sign stand words of the same paragraph; right of it a result below `figures/results`, and a key for each
number of those words, as in the ledger. Numbers may be words up to twenty. A number is compared to the digits that it
shows, and one with a % sign with a hundred times the value.
"""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.front_matter import front_matter_plugin

from figures.ledger import value_at
from figures.provenance import RESULTS

# fmt: off
WORDS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
]
# fmt: on
COMMENT = re.compile(r"<!--\s*stored:(.*?)-->", flags=re.S)
MARK = re.compile(r"\s*(?P<quote>.+?)\s+=\s+(?P<file>[\w/.-]+):\s+(?P<keys>.+?)\s*", flags=re.S)
NUMBER = re.compile(rf"([-−]?\d[\d,]*(?:\.\d+)?)(\s?%)?|\b({'|'.join(WORDS)})\b", flags=re.I)


def check_quotes(source: str, results: Path = RESULTS) -> Iterator[str]:
    """Every quoted number that differs from its file, and every comment that cannot be read, one sentence each.

    Args:
        source: a chapter's text.
        results: the folder of the stored results.
    """
    for paragraph in _paragraphs(source):
        said = " ".join(COMMENT.sub("", paragraph).split())
        for comment in COMMENT.findall(paragraph):
            mark = MARK.fullmatch(comment)
            if mark is None:
                yield f"the comment 'stored:{comment}' is not like 'stored: 8 of 32 = folder/file: key key'."
                continue
            quote = " ".join(mark["quote"].split())
            if quote not in said:
                yield f"'{quote}' is marked as quoted, and its paragraph does not say so: {said[:60]} ..."
            yield from _compare(quote, results / f"{mark['file']}.json", mark["keys"].split())


def _paragraphs(source: str) -> Iterator[str]:
    """The text blocks of a chapter as they are written; a comment on lines of its own belongs to the block above.

    What stands in code, such as the example of the convention itself, is no comment.
    """
    parser = MarkdownIt("commonmark").enable("table").use(front_matter_plugin).use(dollarmath_plugin)
    block = ""
    for token in parser.parse(source):
        if token.type == "inline":
            yield block
            code = [child.content for child in token.children or [] if child.type == "code_inline"]
            block = token.content
            for words in code:
                block = block.replace(words, "…")
        elif token.type == "html_block":
            block += "\n" + token.content
    yield block


def _compare(quote: str, path: Path, keys: list[str]) -> Iterator[str]:
    numbers = list(NUMBER.finditer(quote))
    if len(numbers) != len(keys):
        yield f"'{quote}' holds {len(numbers)} numbers and its comment names {len(keys)} keys."
        return
    if not path.is_file():
        yield f"'{quote}' is quoted from {path.parent.name}/{path.name}, which does not exist."
        return
    result = json.loads(path.read_text("utf-8"))
    for number, key in zip(numbers, keys, strict=True):
        try:
            value = value_at(result, key)
        except KeyError as error:
            yield f"'{quote}': in {path.parent.name}/{path.name} {error.args[0]}."
            continue
        if not _agree(number, value):
            yield f"'{quote}' says {number[0]}, and {path.parent.name}/{path.name} says {value!r} at '{key}'."


def _agree(number: re.Match[str], value: object) -> bool:
    """Whether a written number is the stored one, to the digits it shows."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if number[3]:
        return value == WORDS.index(number[3].lower())
    digits = number[1].replace(",", "").replace("−", "-")
    last = 10.0 ** -len(digits.partition(".")[2])
    shown = value * 100 if number[2] else value
    return math.fabs(float(digits) - shown) <= last / 2 * (1 + 1e-9)
