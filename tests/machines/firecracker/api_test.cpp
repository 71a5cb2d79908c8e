// SPDX-License-Identifier: Apache-2.0
#include "machines/firecracker/api.hpp"
#include "tests/support/skip.hpp"
#include "tests/support/temp_dir.hpp"

#include <catch2/catch.hpp>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <csignal>
#include <fstream>
#include <future>
#include <thread>
#include <unistd.h>

using namespace berth;
using namespace berth::machines;
namespace fc = berth::machines::firecracker;

namespace {

constexpr std::chrono::seconds hang_limit{60};
constexpr std::chrono::milliseconds patience{30'000};

/// A conversation that a test's thread waits for.
class talk {
public:
  explicit talk(owned_fd socket)
    : client_(std::make_shared<fc::client>(loop_, std::move(socket))) {
    loop_.post([this] { client_->open([this](const std::string& why) { end_.set_value(why); }); });
  }
  ~talk() {
    // The loop runs this before it ends, when this object's own share is gone already.
    loop_.post([client = client_] { client->close(); });
  }
  std::future<fc::reply> send(const fc::request& what,
                              std::chrono::milliseconds within = patience) {
    auto told = std::make_shared<std::promise<fc::reply>>();
    loop_.post([this, what, within, told] {
      client_->ask(what, within, [told](const fc::reply& came) { told->set_value(came); });
    });
    return told->get_future();
  }
  static fc::reply wait(std::future<fc::reply> for_what) {
    REQUIRE(for_what.wait_for(hang_limit) == std::future_status::ready);
    return for_what.get();
  }
  fc::reply ask(const fc::request& what) { return wait(send(what)); }
  void done(const fc::request& what) {
    auto came = ask(what);
    CHECK(came.error == "");
    CHECK(came.status == 204);
  }
  void refused(const fc::request& what) {
    INFO(what.method << " " << what.path << " " << what.body.dump());
    auto came = ask(what);
    CHECK(came.status == 400);
    CHECK(came.error != "");
  }
  std::string state() { return ask(fc::describe_instance()).value.value("state", "?"); }
  std::string end() {
    auto why = end_.get_future();
    REQUIRE(why.wait_for(hang_limit) == std::future_status::ready);
    return why.get();
  }

private:
  std::promise<std::string> end_;
  reactor loop_;
  std::shared_ptr<fc::client> client_;
};

/// A process of the conformance server.
class conformance_server {
public:
  conformance_server(const std::string& path)
    : path_(path) {
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::setenv("BERTH_NO_GUEST", "1", 1);
      ::execl("/usr/bin/python3", "python3",
              BERTH_SOURCE_DIR "/tests/support/firecracker_server.py", "--api-sock", path.c_str(),
              "--id", "one", nullptr);
      ::_exit(127);
    }
  }
  ~conformance_server() { kill(); }
  void kill() {
    if (pid_ <= 0)
      return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }
  owned_fd connect() const {
    auto until = std::chrono::steady_clock::now() + hang_limit;
    std::string error;
    owned_fd made;
    while (!(made = fc::connect_api(path_, error)) && std::chrono::steady_clock::now() < until)
      std::this_thread::sleep_for(std::chrono::milliseconds{20});
    INFO(error);
    REQUIRE(made);
    return made;
  }

private:
  std::string path_;
  pid_t pid_ = 0;
};

/// A Firecracker that a test plays by hand.
struct scripted {
  scripted() {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    ours.reset(ends[0]);
    theirs.reset(ends[1]);
  }
  void say(std::string_view text) const {
    // Who hung up meanwhile is what some tests are about.
    (void)!::send(ours.get(), text.data(), text.size(), MSG_NOSIGNAL);
  }
  void hear() const {
    char buffer[4096];
    REQUIRE(::recv(ours.get(), buffer, sizeof buffer, 0) > 0);
  }
  owned_fd ours;
  owned_fd theirs;
};

void write_file(const std::string& path) {
  std::ofstream{path} << "content";
}

using state = fc::answer_reader::state;

} // namespace

TEST_CASE("an answer of Firecracker is read the same however it is cut") {
  const std::string text = "HTTP/1.1 400 \r\nServer: x\r\ncontent-length:  21 \r\n\r\n"
                           R"({"fault_message":"a"})";
  for (std::size_t at = 0; at < text.size(); ++at) {
    fc::answer_reader reader;
    CHECK(reader.push(text.substr(0, at)) == state::more);
    CHECK(reader.push(text.substr(at)) == state::whole);
    auto said = fc::read_reply(reader.status(), reader.body());
    CHECK(said.status == 400);
    CHECK(said.error == "a");
  }
  fc::answer_reader empty;
  CHECK(empty.push("HTTP/1.1 204 No Content\r\n\r\n") == state::whole);
  CHECK(empty.status() == 204);
}

