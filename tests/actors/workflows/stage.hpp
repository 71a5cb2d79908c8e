// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "actors/workflows/workflows.hpp"
#include "tests/support/actors.hpp"

#include <caf/typed_event_based_actor.hpp>

#include "rehearsal.hpp"
#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <vector>

/// WORKFLOWS with everybody they speak to played by the test, on simulated time.
namespace berth::test {

/// What is on disk: it outlives WORKFLOWS.
struct record_shelf {
  std::map<std::pair<std::string, std::uint64_t>, put_record> all;
  std::vector<std::string> order; // ids by first put
  bool fails = false;
  bool holds = false;
  std::vector<std::function<void()>> held;
};

/// A turn that an agent was asked for and has not answered.
struct open_chat {
  chat request;
  caf::typed_response_promise<chat_reply> promise;
};
struct open_call {
  ask_model request;
  caf::typed_response_promise<model_answer> promise;
};

/// What happened on the stage.
struct stage_book {
  record_shelf shelf;
  std::vector<open_chat> chats;
  std::vector<open_call> calls;
  std::vector<std::string> cancelled; // conversations and calls
  std::vector<std::string> closed;    // conversations
  std::vector<progress_event> events;
  bool deaf = false; // cancels are not heeded
  bool full = false; // there is no place for turns and calls
  /// What an actor is to do when it is woken: promises are kept in its own time only.
  std::vector<std::function<void()>> to_do;

  void do_all() {
    for (const auto& each : std::exchange(to_do, {}))
      each();
  }
};

inline roles_actor::behavior_type play_roles(roles_actor::pointer, std::shared_ptr<stage_book>) {
  return {
      [](const find_role& x) -> caf::result<role_info> {
        for (role_info& each : known_roles().roles)
          if (each.name == x.role) {
            each.system_prompt = "You are " + each.name + ".";
            each.model = {.provider = "ollama", .base_url = "http://m", .model = "tiny"};
            each.context_window = 4096;
            return each;
          }
        return fail(ec::not_found, "role: " + x.role);
      },
      [](const list_roles&) { return known_roles(); },
      [](const get_config&) -> caf::result<config_text> { return config_text{}; },
      [](const set_config&) -> caf::result<config_text> { return config_text{}; },
      [](const select_role&) -> caf::result<config_text> { return config_text{}; },
  };
}

inline model_actor::behavior_type play_model(model_actor::pointer self,
                                             std::shared_ptr<stage_book> book) {
  return {
      [=](ask_model& x) -> caf::result<model_answer> {
        if (book->full)
          return fail(ec::no_capacity, "too many calls wait");
        auto promise = self->make_response_promise<model_answer>();
        book->calls.push_back({std::move(x), promise});
        return promise;
      },
      [=](const cancel_model& x) {
        book->cancelled.push_back(x.call);
        auto found = std::ranges::find_if(
            book->calls, [&](const open_call& each) { return each.request.call == x.call; });
        if (found == book->calls.end() || book->deaf)
          return;
        auto promise = found->promise;
        book->calls.erase(found);
        promise.deliver(fail(ec::conflict, "cancelled"));
      },
      [](const list_models&) { return model_list{}; },
      [](caf::update_atom) {},
      [=](caf::tick_atom) { book->do_all(); },
  };
}

inline agents_actor::behavior_type play_agents(agents_actor::pointer self,
                                               std::shared_ptr<stage_book> book) {
  return {
      [=](chat& x) -> caf::result<chat_reply> {
        if (book->full)
          return fail(ec::no_capacity, "too many turns");
        auto promise = self->make_response_promise<chat_reply>();
        book->chats.push_back({std::move(x), promise});
        return promise;
      },
      [=](const cancel_chat& x) -> caf::result<chat_cancelled> {
        book->cancelled.push_back(x.conversation);
        auto found = std::ranges::find_if(book->chats, [&](const open_chat& each) {
          return each.request.conversation == x.conversation;
        });
        if (found == book->chats.end() || book->deaf)
          return chat_cancelled{.conversation = x.conversation};
        auto promise = found->promise;
        book->chats.erase(found);
        promise.deliver(chat_reply{.error = "cancelled"});
        return chat_cancelled{.conversation = x.conversation, .was_busy = true};
      },
      [](const list_conversations&) { return conversation_list{}; },
      [=](const close_conversation& x) {
        book->closed.push_back(x.conversation);
        return conversation_closed{x.conversation};
      },
      [](const drain&) { return drained{}; },
      [=](caf::tick_atom) { book->do_all(); },
  };
}

inline records_actor::behavior_type play_records(records_actor::pointer self,
                                                 std::shared_ptr<stage_book> book) {
  return {
      [=](put_record& x) -> caf::result<recorded> {
        record_shelf& shelf = book->shelf;
        if (shelf.fails)
          return fail(ec::store_failed, "the disk is full");
        auto promise = self->make_response_promise<recorded>();
        auto put = [book, promise, x]() mutable {
          if (x.seq == 0 && std::ranges::count(book->shelf.order, x.id) == 0)
            book->shelf.order.push_back(x.id);
          book->shelf.all[{x.id, x.seq}] = x;
          promise.deliver(recorded{});
        };
        if (shelf.holds)
          shelf.held.push_back(put);
        else
          put();
        return promise;
      },
      [=](const get_records& x) -> caf::result<record_page> {
        record_page page;
        const record_shelf& shelf = book->shelf;
        for (auto id = shelf.order.rbegin(); x.id.empty() && id != shelf.order.rend(); ++id)
          page.records.push_back(shelf.all.at({*id, 0}));
        for (const auto& [key, each] : shelf.all)
          if (key.first == x.id)
            page.records.push_back(each);
        return page;
      },
      [=](const drop_records& x) {
        book->do_all();
        record_shelf& shelf = book->shelf;
        std::erase_if(shelf.all, [&](const auto& each) { return each.first.first == x.id; });
        std::erase(shelf.order, x.id);
      },
  };
}

inline progress_actor::behavior_type play_progress(progress_actor::pointer,
                                                   std::shared_ptr<stage_book> book) {
  return {
      [=](const note_progress& x) { book->events.push_back(x.event); },
      [](const read_progress&) { return progress_page{}; },
      [](caf::timeout_atom, std::uint64_t) {},
  };
}

class stage : public actors {
public:
  explicit stage(workflow_settings settings = {}) {
    auto values = std::make_shared<berth::settings>();
    values->workflows = settings;
    parts_.config = values;
    parts_.roles = system().spawn(play_roles, book_);
    parts_.models = system().spawn(play_model, book_);
    parts_.agents = system().spawn(play_agents, book_);
    parts_.records = system().spawn(play_records, book_);
    parts_.progress = system().spawn(play_progress, book_);
    open();
  }
  ~stage() {
    close();
    // Their promises would keep the ones who asked alive.
    book_->chats.clear();
    book_->calls.clear();
    book_->shelf.held.clear();
    stop(parts_.roles);
    stop(parts_.models);
    stop(parts_.agents);
    stop(parts_.records);
    stop(parts_.progress);
  }

