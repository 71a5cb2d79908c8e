// SPDX-License-Identifier: Apache-2.0
#include "bench/bench_case.hpp"
#include "tests/support/model_server.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <arpa/inet.h>
#include <charconv>
#include <map>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

/// What Berth adds to a language model. The model is a scripted server on this host, which answers
/// at once or after a time that it is told, and stamps what it sends.
namespace berth::bench {

namespace {

constexpr std::size_t conversations = 50;
constexpr std::size_t branches = 8;
constexpr int slowest_branch_ms = 800;
/// Tokens of one answer, and the time between two.
constexpr int tokens_per_answer = 8;
constexpr int token_every_ms = 5;

/// A connection for HTTP that is kept: what a program would use that calls the model itself.
class http_line {
public:
  explicit http_line(std::uint16_t port)
    : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    timeval limit{.tv_sec = 30, .tv_usec = 0};
    int on = 1;
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (::connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0)
      throw failure{"nothing listens on port " + std::to_string(port)};
  }
  ~http_line() { ::close(fd_); }
  http_line(const http_line&) = delete;
  http_line& operator=(const http_line&) = delete;

  void post(const std::string& path, const json& body) {
    std::string text = body.dump();
    std::string all = "POST " + path + " HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json"
                      + "\r\nContent-Length: " + std::to_string(text.size()) + "\r\n\r\n" + text;
    if (::send(fd_, all.data(), all.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(all.size()))
      throw failure{"a request could not be sent"};
    got_.clear();
  }

  /// All of the answer so far, after more of it came.
  const std::string& more() {
    char part[65536];
    ssize_t size = ::recv(fd_, part, sizeof part, 0);
    if (size <= 0)
      throw failure{"an answer broke off: " + got_.substr(0, 300)};
    return got_.append(part, static_cast<std::size_t>(size));
  }

  /// The rest of an answer in chunks.
  const std::string& whole() {
    while (!got_.ends_with("\r\n0\r\n\r\n"))
      more();
    if (!got_.starts_with("HTTP/1.1 200"))
      throw failure{"an answer is not 200: " + got_.substr(0, 300)};
    return got_;
  }

private:
  int fd_;
  std::string got_;
};

json user_says(const std::string& text) {
  return json::array({{{"role", "user"}, {"content", text}}});
}

/// The time a token was sent at, and the time it is now, are of one clock.
double ms_since_stamp(std::string_view stamp) {
  std::int64_t sent = 0;
  std::from_chars(stamp.data(), stamp.data() + stamp.size(), sent);
  if (sent == 0)
    throw failure{"a token is no stamp: " + std::string{stamp}};
  std::chrono::nanoseconds now = clock::now().time_since_epoch();
  return static_cast<double>(now.count() - sent) / 1e6;
}

chat_reply take(const answer& from) {
  auto reply = from.as<chat_reply>();
  if (!reply.error.empty())
    throw failure{"a chat failed: " + reply.error};
  return reply;
}

// --- what a call costs ---------------------------------------------------------------------------

void measure_calls(bench_context& context, server& running, const test::model_server& models) {
  models.play({{"rules", {{{"reply", {{"text", "Hello."}, {"pieces", 16}}}}}}});
  http_line bare_line{models.port()};
  client agent = running.connect();
  samples bare, berth, added;
  for (int i = 0, rounds = context.choose(1'000, 200); i < rounds + 50; ++i) {
    json messages = user_says("Say hello " + std::to_string(i));
    auto begin = clock::now();
    bare_line.post("/api/chat", {{"model", "m"}, {"messages", messages}, {"stream", true}});
    bare_line.whole();
    double bare_ms = ms_since(begin);
    begin = clock::now();
    agent.send("chat", {{"role", "DataScientistAgent"}, {"messages", messages}});
    chat_reply reply = take(agent.receive());
    double berth_ms = ms_since(begin);
    if (reply.text != "Hello.")
      throw failure{"the answer is wrong: " + reply.text};
    if (i < 50)
      continue;
    bare.add(bare_ms);
    berth.add(berth_ms);
    added.add(berth_ms - bare_ms);
  }
  report& out = context.results;
  out.figure("added_p50_ms", "added to a model's call, p50", added.p50(), "ms", at_most(2),
             added.text());
  out.figure("added_p99_ms", "  p99", added.p99(), "ms");
  out.figure("bare_p50_ms", "  the bare call, in turn", bare.p50(), "ms");
  out.distribution("added_ms", added);
  out.distribution("chat_ms", berth);
}

// --- tokens --------------------------------------------------------------------------------------

/// Times from the model's send to a subscriber of events.
struct token_times {
  samples first, all;
  void add(bool is_first, double ms) {
    (is_first ? first : all).add(ms);
    if (is_first)
      all.add(ms);
  }
};

/// Takes events of one conversation until its turn ended.
void follow_events(zmq::socket_t& events, const std::string& topic, token_times& times) {
  bool is_first = true;
  for (;;) {
    if (!wait_readable(events, milliseconds{30'000}))
      throw failure{"no event comes"};
    zmq::message_t name, body;
    if (!events.recv(name, zmq::recv_flags::dontwait) || !name.more()
        || !events.recv(body, zmq::recv_flags::dontwait))
      throw failure{"an event broke off"};
    auto event = decode<progress_event>({body.data<char>(), body.size()});
    if (!event)
      throw failure{"event: " + event.why().text()};
    if (name.to_string_view() != topic)
      continue;
    if (event->kind == progress_kind::token)
      times.add(std::exchange(is_first, false), ms_since_stamp(event->text));
    if (event->kind == progress_kind::ended)
      return;
  }
}

/// Reads a chat's events as server-sent events until they are over.
void follow_stream(http_line& line, token_times& times) {
  constexpr std::string_view mark = "event: token\n";
  constexpr std::string_view text = "\"text\":\"";
  std::size_t seen = 0;
  bool is_first = true;
  for (;;) {
    const std::string& all = line.more();
    for (;;) {
      std::size_t token = all.find(mark, seen);
      std::size_t end = token == std::string::npos ? token : all.find("\n\n", token);
      if (end == std::string::npos)
        break;
      std::size_t at = all.find(text, token) + text.size();
      times.add(std::exchange(is_first, false), ms_since_stamp(std::string_view{all}.substr(at)));
      seen = end;
    }
    if (all.find("event: ended\n", seen) != std::string::npos && all.ends_with("\r\n0\r\n\r\n"))
      return;
  }
}

void measure_tokens(bench_context& context, server& running, const test::model_server& models) {
  json pieces = json::array();
  for (int i = 0; i < tokens_per_answer; ++i)
    pieces.push_back("{{sent_ns}} "); // two may arrive as one
  json reply{{"pieces", pieces}, {"first_delay_ms", 3}, {"delay_ms", token_every_ms}};
  models.play({{"rules", {{{"reply", reply}}}}});
  zmq::socket_t events{context.sockets, zmq::socket_type::sub};
  events.set(zmq::sockopt::linger, 0);
  events.set(zmq::sockopt::subscribe, "agent.");
  events.connect(running.events());
  pause_for(milliseconds{300});
  client agent = running.connect();
  http_line line{running.http_port()};
  token_times by_zmq, by_sse;
  for (int i = 0, rounds = context.choose(300, 50); i < rounds; ++i) {
    std::string id = "bench-token-" + std::to_string(i);
    json body{{"role", "DataScientistAgent"}, {"messages", user_says("Go")}};
    if (i % 2 == 0) {
      body["conversation"] = id;
      agent.send("chat", body);
      follow_events(events, "agent." + id, by_zmq);
      take(agent.receive());
    } else {
      body["conversation_id"] = id;
      line.post("/chat/stream", body);
      follow_stream(line, by_sse);
    }
  }
  report& out = context.results;
  out.figure("first_token_zmq_p50_ms", "first token, model to subscriber, p50", by_zmq.first.p50(),
             "ms", at_most(1), by_zmq.first.text());
  out.figure("first_token_zmq_p99_ms", "  p99", by_zmq.first.p99(), "ms");
  out.figure("first_token_sse_p50_ms", "first token, model to SSE reader, p50", by_sse.first.p50(),
             "ms", at_most(1), by_sse.first.text());
  out.figure("first_token_sse_p99_ms", "  p99", by_sse.first.p99(), "ms");
  out.distribution("token_zmq_ms", by_zmq.all);
  out.distribution("token_sse_ms", by_sse.all);
}

// --- many at once --------------------------------------------------------------------------------

void measure_conversations(bench_context& context, server& running,
                           const test::model_server& models) {
  models.play({{"rules", {{{"reply", {{"text", "{{last}}"}, {"hold", "all"}}}}}}});
  client agent = running.connect(zmq::socket_type::dealer);
  std::map<std::uint64_t, std::string> asked;
  for (std::size_t i = 0; i < conversations; ++i) {
    std::string text = "I am " + std::to_string(i);
    json body{{"role", "DataScientistAgent"}, {"messages", user_says(text)}};
    asked[agent.send("chat", body)] = text;
  }
  for (auto until = clock::now() + milliseconds{30'000}; clock::now() < until;
       pause_for(milliseconds{5}))
    if (models.state()["held"] == conversations)
      break;
  auto at_once = models.state()["held"].get<double>();
  auto begin = clock::now();
  models.release("all");
  for (std::size_t i = 0; i < conversations; ++i) {
    answer got = agent.receive();
    if (take(got).text != asked.at(got.id))
      throw failure{"a conversation got another one's answer"};
  }
  report& out = context.results;
  out.figure("conversations", "conversations at once, each with its own answer", at_once, "",
             at_least(conversations));
  out.figure("conversations_ms", "  from the models' answers until all have theirs",
             ms_since(begin), "ms");
}

void measure_branches(bench_context& context, server& running, const test::model_server& models) {
  json rules = json::array();
  json steps = json::array();
  double sum = 0;
  for (std::size_t i = 0; i < branches; ++i) {
    std::string id = "branch-" + std::to_string(i);
    int delay = i == 0 ? slowest_branch_ms : slowest_branch_ms / 2;
    sum += delay;
    rules.push_back({{"when", {{"last", "part " + id}}},
                     {"reply", {{"text", "Done."}, {"first_delay_ms", delay}}}});
    steps.push_back({{"id", id}, {"prompt", "part " + id}, {"role", "DataScientistAgent"}});
  }
  rules.push_back({{"reply", {{"text", "Joined."}}}});
  models.play({{"rules", rules}});
  client agent = running.connect();
  samples times;
  for (int i = 0, rounds = context.choose(5, 2); i < rounds; ++i) {
    auto begin = clock::now();
    auto info = agent.call<workflow_info>(
        "workflow", {{"pattern", "parallelization"}, {"prompt", "A task"}, {"steps", steps}});
    if (info.status != workflow_status::completed || info.result != "Joined.")
      throw failure{"the workflow ended as " + std::string{name_of(info.status)} + ": "
                    + info.error};
    times.add(ms_since(begin));
  }
  context.results.figure("branches_ratio", "8 branches and their join, over the slowest branch",
                         times.p50() / slowest_branch_ms, "", at_most(1.1),
                         times.text() + "; in turn they would take " + std::to_string(int(sum))
                             + " ms");
}

} // namespace

void measure_model(bench_context& context) {
  test::model_server models;
  server running = context.start_server(
      {{"models",
        {{{"provider", "ollama"}, {"base_url", models.url()}, {"calls_max", conversations}}}}});
  running.settle();
  measure_calls(context, running, models);
  measure_tokens(context, running, models);
  measure_conversations(context, running, models);
  measure_branches(context, running, models);
  context.stop_server(running);
}

} // namespace berth::bench
