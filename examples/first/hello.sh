# SPDX-License-Identifier: Apache-2.0
echo "Bash $BASH_VERSION on $(hostname), as $(id -un)"
