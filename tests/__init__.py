"""Tests mirror the package. Each process computes with one thread: those of pytest's workers would wait for each other, spinning,
as long as another process has the core (25 tests of local models on a busy machine: 53 s with one thread, over 300 with two).
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