  stage_book& book() { return *book_; }
  workflows_parts& parts() { return parts_; }
  const workflows_actor& workflows() const { return workflows_; }

  /// A server begins, with what is on disk.
  void open() {
    workflows_ = spawn_workflows(system(), parts_);
    settle();
  }
  /// It ends as a killed one does: nobody is told.
  void close() {
    stop(workflows_);
    workflows_ = nullptr;
  }
  void change(workflow_settings settings) {
    auto values = std::make_shared<berth::settings>();
    values->workflows = settings;
    parts_.config = values;
  }

  template <class Request>
  question<workflow_info> ask_for(Request request) {
    return ask<workflow_info>(workflows_, std::move(request));
  }

  /// Steps that somebody is asked for, chats first.
  std::vector<std::string> asked() const {
    std::vector<std::string> ids;
    for (const open_chat& each : book_->chats)
      ids.push_back(each.request.step);
    for (const open_call& each : book_->calls)
      ids.push_back(each.request.step);
    return ids;
  }
  void answer(const std::string& step, const std::string& text) {
    for (const open_call& each : book_->calls)
      if (each.request.step == step)
        return answer_call(step, {.text = text, .model = "tiny", .usage = {.calls = 1}});
    answer_chat(step, {.text = text, .model = "tiny", .usage = {.calls = 1}});
  }
  void answer_chat(const std::string& step, chat_reply reply) {
    auto found = std::ranges::find_if(
        book_->chats, [&](const open_chat& each) { return each.request.step == step; });
    REQUIRE(found != book_->chats.end());
    book_->to_do.push_back([promise = found->promise, reply]() mutable { promise.deliver(reply); });
    book_->chats.erase(found);
    wake(parts_.agents);
  }
  void answer_call(const std::string& step, model_answer reply) {
    auto found = std::ranges::find_if(
        book_->calls, [&](const open_call& each) { return each.request.step == step; });
    REQUIRE(found != book_->calls.end());
    book_->to_do.push_back([promise = found->promise, reply]() mutable { promise.deliver(reply); });
    book_->calls.erase(found);
    wake(parts_.models);
  }
  /// Everybody answers until nobody is asked.
  void play_on() {
    for (int i = 0; i < 200 && !asked().empty(); ++i) {
      std::string id = asked().front();
      answer(id, line_of(id));
    }
  }
  /// What is said of a step in any pattern.
  static std::string line_of(const std::string& id) {
    if (id == "classify")
      return "{\"route\": \"complex_route\", \"confidence\": 0.8, \"reason\": \"hard\"}";
    if (id == "plan")
      return "{\"workers\": [{\"id\": \"a\", \"task\": \"A\"}, {\"id\": \"b\", \"task\": \"B\"}]}";
    if (id.starts_with("evaluate"))
      return "{\"score\": 5, \"feedback\": \"more\"}";
    return "what " + id + " says";
  }
  /// Lets go one record that is held.
  void let_go_one() {
    REQUIRE_FALSE(book_->shelf.held.empty());
    book_->to_do.push_back(book_->shelf.held.front());
    book_->shelf.held.erase(book_->shelf.held.begin());
    caf::anon_send(parts_.records, drop_records{.kind = "none"});
    settle();
  }
  std::size_t count(progress_kind kind) const {
    return static_cast<std::size_t>(std::ranges::count_if(
        book_->events, [&](const progress_event& each) { return each.kind == kind; }));
  }

private:
  template <class Handle>
  void wake(const Handle& who) {
    caf::anon_send(who, caf::tick_atom_v);
    settle();
  }

  std::shared_ptr<stage_book> book_ = std::make_shared<stage_book>();
  workflows_parts parts_;
  workflows_actor workflows_;
};

} // namespace berth::test
