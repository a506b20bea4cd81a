"""Text of users on a model card: no markup, and no path of theirs."""

import pytest

from workbench.export.markdown import code, escaped, fenced, without_folders

SOURCES = [
    *("/home/alice/a.tar", "~/a.tar", "~alice/a.tar", "../alice/a.tar", "./alice/a.tar", "/home/alice/*.tar"),
    *("{/home/alice/a.tar,/home/alice/b.tar}", "{~/alice/a.tar,/mnt/b.tar}", "/home/{alice,bob}/a.tar"),
    *("/home/alice/{00000..00010}.tar", "file:///home/alice/a.tar", "file://localhost/home/alice/a.tar"),
    *("local-dir:/home/alice/model", "folder:/home/alice/pictures", "cifar10:/home/alice/cifar"),
    *("pipe:cat /home/alice/a.tar", "https://alice:secret@example.org/a.tar?token=secret"),
    *("C:\\Users\\alice\\a.tar", "/home/alice/my pictures/a.tar", "x.tar,/home/alice/a.tar"),
]


@pytest.mark.parametrize("source", SOURCES)
def test_no_folder_of_a_source_gets_in(source):
    for text in (without_folders(source), code(source)):
        assert not any(part in text for part in ("alice", "bob", "secret", "home", "mnt")), text
    if " " not in source:
        prose = escaped(f"Trained on {source}, twice.")
        assert not any(part in prose for part in ("alice", "secret", "/home", "bob")), prose


@pytest.mark.parametrize("name", ["scenes", "RN50", "org/name", "hf-hub:org/name", "demo_teacher", "a b"])
def test_names_stay(name):
    assert without_folders(name) == name and code(name) == f"`{name}`"


def test_markup_is_shown_and_not_obeyed():
    hostile = "<img src=x onerror=alert(1)></script>\n# H\n[x](javascript:alert(3)) `c` | a_b _c_ \x1b[0m"
    text = escaped(hostile)
    assert "<" not in text and "\n" not in text and "\x1b" not in text
    assert r"\[x\]" in text and r"\`c\`" in text and r"\|" in text and r"a_b \_c\_" in text
    assert escaped("# Heading").startswith(r"\#") and escaped("- item").startswith(r"\-")
    assert escaped("CLIP-KD and/or 4,000 steps (a < b)") == "CLIP-KD and/or 4,000 steps (a &lt; b)"
    assert fenced("a\n```\n# b\n", "yaml") == "````yaml\na\n```\n# b\n````"
    assert code("a`b\n# c") == "``a`b # c``"
