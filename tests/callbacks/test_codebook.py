"""A warning with the usage is printed once if most of a codebook is unused."""

import pytest
import torch

from genbench.callbacks import Codebook, Monitor
from genbench.core.batch import DataSpec
from genbench.core.errors import UserError
from genbench.models import VQVAE
from tests.helpers.small import run


def small(**arguments):
    torch.manual_seed(0)
    return VQVAE(
        DataSpec((1, 8, 8)),
        **{"num_embeddings": 40, "embedding_dim": 3, "width": 8, "blocks": 1, "decay": 0.5} | arguments,
    )


def watched(module, **settings):
    monitor = Monitor(every_images=8, line_seconds=1e9)
    run(module, images=320, callbacks=[monitor, Codebook(**{"patience_images": 32} | settings)])


def said(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: the codebook")]


def test_a_collapsed_codebook_is_reported_once_with_usage_and_remedies(capsys, monkeypatch):
    module = small()
    monkeypatch.setattr(module.quantizer, "nearest", lambda z: torch.zeros(len(z), 2, 2, dtype=torch.int64))
    watched(module)
    (line,) = said(capsys)
    assert "2.50% of its 40 embeddings are used (perplexity 1" in line
    assert "`--model.restart_dead_codes 10k`" in line and "`--model.num_embeddings 10`" in line


def test_no_warning_of_a_codebook_that_is_used_or_is_being_restarted(capsys, monkeypatch):
    watched(small(restart_dead_codes=16), dead=0.05)
    assert not said(capsys)
    module = small(restart_dead_codes=48)
    monkeypatch.setattr(module.quantizer, "nearest", lambda z: torch.zeros(len(z), 2, 2, dtype=torch.int64))
    watched(module)
    assert "restart_dead_codes" not in said(capsys)[0]


def test_it_needs_a_monitor():
    with pytest.raises(UserError, match="Add a Monitor to the Trainer's callbacks"):
        run(small(), images=8, callbacks=[Codebook()])
