// SPDX-License-Identifier: Apache-2.0
#include "actors/agents/agent.hpp"

#include "actors/agents/agent_limits.hpp"
#include "actors/agents/conversation.hpp"
#include "actors/agents/turn.hpp"
#include "actors/agents/workbench.hpp"
#include "actors/ids.hpp"
#include "config/log.hpp"
#include "messages/codec.hpp"

#include <caf/send.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <algorithm>
#include <deque>
#include <functional>
#include <utility>

namespace berth {

namespace {

/// Tokens of the window that are kept for the reply, when nobody says how long it may be.
constexpr std::uint32_t reply_tokens = 2048;
/// The least that a conversation gets of the window, whatever the settings leave.
constexpr std::size_t prompt_tokens_min = 512;
constexpr std::uint32_t context_window_default = 8192;

constexpr const char* cut_off = "(This answer was interrupted: the server ended.)";
constexpr const char* called_off = "(This turn was cancelled.)";

/// Why a turn ends before its time, as its reply and its last event say it.
constexpr const char* by_client = "cancelled";
constexpr const char* by_server = "interrupted";

using clock = std::chrono::steady_clock;

/// A turn between its chat and its reply.
struct open_turn {
  chat request;
  caf::typed_response_promise<chat_reply> promise;
  role_info role;
  model_choice choice;
  acting how = acting::none;
  chat_reply reply;
  std::vector<std::string> shown; // what the programs gave, for a human
  std::string stopped;            // why it ends before its time; empty: it does not
  bool finishing = false;

  // The round it is at.
  std::string call; // of the model; empty: none is under way
  bool waits_for_place = false;
  std::uint32_t place_tries = 0;
  clock::time_point place_wanted_at;
  std::size_t estimated = 0;
  std::deque<task> todo;
  task now;
  std::vector<chat_message> results;
  bool failed = false;       // something that was done in this round
  bool by_text = false;      // it was found in a text
  bool to_the_model = false; // failures go back to it
  bool called_tools = false; // in any round
  bool heeded_user = false;  // what the user asked to run was looked at
};

/// AGENT: one conversation.
class agent_state {
public:
  static constexpr const char* name = "berth.agent";

  agent_actor::behavior_type make_behavior(agent_actor::pointer self, const agents_parts& parts,
                                           std::shared_ptr<model_skills> skills, std::string id);

private:
  struct waiting_chat {
    chat request;
    caf::typed_response_promise<chat_reply> promise;
  };

  caf::result<chat_reply> on_chat(chat& request);
  caf::result<chat_cancelled> on_cancel(const cancel_chat& request);
  void on_drain();
  caf::result<conversation_info> on_tell(const list_conversations& request);
  caf::result<conversation_closed> on_close();
  void on_exit(const error& reason);

  // Its records.
  void load();
  void when_loaded(std::function<void()> what);
  void on_loaded(const record_page& head, const record_page& page);
  void not_loaded(const error& why);
  void mend_interrupted();
  void say(std::vector<chat_message> messages, bool begins_turn);
  void keep_head();
  void put(const char* kind, std::uint64_t seq, bytes body);

  // A turn, step by step.
  void next_chat();
  bool is_open(const std::string& turn) const;
  bool stop_waiting(const std::string& turn, const char* why);
  void on_role(role_info role);
  bool hear(const std::vector<chat_message>& given);
  void begin_turn();
  void execute_text();
  void next_round();
  void ask(bool with_tools);
  void on_answer(model_answer answer);
  void on_model_error(const error& why);
  bool wait_for_place(const error& why);
  void on_tick();
  void take_calls(model_answer& answer);
  void take_text(const std::string& text);
  void run_users_programs();
  void run_programs(text_plan plan, bool to_the_model);
  void do_next();
  void on_act(agent_act act);
  void acts_done();
  void call_off(const char* why);
  void finish(std::string error = {});
  void deliver_when_kept();
  void refuse_turn(const error& why);
  void tell_turn(progress_kind kind, std::string how, std::string text = {},
                 maybe<model_usage> usage = {});
  void close_now();

  bool speaks_to_workflow() const { return !turn_->request.progress.empty(); }
  std::uint32_t rounds_max() const;
  std::string last_of_user() const;

