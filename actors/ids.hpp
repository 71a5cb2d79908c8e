// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

/// Names that nobody can guess, and the time of day.
namespace berth {

/// A new job id: a version 7 UUID, so that ids sort by time.
std::string new_job_id();

/// Twelve random hexadecimal digits: what `vm-` and `s-` ids are made of.
std::string new_hex_id();

/// The id of the machine that belongs to a session, and back: `s-…` and `vm-…` share their digits.
std::string machine_of_session(std::string_view session);
std::string session_of_machine(std::string_view machine);

/// Now, in milliseconds of Unix time.
std::int64_t unix_ms();

} // namespace berth