TEST_CASE("what is no answer of Firecracker is refused, and nothing is taken after it") {
  const std::string ok = "HTTP/1.1 200 \r\n";
  for (const std::string& text :
       {std::string{"\r\n\r\n"}, std::string{"HTTP/2 200 \r\n\r\n"},
        std::string{"HTTP/1.1 20 \r\n\r\n"}, std::string{"HTTP/1.1 100 \r\n\r\n"},
        std::string{"HTTP/1.1 2000\r\n\r\n"}, ok + "\r\n", ok + "no field\r\n\r\n",
        ok + "Content-Length: -1\r\n\r\n", ok + "Content-Length: 1x\r\n\r\n",
        ok + "Content-Length: 99999999999999999999\r\n\r\n", ok + "Content-Length: 1048577\r\n\r\n",
        ok + "Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
        ok + "Transfer-Encoding: chunked\r\n\r\n", ok + "Content-Length: 2\r\n\r\n{}x",
        std::string{"HTTP/1.1 204 \r\nContent-Length: 2\r\n\r\n{}"}, std::string(9000, 'x')}) {
    INFO(text.substr(0, 80));
    fc::answer_reader reader;
    CHECK(reader.push(text) == state::broken);
    CHECK(!reader.why().empty());
    CHECK(reader.push("HTTP/1.1 204 \r\n\r\n") == state::broken);
  }
}

TEST_CASE("a refusal without a reason, a body that is no object and a nest are errors") {
  CHECK(fc::read_reply(500, "").error != "");
  CHECK(fc::read_reply(400, R"({"fault_message": 5})").error != "");
  CHECK(fc::read_reply(400, R"({"fault_message": ")" + std::string(5000, 'x') + "\"}").error.size()
        == fc::fault_bytes_max);
  for (const std::string& body :
       {std::string{"[]"}, std::string{"{"}, std::string{},
        "{\"a\":" + std::string(5000, '[') + std::string(5000, ']') + "}"})
    CHECK(!fc::read_reply(200, body).ok());
}

TEST_CASE("silence of Firecracker ends at the deadline, with every open request") {
  scripted peer;
  talk with{std::move(peer.theirs)};
  auto first = with.send(fc::pause_vm(), std::chrono::milliseconds{50});
  auto second = with.send(fc::resume_vm());
  CHECK(talk::wait(std::move(first)).error.find("PATCH /vm in time") != std::string::npos);
  CHECK(!talk::wait(std::move(second)).ok());
  CHECK(with.end().find("in time") != std::string::npos);
  CHECK(with.ask(fc::pause_vm()).error == "Firecracker is gone");
}

TEST_CASE("half an answer, a giant one, and one too many each end the conversation") {
  for (std::string_view text : {"HTTP/1.1 200 \r\nContent-Length: 90\r\n\r\n{",
                                "HTTP/1.1 200 \r\nContent-Length: 9999999\r\n\r\n",
                                "HTTP/1.1 204 \r\n\r\nHTTP/1.1 204 \r\n\r\n"}) {
    INFO(text);
    scripted peer;
    talk with{std::move(peer.theirs)};
    auto asked = with.send(fc::describe_instance());
    peer.hear();
    peer.say(text);
    ::shutdown(peer.ours.get(), SHUT_RDWR);
    CHECK(!talk::wait(std::move(asked)).ok());
    CHECK(with.end() != "");
  }
  scripted peer;
  talk with{std::move(peer.theirs)};
  peer.say("HTTP/1.1 204 \r\n\r\n");
  CHECK(with.end() == "Firecracker answered what was not asked");
}

TEST_CASE("no more requests wait for Firecracker than may") {
  scripted peer;
  talk with{std::move(peer.theirs)};
  std::vector<std::future<fc::reply>> all;
  for (std::size_t i = 0; i < fc::requests_max; ++i)
    all.push_back(with.send(fc::pause_vm()));
  CHECK(with.ask(fc::pause_vm()).error == "too many requests wait for Firecracker");
  peer.ours.reset();
  for (auto& one : all)
    CHECK(!talk::wait(std::move(one)).ok());
}

