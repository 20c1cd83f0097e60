"""Makes the checkpoints that are installed with genbench, from finished runs, with one record each.

    python -m genbench fit --config vqvae --name vqvae --max_images 300k
    python -m genbench fit --config vq_prior --name vqprior-mnist --max_images 300k \
        --model.autoencoder runs/vqvae/checkpoints/last.ckpt
    python -m genbench fit --config dcgan --name dcgan-mnist --max_images 400k
    python -m genbench fit --config cgan --name cgan-mnist --max_images 500k
    python -m genbench fit --config vae --name vae-mnist --max_images 400k --model.width 20
    python benchmarks/scripts/pretrained.py runs/{dcgan,cgan,vae,vqprior}-mnist

Each checkpoint keeps one set of weights and no states of optimizers, and is written to `genbench/pretrained/NAME.ckpt`
with its record `NAME.json`, measured from the written file under the protocol fid10k-test.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from genbench.core import checkpoint_io
from genbench.core.files import PRETRAINED, find_checkpoint, replacing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, help="run folders; the name of a folder becomes the model's name")
    for run in parser.parse_args().runs:
        target = PRETRAINED / f"{run.name}.ckpt"
        with replacing(target) as file:
            torch.save(checkpoint_io.without_training_state(checkpoint_io.read(find_checkpoint(run))), file)
        with tempfile.TemporaryDirectory() as folder:
            evaluate = ("evaluate", "--ckpt", f"pretrained/{run.name}", "--protocol", "fid10k-test", "--out", folder)
            subprocess.run([sys.executable, "-m", "genbench", *evaluate], check=True)
            (record,) = Path(folder).glob("*.json")
            target.with_suffix(".json").write_text(record.read_text())
        print(f"{target}: {target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
