// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "messages/codec.hpp"
#include "messages/errors.hpp"
#include "messages/files.hpp"
#include "messages/job.hpp"

#include <variant>

/// What server and guest say to each other: a 4-byte little-endian length and one tagged msgpack
/// map a frame. The guest runs hostile code beside it and is believed nothing: every frame is
/// bounded and checked, and an exit status it reports concerns its own machine only.
namespace berth::guest {

/// Version of this protocol; a guest with another one is refused.
inline constexpr std::uint32_t protocol_version = 2;

/// The streams of a job.
inline constexpr std::uint32_t stdout_stream = 1;
inline constexpr std::uint32_t stderr_stream = 2;

// --- server to guest -----------------------------------------------------------------------------

/// Starts a program. Files and long input came before, by put_file and stdin_data.
struct start_job {
  std::uint32_t job = 0;
  std::string language;
  std::string code;
  std::vector<std::string> args;
  std::map<std::string, std::string> env;
  std::string cwd;
  bool stdin_open = false;
  std::uint64_t output_bytes = 0;
  bool exclusive = false;
  bytes binary;
  bool want_binary = false;

  static constexpr const char* type_name = "start_job";
  static constexpr auto fields() {
    return std::tuple{
        field("job", &start_job::job, "Number of the job in this machine."),
        field("language", &start_job::language, "Canonical name."),
        field("code", &start_job::code, "Program text."),
        opt("args", &start_job::args),
        opt("env", &start_job::env),
        opt("cwd", &start_job::cwd),
        opt("stdin_open", &start_job::stdin_open,
            "Whether stdin_data will follow; else it is empty."),
        field("output_bytes", &start_job::output_bytes,
              "Bytes forwarded per stream; more is counted."),
        opt("exclusive", &start_job::exclusive,
            "One-shot machine: the interpreter itself may become the job, nothing is kept."),
        opt("binary", &start_job::binary, "A compiled program to run instead of compiling."),
        opt("want_binary", &start_job::want_binary,
            "Send the compiled program back before running.")};
  }
  bool operator==(const start_job&) const = default;
};

/// Input for a job started with stdin_open.
struct stdin_data {
  std::uint32_t job = 0;
  bytes data;
  bool eof = false;

  static constexpr const char* type_name = "stdin_data";
  static constexpr auto fields() {
    return std::tuple{field("job", &stdin_data::job), opt("data", &stdin_data::data),
                      opt("eof", &stdin_data::eof)};
  }
  bool operator==(const stdin_data&) const = default;
};

/// Kills a job's whole tree. The guest answers with job_ended.
struct end_job {
  std::uint32_t job = 0;

  static constexpr const char* type_name = "end_job";
  static constexpr auto fields() { return std::tuple{field("job", &end_job::job)}; }
  bool operator==(const end_job&) const = default;
};

/// Writes one chunk of a file; the chunk at offset 0 creates or truncates it, parents are made.
struct put_file {
  std::uint32_t request = 0;
  std::string path;
  std::string cwd;
  std::uint32_t mode = 0644;
  std::uint64_t offset = 0;
  bytes data;
  bool last = false;
  bool keep_mode = false;
  bool want_info = false;

  static constexpr const char* type_name = "put_file";
  static constexpr auto fields() {
    return std::tuple{field("request", &put_file::request),
                      field("path", &put_file::path),
                      opt("cwd", &put_file::cwd, "What a relative path is relative to."),
                      opt("mode", &put_file::mode),
                      opt("offset", &put_file::offset),
                      field("data", &put_file::data),
                      opt("last", &put_file::last),
                      opt("keep_mode", &put_file::keep_mode, "A file that is there keeps its own."),
                      opt("want_info", &put_file::want_info, "Tell what the file is now.")};
  }
  bool operator==(const put_file&) const = default;
};

/// Reads one chunk of a regular file.
struct get_file {
  std::uint32_t request = 0;
  std::string path;
  std::uint64_t offset = 0;
  std::uint32_t bytes_max = 0;

