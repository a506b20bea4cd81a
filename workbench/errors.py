"""The error a user can cause: it names the setting, the value it had, and what would work."""

import errno
import os

LONGEST = 500  # characters of a value in a message
DISK_REMEDIES = {
    errno.ENOSPC: "Free some space, or choose a folder on another disk, and run the same again.",
    errno.EDQUOT: "Free some of your quota, or choose a folder on another disk, and run the same again.",
    errno.EROFS: "Choose a folder that can be written to.",
    errno.EACCES: "Choose a folder of yours, or change its permissions.",
    errno.EPERM: "Choose a folder of yours, or change its permissions.",
    errno.EFBIG: "Raise the limit on the size of files (`ulimit -f`), or choose another disk.",
}


class SettingError(ValueError):
    """A setting that cannot be used as it is.

    `setting` is the dotted name a user would change (`data.source`, `--run-dir`), `value` what it held,
    `problem` what is wrong with that, `remedy` what would work.
    """

    def __init__(self, setting: str, value: object, problem: str, remedy: str) -> None:
        self.setting = setting
        self.value = value
        self.problem = problem
        self.remedy = remedy
        shown = repr(value)
        shown = shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}... ({len(shown)} characters)"
        super().__init__(f"{setting} = {shown}: {problem}. {remedy}")

    def __reduce__(self) -> tuple[type["SettingError"], tuple[str, object, str, str]]:
        # Exceptions cross process borders (data loader workers) by their arguments, which here are four, not
        # one.
        return type(self), (self.setting, self.value, self.problem, self.remedy)


def reason(error: BaseException) -> str:
    """What an error of a library says, in one line of at most 300 characters."""
    text = " ".join(str(error).split())
    if "trust_remote_code" in text:  # transformers would have this set
        return "it needs code of its own, which is never run"
    return text[:300] or type(error).__name__


def damaged_file(setting: str, file: object, error: Exception, remedy: str) -> SettingError:
    """The error for a file that cannot be read, or holds something else than it should."""
    problem = f"this file is damaged ({type(error).__name__}: {reason(error)})"
    return SettingError(setting, str(file), problem, remedy)


def disk_error_in_words(error: OSError) -> str:
    """An error of the operating system as a sentence: which file, what is wrong with it, what to do."""
    what = (error.strerror or str(error)).rstrip(".")
    place = (
        f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes | os.PathLike) else ""
    )
    own_words = error.errno is None or what != os.strerror(error.errno)
    return f"{place}{what}." + ("" if own_words else f" {DISK_REMEDIES.get(error.errno or 0, '')}".rstrip())
