// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "config/limits.hpp"

/// Bounds of what language models may do to the server, whatever the settings say.
namespace berth::limits {

/// Tools that one answer may want to be called.
inline constexpr std::size_t model_tool_calls_max = 64;
/// Bytes on the wire for each byte that an answer may have: members around every piece, thinking
/// that is not kept, comments.
inline constexpr std::size_t model_wire_overhead_max = 64;
/// Bytes of the head of an answer.
inline constexpr std::size_t model_head_bytes_max = 64 * kib;
/// Bytes of a refusal's body that are read, and of its text that are passed on.
inline constexpr std::size_t model_refusal_bytes_max = 64 * kib;
inline constexpr std::size_t model_refusal_text_max = 400;
/// Levels of an answer's JSON.
inline constexpr std::size_t model_json_depth_max = 64;
/// Names of models that one endpoint may list, and bytes of the list.
inline constexpr std::size_t models_listed_max = 1'000;
inline constexpr std::size_t models_listed_bytes_max = 4 * mib;
/// How long an endpoint may take to list its models, and how long its word is good.
inline constexpr milliseconds models_listed_within{3'000};
inline constexpr milliseconds models_listed_for{5'000};
/// First pause before a call is tried again; doubles with each.
inline constexpr milliseconds model_retry_delay_min{250};
/// The longest such pause; an endpoint that asks for more with Retry-After is not waited for.
inline constexpr milliseconds model_retry_delay_max{30'000};
/// How long the end of an answer may follow what is needed of it.
inline constexpr milliseconds model_linger{500};
/// Models of one endpoint that are remembered to refuse a temperature.
inline constexpr std::size_t models_untempered_max = 1'000;
/// Connections kept for the next call, over all endpoints.
inline constexpr long model_connections_kept_max = 64;

static_assert(model_retry_delay_min < model_retry_delay_max);
static_assert(model_refusal_text_max < model_refusal_bytes_max);

} // namespace berth::limits