  static constexpr const char* type_name = "get_file";
  static constexpr auto fields() {
    return std::tuple{field("request", &get_file::request), field("path", &get_file::path),
                      opt("offset", &get_file::offset), field("bytes_max", &get_file::bytes_max)};
  }
  bool operator==(const get_file&) const = default;
};

/// Lists a directory and those below it, `depth` levels, within bounds.
struct list_dir {
  std::uint32_t request = 0;
  std::string path;
  std::uint32_t depth = 1;

  static constexpr const char* type_name = "list_dir";
  static constexpr auto fields() {
    return std::tuple{field("request", &list_dir::request), field("path", &list_dir::path),
                      field("depth", &list_dir::depth)};
  }
  bool operator==(const list_dir&) const = default;
};

/// Tells what a path names.
struct stat_path {
  std::uint32_t request = 0;
  std::string path;

  static constexpr const char* type_name = "stat_path";
  static constexpr auto fields() {
    return std::tuple{field("request", &stat_path::request), field("path", &stat_path::path)};
  }
  bool operator==(const stat_path&) const = default;
};

/// Makes a directory and those above it.
struct make_path {
  std::uint32_t request = 0;
  std::string path;

  static constexpr const char* type_name = "make_path";
  static constexpr auto fields() {
    return std::tuple{field("request", &make_path::request), field("path", &make_path::path)};
  }
  bool operator==(const make_path&) const = default;
};

/// Renames; a file at `to` is replaced.
struct move_path {
  std::uint32_t request = 0;
  std::string from;
  std::string to;

  static constexpr const char* type_name = "move_path";
  static constexpr auto fields() {
    return std::tuple{field("request", &move_path::request), field("from", &move_path::from),
                      field("to", &move_path::to)};
  }
  bool operator==(const move_path&) const = default;
};

/// Removes a file, a link, or a directory with all that is in it.
struct remove_path {
  std::uint32_t request = 0;
  std::string path;

  static constexpr const char* type_name = "remove_path";
  static constexpr auto fields() {
    return std::tuple{field("request", &remove_path::request), field("path", &remove_path::path)};
  }
  bool operator==(const remove_path&) const = default;
};

/// Watches a directory. files_changed follow, until unwatch_path.
struct watch_path {
  std::uint32_t request = 0;
  std::string watch;
  std::string path;
  bool recursive = false;

  static constexpr const char* type_name = "watch_path";
  static constexpr auto fields() {
    return std::tuple{field("request", &watch_path::request), field("watch", &watch_path::watch),
                      field("path", &watch_path::path), opt("recursive", &watch_path::recursive)};
  }
  bool operator==(const watch_path&) const = default;
};

/// Ends a watch. The guest answers with path_done.
struct unwatch_path {
  std::uint32_t request = 0;
  std::string watch;

  static constexpr const char* type_name = "unwatch_path";
  static constexpr auto fields() {
    return std::tuple{field("request", &unwatch_path::request),
                      field("watch", &unwatch_path::watch)};
  }
  bool operator==(const unwatch_path&) const = default;
};

/// Starts a live interpreter under a name; what of that name lived before is ended first. Answered
/// by kernel_opened. Cells may follow at once: they wait for it.
struct open_kernel {
  std::string context;
  std::string language;
  std::string cwd;

  static constexpr const char* type_name = "open_kernel";
  static constexpr auto fields() {
    return std::tuple{field("context", &open_kernel::context, "Name in this machine."),
                      field("language", &open_kernel::language, "python, javascript or bash."),
                      opt("cwd", &open_kernel::cwd, "Where it starts.")};
  }
  bool operator==(const open_kernel&) const = default;
};

/// Runs one cell in a live interpreter, which must not run another. Ends by cell_ended, or by
/// job_refused. Output, input and end_job are as a job's; end_job ends the interpreter.
struct run_cell {
  std::uint32_t job = 0;
  std::string context;
  std::string code;
  bool stdin_open = false;
  std::uint64_t output_bytes = 0;

