// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/limits.hpp"

#include <chrono>

/// Bounds of agents that no operator sets.
namespace berth::limits {

/// Chats of one conversation that wait for the one before them.
inline constexpr std::size_t chats_waiting_max = 16;
/// Tools that one answer of a model may call; the others are not called, and the model is told.
inline constexpr std::size_t calls_per_round_max = 32;
/// Programs of one text that are run.
inline constexpr std::size_t programs_per_text_max = 64;
/// Things that were said of one conversation, and their bytes; the oldest turns go first.
inline constexpr std::size_t said_max = 4096;
inline constexpr std::size_t said_bytes_max = 8 * mib;
/// Output of one program that an agent reads, per stream; the rest is counted.
inline constexpr std::size_t agent_output_bytes_max = 1 * mib;
/// Bytes of one piece of output in the events.
inline constexpr std::size_t output_event_bytes_max = 64 * kib;
/// Agents in memory, those at a turn not counted.
inline constexpr std::size_t agents_idle_max = 1024;
/// How long an agent that nobody asks stays in memory. Its conversation is in the store.
inline constexpr std::chrono::seconds agent_idle_time{60};
/// Length of a conversation's id.
inline constexpr std::size_t conversation_id_max = 128;
/// How long a turn waits for a place at its model; what a workflow's step waits for one, too.
inline constexpr std::chrono::minutes place_wait_max{5};
/// First pause before it asks again where the model names none; doubles with each try.
inline constexpr std::chrono::milliseconds place_pause_min{250};
/// The longest such pause.
inline constexpr std::chrono::milliseconds place_pause_max{5'000};
/// Models that are remembered to know no tools.
inline constexpr std::size_t toolless_models_max = 1024;
/// For how long.
inline constexpr std::chrono::minutes toolless_time{10};

static_assert(said_bytes_max > 2 * mib, "the largest chat must fit beside what was said before");

} // namespace berth::limits
