// SPDX-License-Identifier: Apache-2.0
#include "bridge/zmq/access.hpp"

#include "messages/fd.hpp"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>

namespace berth {

namespace {

constexpr std::string_view tcp_scheme = "tcp://";
constexpr std::string_view ipc_scheme = "ipc://";
constexpr std::size_t key_characters = 40;
constexpr std::size_t key_bytes = 32;

std::string why(int code) {
  return std::strerror(code);
}

bool is_port(std::string_view text) {
  if (text == "*")
    return true;
  unsigned port = 0;
  auto [end, wrong] = std::from_chars(text.data(), text.data() + text.size(), port);
  return wrong == std::errc{} && end == text.data() + text.size() && port <= 65535;
}

/// The host of tcp://HOST:PORT; empty when it is no such thing.
std::string_view host_of(std::string_view endpoint) {
  if (!endpoint.starts_with(tcp_scheme))
    return {};
  endpoint.remove_prefix(tcp_scheme.size());
  auto colon = endpoint.rfind(':');
  if (colon == std::string_view::npos || !is_port(endpoint.substr(colon + 1)))
    return {};
  return endpoint.substr(0, colon);
}

/// The 32 bytes of a Z85 key; empty when it is none.
std::string key_of(const std::string& text) {
  std::array<std::uint8_t, key_bytes> key{};
  if (text.size() != key_characters || zmq_z85_decode(key.data(), text.c_str()) == nullptr)
    return {};
  return {key.begin(), key.end()};
}

error check_tcp(const char* member, const std::string& endpoint, bool keys) {
  if (host_of(endpoint).empty())
    return fail(ec::malformed,
                std::string{member} + ": expected tcp://ADDRESS:PORT, is '" + endpoint + "'");
  if (!keys && !is_loopback(endpoint))
    return fail(ec::unauthorized, std::string{member} + ": " + endpoint
                                      + " can be reached from other hosts: refused without "
                                        "zmq_curve_secret_key and zmq_curve_public_key");
  return {};
}

error check_keys(const zmq_options& options) {
  if (options.curve_secret_key.empty() != options.curve_public_key.empty())
    return fail(ec::malformed, "zmq_curve_secret_key and zmq_curve_public_key: both or neither");
  if (options.curve_secret_key.empty() && !options.curve_clients.empty())
    return fail(ec::malformed, "zmq_curve_clients: has keys, but the server has none");
  if (!options.curve_secret_key.empty()) {
    std::array<char, key_characters + 1> pair{};
    if (key_of(options.curve_secret_key).empty()
        || zmq_curve_public(pair.data(), options.curve_secret_key.c_str()) != 0)
      return fail(ec::malformed, "zmq_curve_secret_key: is not 40 characters of Z85");
    if (options.curve_public_key != pair.data())
      return fail(ec::malformed, "zmq_curve_public_key: does not belong to the secret key");
  }
  for (std::size_t i = 0; i < options.curve_clients.size(); ++i)
    if (key_of(options.curve_clients[i]).empty())
      return fail(ec::malformed,
                  "zmq_curve_clients[" + std::to_string(i) + "]: is not 40 characters of Z85");
  return {};
}

/// Whether a server answers at a socket file.
bool is_alive(const std::string& path) {
  sockaddr_un place{};
  place.sun_family = AF_UNIX;
  if (path.size() >= sizeof place.sun_path)
    return false;
  path.copy(place.sun_path, path.size());
  owned_fd probe{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  if (!probe)
    return false;
  int rc = ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&place), sizeof place);
  // A full backlog answers EAGAIN: there is somebody.
  return rc == 0 || errno == EAGAIN;
}

std::string path_of(const std::string& endpoint) {
  return endpoint.substr(ipc_scheme.size());
}

} // namespace

bool is_loopback(std::string_view endpoint) {
  std::string_view host = host_of(endpoint);
  return host == "localhost" || host == "lo" || host == "[::1]" || host == "::1"
         || (host.starts_with("127.")
             && host.find_first_not_of("0123456789.") == std::string_view::npos);
}

