// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "config/limits.hpp"
#include "messages/types.hpp"

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace berth {

/// How long a client waits for what is done to a file of a machine.
inline constexpr std::chrono::milliseconds file_timeout{40'000};
/// Chunks of one upload that may be under way to a guest.
inline constexpr std::uint32_t file_window = 8;

/// Files on their way into a machine.
struct file_upload {
  std::vector<placed_file> files;
  std::string cwd;
  /// Where the first file's data goes; only with a single file.
  std::uint64_t offset = 0;
  /// A file that is there keeps its permission bits.
  bool keep_mode = false;
  /// Ends it: what the last file is now, if that was asked for, or why it failed.
  std::function<void(expected<file_info>)> done;

  std::size_t file = 0; // what is sent next
  std::size_t sent = 0; // of that file
  std::uint32_t unacknowledged = 0;
  error why;
  maybe<file_info> info;
};

/// What a SLOT asks its guest about files: who waits for which answer, and for how long. Plain
/// logic: the SLOT hands in what the guest says, and its clock. A guest is believed nothing: an
/// answer that nobody waits for is dropped.
class slot_files {
public:
  using clock = std::chrono::steady_clock;
  using sender = std::function<void(guest::to_guest)>;
  using answer = std::variant<guest::file_data, guest::dir_listed, guest::path_done>;

  explicit slot_files(sender send)
    : send_(std::move(send)) {}

  /// Starts an upload; returns its number. Fails at once when too much is under way.
  expected<std::uint32_t> upload(file_upload what, clock::time_point now);
  /// Forgets an upload; `done` is not called.
  void forget(std::uint32_t number) { uploads_.erase(number); }

  /// Asks, and calls `done(expected<Answer>)` once. `member` goes before what the guest says.
  template <class Answer, class Request, class Done>
  void ask(Request request, const char* member, clock::time_point now, Done done) {
    if (full()) {
      done(expected<Answer>{no_room()});
      return;
    }
    request.request = ++last_;
    waiting_[last_] = {now + file_timeout, member,
                       [done = std::move(done)](answer* given, error why) mutable {
                         if (given == nullptr)
                           return done(expected<Answer>{std::move(why)}), true;
                         auto* mine = std::get_if<Answer>(given);
                         if (mine != nullptr)
                           done(expected<Answer>{std::move(*mine)});
                         return mine != nullptr;
                       }};
    send_(std::move(request));
  }

  void on_put(guest::file_put& message);
  template <class Answer>
  void on_answer(Answer& message) {
    std::string text = std::move(message.error);
    finish(message.request, message.failure, text, std::move(message));
  }

  /// Refuses what waited too long. Returns whether anything still waits.
  bool expire(clock::time_point now);
  /// Refuses all: the machine is not there any more.
  void fail_all(const error& why);
  bool idle() const { return waiting_.empty() && uploads_.empty(); }

private:
  struct waiter {
    clock::time_point until;
    const char* member;
    /// False: that was no answer to what was asked.
    std::function<bool(answer*, error)> done;
  };
  struct timed_upload : file_upload {
    clock::time_point until;
  };

  bool full() const { return waiting_.size() + uploads_.size() >= limits::file_requests_max; }
  static error no_room();
  void send_chunks(std::uint32_t number, timed_upload& what);
  void finish(std::uint32_t number, ec failure, const std::string& text, answer given);

  sender send_;
  std::map<std::uint32_t, waiter> waiting_;
  std::map<std::uint32_t, timed_upload> uploads_;
  std::uint32_t last_ = 0;
};

/// The watches of one machine, and the events that nobody took yet.
class slot_watches {
public:
  using clock = std::chrono::steady_clock;
  using reader = std::function<void(expected<file_events>)>;

  /// A new watch's id.
  std::string add(std::string session);
  void remove(const std::string& id);
  bool has(const std::string& id) const { return watches_.contains(id); }
  bool full() const { return watches_.size() >= limits::watches_per_session_max; }

  /// Keeps what happened; answers who waits. Gives what is to be published, by session.
  std::map<std::string, std::vector<file_event>> take(guest::files_changed& message);
  /// Answers at once when there is something or nothing is waited for, else later.
  void read(const std::string& id, clock::time_point until, clock::time_point now, reader done);
  /// When the first of those who wait has waited long enough.
  std::optional<clock::time_point> first_deadline() const;
  /// Answers those who have.
  void time_out(clock::time_point now);
  void fail_all(const error& why);

private:
  struct waiting_reader {
    clock::time_point until;
    reader done;
  };
  struct watch {
    std::string session;
    std::deque<file_event> events;
    std::deque<waiting_reader> readers;
  };

  static file_events take_all(watch& from);

  std::map<std::string, watch> watches_;
  std::uint64_t last_ = 0;
};

} // namespace berth
