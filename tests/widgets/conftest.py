"""What tests of widgets share."""

from typing import Any

import pytest


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The displayed MIME bundles, in order."""
    import IPython.display

    bundles: list[dict[str, Any]] = []
    monkeypatch.setattr(IPython.display, "display", lambda bundle, **_: bundles.append(bundle))
    return bundles
