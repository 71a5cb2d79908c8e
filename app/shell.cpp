// SPDX-License-Identifier: Apache-2.0
#include "app/interrupts.hpp"
#include "app/line_editor.hpp"
#include "app/shell_input.hpp"
#include "app/show.hpp"
#include "config/languages.hpp"

#include <array>

namespace berth {

namespace {

using terminal::tint;

constexpr std::size_t input_chunk = 4096;

/// One cell, from `submit` to its end: output as it comes, input from the terminal, interrupts.
class cell_run {
public:
  cell_run(client& server, const common_options& common, const submit& cell, std::string context)
    : server_(server)
    , common_(common)
    , session_(cell.session)
    , context_(std::move(context))
    , forwards_(cell.stdin_open) {}

  expected<outcome> follow(const accepted& started);

private:
  void ask_for_output();
  void forward_input();
  void on_interrupt();
  void give_up_on_interrupt(const client_reply& reply);
  error take(const client_reply& reply);
  void show(const output_slice& slice);

  client& server_;
  const common_options& common_;
  std::string session_;
  std::string context_;
  std::string job_;
  bool forwards_;
  int interrupted_ = 0;
  std::uint64_t reading_ = 0;
  std::uint64_t writing_ = 0;
  std::uint64_t interrupting_ = 0;
  berth::read next_;
  std::optional<outcome> ended_;
  char last_ = '\n';
};

void cell_run::ask_for_output() {
  next_.job = job_;
  next_.wait_ms = client::news_wait_ms;
  reading_ = server_.send(next_);
}

expected<outcome> cell_run::follow(const accepted& started) {
  interrupts signals;
  job_ = started.job;
  ask_for_output();
  while (!ended_) {
    std::array<zmq::pollitem_t, 3> items{{
        server_.poll_item(),
        {nullptr, signals.fd(), ZMQ_POLLIN, 0},
        {nullptr, 0, ZMQ_POLLIN, 0},
    }};
    bool listens = forwards_ && writing_ == 0;
    if (zmq::poll(items.data(), listens ? 3 : 2, client::silence_max) == 0)
      return fail(ec::deadline, server_.silence());
    while (auto reply = server_.receive())
      if (error why = take(*reply))
        return why;
    if (items[1].revents != 0 && signals.take())
      on_interrupt();
    if (listens && items[2].revents != 0)
      forward_input();
  }
  if (!common_.json && last_ != '\n')
    std::printf("\n");
  return std::move(*ended_);
}

/// Once: the cell stops and its variables stay. Again: it is ended.
void cell_run::on_interrupt() {
  if (++interrupted_ == 1)
    interrupting_ = server_.send(interrupt{.session = session_, .context = context_});
  else
    server_.send(berth::cancel{.job = job_});
}

void cell_run::forward_input() {
  auto piece = read_input(job_, input_chunk);
  if (!piece)
    return;
  forwards_ = !piece->eof;
  writing_ = server_.send(*piece);
}

/// A cell that does not run yet cannot be interrupted: it is cancelled.
void cell_run::give_up_on_interrupt(const client_reply& reply) {
  auto sent = client::read<interrupt_sent>(reply);
  if (!sent || !sent->was_busy)
    server_.send(berth::cancel{.job = job_});
}

error cell_run::take(const client_reply& reply) {
  if (reply.id == interrupting_)
    give_up_on_interrupt(reply);
  if (reply.id == writing_) {
    writing_ = 0;
    forwards_ = forwards_ && reply.ok;
  }
  if (reply.id != reading_)
    return {};
  auto slice = client::read<output_slice>(reply);
  if (!slice)
    return slice.error();
  show(*slice);
  next_.stdout_offset = slice->stdout_offset + slice->stdout_data.size();
  next_.stderr_offset = slice->stderr_offset + slice->stderr_data.size();
  if (slice->ended)
    ended_ = std::move(*slice->ended);
  else
    ask_for_output();
  return {};
}

void cell_run::show(const output_slice& slice) {
  if (common_.json) {
    if (!slice.stdout_data.empty() || !slice.stderr_data.empty() || slice.ended)
      print_json(slice);
    return;
  }
  for (const bytes* data : {&slice.stdout_data, &slice.stderr_data}) {
    write_all(data == &slice.stdout_data ? 1 : 2, *data);
    if (!data->empty())
      last_ = data->back();
  }
}

/// What a cell gave, for a human: its values as text; what has none by its kind.
void show_results(const outcome& ended) {
  if (!ended.cell)
    return;
  for (const rich_result& each : ended.cell->results) {
    auto text = each.data.find("text/plain");
    if (text != each.data.end()) {
      std::printf("%s\n", text->second.c_str());
      continue;
    }
    for (const auto& [kind, data] : each.data)
      std::printf("[%s, %s]\n", terminal::clean(kind).c_str(), terminal::size(data.size()).c_str());
  }
}

/// Reads cells and runs them, until nothing more is typed.
class shell {
public:
  shell(client& server, const common_options& common, const shell_options& options,
        std::string language)
    : server_(server)
    , common_(common)
    , options_(options)
    , language_(std::move(language)) {}

