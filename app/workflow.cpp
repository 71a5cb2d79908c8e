// SPDX-License-Identifier: Apache-2.0
#include "app/interrupts.hpp"
#include "app/show.hpp"
#include "app/workflow_tree.hpp"

#include <sys/ioctl.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <unistd.h>

namespace berth {

namespace {

using terminal::tint;

/// How often a tree is drawn while nothing but time goes by.
constexpr std::chrono::milliseconds frame_time{200};
/// Lines of what a step says that are drawn.
constexpr std::size_t output_lines = 3;

tint tint_of_line(workflow_line::look how) {
  switch (how) {
  case workflow_line::look::heading:
    return tint::bold;
  case workflow_line::look::running:
    return tint::cyan;
  case workflow_line::look::done:
    return tint::green;
  case workflow_line::look::failed:
    return tint::red;
  case workflow_line::look::warning:
    return tint::yellow;
  case workflow_line::look::waiting:
  case workflow_line::look::aside:
    return tint::plain;
  case workflow_line::look::output:
    break;
  }
  return tint::dim;
}

int exit_code_of(workflow_status status) {
  switch (status) {
  case workflow_status::completed:
    return 0;
  case workflow_status::cancelled:
    return 130;
  case workflow_status::failed:
    return 1;
  default:
    return 125;
  }
}

/// Draws a tree on standard error, over the one before.
class canvas {
public:
  void draw(const std::vector<workflow_line>& lines) {
    winsize size{};
    if (::ioctl(2, TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
      size = {.ws_row = 24, .ws_col = 80, .ws_xpixel = 0, .ws_ypixel = 0};
    std::size_t rows = std::min<std::size_t>(lines.size(), std::max(2, size.ws_row - 1));
    std::string frame;
    if (drawn_ > 0)
      frame += "\x1b[" + std::to_string(drawn_) + "A\r";
    frame += "\x1b[J";
    // What does not fit is at the top, below the heading: what happens now is at the end.
    for (std::size_t i = 0; i < lines.size(); ++i)
      if (i == 0 || i + rows > lines.size())
        frame += painted(lines[i], size.ws_col) + "\n";
    drawn_ = rows;
    std::fputs(frame.c_str(), stderr);
    std::fflush(stderr);
  }

  static std::string painted(const workflow_line& line, std::size_t columns) {
    std::string text = line.rails + terminal::clean(line.text);
    std::size_t used = 0;
    std::size_t end = 0;
    for (; end < text.size(); ++end) {
      bool begins = (static_cast<unsigned char>(text[end]) & 0xC0) != 0x80;
      if (begins && ++used >= columns)
        break;
    }
    std::size_t rails = std::min(end, line.rails.size());
    return text.substr(0, rails)
           + terminal::paint(tint_of_line(line.how), text.substr(rails, end - rails), 2);
  }

private:
  std::size_t drawn_ = 0;
};

std::int64_t clock_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

/// One workflow, from its first event to its last.
class live_workflow {
public:
  live_workflow(client& server, bool as_json, std::string id)
    : server_(server)
    , json_(as_json)
    , drawn_(!as_json && ::isatty(2) == 1)
    , id_(std::move(id)) {}

  int follow();

private:
  void ask();
  bool heed_signal();
  std::optional<int> take(const client_reply& reply);
  void show(const progress_event& event);
  void draw();
  int finish();

  client& server_;
  bool json_;
  bool drawn_;
  std::string id_;
  bool cancelled_ = false;
  std::uint64_t reading_ = 0;
  std::uint64_t seen_ = 0;
  workflow_tree tree_;
  canvas canvas_;
  std::int64_t clock_ahead_ms_ = 0; // of ours, before the server's
  std::chrono::steady_clock::time_point answered_at_ = std::chrono::steady_clock::now();
  interrupts signals_{SIGINT, SIGTERM, SIGHUP};
};

void live_workflow::ask() {
  reading_ =
      server_.send(read_progress{.id = id_, .after = seen_, .wait_ms = client::news_wait_ms});
}

int live_workflow::follow() {
  ask();
  for (;;) {
    std::array<zmq::pollitem_t, 2> items{
        {server_.poll_item(), {nullptr, signals_.fd(), ZMQ_POLLIN, 0}}};
    auto pause = drawn_ ? frame_time : client::silence_max;
    zmq::poll(items.data(), items.size(), pause);
    while (auto reply = server_.receive())
      if (auto code = take(*reply))
        return *code;
    if (items[1].revents != 0 && !heed_signal())
      return 130;
    draw();
    if (std::chrono::steady_clock::now() - answered_at_ > client::silence_max)
      return terminal::report(server_.silence() + "; `berth workflow status " + id_
                              + "` asks it again");
  }
}

/// False: the second signal, nobody wants to wait any longer.
bool live_workflow::heed_signal() {
  if (!signals_.take())
    return true;
  if (cancelled_)
    return false;
  cancelled_ = true;
  if (!drawn_)
    std::fprintf(stderr, "berth: cancelling; once more to leave at once\n");
  server_.send(cancel_workflow{id_});
  return true;
}

std::optional<int> live_workflow::take(const client_reply& reply) {
  answered_at_ = std::chrono::steady_clock::now();
  if (reply.id != reading_)
    return std::nullopt;
  auto page = client::read<progress_page>(reply);
  if (!page)
    return terminal::report(page.error());
  for (const progress_event& each : page->events) {
    show(each);
    seen_ = each.seq;
  }
  if (tree_.ended())
    return finish();
  ask();
  return std::nullopt;
}

void live_workflow::show(const progress_event& event) {
  tree_.take(event);
  clock_ahead_ms_ = clock_ms() - event.at_ms;
  if (json_) {
    print_json(event);
  } else if (!drawn_) {
    if (std::string line = line_of(event); !line.empty())
      std::fprintf(stderr, "%s\n", terminal::clean(line).c_str());
  }
}

void live_workflow::draw() {
  if (drawn_)
    canvas_.draw(tree_.draw(clock_ms() - clock_ahead_ms_, output_lines));
}

/// What came of it is asked for: an event shows but a part of a long result.
int live_workflow::finish() {
  draw();
  auto info = server_.ask<workflow_info>(get_workflow{id_});
  if (!info)
    return terminal::report(info.error());
  if (json_) {
    print_json(*info);
  } else {
    if (!info->result.empty())
      std::printf("%s\n", info->result.c_str());
    if (!info->error.empty())
      terminal::report(terminal::clean(info->error));
  }
  return exit_code_of(info->status);
}

/// The steps in a file: a JSON list, or an object with one as `steps`.
expected<std::vector<workflow_step>> read_steps(const std::string& path) {
  std::ifstream file{path};
  std::ostringstream text;
  text << file.rdbuf();
  if (!file)
    return fail(ec::not_found, "cannot read " + path);
  auto tree = parse_json(text.str());
  if (!tree)
    return fail(ec::malformed, path + ": " + tree.why().text());
  json list = tree->is_object() && tree->contains("steps") ? (*tree)["steps"] : *tree;
  json request{{"pattern", "prompt_chaining"}, {"prompt", "-"}, {"steps", std::move(list)}};
  auto read = from_json<run_workflow>(request);
  if (!read)
    return fail(ec::malformed, path + ": " + read.why().text());
  return std::move(read->steps);
}

void show_info(const workflow_info& info) {
  workflow_tree tree;
  tree.take(info);
  bool alive = !is_terminal(info.status);
  for (const workflow_line& each : tree.draw(alive ? clock_ms() : 0, output_lines))
    std::printf("%s\n", canvas::painted(each, terminal::width()).c_str());
  if (!info.result.empty())
    std::printf("\n%s\n", info.result.c_str());
  if (!info.error.empty())
    std::printf("\n%s\n", terminal::paint(tint::red, terminal::clean(info.error)).c_str());
}

template <class Request>
int ask_about(const common_options& common, const std::string& id,
              std::chrono::milliseconds timeout = std::chrono::seconds{30}) {
  Request request;
  request.workflow = id;
  return ask_and_show<workflow_info>(
      common, request,
      [](const workflow_info& info) {
        std::printf("%s %s\n", info.workflow.c_str(), std::string{name_of(info.status)}.c_str());
      },
      timeout);
}

} // namespace

static std::optional<workflow_pattern> pattern_of_name(std::string name) {
  std::ranges::replace(name, '-', '_');
  struct alias {
    std::string_view name;
    workflow_pattern pattern;
  };
  constexpr std::array aliases{alias{"chain", workflow_pattern::prompt_chaining},
                               alias{"prompt_chain", workflow_pattern::prompt_chaining},
                               alias{"route", workflow_pattern::routing},
                               alias{"parallel", workflow_pattern::parallelization},
                               alias{"orchestrate", workflow_pattern::orchestration},
                               alias{"optimize", workflow_pattern::optimization},
                               alias{"execute", workflow_pattern::vm_execution},
                               alias{"vm_execution_demo", workflow_pattern::vm_execution}};
  for (const alias& each : aliases)
    if (each.name == name)
      return each.pattern;
  return from_name<workflow_pattern>(name);
}

int command_workflow_run(const common_options& common, const workflow_options& options) {
  submit_workflow request;
  request.prompt = options.prompt;
  request.role = options.role;
  request.overall_role = options.overall_role;
  request.system_prompt = options.system_prompt;
  request.model.model = options.model;
  request.rounds_max = options.rounds;
  request.votes = options.votes;
  if (options.threshold >= 0)
    request.threshold = options.threshold;
  auto pattern = pattern_of_name(options.pattern);
  if (!pattern)
    return terminal::report("the pattern " + options.pattern
                            + " does not exist; there are chain, route, parallel, orchestrate, "
                              "optimize and execute");
  request.pattern = *pattern;
  if (!options.steps.empty()) {
    auto steps = read_steps(options.steps);
    if (!steps)
      return terminal::report(steps.error());
    request.steps = std::move(*steps);
  }
  auto server = client::connect(common.endpoint);
  if (!server)
    return terminal::report(server.error());
  auto started = (*server)->ask<workflow_info>(request);
  if (!started)
    return terminal::report(started.error());
  if (options.detach) {
    if (common.json)
      print_json(*started);
    else
      std::printf("%s\n", started->workflow.c_str());
    return 0;
  }
  return live_workflow{**server, common.json, started->workflow}.follow();
}

int command_workflows(const common_options& common, const list_workflows& request) {
  return ask_and_show<workflow_list>(common, request, [](const workflow_list& list) {
    terminal::table rows{{"WORKFLOW", "PATTERN", "STATUS", "DONE", "STARTED", "STEP", "TASK"}};
    for (const workflow_info& each : list.workflows)
      rows.add({each.workflow, std::string{name_of(each.pattern)},
                std::string{name_of(each.status)},
                std::to_string(static_cast<int>(each.progress)) + "%",
                terminal::moment(each.started_at_ms), each.current_step, each.prompt},
               {tint::plain, tint::plain,
                each.status == workflow_status::completed ? tint::green : tint::yellow});
    rows.print("no workflow was run");
  });
}

int command_workflow_status(const common_options& common, const std::string& id) {
  return ask_and_show<workflow_info>(common, get_workflow{id}, show_info);
}

int command_workflow_cancel(const common_options& common, const std::string& id) {
  return ask_about<cancel_workflow>(common, id);
}

int command_workflow_pause(const common_options& common, const std::string& id) {
  return ask_about<pause_workflow>(common, id);
}

int command_workflow_resume(const common_options& common, const std::string& id) {
  return ask_about<resume_workflow>(common, id);
}

} // namespace berth
