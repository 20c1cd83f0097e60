#!/usr/bin/env bash
# wandb offline: resume="must" accepts a run that does not exist, and a run that goes on starts again at step 0.
#
# Expected: resume="must" raises if there is no run of that id, and otherwise goes on behind the last step. The records
# of the first part lie in the same wandb folder, so an offline run could know both.
# Seen: offline, the first call is accepted without any earlier run. The second one makes another folder for the same
# id, run.resumed is False, run.step is 0, and rows are written as steps 0, 1, 2 again. The client says nothing about
# it.
# Why it matters: a training that is resumed on a cluster without a network has two curves over the same steps, of
# which both claim to be the same run. Log with an explicit step, and upload every folder of that id in order.
#
# Measured on 2026-11-28 with wandb 0.31.0, Python 3.11, WANDB_MODE=offline, no account.
# Output seen: part 1: resumed False, first step 0, rows at steps 0, 1, 2; part 2: resumed False, first step 0, rows at
#   steps 0, 1, 2; folders of the id: 2; words on resuming: none
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'wandb==0.31.0'
cd "$folder"
cat > train.py <<'PY'
import wandb

run = wandb.init(project="demo", id="one", resume="must")
print(f"resumed {run.resumed}, first step {run.step}")
for loss in (3.0, 2.0, 1.0):
    run.log({"loss": loss})
run.finish()
PY
cat > check.py <<'PY'
import struct
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record


def steps(path: Path) -> list[int]:
    """Steps of the rows in an offline file: after 7 bytes, records of checksum, length, kind and content."""
    data, at, found = path.read_bytes(), 7, []
    assert len(data) < 2**15, "a longer file has several blocks"
    while at + 7 <= len(data):
        length, _ = struct.unpack_from("<HB", data, at + 4)
        record = Record.FromString(data[at + 7 : at + 7 + length])
        if record.WhichOneof("record_type") == "history":
            found.append(record.history.step.num)
        at += 7 + length
    return found


said = [Path(f"said{part}").read_text() for part in (1, 2)]
assert all("resumed False, first step 0\n" in words for words in said), said
about = [line for words in said for line in words.lower().splitlines() if "resum" in line]
assert len(about) == 2, about  # the two lines that train.py prints
files = sorted(Path("wandb").glob("offline-run-*-one/run-one.wandb"))
assert [steps(file) for file in files] == [[0, 1, 2], [0, 1, 2]], [steps(file) for file in files]
for part in (1, 2):
    print(f"part {part}: resumed False, first step 0, rows at steps 0, 1, 2; ", end="")
print("folders of the id: 2; words on resuming: none")
PY
export WANDB_MODE=offline WANDB_DIR="$folder"
for part in 1 2; do
    venv/bin/python train.py > "said$part" 2>&1
    sleep 2 # the folder's name holds the second
done
venv/bin/python check.py