  int run();

private:
  bool read_cell(std::string& cell);
  int run_cell(const std::string& cell);

  client& server_;
  const common_options& common_;
  const shell_options& options_;
  std::string language_;
  line_editor editor_;
};

/// False: nothing more comes, and nothing was begun.
bool shell::read_cell(std::string& cell) {
  cell.clear();
  std::string prompt = language_ + "> ";
  std::string more(prompt.size() - 2, '.');
  std::string line;
  bool begun = false;
  for (;;) {
    auto got = editor_.read(begun ? more + "  " : prompt, line);
    if (got == line_editor::result::end)
      return begun;
    if (got == line_editor::result::interrupted) {
      cell.clear();
      begun = false;
      continue;
    }
    cell += (begun ? "\n" : "") + line;
    begun = begun || line.find_first_not_of(" \t\r") != std::string::npos;
    if (!begun)
      cell.clear();
    else if (!wants_more(language_, cell))
      return true;
  }
}

int shell::run_cell(const std::string& cell) {
  submit request;
  request.session = options_.session;
  request.language = language_;
  request.code = cell;
  request.kernel = true;
  request.context = options_.context;
  request.stdin_open = editor_.interactive();
  if (options_.timeout_s > 0)
    request.timeout_ms = static_cast<std::uint64_t>(options_.timeout_s * 1000 + 0.5);
  auto started = server_.ask<accepted>(request);
  if (!started)
    return terminal::report(started.error());
  std::string context = options_.context.empty() ? language_ : options_.context;
  auto ended = cell_run{server_, common_, request, std::move(context)}.follow(*started);
  if (!ended)
    return terminal::report(ended.error());
  if (!common_.json) {
    show_results(*ended);
    std::fflush(stdout);
    std::string said = ended->state == job_state::exited ? ended->detail : ending_of(*ended);
    if (!said.empty())
      terminal::report(terminal::clean(said));
    if (ended->cell && !ended->cell->kernel_alive)
      terminal::report("the interpreter is gone with its variables; the next cell gets a new one");
  }
  return exit_code_of(*ended);
}

int shell::run() {
  if (editor_.interactive())
    std::printf("%s in session %s. Ctrl-C stops a cell and keeps the variables, Ctrl-D leaves.\n",
                language_.c_str(), options_.session.c_str());
  int code = 0;
  for (std::string cell; read_cell(cell);) {
    editor_.remember(cell);
    code = run_cell(cell);
  }
  return editor_.interactive() ? 0 : code;
}

} // namespace

int command_shell(const common_options& common, const shell_options& options) {
  auto language = canonical_language(options.language);
  if (!language)
    return terminal::report("-l " + options.language
                            + ": live interpreters are python, javascript and bash");
  auto server = client::connect(common.endpoint);
  if (!server)
    return terminal::report(server.error());
  auto found =
      (*server)->ask<session_list>(list_sessions{.agent_id = {}, .session = options.session});
  if (!found)
    return terminal::report(found.error());
  if (found->sessions.empty()) {
    if (auto opened = (*server)->ask<session_info>(open_session{.name = options.session}); !opened)
      return terminal::report(opened.error());
  }
  return shell{**server, common, options, *language}.run();
}

} // namespace berth