TEST_CASE("a life by Firecracker's API: configured, started, paused, saved, loaded [conformance]") {
  temp_dir dir;
  const std::string at = dir.path() + "/";
  for (const char* name : {"kernel", "initrd", "root", "overlay", "metrics"})
    write_file(at + name);
  {
    conformance_server server{at + "a.sock"};
    talk with{server.connect()};
    CHECK(with.state() == "Not started");
    with.done(fc::put_metrics(at + "metrics"));
    with.refused(fc::start_instance());
    with.refused(fc::pause_vm());
    with.done(fc::put_machine_config(2, 64));
    with.done(fc::put_boot_source(at + "kernel", at + "initrd", "console=ttyS0"));
    with.done(fc::put_drive({.id = "root", .path = at + "root", .root = true, .read_only = true}));
    fc::rate_limit limit{.bandwidth = fc::token_bucket{.size = 1 << 20, .refill_ms = 100},
                         .operations = fc::token_bucket{.size = 100, .refill_ms = 100}};
    with.done(fc::put_drive({.id = "overlay", .path = at + "overlay", .limit = limit}));
    with.done(fc::put_vsock(3, at + "v.sock"));
    with.done(fc::put_entropy(limit));
    with.done(fc::start_instance());
    CHECK(with.state() == "Running");
    with.refused(fc::start_instance());
    with.refused(fc::put_machine_config(1, 64));
    with.done(fc::flush_metrics());
    with.refused(fc::create_snapshot(at + "state", at + "memory"));
    with.done(fc::pause_vm());
    with.done(fc::pause_vm());
    CHECK(with.state() == "Paused");
    with.done(fc::create_snapshot(at + "state", at + "memory"));
    with.done(fc::resume_vm());
    CHECK(with.state() == "Running");
    server.kill();
    CHECK(with.end() == "Firecracker has ended");
  }
  conformance_server server{at + "b.sock"};
  talk with{server.connect()};
  fc::saved_machine from{.state_path = at + "state", .memory_path = at + "memory"};
  from.vsock_path = at + "w.sock";
  auto absent = from;
  absent.state_path = at + "none";
  with.refused(fc::load_snapshot(absent));
  auto unheard = from;
  unheard.backend = fc::memory_backend::uffd;
  with.refused(fc::load_snapshot(unheard));
  with.done(fc::load_snapshot(from));
  CHECK(with.state() == "Paused");
  with.refused(fc::load_snapshot(from));
  with.done(fc::resume_vm());
  CHECK(with.state() == "Running");
}

TEST_CASE("the conformance server refuses what Firecracker's description does [conformance]") {
  temp_dir dir;
  const std::string at = dir.path() + "/";
  write_file(at + "kernel");
  conformance_server server{at + "a.sock"};
  talk with{server.connect()};
  auto put = [](std::string path, fc::json body) {
    return fc::request{.method = "PUT", .path = std::move(path), .body = std::move(body)};
  };
  with.refused(put("/machine-config", {{"vcpu_count", 1}}));
  with.refused(put("/machine-config", {{"vcpu_count", 33}, {"mem_size_mib", 64}}));
  with.refused(put("/machine-config", {{"vcpu_count", 1.5}, {"mem_size_mib", 64}}));
  with.refused(put("/machine-config", {{"vcpu_count", 1}, {"mem_size_mib", 64}, {"more", 1}}));
  with.refused(put("/boot-source", {{"kernel_image_path", at + "none"}}));
  with.refused(
      put("/drives/a",
          {{"drive_id", "b"}, {"is_root_device", false}, {"path_on_host", at + "kernel"}}));
  with.refused(put("/vsock", {{"guest_cid", 2}, {"uds_path", at + "v"}}));
  with.refused(put("/actions", {{"action_type", "Dance"}}));
  with.refused(put("/nothing", fc::json::object()));
  with.refused(put("/entropy", {{"rate_limiter", {{"ops", {{"size", 1}}}}}}));
  with.refused({.method = "GET", .path = "/", .body = fc::json::object()});
  with.refused({.method = "DELETE", .path = "/vm", .body = fc::json::object()});
  with.refused({.method = "PUT", .path = "/entropy", .body = nullptr});
  with.done(put("/entropy", fc::json::object()));
  // No process that was told more than where to log loads a snapshot.
  write_file(at + "state");
  with.refused(fc::load_snapshot({.state_path = at + "state", .memory_path = at + "kernel"}));
  CHECK(with.state() == "Not started");
}

TEST_CASE("Firecracker itself says over its API that it was not started yet") {
  if (std::system("command -v firecracker > /dev/null") != 0)
    return test::skip("firecracker: no binary on this host");
  temp_dir dir;
  const std::string path = dir.path() + "/api.sock";
  pid_t pid = ::fork();
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::execlp("firecracker", "firecracker", "--api-sock", path.c_str(), "--id", "one", nullptr);
    ::_exit(127);
  }
  std::string error;
  owned_fd socket;
  auto until = std::chrono::steady_clock::now() + hang_limit;
  while (!(socket = fc::connect_api(path, error)) && std::chrono::steady_clock::now() < until)
    std::this_thread::sleep_for(std::chrono::milliseconds{20});
  if (socket)
    CHECK(talk{std::move(socket)}.state() == "Not started");
  else
    FAIL_CHECK(error);
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
}
