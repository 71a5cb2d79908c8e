// SPDX-License-Identifier: Apache-2.0
#include "actors/agents/agents.hpp"

#include "actors/agents/agent.hpp"
#include "actors/agents/agent_limits.hpp"
#include "actors/agents/progress.hpp"
#include "actors/agents/turn.hpp"
#include "actors/ids.hpp"
#include "config/limits.hpp"
#include "config/log.hpp"
#include "messages/codec.hpp"

#include <caf/send.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <algorithm>
#include <chrono>
#include <functional>
#include <map>
#include <unordered_map>
#include <utility>

namespace berth {

namespace {

using clock = std::chrono::steady_clock;

constexpr std::chrono::seconds look_every{5};
/// Conversations of one list.
constexpr std::uint32_t listed_max = 1000;

/// What is wrong with the name of a conversation, and with where its events go; empty: nothing.
std::string fault_of_names(const chat& request) {
  const std::string& id = request.conversation;
  auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-'
           || c == '_' || c == '.';
  };
  if (id.size() > limits::conversation_id_max || !std::ranges::all_of(id, allowed))
    return "conversation: at most 128 letters, digits, '-', '_' and '.'";
  const std::string& workflow = request.progress;
  if (!workflow.empty() && !workflow.starts_with(workflow_id_prefix))
    return "progress: must be the id of a workflow";
  bool is_step = !workflow.empty() && id.starts_with(workflow + ".");
  if (id.starts_with(workflow_id_prefix) && !is_step)
    return "conversation: ids that begin with " + std::string{workflow_id_prefix}
           + " belong to workflows";
  if (request.role.size() > limits::name_bytes_max || request.step.size() > limits::name_bytes_max
      || request.turn.size() > limits::name_bytes_max)
    return "role, step, turn: at most " + std::to_string(limits::name_bytes_max) + " bytes";
  return {};
}

error no_such(const std::string& id) {
  return fail(ec::not_found, "conversation: there is no conversation " + id);
}

/// Hands an answer on to who asked.
template <class Reply>
std::function<void(expected<Reply>)> pass_to(caf::typed_response_promise<Reply> promise) {
  return [promise](expected<Reply> answer) mutable {
    if (answer)
      promise.deliver(std::move(*answer));
    else
      promise.deliver(answer.error());
  };
}

/// AGENTS: who is at work on which conversation.
class agents_state {
public:
  static constexpr const char* name = "berth.agents";

  agents_actor::behavior_type make_behavior(agents_actor::pointer self, agents_parts parts);

private:
  /// An agent in memory.
  struct seat {
    agent_actor actor;
    std::uint32_t open = 0;  // requests under way
    std::uint32_t chats = 0; // of them
    clock::time_point last_used;
  };

  /// A request under way: whose it is, and how it is answered when the agent dies.
  struct question {
    std::string conversation;
    std::function<void(const error&)> give_up;
  };

  template <class Reply>
  using answered = std::function<void(expected<Reply>)>;

  caf::result<chat_reply> on_chat(chat& request);
  caf::result<chat_cancelled> on_cancel(const cancel_chat& request);
  caf::result<conversation_list> on_list(const list_conversations& request);
  caf::result<conversation_closed> on_close(const close_conversation& request);
  caf::result<drained> on_drain();
  void on_tick();
  void on_down(const caf::actor_addr& who);

  template <class Reply, class Request>
  void ask(const std::string& id, Request request, answered<Reply> done);
  seat& wake(const std::string& id);
  void let_go(const std::string& id);
  void refresh(const std::string& id, std::function<void()> then);
  void close(const std::string& id, answered<conversation_closed> done);
  void make_room();
  void check_drained();