  static constexpr const char* type_name = "run_cell";
  static constexpr auto fields() {
    return std::tuple{field("job", &run_cell::job, "A number among those of jobs."),
                      field("context", &run_cell::context), field("code", &run_cell::code),
                      opt("stdin_open", &run_cell::stdin_open,
                          "Whether stdin_data will follow; else it is empty."),
                      field("output_bytes", &run_cell::output_bytes,
                            "Bytes forwarded per stream; more is counted.")};
  }
  bool operator==(const run_cell&) const = default;
};

/// Interrupts the cell that runs in an interpreter, as Ctrl-C does; nothing when none runs.
struct interrupt_kernel {
  std::string context;

  static constexpr const char* type_name = "interrupt_kernel";
  static constexpr auto fields() {
    return std::tuple{field("context", &interrupt_kernel::context)};
  }
  bool operator==(const interrupt_kernel&) const = default;
};

/// Ends an interpreter and everything it started. Answered by kernel_ended.
struct close_kernel {
  std::string context;

  static constexpr const char* type_name = "close_kernel";
  static constexpr auto fields() { return std::tuple{field("context", &close_kernel::context)}; }
  bool operator==(const close_kernel&) const = default;
};

/// Brings all interpreters to rest before the root is switched under them, and has each park a copy
/// of itself under a number. Refused, by the text of the answer, while a job or a cell runs.
struct freeze {
  std::uint32_t request = 0;
  std::uint64_t checkpoint = 0;
  bool force = false;

  static constexpr const char* type_name = "freeze";
  static constexpr auto fields() {
    return std::tuple{
        field("request", &freeze::request),
        opt("checkpoint", &freeze::checkpoint, "Number of the copies; 0: none are made."),
        opt("force", &freeze::force,
            "Even though processes run in the background, which stay in the old tree.")};
  }
  bool operator==(const freeze&) const = default;
};

/// Lets interpreters go on after a freeze.
struct thaw {
  std::uint32_t request = 0;
  std::uint64_t checkpoint = 0;

  static constexpr const char* type_name = "thaw";
  static constexpr auto fields() {
    return std::tuple{
        field("request", &thaw::request),
        opt("checkpoint", &thaw::checkpoint,
            "0: those that live go on; else they end, and copies of those of this number go on in "
            "their place. The number stays, and can be thawed again.")};
  }
  bool operator==(const thaw&) const = default;
};

/// Ends the parked copies of a number. Without an answer.
struct drop_checkpoint {
  std::uint64_t checkpoint = 0;

  static constexpr const char* type_name = "drop_checkpoint";
  static constexpr auto fields() {
    return std::tuple{field("checkpoint", &drop_checkpoint::checkpoint)};
  }
  bool operator==(const drop_checkpoint&) const = default;
};

/// Asks whether the guest is alive.
struct ping {
  std::uint32_t request = 0;

  static constexpr const char* type_name = "ping";
  static constexpr auto fields() { return std::tuple{field("request", &ping::request)}; }
  bool operator==(const ping&) const = default;
};

/// Makes ready for a program of a language that the guest itself has waiting (Bash). The guest
/// answers with warmed, once, or not at all when it cannot.
struct prepare {
  std::string language;

  static constexpr const char* type_name = "prepare";
  static constexpr auto fields() { return std::tuple{field("language", &prepare::language)}; }
  bool operator==(const prepare&) const = default;
};

// --- guest to server -----------------------------------------------------------------------------

/// The guest is up. First frame of every guest.
struct hello {
  std::uint32_t version = protocol_version;
  std::vector<std::string> languages;

  static constexpr const char* type_name = "hello";
  static constexpr auto fields() {
    return std::tuple{
        field("version", &hello::version),
        opt("languages", &hello::languages, "Languages whose tools are in the image.")};
  }
  bool operator==(const hello&) const = default;
};

/// A warm interpreter of this language is ready.
struct warmed {
  std::string language;

