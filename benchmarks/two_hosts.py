"""Compress with four processes on two hosts, and count the bytes that a step sends: `python -m benchmarks.two_hosts`.

Two network namespaces of one Linux machine act as the hosts; they are connected by one virtual cable and meet over TCP.
It needs root for `ip netns`. The result is the number of bytes that a process sends in a student step, divided by the
size of the student's gradient. Ring all-reduce sends 2 (N - 1) / N of it, 1.5 for four processes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import torch

from dfkd_cli.networks.classifier import InputSpec
from dfkd_cli.students.student import build_student

HOSTS = {"dfkd-a": "10.77.0.1", "dfkd-b": "10.77.0.2"}
CABLES = {"dfkd-a": "dfkd-va", "dfkd-b": "dfkd-vb"}
PORT = 29411
PER_HOST = 2
SPEC = InputSpec((3, 32, 32), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), num_classes=10)
BEGIN, END, STEPS = 5, 25, 30  # the steps between which bytes are counted, without a round


def main() -> None:
    """Print bytes per step and process, the gradient's size and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--student", default="cifar_resnet20")
    parser.add_argument("--batch-size", type=int, default=16)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        teacher = Path(folder) / "teacher.pt"
        torch.manual_seed(0)
        torch.save(build_student("cifar_resnet8", SPEC).network.get_submodule("module").state_dict(), teacher)
        gradient = 4 * build_student(arguments.student, SPEC).parameter_count()
        try:
            _connect()
            sent, seconds = _measure(teacher, Path(folder) / "out", arguments.student, arguments.batch_size)
        finally:
            _disconnect()
    print(f"bytes per step and process {sent:,.0f}, gradient {gradient:,} bytes, ratio {sent / gradient:.2f}")
    print(f"seconds per step {seconds:.3f}")


def _run(*words: object) -> str:
    return subprocess.run([*map(str, words)], check=True, capture_output=True, text=True).stdout


def _connect() -> None:
    _disconnect()
    for host in HOSTS:
        _run("ip", "netns", "add", host)
    one, other = CABLES.values()
    _run("ip", "link", "add", one, "type", "veth", "peer", "name", other)
    for host, address in HOSTS.items():
        _run("ip", "link", "set", CABLES[host], "netns", host)
        _run("ip", "-n", host, "addr", "add", f"{address}/24", "dev", CABLES[host])
        _run("ip", "-n", host, "link", "set", CABLES[host], "up")
        _run("ip", "-n", host, "link", "set", "lo", "up")


def _disconnect() -> None:
    for host in HOSTS:
        with suppress(subprocess.CalledProcessError):
            _run("ip", "netns", "del", host)


def _measure(teacher: Path, out: Path, student: str, batch_size: int) -> tuple[float, float]:
    settings = [f"train.steps={STEPS}", f"train.batch_size={batch_size}", "train.report_every=1"]
    settings += ["train.round_every=1000", "options.warmup.rounds=1", "options.buffer.size=64"]
    settings += [f"options.generator.batch_size={batch_size}", "train.compile=off"]
    run = ["compress", teacher, "--arch", "cifar_resnet8", "--input-size", "3x32x32", "--num-classes", "10"]
    run += ["--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25", "--precision", "fp32", "--student", student]
    run += ["--out", out, *(word for value in settings for word in ("--set", value))]
    processes = [_start(host, address, run) for host, address in HOSTS.items()]
    metrics = out.with_name(f".{out.name}.unfinished") / "result" / "metrics.jsonl"
    try:
        first = _counted_at(BEGIN, metrics, processes)
        last = _counted_at(END, metrics, processes)
        for process in processes:
            if process.wait(600):
                sys.exit("a host failed")
    finally:
        for process in processes:
            process.terminate()
    steps = last[0] - first[0]
    return (last[1] - first[1]) / steps / (PER_HOST * len(HOSTS)), (last[2] - first[2]) / steps


def _start(host: str, address: str, run: list[object]) -> subprocess.Popen:
    launcher = ["ip", "netns", "exec", host, sys.executable, "-m", "torch.distributed.run"]
    launcher += ["--nnodes", str(len(HOSTS)), "--nproc-per-node", str(PER_HOST), "--rdzv-backend", "c10d"]
    launcher += ["--rdzv-endpoint", f"{next(iter(HOSTS.values()))}:{PORT}", "--local-addr", address]
    # Both namespaces have the name of this machine, by which torchrun would look for the host of the meeting point.
    launcher += ["--rdzv-conf", f"is_host={int(host == next(iter(HOSTS)))}"]
    settings = os.environ | {"GLOO_SOCKET_IFNAME": CABLES[host], "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*launcher, "-m", "dfkd_cli", *map(str, run)], env=settings)


def _counted_at(step: int, metrics: Path, processes: list[subprocess.Popen]) -> tuple[int, int, float]:
    """Return the step, the bytes sent and the seconds, soon after the step."""
    while True:
        if any(process.poll() for process in processes):
            sys.exit("a host failed")
        lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
        if lines and (done := json.loads(lines[-1])["step"]) >= step:
            return done, sum(map(_bytes_sent, HOSTS)), time.monotonic()
        time.sleep(0.02)


def _bytes_sent(host: str) -> int:
    """Return the bytes that a host has sent over the cable and within itself."""
    lines = _run("ip", "netns", "exec", host, "cat", "/proc/net/dev").splitlines()[2:]
    return sum(int(line.split(":")[1].split()[8]) for line in lines)


if __name__ == "__main__":
    main()
