# SPDX-License-Identifier: Apache-2.0
import platform

for n in range(3):
    print(f"Python {platform.python_version()} in a machine of its own: {n}")
