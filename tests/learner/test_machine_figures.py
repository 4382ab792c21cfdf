"""Figures of the machine in the metrics."""

import subprocess
import sys

import pytest
import torch

from training.learner.runtime import machine
from training.learner.runtime.jobdir import JobDirectory
from training.learner.runtime.machine import MachineFigures


class Clock:
    """Clock and CPU time that a test sets."""

    wall = cpu = 0.0


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(machine.time, "monotonic", lambda: Clock.wall)
    monkeypatch.setattr(machine.time, "process_time", lambda: Clock.cpu)
    monkeypatch.setattr(machine, "available_cores", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    Clock.wall, Clock.cpu = 100.0, 50.0
    return Clock


def test_speed_and_share_are_those_since_the_last_line(clock):
    meter = MachineFigures()
    clock.wall, clock.cpu = 102.0, 54.0
    first = meter.read(tokens=300)
    clock.wall, clock.cpu = 112.0, 59.0
    second = meter.read(tokens=None)
    assert (first["tokens_per_second"], first["cpu_share"]) == (150.0, 0.5)
    assert second.keys() == {"cpu_share", "memory_gb"} and second["cpu_share"] == 0.125


def test_the_first_line_is_measured_from_the_first_step(clock, tmp_path):
    job = JobDirectory(tmp_path)
    job.machine = MachineFigures()
    clock.wall = 200.0  # models are loaded
    job.truncate_metrics(0)
    clock.wall = 201.0
    job.append_metrics(1, 1, tokens=7)
    assert job.metrics()[0]["tokens_per_second"] == 7.0


def test_a_programs_own_speed_comes_first(clock, tmp_path):
    job = JobDirectory(tmp_path)
    job.machine = MachineFigures()
    clock.wall = 110.0
    job.append_metrics(1, 1, tokens=7, tokens_per_second=99.0)
    assert job.metrics()[0]["tokens_per_second"] == 99.0


@pytest.mark.full
@pytest.mark.process
@pytest.mark.slow
def test_resident_memory_grows_by_an_array_that_is_filled():
    program = (
        "from training.learner.runtime.machine import resident_bytes as size\n"
        "before = size(); block = bytearray(b'x') * 100_000_000; print(size() - before)"
    )
    grown = int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
    assert 95_000_000 < grown < 120_000_000


@pytest.mark.slow
def test_a_result_has_the_highest_memory_also_of_what_was_freed_before(clock, tmp_path):
    job = JobDirectory(tmp_path)
    job.machine = MachineFigures()
    before = machine.resident_bytes() / machine.GB
    block = bytearray(b"x") * 150_000_000
    with_block = machine.resident_bytes() / machine.GB
    del block
    job.write_result({"reward": 0.5})
    result = job.result()
    assert result["peak_memory_gb"] > with_block - 0.01 > before + 0.13
    assert "peak_gpu_memory_gb" not in result


def test_a_gpu_adds_its_highest_memory_to_the_result(clock, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 3_500_000_000)
    assert MachineFigures().peaks()["peak_gpu_memory_gb"] == 3.5


def test_a_gpu_adds_its_memory_and_its_share_at_most_once_a_second(clock, monkeypatch):
    shares = iter([40, 60])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 2_500_000_000)
    monkeypatch.setattr(torch.cuda, "utilization", lambda: next(shares))
    meter, read = MachineFigures(), []
    for wall in (101.0, 101.5, 102.0):
        clock.wall = wall
        figures = meter.read(tokens=None)
        read.append((figures["gpu_memory_gb"], figures["gpu_share"]))
    assert read == [(2.5, 0.4), (2.5, 0.4), (2.5, 0.6)]


def test_a_gpu_whose_driver_does_not_answer_has_no_share(clock, monkeypatch):
    def fail():
        raise ModuleNotFoundError("pynvml")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 0)
    monkeypatch.setattr(torch.cuda, "utilization", fail)
    assert "gpu_share" not in MachineFigures().read(tokens=None)
