"""float32 is computed in full precision where it is requested, whichever of PyTorch's switches a program has set."""

import pytest
import torch

from genbench.core import precision
from genbench.evaluation.extractor import full_precision


def old():
    """What the old switches say; None where new ones contradict them."""

    def read(switch):
        try:
            return switch()
        except RuntimeError:
            return None

    return read(torch.get_float32_matmul_precision), read(lambda: torch.backends.cudnn.allow_tf32)


def new():
    return [switch.fp32_precision for switch in precision._switches()]


@pytest.fixture(autouse=True)
def restored():
    with precision.without_tf32():
        yield


@pytest.mark.skipif(not precision._switches(), reason="this PyTorch has the old switches alone")
@pytest.mark.parametrize(
    ("program", "readable"),
    [
        ("torch.set_float32_matmul_precision('high')", True),
        ("torch.backends.cudnn.allow_tf32 = True", True),
        ("torch.backends.cuda.matmul.fp32_precision = 'tf32'", False),
        ("torch.backends.cudnn.conv.fp32_precision = 'tf32'", False),
        ("torch.set_float32_matmul_precision('medium'); torch.backends.cuda.matmul.fp32_precision = 'ieee'", True),
    ],
)
def test_without_tf32_uses_full_precision_inside_and_restores_the_switches_afterwards(program, readable):
    exec(program)
    before = old(), new()
    assert (None not in before[0]) == readable
    with full_precision(torch.device("cpu")):
        assert old() == ("highest", False) and set(new()) == {"ieee"}
        with full_precision(torch.device("cpu")):
            pass
        assert old() == ("highest", False) and set(new()) == {"ieee"}
    assert (old(), new()) == before


@pytest.mark.skipif(not precision._switches(), reason="this PyTorch has the old switches alone")
def test_tf32_is_allowed_by_all_switches_so_that_old_ones_can_be_read():
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    assert old()[0] is None
    precision.allow_tf32(True)
    assert old() == ("high", True) and set(new()) == {"tf32"}
    precision.allow_tf32(False)
    assert old() == ("highest", False) and set(new()) == {"ieee"}
