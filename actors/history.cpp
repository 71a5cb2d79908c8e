// SPDX-License-Identifier: Apache-2.0
#include "actors/history.hpp"

#include "actors/redaction.hpp"
#include "config/languages.hpp"
#include "config/log.hpp"

#include <caf/event_based_actor.hpp>
#include <caf/exit_reason.hpp>
#include <caf/send.hpp>
#include <caf/stateful_actor.hpp>
#include <caf/typed_event_based_actor.hpp>

#include <unordered_map>

namespace berth {

namespace {

/// The READER answers queries and moves the log into the database, in a thread of its own.
using reader_actor = caf::typed_actor<on<query_history>::reply<history_page>,
                                      // Moves what was committed from the log into the database.
                                      caf::reacts_to<caf::flush_atom>>;

/// What the HISTORY says to itself, beside its interface.
using writer_actor = history_actor::extend<
    // Commits the batch.
    caf::reacts_to<caf::flush_atom>,
    // Ends, behind all that was said before.
    caf::reacts_to<caf::close_atom>>;

/// Records after which the log is moved into the database.
constexpr std::uint64_t checkpoint_records = 2048;

query_history canonical(query_history request) {
  if (auto language = canonical_language(request.language))
    request.language = *language;
  return request;
}

caf::result<history_page> answer(journal_reader& reader, const query_history& request) {
  auto page = reader.query(canonical(request));
  if (!page) {
    if (page.error() == ec::store_failed)
      log::error("history", "a query failed", {{"why", describe_error(page.error())}});
    return page.error();
  }
  return std::move(*page);
}

class reader_state {
public:
  static constexpr const char* name = "berth.history-reader";

  reader_actor::behavior_type make_behavior(std::shared_ptr<journal_reader> reader) {
    reader_ = std::move(reader);
    return {
        [this](const query_history& request) { return answer(*reader_, request); },
        [this](caf::flush_atom) { reader_->checkpoint(); },
    };
  }

private:
  std::shared_ptr<journal_reader> reader_;
};

reader_actor::behavior_type reader(reader_actor::stateful_pointer<reader_state> self,
                                   std::shared_ptr<journal_reader> from) {
  return state_of(self).make_behavior(std::move(from));
}

/// How entries are made from what is recorded.
struct entry_rules {
  bool content = true;
  bool redact = true;
  std::uint64_t output_bytes = 0;
};

class history_state {
public:
  static constexpr const char* name = "berth.history";

  history_state() = default;
  history_state(const history_state&) = delete;
  history_state& operator=(const history_state&) = delete;

  ~history_state() {
    commit();
    if (reader_)
      caf::anon_send_exit(reader_, caf::exit_reason::user_shutdown);
  }

  writer_actor::behavior_type make_behavior(writer_actor::pointer self,
                                            std::shared_ptr<journal> opened, reader_actor queries,
                                            entry_rules rules) {
    self_ = self;
    journal_ = std::move(opened);
    reader_ = std::move(queries);
    rules_ = rules;
    // An exit message overtakes the mailbox; what waits there is to be on disk, too.
    self_->set_exit_handler([this](caf::exit_msg& end) {
      end_ = end.reason;
      if (end_ == caf::exit_reason::kill)
        self_->quit(end_);
      else
        self_->send(self_, caf::close_atom::value);
    });
    return {
        [this](const record_accepted& request) { return on_record_accepted(request); },
        [this](const record_ended& request) { return on_record_ended(request); },
        [this](const record_session& request) { return on_record_session(request); },
        [this](const query_history& request) { return on_query(request); },
        [this](caf::flush_atom) { commit(); },
        [this](caf::close_atom) {
          commit();
          self_->quit(end_);
        },
    };
  }

private:
  using promise = caf::typed_response_promise<recorded>;

  /// One record that waits for the commit; several answers may hang on it.
  struct waiting {
    maybe<job_record> job;
    maybe<session_info> session;
    std::vector<promise> answers;
    std::uint64_t number = 0;
    error failed;
  };

  promise on_record_accepted(const record_accepted& request) {
    waiting next;
    next.job = make_record(request.order, rules_.content);
    jobs_.emplace(request.order.job, batch_.size());
    return add(std::move(next));
  }

  promise on_record_ended(const record_ended& request) {
    job_record ended = make_record(bounded(request.ended));
    auto before = jobs_.find(ended.job);
    if (before != jobs_.end()) { // accepted in this very batch: one insert does
      waiting& accepted = batch_[before->second];
      jobs_.erase(before); // a second end is a fault, which update() tells
      batch_bytes_ += ended.result.size();
      join(*accepted.job, std::move(ended));
      accepted.answers.push_back(self_->make_response_promise<recorded>());
      return accepted.answers.back();
    }
    waiting next;
    next.job = std::move(ended);
    return add(std::move(next));
  }