  agent_actor::pointer self_ = nullptr;
  agents_parts parts_;
  std::shared_ptr<model_skills> skills_;
  std::unique_ptr<workbench> bench_;
  conversation conversation_{{.said_max = limits::said_max, .bytes_max = limits::said_bytes_max}};
  conversation_info head_;
  token_meter meter_;
  bool loaded_ = false;
  bool loading_ = false;
  bool was_interrupted_ = false;
  std::vector<std::function<void()>> when_loaded_;
  std::deque<waiting_chat> waiting_;
  std::unique_ptr<open_turn> turn_;
  std::size_t puts_open_ = 0;
  std::string put_fault_;
  std::vector<caf::typed_response_promise<conversation_closed>> closing_;
};

agent_actor::behavior_type agent_state::make_behavior(agent_actor::pointer self,
                                                      const agents_parts& parts,
                                                      std::shared_ptr<model_skills> skills,
                                                      std::string id) {
  self_ = self;
  parts_ = parts;
  skills_ = std::move(skills);
  head_.conversation = std::move(id);
  head_.created_at_ms = unix_ms();
  head_.last_used_at_ms = head_.created_at_ms;
  bench_ = std::make_unique<workbench>(self_, parts_.config, parts_.gateway, parts_.progress,
                                       head_.conversation);
  self_->set_exit_handler([this](const caf::exit_msg& end) { on_exit(end.reason); });
  load();
  return {
      [this](chat& x) { return on_chat(x); },
      [this](const cancel_chat& x) { return on_cancel(x); },
      [this](const drain&) { on_drain(); },
      [this](caf::tick_atom) { on_tick(); },
      [this](const list_conversations& x) { return on_tell(x); },
      [this](const close_conversation&) { return on_close(); },
  };
}

caf::result<chat_reply> agent_state::on_chat(chat& request) {
  if (!closing_.empty())
    return fail(ec::conflict, "conversation: it is being closed");
  if (request.turn.empty())
    request.turn = "turn-" + new_hex_id();
  else if (is_open(request.turn))
    return fail(ec::already_exists, "turn: " + request.turn + " is under way");
  if (waiting_.size() >= limits::chats_waiting_max)
    return caf::make_error(ec::no_capacity,
                           std::to_string(waiting_.size())
                               + " chats of this conversation wait already",
                           static_cast<std::uint32_t>(limits::retry_after.count()));
  auto promise = self_->make_response_promise<chat_reply>();
  waiting_.push_back({std::move(request), promise});
  if (!loaded_)
    load();
  else
    next_chat();
  return promise;
}

/// Whether a chat of this name is at its turn, or waits for it.
bool agent_state::is_open(const std::string& turn) const {
  return (turn_ && turn_->request.turn == turn)
         || std::ranges::any_of(
             waiting_, [&](const waiting_chat& each) { return each.request.turn == turn; });
}

/// A chat that waits for the records has its turn when they are there.
caf::result<chat_cancelled> agent_state::on_cancel(const cancel_chat& request) {
  auto promise = self_->make_response_promise<chat_cancelled>();
  when_loaded([this, promise, wanted = request.turn]() mutable {
    chat_cancelled told{.conversation = head_.conversation, .turn = wanted};
    if (turn_ && (wanted.empty() || wanted == turn_->request.turn)) {
      told.was_busy = true;
      told.turn = turn_->request.turn;
      call_off(by_client);
    } else {
      told.was_busy = stop_waiting(wanted, by_client);
    }
    promise.deliver(std::move(told));
  });
  return promise;
}

/// Answers a chat that has not had its turn yet; nothing of it is kept. False: there is none.
bool agent_state::stop_waiting(const std::string& turn, const char* why) {
  auto found = std::ranges::find_if(
      waiting_, [&](const waiting_chat& each) { return each.request.turn == turn; });
  if (found == waiting_.end())
    return false;
  waiting_chat late = std::move(*found);
  waiting_.erase(found);
  late.promise.deliver(chat_reply{
      .conversation = head_.conversation, .turn = turn, .role = late.request.role, .error = why});
  return true;
}

void agent_state::on_drain() {
  while (!waiting_.empty())
    stop_waiting(std::string{waiting_.front().request.turn}, by_server);
  if (turn_)
    call_off(by_server);
}

/// The turn ends as soon as what is under way answered. One that only waits for the disk has ended.
void agent_state::call_off(const char* why) {
  if (turn_->finishing || !turn_->stopped.empty())
    return;
  turn_->stopped = why;
  if (!turn_->call.empty())
    self_->send(parts_.models, cancel_model{.call = turn_->call});
  bench_->cancel();
  if (turn_->waits_for_place)
    finish();
}

caf::result<conversation_info> agent_state::on_tell(const list_conversations& request) {
  auto promise = self_->make_response_promise<conversation_info>();
  when_loaded([this, promise, whole = !request.conversation.empty()]() mutable {
    conversation_info told = head_;
    told.busy = turn_ != nullptr;
    if (whole)
      told.messages = conversation_.messages();
    promise.deliver(std::move(told));
  });
  return promise;
}

caf::result<conversation_closed> agent_state::on_close() {
  closing_.push_back(self_->make_response_promise<conversation_closed>());
  auto promise = closing_.back();
  for (auto& each : std::exchange(waiting_, {}))
    each.promise.deliver(fail(ec::conflict, "conversation: it is being closed"));
  if (turn_)
    call_off(by_client);
  else if (closing_.size() == 1)
    close_now();
  return promise;
}

void agent_state::close_now() {
  bench_->close([this] {
    self_->send(parts_.records, drop_records{.kind = "conversation", .id = head_.conversation});
    self_->send(parts_.records, drop_records{.kind = "message", .id = head_.conversation});
    for (auto& each : closing_)
      each.deliver(conversation_closed{.conversation = head_.conversation});
    self_->quit();
  });
}

/// Nobody waits for ever because an agent went.
void agent_state::on_exit(const error& reason) {
  auto gone = fail(ec::shutting_down, "the agent ends");
  for (auto& each : std::exchange(waiting_, {}))
    each.promise.deliver(gone);
  if (turn_ && turn_->promise.pending())
    turn_->promise.deliver(gone);
  self_->quit(reason);
}

// --- records -------------------------------------------------------------------------------------

void agent_state::load() {
  if (std::exchange(loading_, true))
    return;
  get_records head{.kind = "conversation", .id = head_.conversation, .limit = 1};
  self_->request(parts_.records, caf::infinite, std::move(head))
      .then(
          [this](const record_page& found) {
            get_records messages{.kind = "message", .id = head_.conversation};
            self_->request(parts_.records, caf::infinite, std::move(messages))
                .then([this, found](const record_page& page) { on_loaded(found, page); },
                      [this](const error& why) { not_loaded(why); });
          },
          [this](const error& why) { not_loaded(why); });
}

/// Does something once the records are there, or cannot be had.
void agent_state::when_loaded(std::function<void()> what) {
  if (loaded_)
    return what();
  when_loaded_.push_back(std::move(what));
  load();
}

void agent_state::not_loaded(const error& why) {
  loading_ = false;
  for (auto& each : std::exchange(waiting_, {}))
    each.promise.deliver(why);
  // Who wants to be told is told what there is: nothing.
  for (auto& each : std::exchange(when_loaded_, {}))
    each();
}

void agent_state::on_loaded(const record_page& head, const record_page& page) {
  loading_ = false;
  loaded_ = true;
  if (!head.records.empty())
    if (auto known = decode<conversation_info>(head.records.front().body)) {
      std::string id = head_.conversation;
      head_ = std::move(*known);
      head_.conversation = id;
    }
  std::vector<said> kept;
  for (const put_record& each : page.records)
    if (auto one = decode<said>(each.body))
      kept.push_back(std::move(*one));
  if (page.damaged > 0)
    log::error("agent", "messages are damaged on disk",
               {{"conversation", head_.conversation}, {"messages", std::to_string(page.damaged)}});
  conversation_.restore(std::move(kept));
  bench_->remember_session(head_.session);
  if (std::exchange(head_.busy, false))
    mend_interrupted();
  next_chat();
  for (auto& each : std::exchange(when_loaded_, {}))
    each();
}

/// The server ended in the middle of a turn: what was begun gets an end that says so.
void agent_state::mend_interrupted() {
  was_interrupted_ = true;
  std::vector<chat_message> rest;
  for (const tool_call& call : conversation_.open_calls())
    rest.push_back({.role = speaker::tool,
                    .content = "error: interrupted, the server ended before there was a result",
                    .tool_call_id = call.id,
                    .tool_name = call.name});
  rest.push_back({.role = speaker::assistant, .content = cut_off});
  say(std::move(rest), false);
  keep_head();
}

/// Adds to the conversation, in memory and in the store, where places are used again.
void agent_state::say(std::vector<chat_message> messages, bool begins_turn) {
  if (messages.empty())
    return;
  said added = conversation_.add(std::move(messages), begins_turn);
  for (std::uint64_t number : conversation_.take_forgotten())
    put("message", number % limits::said_max, encode(said{.number = number}));
  put("message", added.number % limits::said_max, encode(added));
}

void agent_state::keep_head() {
  head_.last_used_at_ms = unix_ms();
  conversation_info head = head_;
  head.messages.clear();
  put("conversation", 0, encode(head));
}

void agent_state::put(const char* kind, std::uint64_t seq, bytes body) {
  ++puts_open_;
  put_record record{.kind = kind, .id = head_.conversation, .seq = seq, .body = std::move(body)};
  auto done = [this](const error* why) {
    --puts_open_;
    if (why != nullptr)
      put_fault_ = in_words(*why);
    deliver_when_kept();
  };
  self_->request(parts_.records, caf::infinite, std::move(record))
      .then([done](const recorded&) { done(nullptr); }, [done](const error& why) { done(&why); });
}

// --- the beginning of a turn ---------------------------------------------------------------------

void agent_state::next_chat() {
  if (!loaded_ || turn_ || waiting_.empty() || !closing_.empty())
    return;
  turn_ = std::make_unique<open_turn>();
  turn_->request = std::move(waiting_.front().request);
  turn_->promise = waiting_.front().promise;
  waiting_.pop_front();
  const std::string& asked = turn_->request.role;
  self_->request(parts_.roles, caf::infinite, find_role{.role = asked.empty() ? head_.role : asked})
      .then([this](role_info& role) { on_role(std::move(role)); },
            [this](const error& why) { refuse_turn(why); });
}

/// The chat is not served: nothing of it is kept.
void agent_state::refuse_turn(const error& why) {
  auto turn = std::move(turn_);
  if (turn->promise.pending())
    turn->promise.deliver(why);
  if (!closing_.empty())
    close_now();
  else
    next_chat();
}

void agent_state::on_role(role_info role) {
  open_turn& turn = *turn_;
  turn.role = std::move(role);
  turn.choice = chosen_model(turn.role, turn.request.model);
  turn.how = chosen_acting(turn.role, skills_->knows_tools(turn.choice));
  turn.reply.conversation = head_.conversation;
  turn.reply.turn = turn.request.turn;
  turn.reply.role = turn.role.name;
  turn.reply.model = turn.choice.model;
  if (!hear(turn.request.messages))
    return refuse_turn(fail(ec::malformed, "messages: all of it was said and answered already"));
  begin_turn();
}

/// Takes what is new of the messages. False: nothing is, and nothing waits for an answer.
bool agent_state::hear(const std::vector<chat_message>& given) {
  auto known = static_cast<std::ptrdiff_t>(conversation_.already_said(given));
  std::vector<chat_message> fresh{given.begin() + known, given.end()};
  if (!fresh.empty()) {
    say(std::move(fresh), true);
    return true;
  }
  return turn_->request.execute || conversation_.messages().back().role == speaker::user;
}

void agent_state::begin_turn() {
  open_turn& turn = *turn_;
  const chat& request = turn.request;
  head_.role = turn.role.name;
  head_.busy = true;
  keep_head();
  head_.busy = false;
  bench_->begin(turn.role, speaks_to_workflow() ? request.progress : head_.conversation,
                request.step);
  if (!speaks_to_workflow())
    tell_turn(progress_kind::started, turn.role.name);
  if (std::exchange(was_interrupted_, false))
    bench_->note(progress_kind::warning, "interrupted",
                 "the turn before was interrupted when the server ended");
  if (!turn.stopped.empty())
    finish();
  else if (request.execute)
    execute_text();
  else
    next_round();
}

// --- rounds --------------------------------------------------------------------------------------

void agent_state::execute_text() {
  open_turn& turn = *turn_;
  auto only_say = [&](std::string_view what) {
    turn.shown.emplace_back(what);
    finish();
  };
  turn.heeded_user = true;
  if (!turn.role.vm_execution)
    return only_say(shown_without_machine);
  text_plan plan = tasks_of_execute(turn.request.messages.back().content, turn.role);
  if (!plan.has_code)
    return only_say(shown_without_code);
  if (plan.tasks.empty())
    return only_say(shown_without_run);
  run_programs(std::move(plan), false);
}

std::uint32_t agent_state::rounds_max() const {
  std::uint32_t own = turn_->role.rounds_max;
  return own > 0 ? own : parts_.config->agents.rounds_max;
}

void agent_state::next_round() {
  open_turn& turn = *turn_;
  if (!turn.stopped.empty())
    return finish();
  if (turn.reply.rounds >= rounds_max()) {
    turn.reply.cut = true;
    return run_users_programs();
  }
  ++turn.reply.rounds;
  bench_->note(progress_kind::round, turn.choice.model, {}, {}, turn.reply.rounds);
  ask(turn.how == acting::tools);
}

void agent_state::ask(bool with_tools) {
  open_turn& turn = *turn_;
  const chat& request = turn.request;
  std::string prompt =
      request.system_prompt.empty() ? turn.role.system_prompt : request.system_prompt;
  std::string acting_part = acting_prompt(turn.role, turn.how);
  if (!acting_part.empty())
    prompt += (prompt.empty() ? "" : "\n\n") + acting_part;
  std::string tools = with_tools ? tool_list(turn.role) : "";
  std::uint32_t window =
      turn.role.context_window > 0 ? turn.role.context_window : context_window_default;
  std::size_t taken = turn.choice.max_tokens.value_or(std::min(reply_tokens, window / 4))
                      + meter_.tokens(estimate_tokens(tools));
  std::size_t left = window > taken ? window - taken : 0;
  fitted sent = conversation_.fit(prompt, std::max(left, prompt_tokens_min), meter_,
                                  turn.how != acting::tools);
  turn.estimated = sent.estimated + estimate_tokens(tools);
  turn.call = head_.conversation + "#" + new_hex_id();
  bool is_workflow = speaks_to_workflow();
  ask_model question{.call = turn.call,
                     .model = turn.choice,
                     .messages = std::move(sent.messages),
                     .tools = std::move(tools),
                     .context_window = window,
                     .progress = is_workflow ? request.progress : head_.conversation,
                     .step = request.step};
  self_->request(parts_.models, caf::infinite, std::move(question))
      .then([this](model_answer& answer) { on_answer(std::move(answer)); },
            [this](const error& why) { on_model_error(why); });
}

/// One error ends a turn, never the agent.
void agent_state::on_model_error(const error& why) {
  open_turn& turn = *turn_;
  turn.call.clear();
  std::string words = in_words(why);
  if (!turn.stopped.empty())
    return finish();
  if (why == ec::no_capacity && wait_for_place(why))
    return;
  if (turn.how == acting::tools && why == ec::unsupported) {
    skills_->learn_toolless(turn.choice);
    turn.how = acting::text;
    bench_->note(progress_kind::warning, "tools",
                 turn.choice.model + " knows no tools: its text is read for programs");
    return ask(false);
  }
  finish("model: " + words);
}

/// Asks again a little later, for some minutes. False: they are over.
bool agent_state::wait_for_place(const error& why) {
  open_turn& turn = *turn_;
  auto now = self_->system().clock().now();
  if (turn.place_tries++ == 0) {
    turn.place_wanted_at = now;
    bench_->note(progress_kind::warning, "no_capacity", in_words(why));
  }
  auto pause = std::min(limits::place_pause_min * (1 << std::min(turn.place_tries - 1, 10U)),
                        limits::place_pause_max);
  if (auto hint = to_refusal(why).retry_after_ms)
    pause = std::max(pause, std::chrono::milliseconds{*hint});
  if (now + pause > turn.place_wanted_at + limits::place_wait_max)
    return false;
  turn.waits_for_place = true;
  self_->delayed_send(self_, pause, caf::tick_atom_v);
  return true;
}

void agent_state::on_tick() {
  if (turn_ && std::exchange(turn_->waits_for_place, false))
    ask(turn_->how == acting::tools);
}

void agent_state::on_answer(model_answer answer) {
  open_turn& turn = *turn_;
  turn.call.clear();
  turn.place_tries = 0;
  add(turn.reply.usage, answer.usage);
  meter_.correct(turn.estimated, answer.usage.input_tokens);
  if (!answer.model.empty())
    turn.reply.model = answer.model;
  if (answer.text.find_first_not_of(" \t\r\n") != std::string::npos)
    turn.reply.text = answer.text;
  if (turn.how == acting::tools && !answer.tool_calls.empty())
    return take_calls(answer);
  if (!answer.text.empty())
    say({{.role = speaker::assistant, .content = answer.text}}, false);
  if (!turn.stopped.empty())
    return finish();
  take_text(answer.text);
}

void agent_state::take_calls(model_answer& answer) {
  open_turn& turn = *turn_;
  turn.todo = tasks_of_calls(answer, turn.role);
  say({{.role = speaker::assistant, .content = answer.text, .tool_calls = answer.tool_calls}},
      false);
  turn.called_tools = true;
  turn.by_text = false;
  turn.to_the_model = true;
  if (turn.reply.rounds >= rounds_max())
    for (task& each : turn.todo)
      each.fault =
          "error: not done: the bound of " + std::to_string(rounds_max()) + " rounds is reached";
  do_next();
}

/// A model's text may hold programs; so may the user's, who asked to run them.
void agent_state::take_text(const std::string& text) {
  open_turn& turn = *turn_;
  bool reads =
      turn.how == acting::text
      || (turn.how == acting::tools && turn.role.acting == acting::automatic && !turn.called_tools);
  text_plan plan = reads ? tasks_of_text(text, turn.role) : text_plan{};
  if (!plan.tasks.empty())
    return run_programs(std::move(plan), true);
  run_users_programs();
}

/// At the end of the rounds: what the user plainly asked to run and the model did not.
void agent_state::run_users_programs() {
  open_turn& turn = *turn_;
  if (turn.how == acting::none || std::exchange(turn.heeded_user, true))
    return finish();
  text_plan plan = tasks_of_user(last_of_user(), turn.role);
  const auto& acts = turn.reply.acts;
  std::erase_if(plan.tasks, [&](const task& each) {
    const auto& wanted = std::get<execute_code_call>(each.request);
    return std::ranges::any_of(acts, [&](const agent_act& act) {
      return act.tool == "execute_code" && (turn.called_tools || act.code == wanted.code);
    });
  });
  if (plan.tasks.empty())
    return finish();
  run_programs(std::move(plan), false);
}

std::string agent_state::last_of_user() const {
  auto all = conversation_.messages();
  auto last = std::find_if(all.rbegin(), all.rend(),
                           [](const chat_message& each) { return each.role == speaker::user; });
  return last == all.rend() ? "" : last->content;
}

// --- what is done --------------------------------------------------------------------------------

void agent_state::run_programs(text_plan plan, bool to_the_model) {
  open_turn& turn = *turn_;
  for (std::string& each : plan.left)
    turn.shown.push_back(std::move(each));
  turn.todo.assign(std::make_move_iterator(plan.tasks.begin()),
                   std::make_move_iterator(plan.tasks.end()));
  turn.by_text = true;
  turn.to_the_model = to_the_model;
  do_next();
}

void agent_state::do_next() {
  open_turn& turn = *turn_;
  if (!turn.stopped.empty())
    turn.todo.clear();
  if (turn.todo.empty())
    return acts_done();
  turn.now = std::move(turn.todo.front());
  turn.todo.pop_front();
  if (!turn.by_text)
    bench_->note(progress_kind::tool_call, turn.now.call.name, turn.now.call.arguments);
  if (turn.now.fault.empty())
    return bench_->act(turn.now.call.name, turn.now.request,
                       [this](agent_act act) { on_act(std::move(act)); });
  agent_act refused{.tool = turn.now.call.name, .refused = turn.now.fault};
  if (const auto* code = std::get_if<execute_code_call>(&turn.now.request)) {
    refused.language = code->language;
    refused.code = code->code;
  }
  bool says_error = turn.now.fault.starts_with("error");
  refused.told = (says_error ? "" : "error: blocked: ") + turn.now.fault + "\n";
  on_act(std::move(refused));
}

void agent_state::on_act(agent_act act) {
  open_turn& turn = *turn_;
  act.confidence = turn.now.confidence;
  bench_->note(progress_kind::tool_result, act.tool, act.told, act.ended ? act.ended->job : "");
  constexpr std::string_view blocked = "blocked: ";
  if (act.ended)
    turn.shown.push_back(shown_of(act.language, *act.ended));
  else if (act.refused.starts_with(blocked))
    turn.shown.push_back(shown_of_block(act.language, {act.refused.substr(blocked.size())}));
  else if (turn.by_text && !turn.now.fault.empty())
    turn.shown.push_back(shown_of_block(act.language, {act.refused}));
  else if (!act.language.empty())
    turn.shown.push_back(shown_of_failure(act.language, act.refused));
  turn.failed = turn.failed || !act.refused.empty() || (act.ended && !succeeded(*act.ended));
  turn.results.push_back({.role = speaker::tool,
                          .content = as_data(act.told, new_hex_id()),
                          .tool_call_id = turn.now.call.id,
                          .tool_name = act.tool});
  turn.reply.acts.push_back(std::move(act));
  do_next();
}

void agent_state::acts_done() {
  open_turn& turn = *turn_;
  say(std::exchange(turn.results, {}), false);
  bool failed = std::exchange(turn.failed, false);
  if (!turn.stopped.empty())
    return finish();
  if (!turn.to_the_model || (turn.by_text && !failed))
    return run_users_programs();
  next_round();
}

// --- the end of a turn ---------------------------------------------------------------------------

/// Answers when all that was said is on disk.
void agent_state::finish(std::string error) {
  open_turn& turn = *turn_;
  turn.finishing = true;
  turn.waits_for_place = false;
  turn.reply.error = std::move(error);
  if (!turn.stopped.empty()) {
    turn.reply.error = turn.stopped;
    std::vector<chat_message> rest;
    for (const tool_call& call : conversation_.open_calls())
      rest.push_back({.role = speaker::tool,
                      .content = "error: " + turn.stopped,
                      .tool_call_id = call.id,
                      .tool_name = call.name});
    rest.push_back(
        {.role = speaker::assistant, .content = turn.stopped == by_server ? cut_off : called_off});
    say(std::move(rest), false);
  }
  turn.reply.results = joined(turn.shown, "\n\n");
  if (turn.request.execute)
    turn.reply.text = turn.reply.results;
  turn.reply.session = turn.reply.acts.empty() ? "" : bench_->session();
  head_.session = bench_->session();
  ++head_.turns;
  add(head_.usage, turn.reply.usage);
  keep_head();
}

void agent_state::deliver_when_kept() {
  if (!turn_ || !turn_->finishing || puts_open_ > 0)
    return;
  chat_reply& reply = turn_->reply;
  if (std::string fault = std::exchange(put_fault_, {}); !fault.empty())
    reply.error += (reply.error.empty() ? "" : "; ") + ("not kept: " + fault);
  if (!speaks_to_workflow()) {
    const std::string& stopped = turn_->stopped;
    tell_turn(progress_kind::ended,
              !stopped.empty()      ? stopped
              : reply.error.empty() ? "completed"
                                    : "failed",
              reply.error.empty() ? reply.text : reply.error, reply.usage);
  }
  auto turn = std::move(turn_);
  if (turn->promise.pending())
    turn->promise.deliver(std::move(turn->reply));
  if (!closing_.empty())
    close_now();
  else
    next_chat();
}

/// That a turn starts or ended, in the conversation's own stream.
void agent_state::tell_turn(progress_kind kind, std::string how, std::string text,
                            maybe<model_usage> usage) {
  progress_event event;
  event.id = head_.conversation;
  event.kind = kind;
  event.name = std::move(how);
  event.text = std::move(text);
  event.usage = std::move(usage);
  event.turn = turn_->request.turn;
  self_->send(parts_.progress, note_progress{.event = std::move(event)});
}

agent_actor::behavior_type agent(agent_actor::stateful_pointer<agent_state> self,
                                 const agents_parts& parts, std::shared_ptr<model_skills> skills,
                                 std::string id) {
  return state_of(self).make_behavior(self, parts, std::move(skills), std::move(id));
}

} // namespace

agent_actor spawn_agent(caf::actor_system& system, const agents_parts& parts,
                        std::shared_ptr<model_skills> skills, std::string conversation) {
  return system.spawn(agent, parts, std::move(skills), std::move(conversation));
}

} // namespace berth
