# SPDX-License-Identifier: Apache-2.0
# What a live bash reads when it starts, interactive and without a terminal: see bash_kernel.c.
set +m +H +o history
shopt -u checkwinsize
unset HISTFILE HISTSIZE HISTFILESIZE
PS1= PS2= PS4='+ '
export -n PS1 PS2
enable -f /opt/berth/bash_kernel.so _berth && _berth
