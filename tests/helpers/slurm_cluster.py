"""A real Slurm on this machine, for the tests in tests/slurm: a controller and one node of two cores.

python tests/helpers/slurm_cluster.py start FOLDER    then: export SLURM_CONF=FOLDER/slurm.conf
python tests/helpers/slurm_cluster.py stop FOLDER

It takes root, and Debian's packages slurm-wlm and munge. Everything lies in FOLDER, the key and the socket of a munge
of its own included, so that a Slurm that this machine may have is left alone.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

DAEMONS = ("slurmd", "slurmctld", "munged")  # in the order in which they are stopped
MEGABYTES = 16_000  # of the node; what it really has is not asked

CONF = """
ClusterName=genbench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
AuthType=auth/munge
# a job that is queued again waits for its credentials to expire first
AuthInfo=socket={folder}/munged.socket,cred_expire=5
# no cgroups, which containers lack: a job's processes are found by their parents, and its memory is read each second
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0,bf_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
MailProg=/bin/true
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE DefaultTime=60 DefMemPerCPU=4000 State=UP
PartitionName=short Nodes={host} MaxTime=10 DefaultTime=5 DefMemPerCPU=4000 State=UP
"""


def missing() -> str | None:
    """Why there can be no Slurm here; None if there can."""
    if os.geteuid() != 0:
        return "Slurm's daemons take root"
    absent = [name for name in (*DAEMONS, "sbatch", "srun") if _program(name) is None]
    return f"there is no {', '.join(absent)} (Debian: slurm-wlm, munge)" if absent else None


def start(folder: Path) -> Path:
    """Start it, in place of what another start may have left there; the configuration that SLURM_CONF must name."""
    stop(folder)
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    conf = folder / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    port, node_port = _free_ports()
    conf.write_text(CONF.format(host=host, port=port, node_port=node_port, folder=folder, memory=MEGABYTES))
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    environment = os.environ | {"SLURM_CONF": str(conf)}
    own = [f"--{what}-file={folder}/munged.{what}" for what in ("log", "pid", "seed")]
    # --force: the folder may lie in one that everybody can write to
    _run(["munged", "--force", f"--socket={folder}/munged.socket", f"--key-file={key}", *own], environment)
    _run(["slurmctld"], environment)
    _run(["slurmd", "-N", host], environment)
    until = time.monotonic() + 60
    while "idle" not in _said(["sinfo", "--noheader", "--format=%T"], environment):
        if time.monotonic() > until:
            logs = [f"{name}: {(folder / f'{name}.log').read_text()[-2000:]}" for name in DAEMONS]
            stop(folder)
            raise TimeoutError("Slurm's node has not come up in a minute.\n" + "\n".join(logs))
        time.sleep(0.2)
    return conf


def stop(folder: Path) -> None:
    """End all jobs, and the daemons by the files that hold their process ids."""
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    if _alive(folder, "slurmctld"):
        _said(["scancel", "--user=root"], environment)
        until = time.monotonic() + 20
        while _said(["squeue", "--noheader"], environment).strip() and time.monotonic() < until:
            _said(["scancel", "--user=root", "--signal=KILL", "--full"], environment)
            time.sleep(0.2)
    for name in DAEMONS:
        for signum, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 5)):
            until = time.monotonic() + seconds
            while (number := _alive(folder, name)) and time.monotonic() < until:
                with suppress(ProcessLookupError):
                    os.kill(number, signum)
                time.sleep(0.1)


def _alive(folder: Path, name: str) -> int | None:
    """The process that a pid file names, if it is that daemon: the number may have gone to another."""
    with suppress(OSError, ValueError):
        number = int((folder / f"{name}.pid").read_text())
        if Path(f"/proc/{number}/comm").read_text().strip() == name:
            state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
            return None if state in "ZX" else number
    return None


def _free_ports() -> list[int]:
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in (one, other)]


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _run(command: list[str], environment: dict[str, str]) -> None:
    subprocess.run([_program(command[0]), *command[1:]], env=environment, check=True, stdin=subprocess.DEVNULL)


def _said(command: list[str], environment: dict[str, str]) -> str:
    with suppress(subprocess.TimeoutExpired):
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10).stdout
    return ""


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("start", "stop"):
        sys.exit(__doc__)
    if sys.argv[1] == "start" and missing():
        sys.exit(f"error: {missing()}.")
    {"start": start, "stop": stop}[sys.argv[1]](Path(sys.argv[2]).absolute())
