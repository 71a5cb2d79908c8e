// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "bridge/zmq/zmq_bridge.hpp"
#include "messages/codec.hpp"

#include <caf/actor_system.hpp>
#include <caf/actor_system_config.hpp>
#include <caf/event_based_actor.hpp>
#include <caf/send.hpp>
#include <caf/typed_event_based_actor.hpp>
#include <zmq.hpp>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <unistd.h>
#include <vector>

/// A real bridge on real sockets, with a gateway behind it that does as the code of a job says.
namespace berth::test {

/// What the stand-in gateway was asked, and what it owes.
struct gateway_log {
  std::atomic<std::uint64_t> asked = 0;
  /// Jobs that are held until a cancel comes.
  std::vector<caf::typed_response_promise<outcome>> held;
};

inline outcome ended_with(const std::string& code) {
  outcome result;
  result.job = "j-1";
  result.exit_code = 0;
  result.stdout_data.assign(code.begin(), code.end());
  return result;
}

/// `hold` waits for a cancel, `refuse` is rejected, `busy` is refused with a hint; the rest echoes.
inline gateway_actor::behavior_type scripted_gateway(gateway_actor::pointer self,
                                                     const std::shared_ptr<gateway_log>& log) {
  return {
      [=](const run& request) -> caf::result<outcome> {
        ++log->asked;
        if (request.code == "hold") {
          auto promise = self->make_response_promise<outcome>();
          log->held.push_back(promise);
          return promise;
        }
        if (request.code == "refuse")
          return fail(ec::rejected, "the policy forbids it");
        if (request.code == "busy")
          return caf::make_error(ec::no_capacity, std::string{"the queue is full"},
                                 std::uint32_t{250});
        return ended_with(request.code);
      },
      [=](const submit&) -> caf::result<accepted> {
        ++log->asked;
        return accepted{.job = "j-2", .session = {}};
      },
      [=](const read& request) -> caf::result<output_slice> {
        ++log->asked;
        output_slice slice;
        slice.job = request.job;
        slice.stdout_data.assign(request.bytes_max, 'x');
        return slice;
      },
      [=](const cancel& request) -> caf::result<cancelled> {
        ++log->asked;
        for (auto& promise : log->held)
          promise.deliver(ended_with("released"));
        log->held.clear();
        return cancelled{.job = request.job, .state = job_state::cancelled};
      },
      [=](const write_stdin& request) -> caf::result<stdin_written> {
        return stdin_written{.job = request.job, .bytes_taken = request.data.size()};
      },
      [=](const validate&) -> caf::result<verdict> { return verdict{}; },
      [=](const list_jobs&) -> caf::result<job_list> { return job_list{}; },
      [=](const open_session&) -> caf::result<session_info> { return session_info{}; },
      [=](const close_session&) -> caf::result<session_closed> { return session_closed{}; },
      [=](const list_sessions&) -> caf::result<session_list> { return session_list{}; },
      [=](const get_usage&) -> caf::result<session_usage> { return session_usage{}; },
      [=](const put_files& request) -> caf::result<files_put> {
        return files_put{.count = static_cast<std::uint32_t>(request.files.size())};
      },
      [=](const read_file&) -> caf::result<file_content> { return file_content{}; },
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
      [=](const take_snapshot&) -> caf::result<snapshot_info> { return snapshot_info{}; },
      [=](const list_snapshots&) -> caf::result<snapshot_list> { return snapshot_list{}; },
      [=](const delete_snapshot&) -> caf::result<snapshot_deleted> { return snapshot_deleted{}; },
      [=](const rollback&) -> caf::result<rolled_back> { return rolled_back{}; },
      [=](const fork_session&) -> caf::result<forked> { return forked{}; },
      [=](const pause_session&) -> caf::result<session_info> { return session_info{}; },
      [=](const resume_session&) -> caf::result<session_info> { return session_info{}; },
      [=](const query_history&) -> caf::result<history_page> { return history_page{}; },
      [=](const chat&) -> caf::result<chat_reply> { return chat_reply{}; },
      [=](const cancel_chat&) -> caf::result<chat_cancelled> { return chat_cancelled{}; },
      [=](const list_conversations&) -> caf::result<conversation_list> {
        return conversation_list{};
      },
      [=](const close_conversation&) -> caf::result<conversation_closed> {
        return conversation_closed{};
      },
      [=](const run_workflow&) -> caf::result<workflow_info> { return workflow_info{}; },
      [=](const submit_workflow&) -> caf::result<workflow_info> { return workflow_info{}; },
      [=](const get_workflow&) -> caf::result<workflow_info> { return workflow_info{}; },
      [=](const list_workflows&) -> caf::result<workflow_list> { return workflow_list{}; },
      [=](const cancel_workflow&) -> caf::result<workflow_info> { return workflow_info{}; },
      [=](const pause_workflow&) -> caf::result<workflow_info> { return workflow_info{}; },
      [=](const resume_workflow&) -> caf::result<workflow_info> { return workflow_info{}; },
      [=](const read_progress&) -> caf::result<progress_page> { return progress_page{}; },
      [=](const list_roles&) -> caf::result<role_list> { return role_list{}; },
      [=](const get_config&) -> caf::result<config_text> { return config_text{}; },
      [=](const set_config&) -> caf::result<config_text> { return config_text{}; },
      [=](const select_role&) -> caf::result<config_text> { return config_text{}; },
      [=](const list_models&) -> caf::result<model_list> { return model_list{}; },
      [=](const get_pool&) -> caf::result<pool_info> { return pool_info{}; },
      [=](const get_health&) -> caf::result<health_info> {
        ++log->asked;
        health_info health;
        health.status = "healthy";
        return health;
      },
      [=](const describe&) -> caf::result<description> { return make_description(); },
      [=](const drain&) -> caf::result<drained> { return drained{}; },
      [=](caf::timeout_atom) {},
      [=](caf::tick_atom) {},
  };
}

struct quiet_config : caf::actor_system_config {
  quiet_config() {
    add_message_types<caf::id_block::berth_errors>();
    add_message_types<caf::id_block::berth_messages>();
    set("scheduler.policy", caf::atom("sharing"));
    set("scheduler.max-threads", 2);
  }
};

/// A folder for the socket files of one test. Bears the process's id: what a test run that was
/// cut short left is removed by the next.
class scratch_folder {
public:
  scratch_folder() {
    static const bool swept = sweep();
    (void)swept;
    std::string pattern =
        std::filesystem::temp_directory_path() / (prefix + std::to_string(::getpid()) + "-XXXXXX");
    path_ = ::mkdtemp(pattern.data());
  }
  ~scratch_folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  scratch_folder(const scratch_folder&) = delete;
  scratch_folder& operator=(const scratch_folder&) = delete;

