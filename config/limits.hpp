// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/limits.hpp"

#include <chrono>

/// Bounds of what the server itself holds: queues, memory, time. What an operator may change is in
/// settings.hpp; what is here keeps the server alive whatever the settings say.
namespace berth::limits {

using std::chrono::milliseconds;

inline constexpr std::size_t gib = 1024 * mib;

// --- queues --------------------------------------------------------------------------------------

/// Requests of all doors that wait for an answer, beside the jobs that are alive.
inline constexpr std::size_t requests_open_max = 16384;
/// Readers that wait for news of one job.
inline constexpr std::size_t readers_per_job_max = 64;
/// Jobs of one session that run at the same time.
inline constexpr std::size_t jobs_per_session_running_max = 16;
/// Jobs of one session that wait or run.
inline constexpr std::size_t jobs_per_session_max = 256;
/// Contexts of one session: live interpreters, those that died included.
inline constexpr std::size_t contexts_per_session_max = 16;
/// Open sessions, whether their machines are up or not.
inline constexpr std::size_t sessions_max = 4096;
/// Different kinds, images, numbers of processors and networks of machines in one server.
inline constexpr std::size_t machine_makes_max = 16;
/// Places of the network that one machine type may name.
inline constexpr std::size_t network_rules_max = 256;
/// Processors of a virtual machine.
inline constexpr std::uint32_t vcpus_max = 32;
/// Messages from actors to the thread of a bridge that wait to be sent.
inline constexpr std::size_t outbox_messages_max = 65536;

static_assert(readers_per_job_max < requests_open_max);
static_assert(jobs_per_session_running_max <= jobs_per_session_max);
static_assert(requests_open_max < outbox_messages_max);

// --- output --------------------------------------------------------------------------------------

/// Bytes a slot may have sent to the stream hub without its receipt, per job.
inline constexpr std::size_t output_credit_bytes = 1 * mib;
/// Output of one job, both streams, that the stream hub keeps in memory; the rest is spooled.
inline constexpr std::size_t stream_memory_bytes_max = 512 * kib;
/// Output of all jobs that the stream hub keeps in memory.
inline constexpr std::size_t hub_memory_bytes_max = 256 * mib;
/// Files that the spool keeps open; beyond that the oldest output of ended jobs goes.
inline constexpr std::size_t spool_files_max = 512;
/// Jobs that ended whose output can still be read.
inline constexpr std::size_t jobs_retained_max = 4096;
/// Bytes per stream in one answer to `read`, whatever was asked for.
inline constexpr std::size_t read_bytes_max = 4 * mib;
/// Bytes per stream in one answer to `read` when the client leaves the choice.
inline constexpr std::size_t read_bytes_default = 1 * mib;
/// How long a `read` may wait for news.
inline constexpr milliseconds read_wait_max{30'000};

static_assert(chunk_bytes_max <= output_credit_bytes);
static_assert(stream_memory_bytes_max < hub_memory_bytes_max);
static_assert(read_bytes_default <= read_bytes_max);

// --- input ---------------------------------------------------------------------------------------

/// Standard input that waits for one program.
inline constexpr std::size_t stdin_waiting_bytes_max = 4 * mib;
/// Files placed by one request.
inline constexpr std::size_t files_max = 1024;
/// Bytes of one answer to `files.read`, whatever was asked for.
inline constexpr std::size_t file_read_bytes_max = chunk_bytes_max;
/// Bytes of one `files.write`.
inline constexpr std::size_t file_write_bytes_max = 1 * mib;
/// Requests for the files of one machine that are under way.
inline constexpr std::size_t file_requests_max = 256;
/// Levels of one `files.list`.
inline constexpr std::uint32_t list_depth_max = 16;
/// Watches of one session.
inline constexpr std::size_t watches_per_session_max = 64;
/// Changes of one watch that nobody took yet; beyond that it says `overflow`.
inline constexpr std::size_t watch_events_max = 4096;
/// Variables of one job's environment, arguments of one job.
inline constexpr std::size_t arguments_max = 4096;
/// Members of one job's metadata.
inline constexpr std::size_t metadata_members_max = 64;
/// Metadata of one job, names and values together.
inline constexpr std::size_t metadata_bytes_max = 64 * kib;

static_assert(stdin_waiting_bytes_max <= request_bytes_max);
static_assert(file_write_bytes_max <= request_bytes_max);
static_assert(arguments_max < elements_max);

/// Programs up to this length are judged where they come in; longer ones by an actor of their own.
inline constexpr std::size_t judged_at_once_bytes_max = 4 * kib;

// --- the least a job can be given ----------------------------------------------------------------

/// Below this no interpreter starts.
inline constexpr std::uint64_t memory_mib_min = 16;
/// The program itself.
inline constexpr std::uint64_t processes_min = 1;
inline constexpr std::uint64_t timeout_ms_min = 1;
inline constexpr std::uint64_t disk_mib_min = 1;

// --- history -------------------------------------------------------------------------------------

/// Entries of one page, whatever was asked for.
inline constexpr std::uint32_t history_page_max = 1000;
/// Entries of one page when the client leaves the choice.
inline constexpr std::uint32_t history_page_default = 100;
/// Bytes of all entries on one page; the page ends early rather than grow beyond.
inline constexpr std::size_t history_page_bytes_max = 16 * mib;
/// Records that share one sync.
inline constexpr std::size_t history_batch_max = 512;
/// Bytes of the records that share one sync.
inline constexpr std::size_t history_batch_bytes_max = 32 * mib;
/// Size of one segment of the log; a record that is larger has a segment for itself.
inline constexpr std::size_t log_segment_bytes = 32 * mib;
/// Records that one transaction brings into the index.
inline constexpr std::size_t index_batch_max = 4096;
/// Bytes of the log that the index may lag behind; then records wait for it.
inline constexpr std::size_t index_lag_bytes_max = 64 * mib;
/// How long a record waits for an index that is so far behind before it fails.
inline constexpr std::chrono::milliseconds index_wait_max{10'000};
/// How long the index lets records gather, when nobody asks for them.
inline constexpr std::chrono::milliseconds index_pause{100};
/// How long a job's acceptance may wait for a sync when nobody waits for it.
inline constexpr std::chrono::milliseconds unsynced_max{20};
/// Size of the journal beyond which the oldest entries go, whoever's they are.
inline constexpr std::uint64_t journal_bytes_max = 16 * gib;

static_assert(log_segment_bytes <= index_lag_bytes_max);
static_assert(history_page_default <= history_page_max);
static_assert(history_page_bytes_max < request_bytes_max);

// --- agents and workflows ------------------------------------------------------------------------

/// Events kept of one conversation or workflow.
inline constexpr std::size_t progress_events_max = 20'000;
/// Bytes of all events kept; streams that ended longest ago go first.
inline constexpr std::size_t progress_bytes_max = 128 * mib;
/// Events in one page.
inline constexpr std::size_t progress_page_max = 1'000;
/// Readers that wait for events.
inline constexpr std::size_t progress_readers_max = 4'096;
/// Records that one question gives.
inline constexpr std::size_t records_read_max = 10'000;
/// Messages of one chat request.
inline constexpr std::size_t chat_messages_max = 1'000;
/// Bytes of all messages of one chat request, or of a workflow's prompt and steps.
inline constexpr std::size_t prompt_bytes_max = 1 * mib;
/// Steps of one workflow.
inline constexpr std::size_t workflow_steps_max = 64;
/// Roles in the configuration, and bytes of all of it.
inline constexpr std::size_t roles_max = 1'000;
inline constexpr std::size_t roles_bytes_max = 4 * mib;

// --- time ----------------------------------------------------------------------------------------

/// How long a machine may take from its end's order to being gone before the slot is broken.
inline constexpr milliseconds machine_end_timeout{10'000};
/// How much later than the guest's own timer the server's deadline ends a job.
inline constexpr milliseconds guest_grace{250};
/// First pause before a lost machine is replaced; doubles with each loss.
inline constexpr milliseconds restart_delay_min{50};
/// The longest such pause.
inline constexpr milliseconds restart_delay_max{10'000};
/// How long the breaker stays open before one machine is tried again.
inline constexpr milliseconds breaker_open_time{15'000};
/// How long the end of the server waits for the last states of sessions to be saved.
inline constexpr milliseconds park_time_max{8'000};
/// What a client is told to wait when there is no place for its request.
inline constexpr milliseconds retry_after{250};

static_assert(restart_delay_min < restart_delay_max);

/// Machines that start at the same time; more only wait for each other.
inline constexpr std::uint32_t machines_starting_max = 16;
/// Compiled programs kept for equal sources.
inline constexpr std::size_t binary_cache_bytes_max = 256 * mib;

} // namespace berth::limits
