import sys
from types import SimpleNamespace

import pytest

from workbench.batch.launchers import on_ray
from workbench.errors import SettingError


def test_a_ray_that_does_not_start_is_told(monkeypatch):
    def init(**_):
        raise Exception("The current node timed out during startup.")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False, init=init))
    with pytest.raises(SettingError, match=r"Ray could not be started .*timed out.*RAY_ADDRESS"):
        on_ray()
