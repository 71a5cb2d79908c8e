// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <node_api.h>

/// Adds what live interpreters need to the addon.
void berth_node_kernel_export(napi_env env, napi_value exports);
/// This process came from the template, so its memory can be forked.
void berth_node_kernel_can_fork(void);
/// New random numbers for OpenSSL, which tells a fork by a process id that may repeat.
void berth_node_reseed(void);
