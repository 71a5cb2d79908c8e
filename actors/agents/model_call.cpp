// SPDX-License-Identifier: Apache-2.0
#include "actors/agents/model_call.hpp"

#include <caf/send.hpp>

#include "models/limits.hpp"

namespace berth {

namespace {

using models::attempt_end;
using models::exchange_end;

/// What the end of a connection means before its answer is looked at.
attempt_end meaning_of(exchange_end::how what) {
  switch (what) {
  case exchange_end::how::hopeless:
    return attempt_end::hopeless;
  case exchange_end::how::silence:
    return attempt_end::silence;
  case exchange_end::how::deadline:
    return attempt_end::deadline;
  default:
    return attempt_end::network;
  }
}

bool is_success(int status) {
  return status >= 200 && status < 300;
}

} // namespace

void model_inbox::put(attempt_result one) {
  bool first = false;
  {
    std::lock_guard guard{mutex_};
    first = all_.empty();
    all_.push_back(std::move(one));
  }
  if (first)
    caf::anon_send(reader_, caf::update_atom_v);
}

std::vector<attempt_result> model_inbox::take() {
  std::lock_guard guard{mutex_};
  return std::exchange(all_, {});
}

void call_listener::mute() {
  std::lock_guard guard{mutex_};
  muted_ = true;
}

bool call_listener::on_data(int status, std::string_view data) {
  if (!is_success(status)) {
    refusal_ += data.substr(0, limits::model_refusal_bytes_max - refusal_.size());
    return refusal_.size() < limits::model_refusal_bytes_max;
  }
  state now = how_.reader->push(data);
  return now == state::reading || now == state::whole;
}

void call_listener::pass_on() {
  std::string news = how_.reader->take_news();
  if (news.empty() || how_.stream.empty())
    return;
  passed_on_ = true;
  std::lock_guard guard{mutex_};
  if (muted_)
    return;
  progress_event event;
  event.id = how_.stream;
  event.step = how_.step;
  event.kind = progress_kind::token;
  event.text = std::move(news);
  caf::anon_send(how_.progress, note_progress{std::move(event)});
}

bool call_listener::on_pause() {
  if (reported_)
    return false;
  pass_on();
  // An empty push asks for the state and changes nothing.
  if (how_.reader->push({}) != state::whole)
    return true;
  report({.end = attempt_end::answered});
  return false;
}

attempt_result call_listener::judge(exchange_end& end) {
  attempt_result result{.status = end.status, .retry_after = end.retry_after, .why = end.detail};
  if (end.status != 0 && !is_success(end.status)) {
    result.end = attempt_end::refused;
    result.why = models::refusal_text(refusal_);
    return result;
  }
  state now = how_.reader->push({});
  if (now == state::reading && end.what == exchange_end::how::complete)
    now = how_.reader->end();
  pass_on();
  switch (now) {
  case state::whole:
    result.end = attempt_end::answered;
    break;
  case state::full:
    result.end = attempt_end::too_large;
    break;
  case state::broken:
    result.end = attempt_end::broken;
    result.why = how_.reader->fault();
    break;
  case state::refused:
    // Said inside an answer that began well: the endpoint's own fault, whatever its status was.
    result.end = attempt_end::refused;
    result.status = 500;
    result.why = how_.reader->fault();
    break;
  case state::reading:
    result.end = meaning_of(end.what);
    if (end.what == exchange_end::how::complete)
      result.why = "the answer ended before its end";
    break;
  }
  return result;
}

void call_listener::report(attempt_result result) {
  reported_ = true;
  result.ticket = how_.ticket;
  result.passed_on = passed_on_;
  if (result.end == attempt_end::answered || result.end == attempt_end::too_large)
    result.answer = how_.reader->take_answer();
  how_.inbox->put(std::move(result));
}

void call_listener::on_end(exchange_end end) {
  if (!reported_)
    report(judge(end));
}

bool look_listener::on_data(int, std::string_view data) {
  body_ += data;
  return body_.size() <= limits::models_listed_bytes_max;
}

void look_listener::on_end(exchange_end end) {
  attempt_result result{.ticket = ticket_, .status = end.status, .why = end.detail};
  if (end.what == exchange_end::how::stopped)
    result.end = attempt_end::too_large;
  else if (end.what != exchange_end::how::complete)
    result.end = meaning_of(end.what);
  else
    result.end = is_success(end.status) ? attempt_end::answered : attempt_end::refused;
  result.body = std::move(body_);
  inbox_->put(std::move(result));
}

} // namespace berth