  promise on_record_session(const record_session& request) {
    waiting next;
    next.session = request.session;
    return add(std::move(next));
  }

  caf::result<history_page> on_query(const query_history& request) {
    if (!reader_)
      return answer(journal_->reader(), request);
    return self_->delegate(reader_, request);
  }

  /// The outcome as an entry keeps it.
  outcome bounded(const outcome& ended) const {
    outcome kept = ended;
    bound_output(kept.stdout_data, kept.stdout_truncated);
    bound_output(kept.stderr_data, kept.stderr_truncated);
    if (rules_.redact) {
      bool changed = redact(kept.stdout_data);
      changed |= redact(kept.stderr_data);
      kept.redacted |= changed;
    }
    if (!rules_.content)
      kept.verdict.code.clear();
    return kept;
  }

  void bound_output(bytes& output, bool& truncated) const {
    std::uint64_t most = rules_.content ? rules_.output_bytes : 0;
    if (output.size() <= most)
      return;
    output.resize(most);
    truncated = true;
  }

  promise add(waiting next) {
    promise made = self_->make_response_promise<recorded>();
    next.answers.push_back(made);
    batch_bytes_ += next.job ? next.job->size() : 1024;
    batch_.push_back(std::move(next));
    if (batch_.size() == 1)
      self_->send(self_, caf::flush_atom::value);
    if (batch_.size() >= limits::history_batch_max
        || batch_bytes_ >= limits::history_batch_bytes_max)
      commit();
    return made;
  }

  void commit() {
    if (batch_.empty())
      return;
    std::vector<waiting> batch = std::exchange(batch_, {});
    jobs_.clear();
    batch_bytes_ = 0;
    error failed = write(batch);
    if (failed)
      log::error("history", "a batch could not be recorded",
                 {{"records", std::to_string(batch.size())}, {"why", describe_error(failed)}});
    for (waiting& next : batch) {
      const error& why = failed ? failed : next.failed;
      for (promise& to : next.answers) {
        if (why)
          to.deliver(why);
        else
          to.deliver(recorded{.number = next.number});
      }
    }
    records_ += batch.size();
    if (reader_ && records_ >= checkpoint_records) {
      records_ = 0;
      self_->send(reader_, caf::flush_atom::value);
    }
  }

  /// Puts a batch on disk. A record that cannot be (a job that is known) fails alone.
  error write(std::vector<waiting>& batch) {
    if (error why = journal_->begin())
      return why;
    for (waiting& next : batch) {
      if (next.session) {
        next.failed = journal_->record_session(*next.session);
      } else {
        auto number = journal_->record(*next.job);
        if (number)
          next.number = *number;
        else
          next.failed = number.error();
      }
      if (next.failed == ec::store_failed) { // the disk, not the record
        journal_->rollback();
        return next.failed;
      }
    }
    return journal_->commit();
  }

  writer_actor::pointer self_ = nullptr;
  std::shared_ptr<journal> journal_;
  reader_actor reader_;
  entry_rules rules_;
  std::vector<waiting> batch_;
  std::size_t batch_bytes_ = 0;
  /// Jobs accepted in this batch, with their places in it.
  std::unordered_map<std::string, std::size_t> jobs_;
  std::uint64_t records_ = 0;
  error end_;
};

writer_actor::behavior_type history(writer_actor::stateful_pointer<history_state> self,
                                    std::shared_ptr<journal> opened, reader_actor queries,
                                    entry_rules rules) {
  return state_of(self).make_behavior(self, std::move(opened), std::move(queries), rules);
}

} // namespace

history_actor spawn_history(caf::actor_system& system, journal opened, const settings& values) {
  const vm_execution_policy& policy = values.policy;
  entry_rules rules{.content = policy.history.enabled,
                    .redact = policy.security_settings.redact_output,
                    .output_bytes = values.history_output_bytes};
  reader_actor queries;
  if (opened.is_file()) {
    if (auto from = opened.open_reader())
      queries =
          system.spawn<caf::detached>(reader, std::make_shared<journal_reader>(std::move(*from)));
    else
      log::warn("history", "queries share the writer's thread",
                {{"why", describe_error(from.error())}});
  }
  return system.spawn<caf::detached>(history, std::make_shared<journal>(std::move(opened)), queries,
                                     rules);
}

} // namespace berth
