// SPDX-License-Identifier: Apache-2.0
#include "actors/agents/model.hpp"

#include "actors/agents/model_call.hpp"
#include "config/log.hpp"

#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include "models/endpoint_url.hpp"
#include "models/failure.hpp"
#include "models/fair_queue.hpp"
#include "models/limits.hpp"
#include <algorithm>
#include <cstdlib>
#include <map>
#include <random>
#include <set>

namespace berth {

namespace {

using clock = std::chrono::steady_clock;
using models::attempt_end;
using std::chrono::milliseconds;

/// What one call is known by; also of looks at endpoints.
using ticket = std::uint64_t;

/// One configured endpoint, with what goes on there.
struct place {
  model_endpoint settings;
  /// How errors and lists name it.
  std::string shown;
  std::string key;
  /// Why it cannot be called; empty when it can.
  std::string fault;
  models::fair_queue queue{1, 0};
  std::uint64_t calls_total = 0;
  std::uint64_t failures_total = 0;
  /// Models that refused to be given a temperature.
  std::set<std::string> untempered;
  /// The last look at it.
  bool reachable = false;
  std::vector<std::string> names;
  std::string detail;
};

/// One question under way.
struct call {
  ask_model asked;
  caf::typed_response_promise<model_answer> promise;
  std::size_t at = 0;
  std::string asker;
  clock::time_point deadline;
  std::uint32_t attempts = 0;
  /// All but the first have a place at the endpoint.
  enum class stage { waits, on_wire, rests, ended } now = stage::waits;
  models::wire::token exchange = 0;
  std::shared_ptr<call_listener> listener;
  /// When a call that rests is tried again.
  clock::time_point retry_at;
};

const std::string& model_of(const ask_model& asked, const place& at) {
  return asked.model.model.empty() ? at.settings.model : asked.model.model;
}

/// Who takes turns with whom: a stream of progress, else the part of a call's name before its first
/// dot.
std::string asker_of(const ask_model& asked) {
  if (!asked.progress.empty())
    return asked.progress;
  return asked.call.substr(0, asked.call.find('.'));
}

/// The key of an endpoint, from the environment. A line's end in it could add headers.
void read_key(place& to) {
  const std::string& name = to.settings.api_key_env;
  if (name.empty())
    return;
  const char* value = std::getenv(name.c_str());
  to.key = value == nullptr ? "" : value;
  bool visible = std::ranges::all_of(to.key, [](char c) { return c > ' ' && c < 0x7F; });
  if (to.key.empty())
    to.fault = "the environment variable " + name + ", which is to hold its key, is not set";
  else if (!visible)
    to.fault = "the environment variable " + name + " is no key: it has blanks or other characters";
  if (!to.fault.empty())
    to.key.clear();
}

double cost_of(const model_endpoint& at, const std::string& model, const model_usage& used) {
  auto price = at.prices.find(model);
  if (price == at.prices.end())
    price = at.prices.find("*");
  if (price == at.prices.end())
    return 0;
  return (static_cast<double>(used.input_tokens) * price->second.input_usd
          + static_cast<double>(used.output_tokens) * price->second.output_usd)
         / 1e6;
}

/// MODEL: asks language models. Its own thread is the wire's; here are queues, retries, deadlines.
class model_state {
public:
  static constexpr const char* name = "berth.model";

