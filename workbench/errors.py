"""The error a user can cause: it names the setting, the value it had, and what would work."""


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
        super().__init__(f"{setting} = {value!r}: {problem}. {remedy}")

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
