// SPDX-License-Identifier: Apache-2.0
#include "tests/bridge/http/support.hpp"

#include "actors/agents/progress.hpp"
#include "bridge/porter.hpp"

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <catch2/catch.hpp>
#include <sys/socket.h>

#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <chrono>
#include <netinet/in.h>
#include <unistd.h>

namespace berth::test {

namespace {

error missing(const std::string& id) {
  return fail(ec::not_found, "session: there is no session " + id);
}

const session_info* find(const script& s, const std::string& id) {
  for (const auto& info : s.sessions)
    if (id == info.session || id == info.machine || id == info.name)
      return &info;
  return nullptr;
}

caf::result<output_slice> slice_of(script& s, const read& request) {
  std::lock_guard guard{s.lock};
  output_slice made{.job = request.job, .state = job_state::running};
  made.stdout_offset = request.stdout_offset;
  std::size_t at = 0;
  for (const auto& piece : s.pieces) {
    if (at == request.stdout_offset) {
      made.stdout_data = piece;
      return made;
    }
    at += piece.size();
  }
  bool stopped = std::find(s.cancels.begin(), s.cancels.end(), request.job) != s.cancels.end();
  if (s.endless && !stopped)
    return made;
  auto index = static_cast<std::size_t>(std::stoul(request.job.substr(4)));
  outcome ended = make_outcome(s.submits.at(index));
  ended.job = request.job;
  ended.state = stopped ? job_state::cancelled : job_state::exited;
  ended.stdout_data.clear();
  ended.stderr_data.clear();
  ended.stdout_bytes = at;
  ended.stderr_bytes = 0;
  made.state = ended.state;
  made.ended = ended;
  return made;
}

/// A workflow, put into a status first when one is given.
caf::result<workflow_info> workflow_of(script& s, const std::string& id,
                                       maybe<workflow_status> status) {
  std::lock_guard guard{s.lock};
  auto found = s.workflows.find(id);
  if (found == s.workflows.end())
    return fail(ec::not_found, "workflow: there is no " + id);
  if (status)
    found->second.status = *status;
  return found->second;
}

gateway_actor::behavior_type fake_gateway(gateway_actor::pointer self, script* s,
                                          const progress_actor& progress) {
  return {
      [=](const run& x) -> caf::result<outcome> {
        std::lock_guard guard{s->lock};
        s->runs.push_back(x);
        if (!x.session.empty() && find(*s, x.session) == nullptr)
          return missing(x.session);
        if (!s->on_run)
          return make_outcome(x);
        auto made = s->on_run(x);
        if (!made)
          return made.error();
        return *made;
      },
      [=](const submit& x) -> caf::result<accepted> {
        std::lock_guard guard{s->lock};
        if (!x.session.empty() && find(*s, x.session) == nullptr)
          return missing(x.session);
        s->submits.push_back(x);
        return accepted{.job = "job-" + std::to_string(s->submits.size() - 1),
                        .session = x.session};
      },
      [=](const read& x) { return slice_of(*s, x); },
      [=](const cancel& x) -> caf::result<cancelled> {
        std::lock_guard guard{s->lock};
        s->cancels.push_back(x.job);
        return cancelled{.job = x.job};
      },
      [=](const write_stdin& x) -> caf::result<stdin_written> {
        return stdin_written{.job = x.job};
      },
      [=](const validate&) -> caf::result<verdict> { return verdict{}; },
      [=](const list_jobs& x) -> caf::result<job_list> {
        return job_list{
            {job_info{.job = "alive", .state = job_state::running, .session = x.session}}};
      },
      [=](const open_session& x) -> caf::result<session_info> {
        std::lock_guard guard{s->lock};
        s->opened.push_back(x);
        if (!x.name.empty() && find(*s, x.name) != nullptr)
          return fail(ec::already_exists, "name: is in use");
        auto made = make_session("0000000" + std::to_string(s->opened.size()), x.agent_id);
        made.vm_type = x.vm_type;
        if (!x.name.empty())
          made.name = x.name;
        s->sessions.push_back(made);
        return made;
      },
      [=](const close_session& x) -> caf::result<session_closed> {
        std::lock_guard guard{s->lock};
        const session_info* known = find(*s, x.session);
        if (known == nullptr)
          return missing(x.session);
        session_closed gone{known->session};
        s->sessions.erase(s->sessions.begin() + (known - s->sessions.data()));
        return gone;
      },
      [=](const list_sessions& x) -> caf::result<session_list> {
        std::lock_guard guard{s->lock};
        session_list made;
        for (const auto& info : s->sessions)
          if ((x.agent_id.empty() || info.agent_id == x.agent_id)
              && (x.session.empty() || x.session == info.session || x.session == info.machine
                  || x.session == info.name))
            made.sessions.push_back(info);
        return made;
      },
      [=](const get_usage& x) -> caf::result<session_usage> {
        return session_usage{.session = x.session,
                             .memory_bytes = 64 * limits::mib,
                             .cpu_us = 500'000,
                             .processes = 3,
                             .disk_bytes = 10,
                             .disk_limit_bytes = 100,
                             .uptime_ms = 1000};
      },
      [=](const put_files& x) -> caf::result<files_put> {
        std::lock_guard guard{s->lock};
        s->puts.push_back(x);
        for (const auto& file : x.files)
          s->files[file.path] = {file.data.begin(), file.data.end()};
        return files_put{static_cast<std::uint32_t>(x.files.size())};
      },
      [=](const read_file& x) -> caf::result<file_content> {
        std::lock_guard guard{s->lock};
        auto file = s->files.find(x.path);
        if (file == s->files.end())
          return fail(ec::not_found, "path: no such file");
        std::string part = file->second.substr(x.offset, x.bytes_max);
        return file_content{.path = x.path,
                            .data = {part.begin(), part.end()},
                            .offset = x.offset,
                            .size = file->second.size(),
                            .eof = x.offset + part.size() == file->second.size()};
      },
      [=](const write_file&) -> caf::result<file_info> { return file_info{}; },
      [=](const list_files&) -> caf::result<file_list> { return file_list{}; },
      [=](const stat_file&) -> caf::result<file_info> { return file_info{}; },
      [=](const make_dir&) -> caf::result<file_info> { return file_info{}; },
      [=](const move_file&) -> caf::result<file_info> { return file_info{}; },
      [=](const remove_file&) -> caf::result<file_removed> { return file_removed{}; },
      [=](const watch_files&) -> caf::result<files_watched> { return files_watched{}; },
      [=](const read_watch&) -> caf::result<file_events> { return file_events{}; },
      [=](const unwatch_files&) -> caf::result<files_unwatched> { return files_unwatched{}; },
      [=](const open_context&) -> caf::result<context_info> { return context_info{}; },
      [=](const list_contexts&) -> caf::result<context_list> { return context_list{}; },
      [=](const restart_context&) -> caf::result<context_info> { return context_info{}; },
      [=](const close_context&) -> caf::result<context_closed> { return context_closed{}; },
      [=](const interrupt&) -> caf::result<interrupt_sent> { return interrupt_sent{}; },
      [=](const take_snapshot& x) -> caf::result<snapshot_info> {
        std::lock_guard guard{s->lock};
        const session_info* known = find(*s, x.session);
        if (known == nullptr)
          return missing(x.session);
        auto made = make_snapshot(*known, x.name);
        made.snapshot += "-" + std::to_string(s->snapshots.size());
        made.description = x.description;
        s->snapshots.push_back(made);
        return made;
      },
      [=](const list_snapshots& x) -> caf::result<snapshot_list> {
        std::lock_guard guard{s->lock};
        snapshot_list made;
        for (const auto& one : s->snapshots)
          if (x.session.empty() || one.session == x.session)
            made.snapshots.push_back(one);
        return made;
      },
      [=](const delete_snapshot& x) -> caf::result<snapshot_deleted> {
        std::lock_guard guard{s->lock};
        auto its = [&](const snapshot_info& one) { return one.snapshot == x.snapshot; };
        if (std::erase_if(s->snapshots, its) == 0)
          return fail(ec::not_found, "snapshot: there is none");
        return snapshot_deleted{x.snapshot};
      },
      [=](const rollback& x) -> caf::result<rolled_back> {
        std::lock_guard guard{s->lock};
        const session_info* known = find(*s, x.session);
        if (known == nullptr)
          return missing(x.session);
        auto its = [&](const snapshot_info& one) { return one.snapshot == x.snapshot; };
        if (std::none_of(s->snapshots.begin(), s->snapshots.end(), its))
          return fail(ec::not_found, "snapshot: there is no snapshot " + x.snapshot);
        s->rollbacks.push_back(x);
        return rolled_back{.session = known->session,
                           .machine = known->machine,
                           .snapshot = x.snapshot,
                           .snapshot_before = x.snapshot_first ? "before-1" : "",
                           .entry = 8};
      },
      [=](const fork_session&) -> caf::result<forked> { return forked{}; },
      [=](const pause_session&) -> caf::result<session_info> { return session_info{}; },
      [=](const resume_session&) -> caf::result<session_info> { return session_info{}; },
      [=](const query_history& x) -> caf::result<history_page> {
        std::lock_guard guard{s->lock};
        s->queries.push_back(x);
        history_page page;
        if (find(*s, x.machine) == nullptr)
          return page;
        entry one{.number = 7, .result = make_outcome(run{.code = "x", .language = "python"})};
        one.code = "print(1)";
        one.result.machine = x.machine;
        page.entries = {one};
        page.total = 1;
        return page;
      },
      [=](const chat& x) -> caf::result<chat_reply> {
        std::lock_guard guard{s->lock};
        s->chats.push_back(x);
        if (!s->on_chat) {
          auto promise = self->make_response_promise<chat_reply>();
          s->held_chats.emplace(x.conversation, promise);
          return promise;
        }
        auto made = s->on_chat(x);
        if (!made)
          return made.error();
        return *made;
      },
      [=](const cancel_chat& x) -> caf::result<chat_cancelled> {
        std::lock_guard guard{s->lock};
        s->cancelled_chats.push_back(x.conversation);
        s->cancelled_turns.push_back(x.turn);
        auto held = s->held_chats.extract(x.conversation);
        if (held.empty())
          return chat_cancelled{.conversation = x.conversation, .was_busy = false};
        held.mapped().deliver(fail(ec::conflict, "the turn was cancelled"));
        return chat_cancelled{.conversation = x.conversation, .was_busy = true};
      },
      [=](const list_conversations& x) -> caf::result<conversation_list> {
        conversation_list all;
        if (x.conversation.empty() || x.conversation == "chat-1")
          all.conversations.push_back({.conversation = "chat-1", .role = "Default"});
        return all;
      },
      [=](const close_conversation& x) -> caf::result<conversation_closed> {
        return conversation_closed{x.conversation};
      },
      [=](const run_workflow& x) -> caf::result<workflow_info> {
        std::lock_guard guard{s->lock};
        s->asked_workflows.push_back(x);
        if (!s->on_workflow)
          return workflow_info{.workflow = x.workflow, .pattern = x.pattern};
        auto made = s->on_workflow(x);
        if (!made)
          return made.error();
        s->workflows[made->workflow] = *made;
        return *made;
      },
      [=](const submit_workflow& x) -> caf::result<workflow_info> {
        std::lock_guard guard{s->lock};
        s->asked_workflows.push_back(x);
        workflow_info begun{.workflow = x.workflow, .pattern = x.pattern};
        begun.status = workflow_status::running;
        begun.prompt = x.prompt;
        s->workflows[x.workflow] = begun;
        return begun;
      },
      [=](const get_workflow& x) { return workflow_of(*s, x.workflow, {}); },
      [=](const list_workflows&) -> caf::result<workflow_list> {
        std::lock_guard guard{s->lock};
        workflow_list all;
        for (const auto& [unused, info] : s->workflows)
          all.workflows.push_back(info);
        return all;
      },
      [=](const cancel_workflow& x) {
        return workflow_of(*s, x.workflow, workflow_status::cancelled);
      },
      [=](const pause_workflow& x) { return workflow_of(*s, x.workflow, workflow_status::paused); },
      [=](const resume_workflow& x) {
        return workflow_of(*s, x.workflow, workflow_status::running);
      },
      [=](const read_progress& x) -> caf::result<progress_page> {
        std::lock_guard guard{s->lock};
        if (x.wait_ms > 0 && s->readers_refused > 0) {
          --s->readers_refused;
          return fail(ec::no_capacity, "too many readers wait");
        }
        return self->delegate(progress, x);
      },
      [=](const list_roles&) -> caf::result<role_list> {
        role_list all;
        all.roles.push_back({.name = "Default"});
        all.default_role = all.selected_role = "Default";
        return all;
      },
      [=](const get_config&) -> caf::result<config_text> {
        std::lock_guard guard{s->lock};
        return config_text{s->config};
      },
      [=](const set_config& x) -> caf::result<config_text> {
        std::lock_guard guard{s->lock};
        if (x.json.find("broken") != std::string::npos)
          return fail(ec::malformed, "roles.broken: cannot be");
        s->config = x.json;
        return config_text{s->config};
      },
      [=](const select_role& x) -> caf::result<config_text> {
        if (x.role != "Default")
          return fail(ec::not_found, "role: there is no role " + x.role);
        return config_text{R"({"roles": {"Default": {}}, "selected_role": "Default"})"};
      },
      [=](const list_models&) -> caf::result<model_list> { return model_list{}; },
      [=](const get_pool&) -> caf::result<pool_info> { return pool_info{}; },
      [=](const get_health&) -> caf::result<health_info> {
        return health_info{.status = "healthy", .version = "1", .machine_kind = "namespace"};
      },
      [=](const describe&) -> caf::result<description> { return description{}; },
      [=](const drain&) -> caf::result<drained> { return drained{}; },
      [](caf::timeout_atom) {},
      [](caf::tick_atom) {},
  };
}

} // namespace

outcome make_outcome(const run& request) {
  outcome made{.job = "3f2c", .state = job_state::exited, .exit_code = 0};
  made.stdout_data = {'o', 'u', 't'};
  made.stderr_data = {'e', 'r', 'r'};
  made.stdout_bytes = 3;
  made.stderr_bytes = 3;
  made.wall_us = 12'345;
  made.language = request.language;
  made.agent_id = request.agent_id;
  made.machine = request.session.empty() ? "vm-9" : request.session;
  made.submitted_at_ms = made.started_at_ms = 1'700'000'000'123;
  made.ended_at_ms = 1'700'000'000'456;
  return made;
}

session_info make_session(const std::string& hex, const std::string& agent) {
  return {.session = "s-" + hex,
          .name = "s-" + hex,
          .agent_id = agent,
          .state = session_state::ready,
          .machine = "vm-" + hex,
          .machine_kind = "namespace",
          .vm_type = "focal-optimized",
          .created_at_ms = 1'700'000'000'000,
          .last_used_at_ms = 1'700'000'001'000,
          .memory_mib = 512};
}

snapshot_info make_snapshot(const session_info& of, const std::string& name) {
  return {.snapshot = name.empty() ? "snap" : name,
          .session = of.session,
          .agent_id = of.agent_id,
          .machine = of.machine,
          .machine_kind = of.machine_kind,
          .name = name,
          .job = "3f2c",
          .entry = 7,
          .size_bytes = 3 * limits::mib / 2,
          .created_at_ms = 1'700'000'000'789,
          .durable = true};
}

struct http_house::rooms {
  rooms(http::server_options options, script& answers)
    : system(config)
    , progress(spawn_progress(system, nullptr))
    , gateway(system.spawn(fake_gateway, &answers, progress))
    , carrier(system, gateway)
    , server(std::move(options), carrier) {}

