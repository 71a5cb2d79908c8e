// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

/// What is fuzzed: functions that take bytes of a peer. Each aborts when a promise does not hold.
namespace berth::fuzz {

/// Decodes as every message type; what decodes must come back from its own encoding.
void messages(std::span<const char> data);
/// A stream of frames from a hostile guest, cut and decoded.
void frames(std::span<const char> data);
/// A settings file.
void settings_file(std::span<const char> data);
/// A program of any language through the rules, and its text through redaction.
void programs(std::span<const char> data);

} // namespace berth::fuzz
