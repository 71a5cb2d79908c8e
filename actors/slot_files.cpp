// SPDX-License-Identifier: Apache-2.0
#include "actors/slot_files.hpp"

#include <algorithm>

namespace berth {

namespace {

/// Codes that a guest may give for what happened to a file. Another one is no reason it can have.
error reason(ec code, std::string text) {
  switch (code) {
  case ec::malformed:
  case ec::not_found:
  case ec::already_exists:
  case ec::no_capacity:
  case ec::rejected:
  case ec::too_large:
  case ec::conflict:
  case ec::deadline:
    return fail(code, std::move(text));
  default:
    return fail(ec::machine_failed, std::move(text));
  }
}

std::string with_member(const char* member, const std::string& text) {
  return *member == '\0' ? text : std::string{member} + ": " + text;
}

} // namespace

// --- requests ------------------------------------------------------------------------------------

error slot_files::no_room() {
  return caf::make_error(ec::no_capacity,
                         "session: " + std::to_string(limits::file_requests_max)
                             + " requests for its files are under way",
                         static_cast<std::uint32_t>(limits::retry_after.count()));
}

expected<std::uint32_t> slot_files::upload(file_upload what, clock::time_point now) {
  if (full())
    return no_room();
  std::uint32_t number = ++last_;
  timed_upload& added = uploads_[number];
  static_cast<file_upload&>(added) = std::move(what);
  added.until = now + file_timeout;
  send_chunks(number, added);
  return number;
}

/// Sends chunks of files as far as the window allows; the guest acknowledges each.
void slot_files::send_chunks(std::uint32_t number, timed_upload& what) {
  while (what.file < what.files.size() && what.unacknowledged < file_window) {
    const placed_file& file = what.files[what.file];
    std::size_t size = std::min(file.data.size() - what.sent, limits::chunk_bytes_max);
    auto from = file.data.begin() + static_cast<std::ptrdiff_t>(what.sent);
    bool last = what.sent + size == file.data.size();
    guest::put_file message{.request = number,
                            .path = file.path,
                            .cwd = what.cwd,
                            .mode = file.mode,
                            .offset = what.offset + what.sent,
                            .data = {from, from + static_cast<std::ptrdiff_t>(size)},
                            .last = last,
                            .keep_mode = what.keep_mode,
                            .want_info = last && what.keep_mode};
    ++what.unacknowledged;
    what.sent += size;
    if (last) {
      ++what.file;
      what.sent = 0;
    }
    send_(std::move(message));
  }
}

void slot_files::on_put(guest::file_put& message) {
  auto found = uploads_.find(message.request);
  if (found == uploads_.end() || found->second.unacknowledged == 0)
    return;
  timed_upload& what = found->second;
  --what.unacknowledged;
  if (message.info)
    what.info = std::move(message.info);
  if (message.failure != ec::none && !what.why) {
    what.why = reason(message.failure, message.error);
    what.file = what.files.size(); // nothing more is sent
  }
  send_chunks(message.request, what);
  if (what.unacknowledged > 0)
    return;
  timed_upload ended = std::move(what);
  uploads_.erase(found);
  if (ended.why)
    ended.done(std::move(ended.why));
  else
    ended.done(ended.info ? std::move(*ended.info) : file_info{});
}

void slot_files::finish(std::uint32_t number, ec failure, const std::string& text, answer given) {
  auto found = waiting_.find(number);
  if (found == waiting_.end())
    return;
  auto node = waiting_.extract(found);
  waiter& who = node.mapped();
  if (failure != ec::none)
    who.done(nullptr, reason(failure, with_member(who.member, text)));
  else if (!who.done(&given, {}))
    waiting_.insert(std::move(node));
}

bool slot_files::expire(clock::time_point now) {
  error late = fail(ec::deadline, "the machine did not answer in time");
  std::vector<waiter> waiters;
  std::vector<timed_upload> uploads;
  for (auto it = waiting_.begin(); it != waiting_.end();)
    if (it->second.until <= now) {
      waiters.push_back(std::move(it->second));
      it = waiting_.erase(it);
    } else {
      ++it;
    }
  for (auto it = uploads_.begin(); it != uploads_.end();)
    if (it->second.until <= now) {
      uploads.push_back(std::move(it->second));
      it = uploads_.erase(it);
    } else {
      ++it;
    }
  for (auto& each : waiters)
    each.done(nullptr, late);
  for (auto& each : uploads)
    each.done(late);
  return !idle();
}

void slot_files::fail_all(const error& why) {
  auto waiting = std::move(waiting_);
  auto uploads = std::move(uploads_);
  waiting_.clear();
  uploads_.clear();
  for (auto& [number, each] : waiting)
    each.done(nullptr, why);
  for (auto& [number, each] : uploads)
    each.done(why);
}

// --- watches -------------------------------------------------------------------------------------

std::string slot_watches::add(std::string session) {
  std::string id = "w-" + std::to_string(++last_);
  watches_[id].session = std::move(session);
  return id;
}

void slot_watches::remove(const std::string& id) {
  auto node = watches_.extract(id);
  if (node.empty())
    return;
  for (auto& each : node.mapped().readers)
    each.done(fail(ec::not_found, "watch: " + id + " was ended"));
}

file_events slot_watches::take_all(watch& from) {
  file_events all;
  all.events.assign(std::make_move_iterator(from.events.begin()),
                    std::make_move_iterator(from.events.end()));
  from.events.clear();
  return all;
}

std::map<std::string, std::vector<file_event>> slot_watches::take(guest::files_changed& message) {
  std::map<std::string, std::vector<file_event>> published;
  std::vector<watch*> touched;
  for (file_event& event : message.events) {
    auto found = watches_.find(event.watch);
    if (found == watches_.end())
      continue;
    watch& of = found->second;
    published[of.session].push_back(event);
    // Whoever missed some must look anew: the others are of no use then.
    if (of.events.size() >= limits::watch_events_max) {
      event.change = file_change::overflow;
      of.events.clear();
    }
    of.events.push_back(std::move(event));
    if (touched.empty() || touched.back() != &of)
      touched.push_back(&of);
  }
  for (watch* of : touched)
    if (!of->readers.empty() && !of->events.empty()) {
      reader done = std::move(of->readers.front().done);
      of->readers.pop_front();
      done(take_all(*of));
    }
  return published;
}

void slot_watches::read(const std::string& id, clock::time_point until, clock::time_point now,
                        reader done) {
  auto found = watches_.find(id);
  if (found == watches_.end())
    return done(fail(ec::not_found, "watch: there is no watch " + id + " in this session"));
  watch& of = found->second;
  if (!of.events.empty() || until <= now)
    return done(take_all(of));
  if (of.readers.size() >= limits::readers_per_job_max)
    return done(fail(ec::no_capacity, "watch: too many wait for its changes"));
  of.readers.push_back({until, std::move(done)});
}

std::optional<slot_watches::clock::time_point> slot_watches::first_deadline() const {
  std::optional<clock::time_point> first;
  for (const auto& [id, of] : watches_)
    for (const auto& each : of.readers)
      if (!first || each.until < *first)
        first = each.until;
  return first;
}

void slot_watches::time_out(clock::time_point now) {
  std::vector<reader> late;
  for (auto& [id, of] : watches_)
    for (auto it = of.readers.begin(); it != of.readers.end();)
      if (it->until <= now) {
        late.push_back(std::move(it->done));
        it = of.readers.erase(it);
      } else {
        ++it;
      }
  for (auto& done : late)
    done(file_events{});
}

void slot_watches::fail_all(const error& why) {
  auto all = std::move(watches_);
  watches_.clear();
  for (auto& [id, of] : all)
    for (auto& each : of.readers)
      each.done(why);
}

} // namespace berth