  static constexpr const char* type_name = "warmed";
  static constexpr auto fields() { return std::tuple{field("language", &warmed::language)}; }
  bool operator==(const warmed&) const = default;
};

/// The program runs.
struct job_started {
  std::uint32_t job = 0;
  run_path path = run_path::cold;

  static constexpr const char* type_name = "job_started";
  static constexpr auto fields() {
    return std::tuple{field("job", &job_started::job), field("path", &job_started::path)};
  }
  bool operator==(const job_started&) const = default;
};

/// Output as it was written.
struct output {
  std::uint32_t job = 0;
  std::uint32_t stream = stdout_stream;
  bytes data;

  static constexpr const char* type_name = "output";
  static constexpr auto fields() {
    return std::tuple{field("job", &output::job), field("stream", &output::stream),
                      field("data", &output::data)};
  }
  bool operator==(const output&) const = default;
};

/// Standard input was handed to the program; makes room for more.
struct stdin_taken {
  std::uint32_t job = 0;
  std::uint64_t bytes_taken = 0;

  static constexpr const char* type_name = "stdin_taken";
  static constexpr auto fields() {
    return std::tuple{field("job", &stdin_taken::job), field("bytes", &stdin_taken::bytes_taken)};
  }
  bool operator==(const stdin_taken&) const = default;
};

/// The compiled program, before it runs. Chunks in order; the last one says so.
struct binary {
  std::uint32_t job = 0;
  bytes data;
  bool last = false;

  static constexpr const char* type_name = "binary";
  static constexpr auto fields() {
    return std::tuple{field("job", &binary::job), field("data", &binary::data),
                      opt("last", &binary::last)};
  }
  bool operator==(const binary&) const = default;
};

/// The job's whole tree is dead and all its output was sent.
struct job_ended {
  std::uint32_t job = 0;
  maybe<std::int32_t> exit_code;
  maybe<std::uint32_t> signal;
  std::uint64_t wall_us = 0;
  std::uint64_t cpu_us = 0;
  std::uint64_t memory_peak_bytes = 0;
  std::uint64_t stdout_lost = 0;
  std::uint64_t stderr_lost = 0;

  static constexpr const char* type_name = "job_ended";
  static constexpr auto fields() {
    return std::tuple{field("job", &job_ended::job),
                      opt("exit_code", &job_ended::exit_code),
                      opt("signal", &job_ended::signal),
                      field("wall_us", &job_ended::wall_us),
                      field("cpu_us", &job_ended::cpu_us),
                      field("memory_peak_bytes", &job_ended::memory_peak_bytes),
                      field("stdout_lost", &job_ended::stdout_lost),
                      field("stderr_lost", &job_ended::stderr_lost)};
  }
  bool operator==(const job_ended&) const = default;
};

/// The job could not be started; nothing of it runs.
struct job_refused {
  std::uint32_t job = 0;
  std::string reason;

  static constexpr const char* type_name = "job_refused";
  static constexpr auto fields() {
    return std::tuple{field("job", &job_refused::job), field("reason", &job_refused::reason)};
  }
  bool operator==(const job_refused&) const = default;
};

/// Answer to put_file, once for each chunk.
struct file_put {
  std::uint32_t request = 0;
  ec failure = ec::none;
  std::string error;
  maybe<file_info> info;

  static constexpr const char* type_name = "file_put";
  static constexpr auto fields() {
    return std::tuple{field("request", &file_put::request),
                      opt("failure", &file_put::failure, "none: written."),
                      opt("error", &file_put::error, "What failed, for a human."),
                      opt("info", &file_put::info, "Where it was wanted.")};
  }
  bool operator==(const file_put&) const = default;
};

/// Answer to get_file.
struct file_data {
  std::uint32_t request = 0;
  bytes data;
  std::uint64_t size = 0;
  bool eof = false;
  ec failure = ec::none;
  std::string error;

