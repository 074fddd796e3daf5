from __future__ import annotations

import platform

import pytest
import torch

from streamdream.memory import keep_freed


def faults() -> int:
    resource = pytest.importorskip("resource")
    return int(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_what_is_freed_is_there_for_the_next_frame() -> None:
    assert keep_freed()
    size = 4 * 2**20  # 16 MB, 4096 pages
    for _ in range(8):  # the heap grows
        a, b = torch.zeros(size), torch.zeros(size)
        del a, b
    before = faults()
    for _ in range(5):
        a, b = torch.zeros(size), torch.zeros(size)
        del a, b
    assert faults() - before < 5000  # of 40,000 pages
