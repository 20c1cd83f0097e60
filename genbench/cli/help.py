"""The short help of `fit` and `validate`, stored as text so that it needs no slow imports."""

from __future__ import annotations

FIT = """\
python -m genbench fit --config NAME|FILE [--SETTING VALUE ...]

Train a model. Every setting of a config is also a flag, and flags override
configs, in any order: --model.width 64, --model.optimizer.lr 1e-4.

What
  --config NAME|FILE            a config; several are merged in order
  --model CLASS                 DCGAN, VAE, ...; its arguments: --model.width 64
  --data CLASS                  MNIST, ImageFolder, ...; --data.path photos.zip
  --data.batch_size N           images per step, over all devices
  --data.size N                 height and width in pixels
  --data.subset N|10%           train on fewer images
  --max_images 1M               real images to train on: the budget
  --seed_everything N           seed of weights, data order and noise
  --import MODULE               a module with your own model or data

Where
  --name NAME                   the run's folder is runs/NAME
  --runs FOLDER                 folder of all runs
  --ckpt PATH|last|best         resume a run, with its own config
  --title TEXT                  name of the model on leaderboards
  --protocol NAME               protocol for `test`

Optimization
  --model.optimizer.lr X        any argument of the optimizer, --model.optimizer
  --model.optimizers.NAME.lr X     for one optimizer: generator, ...
  --model.schedule CLASS        learning-rate schedule
  --model.accumulate N          accumulate the gradients of N batches
  --model.clip_norm X           clip the gradient norm of each optimizer
  --model.adversarial.r1 X      for GANs: objective, penalties, augmentation
  --ema.halflife 10k            half-life of the EMA weights, in images
  --power_ema.enabled true      choose the length of the EMA after training

During training
  --checkpoint.every_images 50k      how often last.ckpt is written
  --checkpoint.keep_every 200k       also keep checkpoints this often
  --validation.every_images 50k  how often validation scores are measured
  --samples.every_images 50k    how often samples are drawn
  --monitor.every_images 1k          how often metrics.csv gets a row

Hardware
  --trainer.devices N           devices of this machine
  --trainer.accelerator cpu|gpu
  --trainer.precision bf16-mixed|16-mixed|...
  --acceleration.compile inductor
  --config trainer/bf16         merge a part; `genbench` lists parts

More
  --model.help DCGAN            all arguments of a model (--data.help MNIST)
  --print_config                the complete config of a command, as YAML
  --help all                    every setting
  python -m genbench            commands and shipped configs
"""

VALIDATE = """\
python -m genbench validate --ckpt PATH|last|best [--SETTING VALUE ...]

Compute the scores of a checkpoint's EMA weights on the validation split.

  --ckpt PATH|last|best         a checkpoint, a run folder, or the newest run
  --name NAME                   name of the run, for last and best
  --runs FOLDER                 folder of all runs
  --config NAME|FILE            merged into the run's own config
  --validation.samples N        number of images drawn for the scores
  --validation.extractor NAME   network that extracts the features
  --trainer.accelerator cpu|gpu
  --import MODULE               a module with your own model or data
  --help all                    every setting
"""


def help_page(verb: str) -> str:
    return {"fit": FIT, "validate": VALIDATE}[verb].rstrip()