  static constexpr const char* type_name = "file_data";
  static constexpr auto fields() {
    return std::tuple{field("request", &file_data::request),
                      opt("data", &file_data::data),
                      opt("size", &file_data::size, "Size of the whole file."),
                      opt("eof", &file_data::eof),
                      opt("failure", &file_data::failure, "none: read."),
                      opt("error", &file_data::error, "What failed, for a human.")};
  }
  bool operator==(const file_data&) const = default;
};

/// Answer to list_dir.
struct dir_listed {
  std::uint32_t request = 0;
  std::vector<file_info> entries;
  bool truncated = false;
  ec failure = ec::none;
  std::string error;

  static constexpr const char* type_name = "dir_listed";
  static constexpr auto fields() {
    return std::tuple{field("request", &dir_listed::request),
                      opt("entries", &dir_listed::entries, "Sorted by path."),
                      opt("truncated", &dir_listed::truncated, "Whether there are more."),
                      opt("failure", &dir_listed::failure, "none: listed."),
                      opt("error", &dir_listed::error, "What failed, for a human.")};
  }
  bool operator==(const dir_listed&) const = default;
};

/// Answer to stat_path, make_path, move_path, remove_path, watch_path, unwatch_path.
struct path_done {
  std::uint32_t request = 0;
  maybe<file_info> info;
  std::string path;
  ec failure = ec::none;
  std::string error;

  static constexpr const char* type_name = "path_done";
  static constexpr auto fields() {
    return std::tuple{field("request", &path_done::request),
                      opt("info", &path_done::info, "What the path names now, if anything."),
                      opt("path", &path_done::path, "Absolute."),
                      opt("failure", &path_done::failure, "none: done."),
                      opt("error", &path_done::error, "What failed, for a human.")};
  }
  bool operator==(const path_done&) const = default;
};

/// What happened below watched directories, oldest first.
struct files_changed {
  std::vector<file_event> events;

  static constexpr const char* type_name = "files_changed";
  static constexpr auto fields() { return std::tuple{field("events", &files_changed::events)}; }
  bool operator==(const files_changed&) const = default;
};

/// Answer to open_kernel: it is ready, or why there is none.
struct kernel_opened {
  std::string context;
  run_path path = run_path::cold;
  std::string error;

  static constexpr const char* type_name = "kernel_opened";
  static constexpr auto fields() {
    return std::tuple{field("context", &kernel_opened::context), opt("path", &kernel_opened::path),
                      opt("error", &kernel_opened::error, "Empty: it is ready.")};
  }
  bool operator==(const kernel_opened&) const = default;
};

/// An interpreter's process is dead, with all that it had started.
struct kernel_ended {
  std::string context;
  maybe<std::int32_t> exit_code;
  maybe<std::uint32_t> signal;

  static constexpr const char* type_name = "kernel_ended";
  static constexpr auto fields() {
    return std::tuple{field("context", &kernel_ended::context),
                      opt("exit_code", &kernel_ended::exit_code),
                      opt("signal", &kernel_ended::signal)};
  }
  bool operator==(const kernel_ended&) const = default;
};

/// A cell ended and all its output was sent. When its interpreter died with it, exit_code or signal
/// are the process's, as the operating system has them; kernel_ended follows.
struct cell_ended {
  job_ended ended;
  cell_report report;
  std::uint64_t results_lost = 0;
  std::uint64_t results_lost_bytes = 0;
  std::uint64_t late_bytes = 0;
  std::string reason;

  static constexpr const char* type_name = "cell_ended";
  static constexpr auto fields() {
    return std::tuple{
        field("ended", &cell_ended::ended),
        field("report", &cell_ended::report),
        opt("results_lost", &cell_ended::results_lost,
            "Results that were beyond what one cell may show."),
        opt("results_lost_bytes", &cell_ended::results_lost_bytes),
        opt("late_bytes", &cell_ended::late_bytes,
            "What processes of earlier cells wrote since; it is nobody's."),
        opt("reason", &cell_ended::reason, "Why the guest ended the interpreter, if it did.")};
  }
  bool operator==(const cell_ended&) const = default;
};

/// Answer to freeze: all interpreters rest, and these have a copy under the number; or why not, and
/// then everything goes on as if nothing had been asked.
struct frozen {
  std::uint32_t request = 0;
  std::vector<std::string> contexts;
  std::string error;