  agents_actor::pointer self_ = nullptr;
  agents_parts parts_;
  std::shared_ptr<model_skills> skills_ = std::make_shared<model_skills>();
  std::unordered_map<std::string, seat> awake_;
  /// Every conversation, without its messages.
  std::unordered_map<std::string, conversation_info> known_;
  std::map<std::uint64_t, question> questions_;
  std::uint64_t last_question_ = 0;
  std::size_t turns_alive_ = 0; // conversations with a chat under way
  std::size_t chats_open_ = 0;  // that are not answered yet
  bool is_draining_ = false;
  std::uint32_t interrupted_ = 0;
  caf::typed_response_promise<drained> draining_;
};

agents_actor::behavior_type agents_state::make_behavior(agents_actor::pointer self,
                                                        agents_parts parts) {
  self_ = self;
  parts_ = std::move(parts);
  self_->set_down_handler([this](const caf::down_msg& down) { on_down(down.source); });
  self_->set_exit_handler([this](const caf::exit_msg& end) {
    for (auto& [id, each] : awake_)
      caf::anon_send_exit(each.actor, caf::exit_reason::user_shutdown);
    awake_.clear();
    for (auto& [ticket, each] : std::exchange(questions_, {}))
      each.give_up(fail(ec::shutting_down, "the server ends"));
    self_->quit(end.reason);
  });
  self_->request(parts_.records, caf::infinite, get_records{.kind = "conversation"})
      .then(
          [this](const record_page& page) {
            for (const put_record& each : page.records)
              if (auto info = decode<conversation_info>(each.body);
                  info && !known_.contains(each.id)) {
                info->busy = false;
                known_.emplace(each.id, std::move(*info));
              }
          },
          [](const error& why) {
            log::error("agents", "cannot list conversations", {{"why", describe_error(why)}});
          });
  self_->delayed_send(self_, look_every, caf::tick_atom_v);
  return {
      [this](chat& x) { return on_chat(x); },
      [this](const cancel_chat& x) { return on_cancel(x); },
      [this](const list_conversations& x) { return on_list(x); },
      [this](const close_conversation& x) { return on_close(x); },
      [this](const drain&) { return on_drain(); },
      [this](caf::tick_atom) { on_tick(); },
  };
}

// --- asking agents -------------------------------------------------------------------------------

/// The agent of a conversation, woken when it is not in memory.
agents_state::seat& agents_state::wake(const std::string& id) {
  auto found = awake_.find(id);
  if (found == awake_.end()) {
    seat made;
    made.actor = spawn_agent(self_->system(), parts_, skills_, id);
    self_->monitor(made.actor);
    found = awake_.emplace(id, std::move(made)).first;
  }
  found->second.last_used = clock::now();
  return found->second;
}

/// Asks an agent. `done` gets its answer, or that it died, once.
template <class Reply, class Request>
void agents_state::ask(const std::string& id, Request request, answered<Reply> done) {
  seat& agent = wake(id);
  constexpr bool is_chat = std::is_same_v<Request, chat>;
  ++agent.open;
  if (is_chat && ++agent.chats == 1)
    ++turns_alive_;
  std::uint64_t ticket = ++last_question_;
  questions_.emplace(ticket, question{id, [done](const error& why) { done(why); }});
  auto settle = [this, ticket, id, done](expected<Reply> answer) {
    if (questions_.erase(ticket) == 0)
      return; // its agent died, and `done` knows
    if (auto found = awake_.find(id); found != awake_.end()) {
      --found->second.open;
      if (is_chat && --found->second.chats == 0)
        --turns_alive_;
      found->second.last_used = clock::now();
    }
    done(std::move(answer));
  };
  self_->request(agent.actor, caf::infinite, std::move(request))
      .then([settle](Reply& reply) { settle(std::move(reply)); },
            [settle](error& why) { settle(std::move(why)); });
}

/// An agent died of a fault: whoever waits for it is told, and the conversation lives in its
/// records.
void agents_state::on_down(const caf::actor_addr& who) {
  auto found = std::ranges::find_if(
      awake_, [&](const auto& each) { return each.second.actor.address() == who; });
  if (found == awake_.end())
    return;
  std::string id = found->first;
  if (found->second.chats > 0)
    --turns_alive_;
  awake_.erase(found);
  std::vector<question> lost;
  std::erase_if(questions_, [&](auto& each) {
    if (each.second.conversation != id)
      return false;
    lost.push_back(std::move(each.second));
    return true;
  });
  for (question& each : lost)
    each.give_up(fail(ec::internal, "the agent of " + id + " failed"));
  if (!lost.empty())
    log::error("agents", "an agent failed", {{"conversation", id}});
}

/// Ends an agent that nobody asks anything. Its conversation stays in the store.
void agents_state::let_go(const std::string& id) {
  auto node = awake_.extract(id);
  if (!node.empty())
    caf::anon_send_exit(node.mapped().actor, caf::exit_reason::user_shutdown);
}

// --- requests ------------------------------------------------------------------------------------

caf::result<chat_reply> agents_state::on_chat(chat& request) {
  if (is_draining_)
    return fail(ec::shutting_down, "the server drains and takes nothing new");
  if (std::string fault = fault_of_names(request); !fault.empty())
    return fail(ec::malformed, fault);
  if (std::string fault = fault_of(request); !fault.empty())
    return fail(ec::malformed, fault);
  if (request.conversation.empty())
    request.conversation = "chat-" + new_hex_id();
  const std::string id = request.conversation;
  auto seated = awake_.find(id);
  bool at_work = seated != awake_.end() && seated->second.chats > 0;
  if (!at_work && turns_alive_ >= parts_.config->agents.turns_alive_max)
    return caf::make_error(ec::no_capacity,
                           std::to_string(turns_alive_) + " conversations are at a turn already",
                           static_cast<std::uint32_t>(limits::retry_after.count()));
  auto promise = self_->make_response_promise<chat_reply>();
  if (!known_.contains(id)) {
    conversation_info fresh;
    fresh.conversation = id;
    fresh.created_at_ms = unix_ms();
    fresh.last_used_at_ms = fresh.created_at_ms;
    make_room();
    known_.emplace(id, std::move(fresh));
  }
  ++chats_open_;
  ask<chat_reply>(id, std::move(request), [this, promise, id](expected<chat_reply> answer) mutable {
    // What the conversation became is known before its answer is: a list asked for next has it.
    auto kept = std::make_shared<expected<chat_reply>>(std::move(answer));
    refresh(id, [this, promise, kept]() mutable {
      if (*kept)
        promise.deliver(std::move(**kept));
      else
        promise.deliver(kept->error());
      --chats_open_;
      check_drained();
    });
  });
  return promise;
}

/// Looks what became of a conversation.
void agents_state::refresh(const std::string& id, std::function<void()> then) {
  auto note = [this, id, then](expected<conversation_info> info) {
    if (auto found = known_.find(id); info && found != known_.end())
      found->second = std::move(*info);
    then();
  };
  if (awake_.contains(id))
    ask<conversation_info>(id, list_conversations{}, note);
  else
    then();
}

caf::result<chat_cancelled> agents_state::on_cancel(const cancel_chat& request) {
  if (!known_.contains(request.conversation))
    return no_such(request.conversation);
  if (!awake_.contains(request.conversation))
    return chat_cancelled{.conversation = request.conversation, .was_busy = false};
  auto promise = self_->make_response_promise<chat_cancelled>();
  ask<chat_cancelled>(request.conversation, request, pass_to(promise));
  return promise;
}

caf::result<conversation_list> agents_state::on_list(const list_conversations& request) {
  if (request.limit < 1 || request.limit > listed_max)
    return fail(ec::malformed, "limit: must be 1 to " + std::to_string(listed_max));
  if (!request.conversation.empty()) {
    if (!known_.contains(request.conversation))
      return no_such(request.conversation);
    auto promise = self_->make_response_promise<conversation_list>();
    ask<conversation_info>(request.conversation, request,
                           [promise](expected<conversation_info> info) mutable {
                             if (info)
                               promise.deliver(conversation_list{.conversations = {*info}});
                             else
                               promise.deliver(info.error());
                           });
    return promise;
  }
  conversation_list all;
  for (const auto& [id, info] : known_) {
    all.conversations.push_back(info);
    auto seated = awake_.find(id);
    all.conversations.back().busy = seated != awake_.end() && seated->second.chats > 0;
  }
  std::ranges::sort(all.conversations, std::greater{}, &conversation_info::last_used_at_ms);
  if (all.conversations.size() > request.limit)
    all.conversations.resize(request.limit);
  return all;
}

caf::result<conversation_closed> agents_state::on_close(const close_conversation& request) {
  if (!known_.contains(request.conversation))
    return no_such(request.conversation);
  auto promise = self_->make_response_promise<conversation_closed>();
  close(request.conversation, pass_to(promise));
  return promise;
}

void agents_state::close(const std::string& id, answered<conversation_closed> done) {
  ask<conversation_closed>(id, close_conversation{.conversation = id},
                           [this, id, done](expected<conversation_closed> answer) {
                             if (answer) {
                               if (auto node = awake_.extract(id);
                                   !node.empty() && node.mapped().chats > 0)
                                 --turns_alive_;
                               known_.erase(id);
                             }
                             done(std::move(answer));
                           });
}

// --- bounds --------------------------------------------------------------------------------------

/// One more conversation would be too many: the one used longest ago is closed, unless it is at
/// work. The newcomer is not among them yet: it cannot be the one that goes.
void agents_state::make_room() {
  if (known_.size() < parts_.config->agents.conversations_max)
    return;
  const conversation_info* oldest = nullptr;
  for (const auto& [id, info] : known_) {
    auto seated = awake_.find(id);
    bool at_work = seated != awake_.end() && seated->second.open > 0;
    if (!at_work && (oldest == nullptr || info.last_used_at_ms < oldest->last_used_at_ms))
      oldest = &info;
  }
  if (oldest == nullptr)
    return;
  close(std::string{oldest->conversation}, [](const expected<conversation_closed>&) {});
}

/// Agents that were not asked anything for long go, and those beyond the bound.
void agents_state::on_tick() {
  std::vector<std::pair<clock::time_point, std::string>> idle;
  for (const auto& [id, each] : awake_)
    if (each.open == 0)
      idle.emplace_back(each.last_used, id);
  std::ranges::sort(idle);
  std::size_t too_many =
      idle.size() > limits::agents_idle_max ? idle.size() - limits::agents_idle_max : 0;
  for (std::size_t i = 0; i < idle.size(); ++i)
    if (i < too_many || idle[i].first + limits::agent_idle_time < clock::now())
      let_go(idle[i].second);
  self_->delayed_send(self_, look_every, caf::tick_atom_v);
}

/// Ends every chat; each answers before this does.
caf::result<drained> agents_state::on_drain() {
  is_draining_ = true;
  draining_ = self_->make_response_promise<drained>();
  auto promise = draining_;
  for (const auto& [id, each] : awake_)
    if (each.chats > 0) {
      ++interrupted_;
      caf::anon_send(each.actor, drain{});
    }
  check_drained();
  return promise;
}

void agents_state::check_drained() {
  if (is_draining_ && chats_open_ == 0 && draining_.pending())
    draining_.deliver(drained{.ended = 0, .interrupted = interrupted_});
}

agents_actor::behavior_type agents(agents_actor::stateful_pointer<agents_state> self,
                                   agents_parts parts) {
  return state_of(self).make_behavior(self, std::move(parts));
}

} // namespace

agents_actor spawn_agents(caf::actor_system& system, agents_parts parts) {
  return system.spawn(agents, std::move(parts));
}

} // namespace berth