  std::string file(const std::string& name) const { return path_ / name; }

private:
  static inline const std::string prefix = "berth-zmq-";

  static bool sweep() {
    std::error_code failed;
    for (const auto& entry :
         std::filesystem::directory_iterator{std::filesystem::temp_directory_path(), failed}) {
      std::string name = entry.path().filename();
      std::string owner = name.substr(std::min(prefix.size(), name.size()));
      owner.erase(std::min(owner.find('-'), owner.size()));
      if (name.starts_with(prefix) && !std::filesystem::exists("/proc/" + owner))
        std::filesystem::remove_all(entry.path(), failed);
    }
    return true;
  }

  std::filesystem::path path_;
};

/// Actor system, gateway and bridge, ended in order.
class zmq_server {
public:
  explicit zmq_server(zmq_options options = {})
    : zmq_server(std::move(options), {}) {}
  zmq_server(zmq_options options, std::shared_ptr<zmq_outbox> given)
    : outbox(given ? std::move(given) : std::make_shared<zmq_outbox>())
    , gateway_(system_.spawn(scripted_gateway, log)) {
    options.router = "tcp://127.0.0.1:*";
    options.events = "tcp://127.0.0.1:*";
    if (options.ipc.empty())
      options.ipc = "ipc://" + folder.file("berth.ipc");
    auto started = zmq_bridge::start(std::move(options), system_, gateway_, outbox);
    if (!started)
      throw std::runtime_error(describe_error(started.error()));
    bridge = std::move(*started);
  }
  ~zmq_server() {
    bridge.reset();
    caf::anon_send_exit(gateway_, caf::exit_reason::user_shutdown);
    gateway_ = nullptr;
  }
  zmq_server(const zmq_server&) = delete;
  zmq_server& operator=(const zmq_server&) = delete;

