// SPDX-License-Identifier: Apache-2.0
#include "actors/agents/own_turn.hpp"
#include "bridge/http/terraphim/context.hpp"

/// Server-sent events: what agents and workflows tell, as it happens. Events are read from PROGRESS
/// only when the client has taken those before, so a slow one costs no memory here.
namespace berth::http::terraphim {

namespace {

/// How long one question for news waits. A comment keeps the connection alive when there is none.
constexpr std::uint32_t news_wait_ms = 10'000;

std::string sse_text(std::string_view name, const json& data, std::uint64_t id = 0) {
  std::string text;
  if (id != 0)
    text += "id: " + std::to_string(id) + "\n";
  text += "event: " + std::string{name} + "\n";
  // JSON on one line: it needs no further framing.
  text += "data: " + json_text(data) + "\n\n";
  return text;
}

reply stream_reply(body_source more) {
  return {.content_type = "text/event-stream",
          .body = ": berth\n\n",
          .headers = {{"X-Accel-Buffering", "no"}},
          .more = std::move(more)};
}

/// Events of one id, given as parts of a body until it is over.
class event_stream : public std::enable_shared_from_this<event_stream> {
public:
  event_stream(shared_context c, std::string id, std::uint64_t after)
    : c_(std::move(c))
    , id_(std::move(id))
    , after_(after) {}
  virtual ~event_stream() = default;

  body_source source() {
    return [self = shared_from_this()](std::function<void(body_part)> send) {
      self->next(std::move(send));
    };
  }

protected:
  /// Whether an event is to be told.
  virtual bool is_wanted(const progress_event&) { return true; }
  virtual void on_gap() {}
  /// Whether nothing follows this page.
  virtual bool is_over(const progress_page& page) { return settled_ && page.events.empty(); }
  /// The last event.
  virtual void last(std::function<void(std::string)> tell) = 0;

  /// From now on nothing is added to what there is. A question for news need not be waited for.
  void settle() {
    settled_ = true;
    if (send_)
      ask();
  }

  void fail_stream(const error& why) { finish(sse_text("error", error_data(why))); }

  static json error_data(const error& why) {
    refusal told = to_refusal(why);
    return error_body(told.name, told.detail);
  }

  shared_context c_;
  std::string id_;

private:
  void next(std::function<void(body_part)> send) {
    send_ = std::move(send);
    ask();
  }

  void ask() {
    std::uint64_t turn = ++turn_;
    c_->gateway.ask<progress_page>(
        read_progress{.id = id_, .after = after_, .wait_ms = settled_ ? 0 : news_wait_ms},
        [self = shared_from_this(), turn](const expected<progress_page>& answer) {
          // An answer that another question has overtaken, or that nobody waits for.
          if (turn == self->turn_ && self->send_)
            self->on_page(answer);
        });
  }

  void ask_after(std::chrono::milliseconds wait) {
    c_->gateway.after(wait, [self = shared_from_this(), turn = turn_] {
      if (turn == self->turn_ && self->send_)
        self->ask();
    });
  }

  void on_page(const expected<progress_page>& answer) {
    progress_page page;
    if (answer)
      page = *answer;
    else if (answer.error() == ec::no_capacity)
      return ask_after(place_wait);
    else if (answer.error() != ec::not_found)
      return fail_stream(answer.error());
    std::string text;
    if (page.lost > 0) {
      on_gap();
      text += sse_text("lost", {{"events", page.lost}});
    }
    after_ += page.lost;
    for (const auto& event : page.events) {
      after_ = event.seq;
      // The end is told by last(), with all that belongs to it.
      if (is_wanted(event) && event.kind != progress_kind::ended)
        text += sse_text(name_of(event.kind), event_json(event), event.seq);
    }
    if (is_over(page))
      return last(
          [self = shared_from_this(), text](const std::string& end) { self->finish(text + end); });
    if (text.empty() && page.ended)
      return ask_after(again_wait);
    part(text.empty() ? ": nothing new\n\n" : std::move(text), false);
  }

