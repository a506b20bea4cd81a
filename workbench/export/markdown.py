"""Text of users in Markdown that is passed on: nothing in it is markup, and no path of theirs gets in."""

import os
import re
from html import escape
from urllib.parse import urlsplit

from workbench.data.labelled.load import KINDS

_MARKUP = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])")  # an underscore inside a word is none
_BLOCK = re.compile(r"^(#|[-+=>]|\d+[.)])")  # what begins a heading, a list or a rule
_PREFIX = re.compile(rf"^({'|'.join(('local-dir', 'hf-hub', *KINDS))}):(?!//)")
_HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")  # ORG/NAME on a model hub
_PATHS = re.compile(  # absolute ones, with or without a scheme, and those from the home folder or upwards
    r"(?:[\w+.-]+:)?(?:(?<![\w.])~[\w.-]*|\.{1,2}|[A-Za-z]:|(?<![\w<]))[/\\]"
    r"[^\s'\"`<>|]*[\w})*/\\]"
)


def escaped(text: str) -> str:
    """Text in one line that Markdown and HTML show as it is, without the folders of paths in it."""
    line = prose_without_folders(" ".join("".join(c if c.isprintable() else " " for c in text).split()))
    marked = escape(_MARKUP.sub(r"\\\g<0>", line), quote=False)
    return _BLOCK.sub(r"\\\1", marked)


def code(name: str) -> str:
    """A name, or the last part of a path, as code."""
    text = " ".join("".join(c if c.isprintable() else " " for c in without_folders(name)).split())
    ticks = "`" * (_longest_ticks(text) + 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{space}{text}{space}{ticks}"


def fenced(text: str, language: str) -> str:
    """Text as a block of code, in a fence that it cannot close."""
    ticks = "`" * max(3, _longest_ticks(text) + 1)
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}"


def without_folders(value: str) -> str:
    """A name as it is; of a path, glob or brace pattern the last part; a web address without user and query.

    ORG/NAME stays, as long as no such folder is there.
    """
    plain = _PREFIX.sub("", value)
    parts = urlsplit(plain) if re.match(r"[A-Za-z][\w+.-]+://", plain) else None
    if parts is not None and parts.scheme != "file" and parts.netloc and not re.search(r"[\s{]", plain):
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    path = re.search(r"[/\\]|^~|^\.", plain) is not None
    hub = _HUB.fullmatch(plain) is not None and not os.path.exists(plain)
    if not path or hub:
        return value
    # The last one of {/home/a.tar,/home/b.tar} stands for all.
    last = re.split(r"[/\\]", plain.rstrip("/\\ "))[-1].strip("~ ")
    return f".../{last if last.count('{') == last.count('}') else last.strip('{},')}"


def prose_without_folders(text: str) -> str:
    """Prose with the last parts of the paths in it in their place."""
    return _PATHS.sub(lambda match: without_folders(match[0]), text)


def _longest_ticks(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
