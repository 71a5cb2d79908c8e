// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/job.hpp"

namespace berth {

/// Replaces secrets in a program's output by `[REDACTED]`: values of passwords, keys and tokens
/// (`API_KEY=...`, `"password": "..."`), private keys, credentials in URLs and headers, and tokens
/// that show what they are (AKIA..., ghp_..., sk-..., JWT). Ordinary words after such a name, short
/// values, paths after PWD and e-mail addresses stay. Any bytes are taken; time is linear. Returns
/// whether anything was replaced.
bool redact(bytes& output);

/// The same for all that an outcome holds of what a program said: its output, and the text that its
/// cell showed or raised. Sets `redacted`.
void redact(outcome& ended);

} // namespace berth
