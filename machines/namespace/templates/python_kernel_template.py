# SPDX-License-Identifier: Apache-2.0
"""The template of live Python kernels: a trusted interpreter outside all machines, with IPython and a
shell loaded, which forks kernels into them. Started as python_template.py is.
"""
import gc
import json

import berth_warm
import python_kernel

if __name__ == "__main__":
    if not python_kernel.missing:
        python_kernel.kernel.make_shell()
        python_kernel.kernel.rehearse()
    gc.collect()
    gc.freeze()
    python_kernel.run(json.loads(berth_warm.serve(lambda: None)))
