// SPDX-License-Identifier: Apache-2.0
#include "actors/slot_contexts.hpp"

#include "actors/ids.hpp"
#include "config/limits.hpp"

#include <algorithm>

namespace berth {

namespace {

std::string how_it_ended(const guest::kernel_ended& message) {
  if (message.signal)
    return "by signal " + std::to_string(*message.signal);
  return "with exit code " + std::to_string(message.exit_code ? *message.exit_code : 0);
}

error no_context(const std::string& name) {
  return fail(ec::not_found, "context: there is no context " + name);
}

} // namespace

std::string_view kernel_template_of(std::string_view language) {
  if (language == "python")
    return "python_kernel";
  return language == "javascript" ? language : std::string_view{};
}

slot_contexts::context* slot_contexts::find(const std::string& name) {
  auto found = all_.find(name);
  return found == all_.end() || found->second.closes ? nullptr : &found->second;
}

error slot_contexts::add(const std::string& name, const std::string& language,
                         const std::string& cwd) {
  if (all_.contains(name))
    return fail(ec::conflict, "context: " + name + " is being closed");
  if (all_.size() >= limits::contexts_per_session_max)
    return fail(ec::no_capacity, "context: the session has "
                                     + std::to_string(limits::contexts_per_session_max)
                                     + " already");
  context& each = all_[name];
  each.info = {.session = {},
               .context = name,
               .language = language,
               .cwd = cwd,
               .state = context_state::starting,
               .execution_count = 0,
               .created_at_ms = unix_ms()};
  start(each);
  return {};
}

void slot_contexts::start(context& each) {
  each.info.state = context_state::starting;
  each.info.execution_count = 0;
  each.is_used = each.cell_ahead = false;
  each.start_number = ++numbers_;
  call_.wake_later(kernel_start_timeout, each.start_number);
  std::string_view warm = kernel_template_of(each.info.language);
  if (!warm.empty() && call_.take_warm(warm) == warmth::coming) {
    each.waits_for_warm = true;
    each.warm_number = ++numbers_;
    call_.wake_later(kernel_warm_wait, each.warm_number);
    return;
  }
  send_open(each);
}

void slot_contexts::send_open(context& each) {
  each.waits_for_warm = false;
  each.waits_for_rest = call_.at_rest();
  if (each.waits_for_rest)
    return;
  each.known = true;
  call_.send(guest::open_kernel{
      .context = each.info.context, .language = each.info.language, .cwd = each.info.cwd});
  call_.on_known(each.info.context);
}

void slot_contexts::end(context& each) {
  if (each.known && !std::exchange(each.ending, true))
    call_.send(guest::close_kernel{each.info.context});
}

void slot_contexts::forget(const std::string& name) {
  auto node = all_.extract(name);
  if (node.empty())
    return;
  for (auto& promise : node.mapped().closing)
    promise.deliver(context_closed{.session = {}, .context = name});
}

// --- what clients ask ----------------------------------------------------------------------------

void slot_contexts::open(const open_context& request,
                         caf::typed_response_promise<context_info> promise) {
  error why = find(request.context) != nullptr
                  ? fail(ec::already_exists, "context: " + request.context + " is in use")
                  : add(request.context, request.language, request.cwd);
  if (why)
    promise.deliver(std::move(why));
  else
    all_.at(request.context).opening.push_back(std::move(promise));
}

context_list slot_contexts::list() const {
  context_list answer;
  for (const auto& [name, each] : all_)
    if (!each.closes)
      answer.contexts.push_back(each.info);
  std::ranges::stable_sort(answer.contexts, {}, &context_info::created_at_ms);
  return answer;
}

void slot_contexts::restart(const restart_context& request,
                            caf::typed_response_promise<context_info> promise) {
  context* each = find(request.context);
  if (each == nullptr) {
    promise.deliver(no_context(request.context));
    return;
  }
  each->opening.push_back(std::move(promise));
  each->lost.clear();
  if (each->info.state == context_state::dead && !each->known)
    return start(*each);
  if (each->waits_for_warm || each->waits_for_rest)
    return;
  each->restarts = true;
  each->info.state = context_state::starting;
  end(*each);
}

void slot_contexts::close(const close_context& request,
                          caf::typed_response_promise<context_closed> promise) {
  context* each = find(request.context);
  if (each == nullptr) {
    promise.deliver(no_context(request.context));
    return;
  }
  each->closing.push_back(std::move(promise));
  each->closes = true;
  for (auto& opening : each->opening)
    opening.deliver(fail(ec::conflict, "context: " + request.context + " was closed"));
  each->opening.clear();
  if (each->known)
    end(*each);
  else
    forget(request.context);
}

expected<interrupt_sent> slot_contexts::interrupt_cell(const interrupt& request) {
  context* each = find(request.context);
  if (each == nullptr)
    return no_context(request.context);
  bool busy = each->info.state == context_state::busy;
  if (busy)
    call_.send(guest::interrupt_kernel{request.context});
  return interrupt_sent{.session = {}, .context = request.context, .was_busy = busy};
}

// --- cells ---------------------------------------------------------------------------------------

error slot_contexts::prepare(const run& request) {
  context* each = find(request.context);
  if (each == nullptr)
    return add(request.context, request.language, request.cwd);
  if (each->info.language != request.language)
    return fail(ec::conflict,
                "context: " + request.context + " is an interpreter of " + each->info.language);
  if (each->info.state == context_state::dead && !each->known)
    start(*each);
  else if (each->info.state == context_state::dead)
    each->restarts = true;
  return {};
}

bool slot_contexts::is_known(const std::string& name) const {
  auto found = all_.find(name);
  return found != all_.end() && found->second.known && !found->second.ending
         && !found->second.closes;
}

void slot_contexts::cell_sent(const std::string& name) {
  context* each = find(name);
  if (each == nullptr)
    return;
  each->cell_ahead = each->info.state == context_state::starting;
  if (each->info.state == context_state::idle)
    each->info.state = context_state::busy;
}

slot_contexts::cell_notes slot_contexts::cell_ended(const std::string& name,
                                                    const cell_report* report) {
  cell_notes notes;
  auto found = all_.find(name);
  if (found == all_.end())
    return notes;
  context& each = found->second;
  notes.path = std::exchange(each.is_used, true) ? run_path::warm : each.path;
  notes.lost = std::exchange(each.lost, {});
  each.cell_ahead = false;
  if (report != nullptr)
    each.info.execution_count = report->execution_count;
  if (each.info.state != context_state::busy)
    return notes;
  each.info.state = context_state::idle;
  if (report != nullptr && !report->kernel_alive) {
    // kernel_ended follows; until then it takes no cell.
    each.info.state = context_state::dead;
    each.ending = true;
  }
  return notes;
}

// --- what the machine says -----------------------------------------------------------------------

void slot_contexts::on_warmed(const std::string& warm) {
  for (auto& [name, each] : all_)
    if (each.waits_for_warm && kernel_template_of(each.info.language) == warm) {
      // The one that came for it is taken by the guest.
      (void)call_.take_warm(warm);
      return send_open(each);
    }
}

void slot_contexts::on_opened(const guest::kernel_opened& message) {
  auto found = all_.find(message.context);
  if (found == all_.end() || !found->second.known)
    return;
  context& each = found->second;
  each.path = message.path;
  if (!message.error.empty()) {
    each.known = each.ending = false;
    if (std::exchange(each.restarts, false))
      return start(each);
    auto opening = std::move(each.opening);
    each.opening.clear();
    forget(message.context);
    for (auto& promise : opening)
      promise.deliver(fail(ec::machine_failed, "context: " + message.error));
    return;
  }
  if (each.ending)
    return;
  // A cell may have been sent ahead.
  if (each.info.state == context_state::starting)
    each.info.state = each.cell_ahead ? context_state::busy : context_state::idle;
  each.cell_ahead = false;
  for (auto& promise : each.opening)
    promise.deliver(each.info);
  each.opening.clear();
}

void slot_contexts::on_kernel_ended(const guest::kernel_ended& message) {
  auto found = all_.find(message.context);
  if (found == all_.end())
    return;
  context& each = found->second;
  each.known = each.ending = false;
  each.info.state = context_state::dead;
  if (each.closes)
    return forget(message.context);
  // Whoever asked for a restart knows.
  if (each.opening.empty())
    each.lost = "a new interpreter: the one before it ended " + how_it_ended(message)
                + ", and its variables with it";
  if (std::exchange(each.restarts, false))
    start(each);
}

void slot_contexts::on_wake(std::uint32_t number) {
  for (auto& [name, each] : all_) {
    if (each.waits_for_warm && each.warm_number == number)
      return send_open(each);
    if (each.info.state == context_state::starting && each.known && each.start_number == number)
      return end(each);
  }
}

void slot_contexts::on_awake() {
  for (auto& [name, each] : all_)
    if (each.waits_for_rest && !call_.at_rest())
      send_open(each);
}

void slot_contexts::saved(std::uint64_t checkpoint) {
  saved_[checkpoint] = list().contexts;
}

void slot_contexts::went_back(std::uint64_t checkpoint, const std::vector<std::string>& alive) {
  const char* const why = "the session went back to an earlier state";
  auto then = saved_.contains(checkpoint) ? saved_.at(checkpoint) : std::vector<context_info>{};
  std::vector<std::string> later;
  for (const auto& [name, each] : all_)
    if (std::ranges::find(then, name, &context_info::context) == then.end())
      later.push_back(name);
  for (const std::string& name : later) {
    for (auto& promise : all_.at(name).opening)
      promise.deliver(fail(ec::conflict, "context: " + name + ": " + why));
    forget(name);
  }
  for (const context_info& info : then) {
    context& each = all_[info.context];
    bool lives = std::ranges::find(alive, info.context) != alive.end();
    bool had_started = info.state != context_state::starting;
    for (auto& promise : std::exchange(each.opening, {}))
      promise.deliver(fail(ec::conflict, "context: " + info.context + ": " + why));
    each.info = info;
    each.info.state = lives ? context_state::idle : context_state::dead;
    each.known = lives;
    each.ending = each.restarts = each.closes = each.cell_ahead = false;
    each.waits_for_warm = each.waits_for_rest = false;
    each.is_used = lives && info.execution_count > 0;
    each.lost = lives || !had_started ? std::string{} : why;
  }
}

void slot_contexts::clear(const std::string& why) {
  saved_.clear();
  auto all = std::move(all_);
  all_.clear();
  for (auto& [name, each] : all) {
    for (auto& promise : each.opening)
      promise.deliver(fail(ec::machine_failed, why));
    for (auto& promise : each.closing)
      promise.deliver(context_closed{.session = {}, .context = name});
  }
}

} // namespace berth
