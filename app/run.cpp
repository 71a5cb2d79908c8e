// SPDX-License-Identifier: Apache-2.0
#include "app/interrupts.hpp"
#include "app/show.hpp"
#include "config/languages.hpp"
#include "messages/fd.hpp"

#include <sys/stat.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <optional>
#include <unistd.h>

namespace berth {

namespace {

constexpr std::size_t stdin_chunk = 64 * limits::kib;

/// All that a descriptor holds, within a bound.
expected<bytes> read_all(int fd, std::size_t bytes_max, const std::string& name) {
  bytes data;
  for (;;) {
    std::size_t old = data.size();
    data.resize(old + stdin_chunk);
    ssize_t got = ::read(fd, data.data() + old, stdin_chunk);
    data.resize(old + static_cast<std::size_t>(got > 0 ? got : 0));
    if (got < 0 && errno == EINTR)
      continue;
    if (got < 0)
      return fail(ec::malformed, "read " + name + ": " + std::strerror(errno));
    if (got == 0)
      return data;
    if (data.size() > bytes_max)
      return fail(ec::too_large, name + " is larger than " + terminal::size(bytes_max));
  }
}

expected<bytes> read_path(const std::string& path, std::size_t bytes_max) {
  owned_fd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (!file)
    return fail(ec::not_found, "open " + path + ": " + std::strerror(errno));
  return read_all(file.get(), bytes_max, path);
}

/// The language that a first line like `#!/usr/bin/env python3` names.
std::optional<std::string> shebang_language(const std::string& code) {
  if (!code.starts_with("#!"))
    return std::nullopt;
  std::string line = code.substr(2, code.find('\n') - 2);
  std::string word;
  std::optional<std::string> found;
  for (std::size_t i = 0; i <= line.size() && !found; ++i) {
    char c = i < line.size() ? line[i] : ' ';
    if (c != ' ' && c != '\t' && c != '/') {
      word += c;
      continue;
    }
    while (!word.empty() && (word.back() == '.' || (word.back() >= '0' && word.back() <= '9')))
      word.pop_back();
    found = canonical_language(word);
    word.clear();
  }
  return found;
}

/// What is asked of the server, from the command line.
expected<submit> make_request(const run_options& options) {
  submit request;
  auto code = options.file == "-" ? read_all(0, limits::code_bytes_max, "standard input")
                                  : read_path(options.file, limits::code_bytes_max);
  if (!code)
    return code.error();
  request.code.assign(code->begin(), code->end());
  if (!options.language.empty())
    request.language = options.language;
  else if (auto by_name = language_of_file(options.file))
    request.language = *by_name;
  else if (auto by_line = shebang_language(request.code))
    request.language = *by_line;
  else
    return fail(ec::malformed, "which language is " + options.file
                                   + "? Name it with -l (python, javascript, bash, rust or go)");
  request.args = options.args;
  if (!request.args.empty() && request.args.front() == "--")
    request.args.erase(request.args.begin());
  request.session = options.session;
  request.agent_id = options.agent;
  if (options.timeout_s > 0)
    request.timeout_ms = static_cast<std::uint64_t>(options.timeout_s * 1000 + 0.5);
  if (options.memory_mib > 0)
    request.memory_mib = options.memory_mib;
  for (const auto& pair : options.env) {
    auto equals = pair.find('=');
    if (equals == 0 || equals == std::string::npos)
      return fail(ec::malformed, "--env " + pair + ": expected NAME=VALUE");
    request.env[pair.substr(0, equals)] = pair.substr(equals + 1);
  }
  for (const auto& given : options.files) {
    auto colon = given.rfind(':');
    std::string from = given.substr(0, colon);
    auto data = read_path(from, limits::request_bytes_max);
    if (!data)
      return data.error();
    placed_file file;
    file.path =
        colon == std::string::npos ? from.substr(from.rfind('/') + 1) : given.substr(colon + 1);
    file.data = std::move(*data);
    struct stat there {};
    if (::stat(from.c_str(), &there) == 0)
      file.mode = there.st_mode & 0777;
    request.files.push_back(std::move(file));
  }
  return request;
}

/// Where standard input comes from decides how it goes to the program.
enum class input_kind { none, whole, live };

input_kind input_of(const run_options& options) {
  struct stat there {};
  if (options.file == "-" || ::fstat(0, &there) != 0)
    return input_kind::none;
  if (options.stdin_forward)
    return input_kind::live;
  if (S_ISREG(there.st_mode))
    return input_kind::whole;
  return S_ISFIFO(there.st_mode) || S_ISSOCK(there.st_mode) ? input_kind::live : input_kind::none;
}

/// One run, from `accepted` to its end: output out, input in, signals heeded.
class live_run {
public:
  live_run(client& server, bool as_json, std::string job, bool forwards)
    : server_(server)
    , json_(as_json)
    , job_(std::move(job))
    , forwards_(forwards) {}

