// SPDX-License-Identifier: Apache-2.0
#include "actors/agents/own_turn.hpp"
#include "actors/ids.hpp"
#include "app/interrupts.hpp"
#include "app/line_editor.hpp"
#include "app/show.hpp"
#include "config/limits.hpp"

#include <array>
#include <iostream>
#include <iterator>
#include <limits>
#include <optional>
#include <unistd.h>

namespace berth {

namespace {

using terminal::tint;

/// How long the last events of a turn may be behind its answer.
constexpr std::chrono::milliseconds late_events{2'000};
/// How long until a stream that has ended is looked at again: this turn begins it anew.
constexpr std::chrono::milliseconds again_wait{50};

/// Text of a model or a program as a terminal may get it: lines and tabs stay, other control
/// characters do not.
std::string shown(std::string_view text) {
  std::string made;
  for (char c : text)
    if (static_cast<unsigned char>(c) >= 0x20 || c == '\n' || c == '\t')
      made += c == 0x7f ? ' ' : c;
  return made;
}

/// What a turn tells while it goes on, written as it comes.
class event_view {
public:
  explicit event_view(bool as_json)
    : json_(as_json) {}

  void show(const progress_event& event);
  /// The answer, unless its tokens were shown.
  void end(const chat_reply& reply);

private:
  void begin_line() {
    if (last_ != '\n')
      put("\n");
  }
  void put(std::string_view text, tint how = tint::plain) {
    if (text.empty())
      return;
    std::string painted = how == tint::plain ? std::string{text} : terminal::paint(how, text);
    std::fwrite(painted.data(), 1, painted.size(), stdout);
    last_ = text.back();
  }
  void line(const std::string& text, tint how) {
    begin_line();
    put(terminal::clean(text), how);
    put("\n");
  }

  bool json_;
  char last_ = '\n';
  bool said_ = false; // tokens of the last round were shown
};

void event_view::show(const progress_event& event) {
  if (json_)
    return print_json(event);
  switch (event.kind) {
  case progress_kind::round:
    begin_line();
    said_ = false;
    break;
  case progress_kind::token:
    put(shown(event.text));
    said_ = true;
    break;
  case progress_kind::tool_call:
    if (event.name != "execute_code")
      line("* " + event.name + " " + event.text, tint::dim);
    break;
  case progress_kind::code:
    line("* " + event.name, tint::dim);
    put(shown(event.text));
    begin_line();
    line("* runs", tint::dim);
    break;
  case progress_kind::output:
    put(shown(event.text), event.name == "stderr" ? tint::yellow : tint::plain);
    break;
  case progress_kind::code_ended:
    line("* " + event.name + (event.text.empty() ? "" : ": " + event.text), tint::dim);
    break;
  case progress_kind::tool_result:
    if (event.job.empty() && event.text.starts_with("error"))
      line("* " + event.text, tint::red);
    break;
  case progress_kind::decision:
  case progress_kind::warning:
    line("* " + event.name + ": " + event.text, tint::yellow);
    break;
  default:
    break;
  }
  std::fflush(stdout);
}

void event_view::end(const chat_reply& reply) {
  if (json_)
    return print_json(reply);
  if (!said_ && !reply.text.empty()) {
    begin_line();
    put(shown(reply.text));
  }
  begin_line();
  if (reply.cut)
    line("* cut: the bound of rounds is reached", tint::yellow);
  std::fflush(stdout);
}

/// One turn, from its chat to its answer.
class chat_turn {
public:
  chat_turn(client& server, const common_options& common, chat request)
    : server_(server)
    , view_(common.json)
    , request_(std::move(request)) {
    request_.turn = "turn-" + new_hex_id();
    own_ = own_turn{request_.turn};
  }

  /// The exit code that stands for how it ended.
  int run();

private:
  using clock = std::chrono::steady_clock;

  error find_start();
  error take(const client_reply& reply);
  error take_events(const client_reply& reply);
  void ask_for_events();
  bool is_over() const { return reply_ && (own_.ended() || clock::now() > give_up_); }

  client& server_;
  event_view view_;
  chat request_;
  own_turn own_;
  std::uint64_t chatting_ = 0;
  std::uint64_t reading_ = 0;
  std::uint64_t after_ = 0;
  std::optional<clock::time_point> ask_at_; // nothing is to be had before
  int interrupted_ = 0;
  std::optional<chat_reply> reply_;
  clock::time_point give_up_;
};

/// Only what this turn tells is wanted, not what was told before.
error chat_turn::find_start() {
  read_progress past{.id = request_.conversation,
                     .after = std::numeric_limits<std::uint64_t>::max()};
  auto page = server_.ask<progress_page>(past);
  if (page)
    after_ = page->last_seq;
  return page || page.error() == ec::not_found ? error{} : page.error();
}

void chat_turn::ask_for_events() {
  ask_at_.reset();
  reading_ = server_.send(
      read_progress{.id = request_.conversation, .after = after_, .wait_ms = client::news_wait_ms});
}

int chat_turn::run() {
  interrupts signals;
  if (error why = find_start())
    return terminal::report(why);
  chatting_ = server_.send(request_);
  ask_for_events();
  while (!is_over()) {
    std::array<zmq::pollitem_t, 2> items{{
        server_.poll_item(),
        {nullptr, signals.fd(), ZMQ_POLLIN, 0},
    }};
    auto wait = ask_at_ ? again_wait : reply_ ? late_events : client::silence_max;
    if (zmq::poll(items.data(), items.size(), wait) == 0 && !reply_ && !ask_at_)
      return terminal::report(server_.silence());
    if (ask_at_ && clock::now() >= *ask_at_)
      ask_for_events();
    while (auto reply = server_.receive())
      if (error why = take(*reply))
        return terminal::report(why);
    if (items[1].revents == 0 || !signals.take())
      continue;
    if (++interrupted_ > 1)
      return 130;
    server_.send(cancel_chat{.conversation = request_.conversation, .turn = request_.turn});
  }
  view_.end(*reply_);
  if (reply_->error.empty())
    return 0;
  terminal::report(terminal::clean(reply_->error));
  return interrupted_ > 0 ? 130 : 1;
}

error chat_turn::take(const client_reply& reply) {
  if (reply.id == reading_)
    return take_events(reply);
  if (reply.id != chatting_)
    return {};
  auto answer = client::read<chat_reply>(reply);
  if (!answer)
    return answer.error();
  reply_ = std::move(*answer);
  give_up_ = clock::now() + late_events;
  return {};
}

error chat_turn::take_events(const client_reply& reply) {
  auto page = client::read<progress_page>(reply);
  if (!page)
    return page.error();
  if (page->lost > 0)
    own_.on_gap();
  for (const progress_event& event : page->events) {
    if (own_.has(event))
      view_.show(event);
    after_ = event.seq;
  }
  if (page->ended && page->events.empty())
    ask_at_ = clock::now() + again_wait;
  else if (!own_.ended())
    ask_for_events();
  return {};
}

/// A prompt, turn after turn.
int talk(client& server, const common_options& common, const chat_options& options, chat request) {
  line_editor editor;
  if (!editor.interactive()) {
    std::string all{std::istreambuf_iterator<char>{std::cin}, {}};
    request.messages = {{.role = speaker::user, .content = std::move(all)}};
    return chat_turn{server, common, std::move(request)}.run();
  }
  std::printf("Conversation %s. Ctrl-C ends a turn, Ctrl-D leaves.\n",
              request.conversation.c_str());
  std::string prompt = (options.role.empty() ? "agent" : options.role) + "> ";
  for (std::string text;;) {
    auto got = editor.read(prompt, text);
    if (got == line_editor::result::end)
      return 0;
    if (got == line_editor::result::interrupted
        || text.find_first_not_of(" \t\r") == std::string::npos)
      continue;
    editor.remember(text);
    request.messages = {{.role = speaker::user, .content = text}};
    chat_turn{server, common, request}.run();
  }
}

} // namespace

int command_chat(const common_options& common, const chat_options& options) {
  auto server = client::connect(common.endpoint);
  if (!server)
    return terminal::report(server.error());
  chat request;
  request.conversation =
      options.conversation.empty() ? "chat-" + new_hex_id() : options.conversation;
  request.role = options.role;
  request.model.model = options.model;
  std::string text;
  for (const std::string& word : options.words)
    text += (text.empty() ? "" : " ") + word;
  if (text.empty())
    return talk(**server, common, options, std::move(request));
  request.messages = {{.role = speaker::user, .content = std::move(text)}};
  std::string id = request.conversation;
  int code = chat_turn{**server, common, std::move(request)}.run();
  if (options.conversation.empty() && !common.json && ::isatty(2) == 1)
    std::fprintf(stderr, "%s\n",
                 terminal::paint(tint::dim, "go on with: berth chat -c " + id, 2).c_str());
  return code;
}

} // namespace berth
