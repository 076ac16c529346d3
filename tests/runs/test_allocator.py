"""Freed memory stays with the process that asks for it, and nobody's own settings are overruled."""

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")

CHURN = """
import resource, sys
from embattle.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    print(keep_freed_memory())
pages = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
blocks = lambda: [bytearray(b"x") * 2**20 for _ in range(16)]
blocks()
before = pages()
for _ in range(20):
    blocks()
print(pages() - before)
"""


def churn(what: str, **settings: str) -> list[str]:
    bare = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", CHURN, what], env=bare | settings, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_memory_that_was_freed_is_not_fetched_again():
    [without] = churn("leave")
    agreed, kept = churn("keep")
    assert agreed == "True"
    assert int(without) > 10_000, "blocks of a megabyte are usually given back"
    assert int(kept) < int(without) / 10


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_settings_of_the_user_stand(name):
    value = "100000" if name.startswith("MALLOC") else "glibc.malloc.trim_threshold=100000"
    agreed, _ = churn("keep", **{name: value})
    assert agreed == "False"
