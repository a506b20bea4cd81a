"""Puts text of users into Markdown that is shared: escapes markup and removes the folders of paths."""

import os
import re
from html import escape
from urllib.parse import urlsplit

from workbench.data.labelled.load import KINDS

_MARKUP = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])")  # underscores inside words are not markup
_BLOCK = re.compile(r"^(#|[-+=>]|\d+[.)])")  # the start of a heading, a list or a rule
_PREFIX = re.compile(rf"^({'|'.join(('local-dir', 'hf-hub', *KINDS))}):(?!//)")
_HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")  # ORG/NAME on a model hub
_PATHS = re.compile(  # absolute paths, with or without a scheme, and those that start with ~, . or ..
    r"(?:[\w+.-]+:)?(?:(?<![\w.])~[\w.-]*|\.{1,2}|[A-Za-z]:|(?<![\w<]))[/\\]"
    r"[^\s'\"`<>|]*[\w})*/\\]"
)


def escaped(text: str) -> str:
    """Escape text for Markdown and HTML, in one line and without the folders of paths."""
    line = prose_without_folders(" ".join("".join(c if c.isprintable() else " " for c in text).split()))
    marked = escape(_MARKUP.sub(r"\\\g<0>", line), quote=False)
    return _BLOCK.sub(r"\\\1", marked)


def code(name: str) -> str:
    """A name, or the last part of a path, as inline code."""
    text = " ".join("".join(c if c.isprintable() else " " for c in without_folders(name)).split())
    ticks = "`" * (_longest_ticks(text) + 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{space}{text}{space}{ticks}"


def fenced(text: str, language: str) -> str:
    """Text as a code block, with a fence that the text cannot close."""
    ticks = "`" * max(3, _longest_ticks(text) + 1)
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}"


def without_folders(value: str) -> str:
    """Remove folders from a path, glob or brace pattern, and the user and query from a web address.

    Names are not changed, and neither is ORG/NAME unless such a folder exists.
    """
    plain = _PREFIX.sub("", value)
    parts = urlsplit(plain) if re.match(r"[A-Za-z][\w+.-]+://", plain) else None
    if parts is not None and parts.scheme != "file" and parts.netloc and not re.search(r"[\s{]", plain):
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    path = re.search(r"[/\\]|^~|^\.", plain) is not None
    hub = _HUB.fullmatch(plain) is not None and not os.path.exists(plain)
    if not path or hub:
        return value
    # Of a brace pattern such as {/home/a.tar,/home/b.tar} the last entry is kept.
    last = re.split(r"[/\\]", plain.rstrip("/\\ "))[-1].strip("~ ")
    return f".../{last if last.count('{') == last.count('}') else last.strip('{},')}"


def prose_without_folders(text: str) -> str:
    """Replace every path in a text by its last part."""
    return _PATHS.sub(lambda match: without_folders(match[0]), text)


def _longest_ticks(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