  void finish(std::string text) { part(std::move(text), true); }

  void part(std::string text, bool is_last) {
    if (auto send = std::exchange(send_, nullptr))
      send({.data = std::move(text), .last = is_last});
  }

  std::uint64_t after_;
  std::function<void(body_part)> send_;
  std::uint64_t turn_ = 0;
  bool settled_ = false;
};

/// The events of one workflow.
class workflow_events : public event_stream {
public:
  workflow_events(shared_context c, std::string id, std::uint64_t after, bool ended)
    : event_stream(std::move(c), std::move(id), after) {
    // One that ended long ago, or under another server, may have no events any more.
    if (ended)
      settle();
  }

protected:
  bool is_over(const progress_page& page) override {
    return page.ended || event_stream::is_over(page);
  }

  void last(std::function<void(std::string)> tell) override {
    c_->gateway.ask<workflow_info>(
        get_workflow{id_}, [tell = std::move(tell)](const expected<workflow_info>& info) {
          tell(sse_text("ended", info ? workflow_json(*info, {}) : error_data(info.error())));
        });
  }
};

/// The events of one turn. The reply says when it is over; what was told before it is there by
/// then.
class chat_events : public event_stream {
public:
  chat_events(shared_context c, chat what, std::uint64_t after)
    : event_stream(std::move(c), what.conversation, after)
    , what_(std::move(what))
    , own_(what_.turn) {}

  ~chat_events() override { leave(); }

  void begin() {
    chat asked = what_;
    std::weak_ptr<event_stream> weak = weak_from_this();
    c_->gateway.ask<chat_reply>(std::move(asked), [weak](expected<chat_reply> answer) {
      if (auto self = std::static_pointer_cast<chat_events>(weak.lock())) {
        self->reply_ = std::move(answer);
        self->settle();
      }
    });
  }

  /// The client is gone: so is the reason for the turn.
  void leave() {
    if (reply_ || std::exchange(left_, true))
      return;
    c_->gateway.ask<chat_cancelled>(cancel_chat{id_, what_.turn},
                                    [](const expected<chat_cancelled>&) {});
  }

protected:
  bool is_wanted(const progress_event& event) override { return own_.has(event); }
  void on_gap() override { own_.on_gap(); }
  // What is told after it is another chat's.
  bool is_over(const progress_page& page) override {
    return event_stream::is_over(page) || (reply_ && own_.ended());
  }

  void last(std::function<void(std::string)> tell) override {
    tell(sse_text("ended",
                  *reply_ ? chat_json(**reply_) : chat_failed_json(reply_->error(), what_)));
  }

private:
  chat what_;
  own_turn own_;
  std::optional<expected<chat_reply>> reply_;
  bool left_ = false;
};

} // namespace

void stream_workflow(const shared_context& c, const std::string& workflow, std::uint64_t after,
                     const responder& done) {
  c->gateway.ask<workflow_info>(get_workflow{workflow}, [c, workflow, after, done](
                                                            const expected<workflow_info>& info) {
    if (!info)
      return done(error_reply(info.error()));
    auto events = std::make_shared<workflow_events>(c, workflow, after, is_terminal(info->status));
    done(stream_reply(events->source()));
  });
}

void stream_chat(const shared_context& c, chat what, const responder& done) {
  // Where the conversation's events are now: those before are of other turns.
  read_progress newest{.id = what.conversation, .after = UINT64_MAX};
  c->gateway.ask<progress_page>(
      std::move(newest),
      [c, what = std::move(what), done](const expected<progress_page>& page) mutable {
        auto events = std::make_shared<chat_events>(c, std::move(what), page ? page->last_seq : 0);
        events->begin();
        std::weak_ptr<chat_events> weak = events;
        done.when_gone([weak] {
          if (auto alive = weak.lock())
            alive->leave();
        });
        done(stream_reply(events->source()));
      });
}

} // namespace berth::http::terraphim
