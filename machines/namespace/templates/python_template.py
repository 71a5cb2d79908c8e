# SPDX-License-Identifier: Apache-2.0
"""The Python template: a trusted interpreter outside all machines, which forks warm ones into them.

Started by the spawner as `/usr/bin/python3 -u -X utf8 python_template.py`, with an environment that
has nothing in it. Never reads anything that comes out of a machine.
"""
import gc
import sys

# What programs import most, so that a job finds it there. Each page of it is shared.
import collections
import datetime
import functools
import io
import itertools
import json
import math
import os
import random
import re
import string
import time
import traceback

import berth_warm
import python_job

if __name__ == "__main__":
    # Often enough that the interpreter has adapted its code to what it does: it would otherwise
    # write to the pages of that code in every copy.
    for _ in range(16):
        python_job.rehearse()
    gc.collect()
    gc.freeze()
    python_job.run(json.loads(berth_warm.serve(python_job.rehearse)))