  ~rooms() {
    server.stop();
    caf::anon_send_exit(gateway, caf::exit_reason::kill);
    caf::anon_send_exit(progress, caf::exit_reason::kill);
  }

  caf::actor_system_config config;
  caf::actor_system system;
  progress_actor progress;
  gateway_actor gateway;
  porter carrier;
  http::server server;
};

http_house::http_house(http::server_options options)
  : rooms_(std::make_unique<rooms>(std::move(options), answers)) {
  for (auto& contract : http::make_facades(values))
    rooms_->server.add(std::move(contract));
  error why = rooms_->server.start();
  REQUIRE(!why);
}

http_house::~http_house() {
  // Promises end before the system whose actors gave them.
  answers.with([](script& s) { s.held_chats.clear(); });
}

error http_house::start_another(http::server_options options) {
  http::server other{std::move(options), rooms_->carrier};
  error why = other.start();
  other.stop();
  return why;
}

void http_house::note(progress_event event) const {
  caf::anon_send(rooms_->progress, note_progress{std::move(event)});
}

std::uint16_t http_house::terraphim_port() const {
  return rooms_->server.terraphim_port();
}

std::uint16_t http_house::port() const {
  return rooms_->server.port();
}

raw_client::raw_client(std::uint16_t port) {
  fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  timeval hang{.tv_sec = 20, .tv_usec = 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &hang, sizeof hang);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(::connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0);
}

raw_client::~raw_client() {
  ::close(fd_);
}

void raw_client::send(const std::string& data) {
  std::size_t at = 0;
  while (at < data.size()) {
    auto count = ::send(fd_, data.data() + at, data.size() - at, MSG_NOSIGNAL);
    if (count <= 0) {
      sent_all_ = false;
      return;
    }
    at += static_cast<std::size_t>(count);
  }
}

bool raw_client::fill() {
  std::array<char, 65536> part{};
  auto count = ::recv(fd_, part.data(), part.size(), 0);
  if (count <= 0)
    return false;
  buffer_.append(part.data(), static_cast<std::size_t>(count));
  return true;
}

std::string raw_client::take(std::size_t count) {
  while (buffer_.size() < count && fill())
    ;
  std::string taken = buffer_.substr(0, count);
  buffer_.erase(0, taken.size());
  return taken;
}

bool raw_client::closed() {
  return buffer_.empty() && !fill();
}

answer raw_client::receive(bool head) {
  std::size_t end = 0;
  while ((end = buffer_.find("\r\n\r\n")) == std::string::npos)
    if (!fill())
      return {};
  std::string header = take(end + 4);
  answer got;
  got.status = std::stoi(header.substr(9, 3));
  for (std::size_t at = header.find("\r\n") + 2; at + 2 < header.size();) {
    std::size_t line_end = header.find("\r\n", at);
    std::string line = header.substr(at, line_end - at);
    if (auto colon = line.find(": "); colon != std::string::npos)
      got.headers[line.substr(0, colon)] = line.substr(colon + 2);
    at = line_end + 2;
  }
  if (head || got.status == 100 || got.status == 101 || got.status == 204)
    return got;
  if (got.headers["Transfer-Encoding"] == "chunked") {
    for (;;) {
      while (buffer_.find("\r\n") == std::string::npos)
        if (!fill())
          return {};
      std::size_t size = std::stoul(take(buffer_.find("\r\n") + 2), nullptr, 16);
      got.body += take(size);
      take(2);
      if (size == 0)
        return got;
    }
  }
  if (got.headers.count("Content-Length") != 0) {
    got.body = take(std::stoul(got.headers["Content-Length"]));
  } else {
    while (fill())
      ;
    got.body = take(buffer_.size());
  }
  return got;
}

answer ask(std::uint16_t port, const std::string& method, const std::string& target,
           const std::string& body, const std::string& headers) {
  raw_client client{port};
  std::string length = body.empty() && method == "GET"
                           ? ""
                           : "Content-Length: " + std::to_string(body.size()) + "\r\n";
  client.send(method + " " + target + " HTTP/1.1\r\nHost: x\r\n" + headers + length + "\r\n"
              + body);
  return client.receive(method == "HEAD");
}

raw_socket::raw_socket(std::uint16_t port, const std::string& target)
  : client_(port) {
  client_.send(
      "GET " + target
      + " HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n");
  answer got = client_.receive();
  REQUIRE(got.status == 101);
  CHECK(got.headers["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

void raw_socket::frame(int opcode, bool final_one, const std::string& data) {
  std::string made(1, static_cast<char>((final_one ? 0x80 : 0) | opcode));
  if (data.size() < 126) {
    made += static_cast<char>(0x80 | data.size());
  } else if (data.size() < 65536) {
    made += static_cast<char>(0x80 | 126);
    made += static_cast<char>(data.size() >> 8);
    made += static_cast<char>(data.size() & 0xFF);
  } else {
    made += static_cast<char>(0x80 | 127);
    for (int shift = 56; shift >= 0; shift -= 8)
      made += static_cast<char>(data.size() >> shift & 0xFF);
  }
  made += std::string("\x01\x02\x03\x04", 4);
  for (std::size_t i = 0; i < data.size(); ++i)
    made += static_cast<char>(data[i] ^ static_cast<char>(i % 4 + 1));
  client_.send(made);
}

void raw_socket::text(const std::string& message) {
  frame(1, true, message);
}

std::pair<int, std::string> raw_socket::next() {
  std::string head = client_.take(2);
  if (head.size() < 2)
    return {-1, ""};
  std::size_t size = static_cast<unsigned char>(head[1]) & 0x7F;
  if (size >= 126) {
    std::string more = client_.take(size == 126 ? 2 : 8);
    size = 0;
    for (char c : more)
      size = size << 8 | static_cast<unsigned char>(c);
  }
  return {head[0] & 0x0F, client_.take(size)};
}

json raw_socket::message() {
  auto [opcode, data] = next();
  REQUIRE(opcode == 1);
  return json::parse(data);
}

} // namespace berth::test
