// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "config/limits.hpp"
#include "config/policy.hpp"
#include "messages/caf.hpp"
#include "messages/files.hpp"
#include "messages/job.hpp"
#include "messages/session.hpp"

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace berth {

/// The pool of machines.
struct pool_settings {
  /// Machines that may exist at once.
  std::uint32_t slots_max = 128;
  /// Idle machines kept ready, by the language that is warm in them; "" is a plain machine.
  std::map<std::string, std::uint32_t> warm{{"python", 4}, {"bash", 2}, {"javascript", 2}, {"", 1}};
  /// Idle machines kept ready at most, whatever `warm` adds up to.
  std::uint32_t warm_max = 16;
  /// Jobs that may wait for a machine; one more is refused with no_capacity.
  std::uint32_t waiting_max = 1024;
  /// Jobs that may wait or run, over all sessions.
  std::uint32_t jobs_alive_max = 4096;
  /// A session unused for so long is paused: its files go to disk, its machine goes. 0: never.
  std::uint64_t session_pause_ms = 1'800'000;
  /// A session unused for so long is closed.
  std::uint64_t session_idle_ms = 86'400'000;
  /// A machine that is not up by then is given up.
  std::uint64_t start_timeout_ms = 10'000;
  /// A job that has no machine by then ends as machine_lost.
  std::uint64_t queue_timeout_ms = 30'000;
  /// More lost machines within a minute open the breaker.
  std::uint32_t restarts_per_minute_max = 30;

  bool operator==(const pool_settings&) const = default;
};

/// What is saved of sessions.
struct snapshot_settings {
  /// Bytes of all saved states on disk. Beyond it the oldest snapshots go, but never the newest
  /// good one of a session that lives.
  std::uint64_t bytes_max = 16 * limits::gib;
  /// Snapshots kept of one session; the oldest go first.
  std::uint32_t per_session_max = 256;
  /// When a session was idle for so long after a job, its files go to disk, so that they survive
  /// the server. 0: never.
  std::uint64_t checkpoint_idle_ms = 1000;

  bool operator==(const snapshot_settings&) const = default;
};

/// Virtual machines by QEMU.
struct qemu_options {
  /// The program.
  std::string binary = "/usr/bin/qemu-system-x86_64";
  /// Name of the image they boot, with or without its version; see `berth image ls`.
  std::string image = "full";
  /// Processors of each. Under software emulation more than one is slower than one.
  std::uint32_t vcpus = 1;
  /// Memory for translated code of each, under software emulation.
  std::uint64_t translation_mib = 64;

  bool operator==(const qemu_options&) const = default;
};

/// Virtual machines by Firecracker.
struct firecracker_options {
  /// The program, and the jailer that builds the walls around it where the server is root.
  std::string binary = "/usr/bin/firecracker";
  std::string jailer = "/usr/bin/jailer";
  /// Name of the image they boot, with or without its version; see `berth image ls`.
  std::string image = "full";
  /// Processors of each.
  std::uint32_t vcpus = 1;
  /// How a clone's memory comes: "file" (Firecracker maps it) or "uffd" (page faults are answered).
  std::string memory = "file";
  /// Whether each machine has a file of Firecracker's metrics beside its socket.
  bool metrics = false;
  /// The most that a machine reads of its disk in a second; 0: as much as it can.
  std::uint64_t disk_bytes_per_second = 0;
  std::uint64_t disk_operations_per_second = 0;

  bool operator==(const firecracker_options&) const = default;
};

/// A machine type by name: what a session gets that asks for it.
struct vm_type {
  std::uint64_t memory_mib = 512;
  std::uint64_t processes = 64;
  std::uint64_t disk_mib = 256;
  /// Machine kind that must serve; empty: settings.kind.
  std::string kind;
  /// Image and processors of virtual machines; empty and 0: those of the kind's own settings. Only
  /// of a type whose kind is a virtual one.
  std::string image{};
  std::uint32_t vcpus = 0;
  /// The places that its machines reach, by a proxy of the server's; see config/network.hpp. Empty:
  /// no network. Needs a kind.
  std::vector<std::string> network{};

  bool operator==(const vm_type&) const = default;
};

/// The machine types that clients of the contract know by name.
std::map<std::string, vm_type> default_vm_types();

/// What a model's tokens cost.
struct model_price {
  /// US dollars for a million tokens.
  double input_usd = 0;
  double output_usd = 0;

  bool operator==(const model_price&) const = default;
};

/// A place where language models are served. No other place is ever reached.
struct model_endpoint {
  /// The dialect: ollama or openai.
  std::string provider = "ollama";
  /// http:// or https://. For openai all that comes before /chat/completions, for ollama all that
  /// comes before /api/chat. One without a path stands for its dialect's usual one, so `/v1` and
  /// `/api` may be left out there.
  std::string base_url = "http://127.0.0.1:11434";
  /// Environment variable that holds the key; empty: none is sent. Never the key itself.
  std::string api_key_env;
  /// Of openai endpoints as Azure has them: sent as ?api-version=, and the key as `api-key`.
  std::string api_version;
  /// Model of a role that names none.
  std::string model = "llama3.2:3b";
  /// Calls on their way at once.
  std::uint32_t calls_max = 4;
  /// Calls that may wait for a place; one more is refused with no_capacity.
  std::uint32_t waiting_max = 256;
  /// A whole call, with its retries.
  std::uint64_t timeout_ms = 300'000;
  /// Until the connection stands.
  std::uint64_t connect_timeout_ms = 5'000;
  /// Between two pieces of an answer.
  std::uint64_t silence_timeout_ms = 120'000;
  /// Tries of a call that the network or a 5xx broke before the first piece of its answer.
  std::uint32_t attempts_max = 3;
  /// Bytes of a whole answer; a longer one is cut off, and so is its connection.
  std::uint64_t answer_bytes_max = 8 * limits::mib;
  /// By the name of the model; "*" is every other.
  std::map<std::string, model_price> prices;

  bool operator==(const model_endpoint&) const = default;
};

/// Agents and their conversations.
struct agent_settings {
  /// Directory of the roles, one JSON file each; empty: <lib_dir>/roles.
  std::string roles_dir;
  /// Conversations that may be at a turn at once.
  std::uint32_t turns_alive_max = 256;
  /// Conversations kept; those used longest ago go first.
  std::uint32_t conversations_max = 10'000;
  /// Calls of the model for one message, unless the role says otherwise.
  std::uint32_t rounds_max = 8;
  /// Bytes of one result that a model is told; the middle of a longer one is left out.
  std::uint64_t result_bytes_max = 16 * limits::kib;

  bool operator==(const agent_settings&) const = default;
};

/// Workflows.
struct workflow_settings {
  /// Workflows that may run at once; one more is refused with no_capacity.
  std::uint32_t alive_max = 64;
  /// Ended workflows kept; the oldest go first.
  std::uint32_t kept_max = 1'000;
  /// What becomes of one that ran when the server ended: "resume" or "interrupt".
  std::string on_restart = "resume";
  /// Agents of one workflow that may work at once.
  std::uint32_t branches_max = 16;

  bool operator==(const workflow_settings&) const = default;
};

/// All that an operator can set. Read once before the server starts, never changed afterwards;
/// shared by const reference. Every member has a default, so `settings{}` is a working server once
/// fill_paths() gave it its directories.
struct settings {
  /// What must last: the journal, caches of compiled programs. Empty: chosen by fill_paths().
  std::string data_dir;
  /// What ends with the server: sockets, spool, machines' files. Empty: chosen by fill_paths().
  std::string runtime_dir;
  /// Where berth-guest and the templates are. Empty: chosen by fill_paths().
  std::string lib_dir;

  /// ZeroMQ endpoint of requests.
  std::string zmq_router = "tcp://127.0.0.1:5555";
  /// Second endpoint of requests; empty: none; "auto": ipc://<runtime_dir>/berth.ipc, put in its
  /// place by fill_paths().
  std::string zmq_ipc = "auto";
  /// ZeroMQ endpoint of events.
  std::string zmq_events = "tcp://127.0.0.1:5556";
  /// CURVE keys of the server, 40 characters of Z85 each; both or neither.
  std::string zmq_curve_secret_key;
  std::string zmq_curve_public_key;
  /// Public keys of the clients let in; empty with a server key: every client with the server's
  /// key.
  std::vector<std::string> zmq_curve_clients;

  /// Where HTTP listens; a numeric address.
  std::string http_address = "127.0.0.1";
  /// 0: any free port.
  std::uint16_t http_port = 8080;
  /// Second port of the same address, where clients of the Terraphim server look for it; all
  /// contracts are served on both. 0: none.
  std::uint16_t http_terraphim_port = 8000;
  /// Bearer tokens that let a client in; empty: none is asked for.
  std::vector<std::string> http_tokens;
  /// Lets HTTP listen beyond loopback without tokens.
  bool http_insecure = false;

  /// Machine kind: auto, namespace, instant, qemu or firecracker.
  std::string kind = "auto";
  /// Isolation without which the server refuses to start: user_namespace, seccomp, landlock,
  /// cgroup_memory, cgroup_pids.
  std::vector<std::string> require{"user_namespace", "seccomp"};

  pool_settings pool;
  qemu_options qemu;
  firecracker_options firecracker;
  /// Where models are served; a role names one by its base_url, and the first serves the others.
  std::vector<model_endpoint> models{model_endpoint{}};
  agent_settings agents;
  workflow_settings workflows;
  snapshot_settings snapshots;
  /// Limits of a job that names none.
  job_limits defaults{.timeout_ms = 30'000,
                      .memory_mib = 512,
                      .processes = 64,
                      .output_bytes = limits::mib,
                      .disk_mib = 256};
  /// The most that a job may ask for.
  job_limits maxima{.timeout_ms = 3'600'000,
                    .memory_mib = 8192,
                    .processes = 1024,
                    .output_bytes = 4 * limits::gib,
                    .disk_mib = 8192};
  /// Machine types by name; see find_vm_type().
  std::map<std::string, vm_type> vm_types = default_vm_types();

  /// How long running jobs may go on after SIGTERM.
  std::uint64_t drain_grace_ms = 10'000;
  /// User id that the server takes on when it is started as root; 0: it stays root.
  std::uint32_t server_uid = 64320;
  /// Output per stream in a reply to run; all of it is there by read.
  std::uint64_t reply_output_bytes = limits::mib;
  /// Output per stream kept in a history entry.
  std::uint64_t history_output_bytes = 64 * limits::kib;
  /// Output of all jobs kept on disk.
  std::uint64_t spool_bytes_max = 8 * limits::gib;
  /// Size of the journal beyond which the oldest entries go.
  std::uint64_t journal_bytes_max = limits::journal_bytes_max;
  /// Least level that is logged: debug, info, warn or error.
  std::string log_level = "info";

  /// What programs may be and what becomes of them.
  vm_execution_policy policy;

  bool operator==(const settings&) const = default;
};

/// Reads settings from a file; see parse_settings().
expected<settings> load_settings(const std::string& path);

/// Reads settings from JSON text, the whole of which is checked before anything is used. Every
/// member is optional. Unknown members are errors that name the nearest known one, except inside
/// `vm_execution`. `name` stands for the text in errors, which give line and column of bad syntax
/// and the path of a bad member. Paths are as given: call fill_paths() after it.
expected<settings> parse_settings(std::string_view text, const std::string& name);

/// Fills in directories and endpoints that were left empty: /var/lib/berth and /run/berth for root,
/// the XDG directories for others, the library directory found beside the executable.
void fill_paths(settings& values);

/// Checks what no single member shows: endpoints beyond loopback without keys or tokens, defaults
/// beyond maxima, unknown kinds, languages and isolation names. Returns the first fault, or none.
error check(const settings& values);

/// Refuses the name of a machine type that is not configured. An empty one is the default's.
error check_vm_type(std::string_view name, const settings& values);

/// The machine type of a name, lowered to maxima and policy. An empty name is the policy's
/// default_vm_type, and when that is unknown, the settings' default limits.
vm_type find_vm_type(const settings& values, std::string_view name);

/// The limits of a job: what it asks for, else the machine type it names, else the defaults, within
/// maxima and policy. The error (malformed below the least, too_large beyond the most) names the
/// member.
expected<job_limits> resolve_limits(const run& request, const settings& values);

/// The machine of a session: what it asks for, else its machine type, within maxima and policy.
/// Errors as resolve_limits() gives them.
expected<vm_type> resolve_machine(const open_session& request, const settings& values);

/// Refuses what machines of the kind that is served would not keep: another kind that is asked for,
/// or that the machine type demands, and an isolation that is weaker than what was asked for. An
/// isolation is never lowered in silence.
error check_served(std::string_view served, std::string_view kind, std::string_view isolation,
                   const vm_type& machine);

/// Refuses a job of a session that asks for other memory, processes or disk than the session's
/// machine has: they belong to the machine, and jobs beside it share them.
error check_in_session(const struct find_session& job, const vm_type& machine);

/// Checks everything about a request that no policy decides: a known language, code that is not
/// blank, text without NUL, sizes, environment names, paths. The error names the member.
error check_request(const run& request);

/// Checks what opens a live interpreter. The error names the member.
error check_context(const open_context& request);

/// Checks files that are to be placed; part of check_request(). The error names the member.
error check_files(const std::vector<placed_file>& files);

/// Checks a request for one file of a session. The error names the member.
error check_file_request(const read_file& request);
error check_file_request(const write_file& request);
error check_file_request(const list_files& request);
error check_file_request(const stat_file& request);
error check_file_request(const make_dir& request);
error check_file_request(const move_file& request);
error check_file_request(const remove_file& request);
error check_file_request(const watch_files& request);
error check_file_request(const read_watch& request);
error check_file_request(const unwatch_files& request);

} // namespace berth