  model_actor::behavior_type make_behavior(model_actor::pointer self,
                                           std::shared_ptr<const settings> values,
                                           progress_actor progress) {
    self_ = self;
    values_ = std::move(values);
    progress_ = std::move(progress);
    inbox_ = std::make_shared<model_inbox>(caf::actor_cast<model_actor>(self));
    for (const model_endpoint& each : values_->models) {
      place& made = places_.emplace_back();
      made.settings = each;
      made.shown = models::plain_url(each.base_url);
      made.queue = {each.calls_max, each.waiting_max};
      read_key(made);
      if (!made.fault.empty())
        log::warn("model", "an endpoint cannot be called",
                  {{"endpoint", made.shown}, {"why", made.fault}});
    }
    self->set_exit_handler([this](caf::exit_msg& end) { on_exit(end); });
    return {
        [this](ask_model& x) { return on_ask(x); },
        [this](const cancel_model& x) { on_cancel(x); },
        [this](const list_models&) { return on_list(); },
        [this](caf::update_atom) { on_update(); },
        [this](caf::tick_atom) { on_tick(); },
    };
  }

private:
  caf::result<model_answer> on_ask(ask_model& asked);
  void on_cancel(const cancel_model& asked);
  caf::result<model_list> on_list();
  void on_update();
  void on_tick();
  void on_exit(caf::exit_msg& end);

  expected<std::size_t> choose(const ask_model& asked) const;
  bool goes_without_temperature(call& which, const attempt_result& result);
  void begin(ticket id);
  void settle(attempt_result& result);
  void finish(ticket id, call& which, model_answer answer);
  void give_up(ticket id, models::failed_call why);
  /// Takes a call out, whatever it is at, and gives its place to the next.
  call take_out(ticket id);
  void wake_at(clock::time_point due);

  void look(std::size_t at);
  void looked(std::size_t at, attempt_result& result);
  void tell_lists();
  model_list listed() const;

  model_actor::pointer self_ = nullptr;
  std::shared_ptr<const settings> values_;
  progress_actor progress_;
  std::vector<place> places_; // one for each endpoint of the settings
  std::map<ticket, call> calls_;
  std::map<std::string, ticket> by_name_;
  ticket last_ticket_ = 0;
  std::optional<clock::time_point> next_tick_;

  std::map<ticket, std::size_t> looks_;
  std::vector<caf::typed_response_promise<model_list>> askers_of_lists_;
  std::optional<clock::time_point> looked_at_;