  static constexpr const char* type_name = "frozen";
  static constexpr auto fields() {
    return std::tuple{field("request", &frozen::request), opt("contexts", &frozen::contexts),
                      opt("error", &frozen::error, "Empty: frozen.")};
  }
  bool operator==(const frozen&) const = default;
};

/// Answer to thaw: these live. All others were told by kernel_ended.
struct thawed {
  std::uint32_t request = 0;
  std::vector<std::string> contexts;
  std::string error;

  static constexpr const char* type_name = "thawed";
  static constexpr auto fields() {
    return std::tuple{field("request", &thawed::request), opt("contexts", &thawed::contexts),
                      opt("error", &thawed::error, "What could not be brought back, and why.")};
  }
  bool operator==(const thawed&) const = default;
};

/// Answer to ping.
struct pong {
  std::uint32_t request = 0;

  static constexpr const char* type_name = "pong";
  static constexpr auto fields() { return std::tuple{field("request", &pong::request)}; }
  bool operator==(const pong&) const = default;
};

/// The machine's memory was copied or taken back: what must not be the same in two machines is made
/// anew before the guest takes another job. Only machines that are whole computers need it.
struct renew {
  bytes entropy;
  std::int64_t clock_us = 0;
  std::string hostname;
  std::string machine_id;

  static constexpr const char* type_name = "renew";
  static constexpr auto fields() {
    return std::tuple{field("entropy", &renew::entropy, "32 bytes or more from the server."),
                      field("clock_us", &renew::clock_us, "Unix time, microseconds."),
                      field("hostname", &renew::hostname), field("machine_id", &renew::machine_id)};
  }
  bool operator==(const renew&) const = default;
};

/// Answer to renew: random numbers, clock, hostname and id are the machine's own.
struct renewed {
  std::string error;

  static constexpr const char* type_name = "renewed";
  static constexpr auto fields() {
    return std::tuple{opt("error", &renewed::error, "Empty: done.")};
  }
  bool operator==(const renewed&) const = default;
};

/// What the machine may use from now on, in effect before any later frame. Only machines that are
/// whole computers need it: their own kernel keeps the limits.
struct limit {
  std::uint64_t memory_bytes = 0;
  std::uint64_t processes = 0;
  std::uint64_t disk_bytes = 0;

  static constexpr const char* type_name = "limit";
  static constexpr auto fields() {
    return std::tuple{field("memory_bytes", &limit::memory_bytes),
                      field("processes", &limit::processes),
                      field("disk_bytes", &limit::disk_bytes)};
  }
  bool operator==(const limit&) const = default;
};

/// What the machine uses, unasked: before every end of a job, and now and then while one runs. Only
/// machines that are whole computers say it: the server cannot see into them.
struct used {
  std::uint64_t memory_bytes = 0;
  std::uint64_t memory_peak_bytes = 0;
  std::uint64_t cpu_us = 0;
  std::uint64_t processes = 0;
  std::uint64_t disk_bytes = 0;
  std::uint64_t disk_limit_bytes = 0;
  std::uint64_t oom_kills = 0;

