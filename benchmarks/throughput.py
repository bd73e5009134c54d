"""Student and synthesis step of `ssd` against bare PyTorch loops over the same networks: `make bench-throughput`.

The bare loops use one constant batch, the same precision, memory format and compilation, and nothing else: no buffer, no
augmentation, no priorities, no BatchNorm statistics. Both sides take turns in one process, so that a busy machine slows both;
the ratio of the medians is what counts. Ends with one line each for `student` and `synthesis`.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from dfkd_cli import losses