  int follow();

private:
  void ask_for_output();
  void forward_input();
  bool heed_signal();
  std::optional<int> take(const client_reply& reply);
  std::optional<int> show(const output_slice& slice);
  void stop(const char* why);

  client& server_;
  bool json_;
  std::string job_;
  bool forwards_;
  bool writing_ = false;
  bool cancelled_ = false;
  bool deaf_ = false;
  std::uint64_t reading_ = 0;
  std::uint64_t stdin_id_ = 0;
  berth::read next_;
  interrupts signals_{SIGINT, SIGTERM, SIGHUP};
};

void live_run::ask_for_output() {
  next_.job = job_;
  next_.wait_ms = client::news_wait_ms;
  reading_ = server_.send(next_);
}

int live_run::follow() {
  ask_for_output();
  for (;;) {
    std::array<zmq::pollitem_t, 3> items{{
        server_.poll_item(),
        {nullptr, signals_.fd(), ZMQ_POLLIN, 0},
        {nullptr, 0, ZMQ_POLLIN, 0},
    }};
    bool listens = forwards_ && !writing_;
    if (zmq::poll(items.data(), listens ? 3 : 2, client::silence_max) == 0)
      return terminal::report(server_.silence());
    while (auto reply = server_.receive())
      if (auto code = take(*reply))
        return *code;
    if (items[1].revents != 0 && !heed_signal())
      return 130;
    if (listens && items[2].revents != 0)
      forward_input();
  }
}

/// False: the second signal, nobody wants to wait any longer.
bool live_run::heed_signal() {
  if (!signals_.take())
    return true;
  if (cancelled_)
    return false;
  stop("cancelling; once more to leave at once");
  return true;
}

void live_run::stop(const char* why) {
  if (cancelled_)
    return;
  cancelled_ = true;
  if (why != nullptr)
    std::fprintf(stderr, "%s %s\n", terminal::paint(terminal::tint::yellow, "berth:", 2).c_str(),
                 why);
  berth::cancel order;
  order.job = job_;
  server_.send(order);
}

void live_run::forward_input() {
  auto piece = read_input(job_, stdin_chunk);
  if (!piece)
    return;
  forwards_ = !piece->eof;
  // One piece at a time: the answer comes when the program's side has taken it.
  writing_ = true;
  stdin_id_ = server_.send(*piece);
}

std::optional<int> live_run::take(const client_reply& reply) {
  if (reply.id == stdin_id_) {
    writing_ = false;
    // A program may end, or close its input, before it has read all.
    forwards_ = forwards_ && reply.ok;
    return std::nullopt;
  }
  if (reply.id != reading_)
    return std::nullopt;
  auto slice = client::read<output_slice>(reply);
  if (!slice)
    return terminal::report(slice.error());
  if (auto code = show(*slice))
    return code;
  ask_for_output();
  return std::nullopt;
}

std::optional<int> live_run::show(const output_slice& slice) {
  next_.stdout_offset = slice.stdout_offset + slice.stdout_data.size();
  next_.stderr_offset = slice.stderr_offset + slice.stderr_data.size();
  if (json_) {
    if (!slice.stdout_data.empty() || !slice.stderr_data.empty() || slice.ended)
      print_json(slice);
  } else if (!deaf_ && !(write_all(1, slice.stdout_data) && write_all(2, slice.stderr_data))) {
    // Nobody reads what the program writes: as a pipe would, that ends it.
    deaf_ = true;
    stop(nullptr);
  }
  if (!slice.ended)
    return std::nullopt;
  const outcome& ended = *slice.ended;
  if (!json_) {
    if (slice.stdout_lost + slice.stderr_lost > 0)
      terminal::report(terminal::size(slice.stdout_lost + slice.stderr_lost)
                       + " of output beyond the limit were not kept");
    if (std::string said = ending_of(ended); !said.empty())
      terminal::report(said);
  }
  return deaf_ ? 128 + SIGPIPE : exit_code_of(ended);
}

} // namespace

int exit_code_of(const outcome& ended) {
  switch (ended.state) {
  case job_state::exited:
    return ended.exit_code.value_or(125);
  case job_state::signalled:
    return 128 + static_cast<int>(ended.signal.value_or(0));
  case job_state::timed_out:
    return 124;
  case job_state::out_of_memory:
    return 137;
  case job_state::cancelled:
    return 130;
  default:
    return 125;
  }
}

std::string ending_of(const outcome& ended) {
  std::string text;
  switch (ended.state) {
  case job_state::exited:
    return {};
  case job_state::signalled: {
    const char* name = ::sigabbrev_np(static_cast<int>(ended.signal.value_or(0)));
    text =
        "ended by signal "
        + (name != nullptr ? "SIG" + std::string{name} : std::to_string(ended.signal.value_or(0)));
    break;
  }
  case job_state::timed_out:
    text = "timed out after " + terminal::duration(ended.wall_us);
    break;
  case job_state::out_of_memory:
    text = "out of memory (peak " + terminal::size(ended.memory_peak_bytes) + ")";
    break;
  case job_state::blocked:
    text = "blocked by the policy";
    for (const auto& reason : ended.verdict.reasons)
      text += "\n  - " + terminal::clean(reason);
    return text;
  case job_state::machine_lost:
    text = "the machine was lost";
    break;
  default:
    text = name_of(ended.state);
  }
  return ended.detail.empty() ? text : text + ": " + terminal::clean(ended.detail);
}

bool write_all(int fd, const bytes& data) {
  for (std::size_t done = 0; done < data.size();) {
    ssize_t put = ::write(fd, data.data() + done, data.size() - done);
    if (put < 0 && errno == EINTR)
      continue;
    if (put < 0)
      return false;
    done += static_cast<std::size_t>(put);
  }
  return true;
}

std::optional<write_stdin> read_input(const std::string& job, std::size_t bytes_max) {
  write_stdin piece;
  piece.job = job;
  piece.data.resize(bytes_max);
  ssize_t got = ::read(0, piece.data.data(), piece.data.size());
  if (got < 0 && (errno == EINTR || errno == EAGAIN))
    return std::nullopt;
  piece.data.resize(static_cast<std::size_t>(got > 0 ? got : 0));
  piece.eof = got <= 0;
  return piece;
}

int command_run(const common_options& common, const run_options& options) {
  auto request = make_request(options);
  if (!request)
    return terminal::report(request.error());
  input_kind input = input_of(options);
  if (input == input_kind::whole) {
    auto data = read_all(0, limits::request_bytes_max / 2, "standard input");
    if (!data)
      return terminal::report(data.error());
    request->stdin_data = std::move(*data);
  }
  request->stdin_open = input == input_kind::live;
  auto server = client::connect(common.endpoint);
  if (!server)
    return terminal::report(server.error());
  auto started = (*server)->ask<accepted>(*request);
  if (!started && started.error() == ec::not_found && !options.session.empty()) {
    if (auto opened = (*server)->ask<session_info>(open_session{.name = options.session}); !opened)
      return terminal::report(opened.error());
    started = (*server)->ask<accepted>(*request);
  }
  if (!started)
    return terminal::report(started.error());
  if (common.json)
    print_json(*started);
  return live_run{**server, common.json, started->job, request->stdin_open}.follow();
}

} // namespace berth