  std::mt19937_64 chance_{std::random_device{}()};
  std::shared_ptr<model_inbox> inbox_;
  /// Last: its thread ends before anything else goes.
  models::wire wire_;
};

/// Which endpoint a question is for, or why there is none.
expected<std::size_t> model_state::choose(const ask_model& asked) const {
  const auto& all = values_->models;
  const model_endpoint* found = models::find_endpoint(all, asked.model);
  if (found == nullptr) {
    if (!asked.model.base_url.empty())
      return fail(ec::rejected, "llm_base_url: " + asked.model.base_url
                                    + " is none of the configured model endpoints");
    return fail(ec::rejected,
                "llm_base_url: no endpoint of the provider "
                    + (asked.model.provider.empty() ? "asked for" : asked.model.provider)
                    + " is configured");
  }
  return static_cast<std::size_t>(found - all.data());
}

caf::result<model_answer> model_state::on_ask(ask_model& asked) {
  auto at = choose(asked);
  if (!at)
    return at.error();
  place& where = places_[*at];
  if (!where.fault.empty())
    return fail(ec::unauthorized, "model endpoint " + where.shown + ": " + where.fault);
  if (!asked.tools.empty())
    if (auto tools = parse_json(asked.tools); !tools || !tools->is_array())
      return fail(ec::malformed, "tools: must be a JSON list");
  if (asked.call.empty())
    asked.call = "call-" + std::to_string(last_ticket_ + 1);
  if (by_name_.contains(asked.call))
    return fail(ec::already_exists, "call: " + asked.call + " is under way");
  ticket id = ++last_ticket_;
  std::string asker = asker_of(asked);
  auto entry = where.queue.enter(asker, id);
  if (entry == models::fair_queue::entry::full)
    return caf::make_error(ec::no_capacity,
                           "model endpoint " + where.shown + ": "
                               + std::to_string(where.settings.waiting_max)
                               + " calls wait for a place (waiting_max)",
                           static_cast<std::uint32_t>(limits::retry_after.count()));
  std::uint64_t time = asked.timeout_ms > 0 ? asked.timeout_ms : where.settings.timeout_ms;
  call made{.asked = std::move(asked),
            .promise = self_->make_response_promise<model_answer>(),
            .at = *at,
            .asker = std::move(asker),
            .deadline = clock::now() + milliseconds{time}};
  auto promise = made.promise;
  by_name_[made.asked.call] = id;
  wake_at(made.deadline);
  calls_.emplace(id, std::move(made));
  ++where.calls_total;
  if (entry == models::fair_queue::entry::go)
    begin(id);
  return promise;
}

/// Puts a call that has a place on the wire.
void model_state::begin(ticket id) {
  call& which = calls_.at(id);
  place& where = places_[which.at];
  // One that is late already is ended by the wire, as others.
  auto left =
      std::max(std::chrono::ceil<milliseconds>(which.deadline - clock::now()), milliseconds{1});
  const models::dialect& speech = models::dialect_of(where.settings.provider);
  if (where.untempered.contains(model_of(which.asked, where)))
    which.asked.model.temperature = {};
  bool stream = !which.asked.progress.empty();
  which.now = call::stage::on_wire;
  ++which.attempts;
  which.listener = std::make_shared<call_listener>(call_listener::options{
      .ticket = id,
      .reader = speech.read_answer(
          {.bytes_max = where.settings.answer_bytes_max,
           .id_prefix = "call_" + std::to_string(unsigned(chance_() >> 40)) + "_"}),
      .inbox = inbox_,
      .progress = progress_,
      .stream = which.asked.progress,
      .step = which.asked.step});
  which.exchange = wire_.start({.url = speech.chat_url(where.settings),
                                .body = speech.chat_body(which.asked, where.settings, stream),
                                .key = where.key,
                                .key_has_own_header = !where.settings.api_version.empty(),
                                .fresh_connection = which.attempts > 1,
                                .connect_timeout = milliseconds{where.settings.connect_timeout_ms},
                                .silence_timeout = milliseconds{where.settings.silence_timeout_ms},
                                // A whole answer comes at its end only.
                                .waits_for_first = !stream,
                                .whole_timeout = left},
                               which.listener);
}

call model_state::take_out(ticket id) {
  auto node = calls_.extract(id);
  call which = std::move(node.mapped());
  by_name_.erase(which.asked.call);
  if (which.listener)
    which.listener->mute();
  if (which.now == call::stage::on_wire)
    wire_.cancel(which.exchange);
  place& where = places_[which.at];
  if (which.now == call::stage::waits)
    where.queue.forget(which.asker, id);
  else if (auto next = where.queue.leave(which.asker))
    begin(*next);
  return which;
}

void model_state::give_up(ticket id, models::failed_call why) {
  call which = take_out(id);
  place& where = places_[which.at];
  why.endpoint = where.shown;
  why.attempts = std::max(which.attempts, 1U);
  why.with_tools = !which.asked.tools.empty();
  why.why = models::without(std::move(why.why), where.key);
  error failure = models::failure_of(why);
  if (why.end != attempt_end::cancelled) {
    ++where.failures_total;
    log::warn("model", "a call failed",
              {{"call", which.asked.call}, {"why", describe_error(failure)}});
  }
  which.promise.deliver(std::move(failure));
}

void model_state::finish(ticket id, call& which, model_answer answer) {
  const place& where = places_[which.at];
  const std::string& model = model_of(which.asked, where);
  if (answer.model.empty())
    answer.model = model;
  answer.usage.calls = 1;
  answer.usage.cost_usd = cost_of(where.settings, model, answer.usage);
  answer.attempts = which.attempts;
  call done = take_out(id);
  done.promise.deliver(std::move(answer));
}

/// Learns which models refuse a temperature. True: this one does, and is to be asked without.
bool model_state::goes_without_temperature(call& which, const attempt_result& result) {
  if (!which.asked.model.temperature
      || !models::refuses_temperature(
          {.end = result.end, .status = result.status, .why = result.why}))
    return false;
  place& where = places_[which.at];
  const std::string& model = model_of(which.asked, where);
  log::info("model", "refuses a temperature; none is sent from now on",
            {{"endpoint", where.shown}, {"model", model}});
  if (where.untempered.size() < limits::models_untempered_max)
    where.untempered.insert(model);
  which.asked.model.temperature = {};
  return true;
}

void model_state::settle(attempt_result& result) {
  auto at = calls_.find(result.ticket);
  if (at == calls_.end())
    return; // cancelled meanwhile
  call& which = at->second;
  which.now = call::stage::ended;
  const place& where = places_[which.at];
  bool cut_off = result.end == attempt_end::too_large && !result.answer.text.empty();
  if (result.end == attempt_end::answered || cut_off)
    return finish(result.ticket, which, std::move(result.answer));
  if (goes_without_temperature(which, result))
    return begin(result.ticket);
  auto now = clock::now();
  double chance = std::uniform_real_distribution<double>{}(chance_);
  auto pause = models::retry_delay(
      {.end = result.end,
       .status = result.status,
       .retry_after = result.retry_after,
       .passed_on = result.passed_on,
       .attempts = which.attempts,
       .time_left = std::chrono::duration_cast<milliseconds>(which.deadline - now)},
      where.settings.attempts_max, chance);
  if (!pause)
    return give_up(result.ticket, {.end = result.end,
                                   .status = result.status,
                                   .why = std::move(result.why),
                                   .retry_after = result.retry_after});
  log::info("model", "a call is tried again",
            {{"call", which.asked.call},
             {"endpoint", where.shown},
             {"status", std::to_string(result.status)},
             {"why", models::without(std::move(result.why), where.key)},
             {"in_ms", std::to_string(pause->count())}});
  which.now = call::stage::rests;
  which.retry_at = now + *pause;
  wake_at(which.retry_at);
}

void model_state::on_cancel(const cancel_model& asked) {
  if (auto at = by_name_.find(asked.call); at != by_name_.end())
    give_up(at->second, {.end = attempt_end::cancelled});
}

void model_state::on_update() {
  for (attempt_result& each : inbox_->take()) {
    if (auto at = looks_.find(each.ticket); at != looks_.end()) {
      std::size_t which = at->second;
      looks_.erase(at);
      looked(which, each);
    } else {
      settle(each);
    }
  }
}

void model_state::wake_at(clock::time_point due) {
  if (next_tick_ && *next_tick_ <= due)
    return;
  next_tick_ = due;
  auto wait = std::chrono::ceil<milliseconds>(due - clock::now());
  self_->delayed_send(self_, std::max(wait, milliseconds{0}), caf::tick_atom_v);
}

/// Calls whose pause is over go on; calls that never got so far as the wire end at their deadline.
void model_state::on_tick() {
  auto now = clock::now();
  if (!next_tick_ || *next_tick_ > now)
    return; // an earlier one took its place, and another one is under way
  next_tick_.reset();
  std::vector<ticket> late;
  std::vector<ticket> rested;
  auto next = clock::time_point::max();
  for (auto& [id, each] : calls_) {
    if (each.now == call::stage::on_wire)
      continue; // the wire keeps its time
    bool rests = each.now == call::stage::rests;
    auto due = rests ? each.retry_at : each.deadline;
    if (due > now)
      next = std::min(next, due);
    else
      (rests ? rested : late).push_back(id);
  }
  if (next != clock::time_point::max())
    wake_at(next);
  for (ticket id : rested)
    begin(id);
  for (ticket id : late)
    if (calls_.at(id).now == call::stage::waits) // none before it gave its place to this one
      give_up(id, {.end = attempt_end::deadline});
}

void model_state::on_exit(caf::exit_msg& end) {
  // Backwards: who gets a place from one that ends here has ended already.
  while (!calls_.empty()) {
    auto last = std::prev(calls_.end());
    if (last->second.listener)
      last->second.listener->mute();
    last->second.promise.deliver(fail(ec::shutting_down, "the server ends"));
    calls_.erase(last);
  }
  for (auto& each : askers_of_lists_)
    each.deliver(fail(ec::shutting_down, "the server ends"));
  self_->quit(std::move(end.reason));
}

caf::result<model_list> model_state::on_list() {
  if (looked_at_ && *looked_at_ + limits::models_listed_for > clock::now())
    return listed();
  if (askers_of_lists_.empty())
    for (std::size_t i = 0; i < places_.size(); ++i)
      look(i);
  if (looks_.empty())
    return listed();
  if (askers_of_lists_.size() >= limits::requests_open_max)
    return caf::make_error(ec::no_capacity, "too many ask for the models",
                           static_cast<std::uint32_t>(limits::retry_after.count()));
  askers_of_lists_.push_back(self_->make_response_promise<model_list>());
  return askers_of_lists_.back();
}

void model_state::look(std::size_t at) {
  place& where = places_[at];
  if (!where.fault.empty()) {
    where.detail = where.fault;
    return;
  }
  ticket id = ++last_ticket_;
  looks_[id] = at;
  wire_.start({.url = models::dialect_of(where.settings.provider).list_url(where.settings),
               .body = {},
               .key = where.key,
               .key_has_own_header = !where.settings.api_version.empty(),
               .connect_timeout = limits::models_listed_within,
               .silence_timeout = limits::models_listed_within,
               .whole_timeout = limits::models_listed_within},
              std::make_shared<look_listener>(id, inbox_));
}

void model_state::looked(std::size_t at, attempt_result& result) {
  place& where = places_[at];
  where.reachable = false;
  where.names.clear();
  where.detail.clear();
  if (result.end != attempt_end::answered) {
    if (result.end == attempt_end::refused)
      result.why = models::refusal_text(result.body);
    error why = models::failure_of({.endpoint = where.shown,
                                    .end = result.end,
                                    .status = result.status,
                                    .why = models::without(std::move(result.why), where.key)});
    where.detail = to_refusal(why).detail;
  } else if (auto names = models::dialect_of(where.settings.provider).read_list(result.body)) {
    where.names = std::move(*names);
    where.reachable = true;
  } else {
    where.detail = "model endpoint " + where.shown + ": " + names.why().text();
  }
  if (looks_.empty())
    tell_lists();
}

void model_state::tell_lists() {
  looked_at_ = clock::now();
  model_list all = listed();
  for (auto& each : std::exchange(askers_of_lists_, {}))
    each.deliver(all);
}

model_list model_state::listed() const {
  model_list all;
  for (const place& each : places_)
    all.endpoints.push_back({.provider = each.settings.provider,
                             .base_url = each.shown,
                             .reachable = each.reachable,
                             .models = each.names,
                             .detail = each.detail,
                             .calls_alive = static_cast<std::uint32_t>(each.queue.running()),
                             .calls_waiting = static_cast<std::uint32_t>(each.queue.waiting()),
                             .calls_total = each.calls_total,
                             .failures_total = each.failures_total,
                             .key_variable = each.settings.api_key_env,
                             .has_key = !each.key.empty()});
  return all;
}

model_actor::behavior_type model_behavior(model_actor::stateful_pointer<model_state> self,
                                          std::shared_ptr<const settings> values,
                                          const progress_actor& progress) {
  return state_of(self).make_behavior(self, std::move(values), progress);
}

} // namespace

model_actor spawn_model(caf::actor_system& system, std::shared_ptr<const settings> values,
                        progress_actor progress) {
  return system.spawn(model_behavior, std::move(values), std::move(progress));
}

} // namespace berth