  static constexpr const char* type_name = "used";
  static constexpr auto fields() {
    return std::tuple{field("memory_bytes", &used::memory_bytes),
                      field("memory_peak_bytes", &used::memory_peak_bytes),
                      field("cpu_us", &used::cpu_us),
                      field("processes", &used::processes),
                      field("disk_bytes", &used::disk_bytes),
                      field("disk_limit_bytes", &used::disk_limit_bytes),
                      field("oom_kills", &used::oom_kills,
                            "Processes killed for lack of memory since the machine's start.")};
  }
  bool operator==(const used&) const = default;
};

/// Everything a server may say.
using to_guest = std::variant<start_job, stdin_data, end_job, put_file, get_file, list_dir,
                              stat_path, make_path, move_path, remove_path, watch_path,
                              unwatch_path, ping, prepare, open_kernel, run_cell, interrupt_kernel,
                              close_kernel, freeze, thaw, drop_checkpoint, renew, limit>;
/// Everything a guest may say.
using from_guest =
    std::variant<hello, warmed, job_started, output, stdin_taken, binary, job_ended, job_refused,
                 file_put, file_data, dir_listed, path_done, files_changed, pong, kernel_opened,
                 kernel_ended, cell_ended, frozen, thawed, renewed, used>;

/// Reads one frame's body as one of the messages of a variant, by its tag.
template <class Variant>
decoded<Variant> decode_frame(std::span<const char> body);

/// A frame: length and body.
template <described T>
bytes encode_frame(const T& message) {
  bytes body = encode_tagged(message);
  auto size = static_cast<std::uint32_t>(body.size());
  char head[4] = {static_cast<char>(size & 0xFF), static_cast<char>((size >> 8) & 0xFF),
                  static_cast<char>((size >> 16) & 0xFF), static_cast<char>(size >> 24)};
  body.insert(body.begin(), head, head + 4);
  return body;
}

/// Cuts a byte stream into frame bodies. A length beyond the limit ends the stream for good.
class frame_cutter {
public:
  /// Takes bytes as they come.
  void push(std::span<const char> data) { buffer_.insert(buffer_.end(), data.begin(), data.end()); }

  /// The next whole frame's body, valid until the next call; nothing when more bytes are needed or
  /// the stream is broken.
  std::optional<std::span<const char>> next();

  /// Whether the peer announced a frame beyond limits::frame_bytes_max, or an empty one.
  bool broken() const { return broken_; }

private:
  std::vector<char> buffer_;
  std::size_t start_ = 0;
  bool broken_ = false;
};

inline std::optional<std::span<const char>> frame_cutter::next() {
  auto at = [&](std::size_t i) {
    return static_cast<std::uint32_t>(static_cast<unsigned char>(buffer_[start_ + i]));
  };
  std::size_t available = buffer_.size() - start_;
  if (!broken_ && available >= 4) {
    std::size_t size = at(0) | at(1) << 8 | at(2) << 16 | at(3) << 24;
    broken_ = size == 0 || size > limits::frame_bytes_max;
    if (!broken_ && available >= 4 + size) {
      std::span<const char> body{buffer_.data() + start_ + 4, size};
      start_ += 4 + size;
      return body;
    }
  }
  buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<std::ptrdiff_t>(start_));
  start_ = 0;
  return std::nullopt;
}

namespace detail {

template <class T, class Variant>
bool try_tag(std::string_view tag, const msgpack::object& from, std::optional<Variant>& to,
             malformed& why) {
  if (tag != T::type_name)
    return false;
  auto message = decode<T>(from);
  if (message)
    to = std::move(*message);
  else
    why = malformed{message.why().field, std::string{tag} + ": " + message.why().reason};
  return true;
}

template <class... Ts>
decoded<std::variant<Ts...>> decode_one_of(std::span<const char> body,
                                           std::type_identity<std::variant<Ts...>>) {
  decode_bounds bounds{.elements = limits::elements_max,
                       .text_bytes = limits::frame_bytes_max,
                       .binary_bytes = limits::frame_bytes_max,
                       .depth = limits::depth_max};
  auto tree = object_tree::parse(body, bounds);
  if (!tree)
    return tree.why();
  std::string_view tag = type_tag(tree->root());
  std::optional<std::variant<Ts...>> message;
  malformed why{"type", "is not the name of a frame"};
  (void)(... || try_tag<Ts>(tag, tree->root(), message, why));
  if (!message)
    return why;
  return std::move(*message);
}

} // namespace detail

template <class Variant>
decoded<Variant> decode_frame(std::span<const char> body) {
  return detail::decode_one_of(body, std::type_identity<Variant>{});
}

} // namespace berth::guest
