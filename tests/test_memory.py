"""The memory of processes with many threads."""

import os
import platform
import re
import subprocess
import sys

import pytest

COUNT_ARENAS = """
import ctypes, threading
from novita_site import memory
memory.share_arenas()
libc = ctypes.CDLL(None)
everybody = threading.Barrier(16)
def allocate():
    everybody.wait()
    libc.malloc(ctypes.c_size_t(5000))
    everybody.wait()
threads = [threading.Thread(target=allocate) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="Only glibc has arenas.")
@pytest.mark.parametrize(("given", "most"), [({}, 2), ({"MALLOC_ARENA_MAX": "1"}, 1)])
def test_many_threads_share_few_arenas(given: dict[str, str], most: int) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"} | given

    info = subprocess.run([sys.executable, "-c", COUNT_ARENAS], env=environment, capture_output=True, text=True)

    assert len(re.findall("<heap nr=", info.stdout)) == most, info.stderr