  scratch_folder folder;
  std::shared_ptr<gateway_log> log = std::make_shared<gateway_log>();
  std::shared_ptr<zmq_outbox> outbox;
  std::unique_ptr<zmq_bridge> bridge;

private:
  quiet_config config_;
  caf::actor_system system_{config_};
  gateway_actor gateway_;
};

using frame_list = std::vector<std::string>;

/// One socket of a client. Receiving gives up after a generous while.
class zmq_peer {
public:
  explicit zmq_peer(zmq::socket_type type)
    : socket(context_, type) {
    socket.set(zmq::sockopt::linger, 0);
    socket.set(zmq::sockopt::rcvtimeo, 10'000);
    socket.set(zmq::sockopt::sndtimeo, 10'000);
  }
  zmq_peer(zmq::socket_type type, const std::string& endpoint)
    : zmq_peer(type) {
    socket.connect(endpoint);
  }

  bool send(const frame_list& frames) {
    for (std::size_t i = 0; i < frames.size(); ++i) {
      auto flags = i + 1 < frames.size() ? zmq::send_flags::sndmore : zmq::send_flags::none;
      if (!socket.send(zmq::buffer(frames[i]), flags))
        return false;
    }
    return true;
  }

  /// Empty when nothing came.
  frame_list receive() {
    frame_list frames;
    zmq::message_t frame;
    while (socket.recv(frame)) {
      frames.push_back(frame.to_string());
      if (!frame.more())
        break;
    }
    return frames;
  }

private:
  zmq::context_t context_{1};

public:
  zmq::socket_t socket;
};

/// The map {id, op, body} as msgpack; the id a whole number.
template <class Request>
std::string request_bytes(std::uint64_t id, std::string_view op, const Request& body) {
  msgpack::sbuffer buffer;
  berth::detail::packer out{buffer};
  out.pack_map(3);
  out.pack("id");
  out.pack(id);
  out.pack("op");
  out.pack(std::string{op});
  out.pack("body");
  berth::detail::write(out, body);
  return {buffer.data(), buffer.size()};
}

/// A reply taken apart.
struct reply_view {
  std::uint64_t id = 0;
  bool has_id = false;
  bool ok = false;
  refusal error;
  bytes raw;

  template <class Reply>
  Reply body() const {
    auto tree = object_tree::parse(raw);
    auto value = decode<Reply>(*berth::detail::find_member(tree->root(), "body"));
    return *value;
  }
};

inline reply_view read_reply(const std::string& text) {
  reply_view view;
  view.raw.assign(text.begin(), text.end());
  auto tree = object_tree::parse(view.raw);
  if (!tree)
    throw std::runtime_error("a reply that is no msgpack: " + tree.why().text());
  const auto* id = berth::detail::find_member(tree->root(), "id");
  view.has_id = id->type == msgpack::type::POSITIVE_INTEGER;
  if (view.has_id)
    view.id = id->via.u64;
  view.ok = berth::detail::find_member(tree->root(), "ok")->via.boolean;
  if (!view.ok)
    view.error = *decode<refusal>(*berth::detail::find_member(tree->root(), "error"));
  return view;
}

/// Waits until something holds, at most as long as a test may hang.
template <class Condition>
bool eventually(Condition holds) {
  for (int i = 0; i < 5000; ++i) {
    if (holds())
      return true;
    ::usleep(2000);
  }
  return false;
}

} // namespace berth::test