error check_access(const zmq_options& options) {
  if (error wrong = check_keys(options))
    return wrong;
  bool keys = !options.curve_secret_key.empty();
  if (error wrong = check_tcp("zmq_router", options.router, keys))
    return wrong;
  if (error wrong = check_tcp("zmq_events", options.events, keys))
    return wrong;
  if (options.ipc.empty())
    return {};
  if (!options.ipc.starts_with(ipc_scheme) || options.ipc.size() == ipc_scheme.size())
    return fail(ec::malformed, "zmq_ipc: expected ipc://PATH, is '" + options.ipc + "'");
  if (path_of(options.ipc).size() >= sizeof(sockaddr_un{}.sun_path))
    return fail(ec::too_large, "zmq_ipc: a socket's path has at most 107 bytes, "
                                   + path_of(options.ipc) + " has more");
  return {};
}

error clear_ipc(const std::string& endpoint) {
  std::string path = path_of(endpoint);
  std::error_code wrong;
  std::filesystem::path folder = std::filesystem::path{path}.parent_path();
  if (!folder.empty() && !std::filesystem::exists(folder, wrong)
      && !std::filesystem::create_directories(folder, wrong) && wrong)
    return fail(ec::internal, "bind " + endpoint + ": make its folder: " + wrong.message());
  struct stat there {};
  if (::lstat(path.c_str(), &there) != 0)
    return errno == ENOENT ? error{} : fail(ec::internal, "bind " + endpoint + ": " + why(errno));
  if (!S_ISSOCK(there.st_mode))
    return fail(ec::already_exists, "bind " + endpoint + ": a file that is no socket is there");
  if (is_alive(path))
    return fail(ec::already_exists, "bind " + endpoint + ": another server answers there");
  if (::unlink(path.c_str()) != 0 && errno != ENOENT)
    return fail(ec::internal,
                "bind " + endpoint + ": remove what a dead server left: " + why(errno));
  return {};
}

error guard_ipc(const std::string& endpoint, std::uint32_t mode) {
  if (::chmod(path_of(endpoint).c_str(), mode) != 0)
    return fail(ec::internal, "bind " + endpoint + ": set its permissions: " + why(errno));
  return {};
}

zap_keeper::zap_keeper(zmq::context_t& context, const std::vector<std::string>& clients)
  : socket_(context, zmq::socket_type::router) {
  for (const auto& text : clients)
    keys_.insert(key_of(text));
  socket_.set(zmq::sockopt::linger, 0);
  socket_.bind("inproc://zeromq.zap.01");
}

void zap_keeper::serve() {
  // [peer] [empty] [version] [request id] [domain] [address] [routing id] [mechanism] [key...]
  constexpr std::size_t version = 2;
  constexpr std::size_t mechanism = 7;
  constexpr std::size_t key = 8;
  for (;;) {
    std::vector<zmq::message_t> frames;
    zmq::message_t frame;
    while (socket_.recv(frame, zmq::recv_flags::dontwait)) {
      bool more = frame.more();
      frames.push_back(std::move(frame));
      frame = zmq::message_t{};
      if (!more)
        break;
    }
    if (frames.empty())
      return;
    if (frames.size() <= mechanism)
      continue; // The I/O thread never sends less.
    std::string_view credential;
    if (frames.size() > key)
      credential = {static_cast<const char*>(frames[key].data()), frames[key].size()};
    bool admitted = admits(
        {static_cast<const char*>(frames[mechanism].data()), frames[mechanism].size()}, credential);
    for (std::size_t i = 0; i <= version + 1; ++i)
      socket_.send(frames[i], zmq::send_flags::sndmore);
    std::string_view status = admitted ? "200" : "400";
    std::string_view text = admitted ? "OK" : "this key is not known here";
    socket_.send(zmq::buffer(status), zmq::send_flags::sndmore);
    socket_.send(zmq::buffer(text), zmq::send_flags::sndmore);
    socket_.send(zmq::const_buffer{}, zmq::send_flags::sndmore); // user id
    socket_.send(zmq::const_buffer{}, zmq::send_flags::none);    // metadata
  }
}

bool zap_keeper::admits(std::string_view mechanism, std::string_view key) const {
  return mechanism == "CURVE" && (keys_.empty() || keys_.contains(std::string{key}));
}

} // namespace berth
