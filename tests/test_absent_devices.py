import os

import pytest
import torch

from lightning_mi.absent_devices import search_no_further

VARIABLE = "PYTORCH_NVML_BASED_CUDA_CHECK"


@pytest.mark.parametrize(("there", "after"), [(False, "0"), (True, "1")])
def test_the_driver_is_asked_for_devices_only_where_there_are_some(
    monkeypatch: pytest.MonkeyPatch, there: bool, after: str
) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    search_no_further()
    assert os.environ[VARIABLE] == after


def test_a_process_that_never_asked_the_driver_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    search_no_further()
    assert VARIABLE not in os.environ
