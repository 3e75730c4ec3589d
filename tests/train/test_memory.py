"""Tensors that come and go cost no pages of the kernel again and again."""

import platform
import subprocess
import sys

import pytest

LARGE_TENSORS = """
import resource, torch
from worldgym.train.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(16, 1024, 1024)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

assert keep_freed_memory()
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have allocators of their own")
def test_memory_that_is_freed_is_kept():
    done = subprocess.run([sys.executable, "-c", LARGE_TENSORS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100  # each tensor has 16,384 pages, or 32 huge ones
