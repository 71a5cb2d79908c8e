// SPDX-License-Identifier: Apache-2.0
#include "machines/firecracker/api.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>

namespace berth::machines::firecracker {

namespace {

/// Read from one Firecracker at a time.
constexpr std::size_t read_bytes = 64 * 1024;

/// Parses and gives up where it is nested too deep.
json parse_json(std::string_view text) {
  bool too_deep = false;
  json value = json::parse(
      text,
      [&](int depth, json::parse_event_t, json&) {
        too_deep = too_deep || depth > depth_max;
        return !too_deep;
      },
      false);
  return too_deep ? json(json::value_t::discarded) : value;
}

std::string_view trimmed(std::string_view text) {
  auto blank = [](char c) { return c == ' ' || c == '\t'; };
  while (!text.empty() && blank(text.front()))
    text.remove_prefix(1);
  while (!text.empty() && blank(text.back()))
    text.remove_suffix(1);
  return text;
}

bool same_name(std::string_view a, std::string_view b) {
  auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return std::ranges::equal(a, b, {}, lower, lower);
}

template <class T>
bool read_number(std::string_view text, T& to) {
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), to);
  return error == std::errc{} && end == text.data() + text.size();
}

json bucket_json(const token_bucket& of) {
  return {{"size", of.size}, {"refill_time", of.refill_ms}};
}

json limit_json(const rate_limit& of) {
  json made = json::object();
  if (of.bandwidth)
    made["bandwidth"] = bucket_json(*of.bandwidth);
  if (of.operations)
    made["ops"] = bucket_json(*of.operations);
  return made;
}

request put(std::string path, json body) {
  return {.method = "PUT", .path = std::move(path), .body = std::move(body)};
}

} // namespace

answer_reader::state answer_reader::refuse(const char* why) {
  why_ = why;
  return state::broken;
}

answer_reader::state answer_reader::push(std::string_view data) {
  if (!why_.empty())
    return state::broken;
  std::string rest;
  if (!in_body_) {
    head_.append(data);
    auto end = head_.find("\r\n\r\n");
    if (std::min(end, head_.size()) > head_bytes_max)
      return refuse("a head that is too long");
    if (end == std::string::npos)
      return state::more;
    rest = head_.substr(end + 4);
    head_.resize(end);
    if (!read_head(head_))
      return state::broken;
    in_body_ = true;
    data = rest;
  }
  if (data.size() > length_.value_or(0) - body_.size())
    return refuse("more than one answer");
  body_.append(data);
  return body_.size() == length_.value_or(0) ? state::whole : state::more;
}

bool answer_reader::read_head(std::string_view head) {
  auto line_end = std::min(head.find("\r\n"), head.size());
  auto first = head.substr(0, line_end);
  // "HTTP/1.1 204 ", and whatever it calls that.
  bool form = first.size() >= 12
              && (first.starts_with("HTTP/1.1 ") || first.starts_with("HTTP/1.0 "))
              && (first.size() == 12 || first[12] == ' ');
  if (!form || !read_number(first.substr(9, 3), status_) || status_ < 200 || status_ > 599)
    return refuse("what is no answer of HTTP"), false;
  while (line_end < head.size()) {
    head.remove_prefix(line_end + 2);
    line_end = std::min(head.find("\r\n"), head.size());
    if (!read_field(head.substr(0, line_end)))
      return false;
  }
  if (status_ == 204 && length_.value_or(0) != 0)
    return refuse("a body where none may be"), false;
  // Without a length, a body would end with the conversation.
  if (status_ != 204 && !length_)
    return refuse("a body without a length"), false;
  return true;
}

bool answer_reader::read_field(std::string_view line) {
  auto colon = line.find(':');
  if (colon == std::string_view::npos || colon == 0)
    return refuse("a field without a name"), false;
  auto name = line.substr(0, colon);
  auto value = trimmed(line.substr(colon + 1));
  if (same_name(name, "transfer-encoding"))
    return refuse("a body in pieces"), false;
  if (!same_name(name, "content-length"))
    return true;
  std::size_t length = 0;
  if (length_ || !read_number(value, length))
    return refuse("a length that is none"), false;
  if (length > body_bytes_max)
    return refuse("a body that is too long"), false;
  length_ = length;
  return true;
}

request put_metrics(const std::string& path) {
  return put("/metrics", {{"metrics_path", path}});
}

request put_machine_config(unsigned vcpus, std::uint64_t memory_mib) {
  return put("/machine-config",
             {{"vcpu_count", vcpus}, {"mem_size_mib", memory_mib}, {"smt", false}});
}

request put_boot_source(const std::string& kernel, const std::string& initrd,
                        const std::string& arguments) {
  json body{{"kernel_image_path", kernel}, {"boot_args", arguments}};
  if (!initrd.empty())
    body["initrd_path"] = initrd;
  return put("/boot-source", std::move(body));
}

request put_drive(const drive& what) {
  json body{{"drive_id", what.id},
            {"path_on_host", what.path},
            {"is_root_device", what.root},
            {"is_read_only", what.read_only}};
  if (what.limit)
    body["rate_limiter"] = limit_json(*what.limit);
  return put("/drives/" + what.id, std::move(body));
}

request put_vsock(std::uint32_t guest_cid, const std::string& path) {
  return put("/vsock", {{"guest_cid", guest_cid}, {"uds_path", path}});
}

request put_entropy(const std::optional<rate_limit>& limit) {
  json body = json::object();
  if (limit)
    body["rate_limiter"] = limit_json(*limit);
  return put("/entropy", std::move(body));
}

request start_instance() {
  return put("/actions", {{"action_type", "InstanceStart"}});
}

request flush_metrics() {
  return put("/actions", {{"action_type", "FlushMetrics"}});
}

request pause_vm() {
  return {.method = "PATCH", .path = "/vm", .body = {{"state", "Paused"}}};
}

request resume_vm() {
  return {.method = "PATCH", .path = "/vm", .body = {{"state", "Resumed"}}};
}

request create_snapshot(const std::string& state_path, const std::string& memory_path) {
  return put(
      "/snapshot/create",
      {{"snapshot_type", "Full"}, {"snapshot_path", state_path}, {"mem_file_path", memory_path}});
}

request load_snapshot(const saved_machine& from) {
  json backend{{"backend_type", from.backend == memory_backend::file ? "File" : "Uffd"},
               {"backend_path", from.memory_path}};
  json body{{"snapshot_path", from.state_path},
            {"mem_backend", std::move(backend)},
            {"resume_vm", from.resume}};
  if (!from.vsock_path.empty())
    body["vsock_override"] = {{"uds_path", from.vsock_path}};
  return put("/snapshot/load", std::move(body));
}

request describe_instance() {
  return {.method = "GET", .path = "/", .body = nullptr};
}

std::string text_of(const request& what) {
  std::string text = what.method + " " + what.path + " HTTP/1.1\r\nHost: localhost\r\n"
                     + "Accept: application/json\r\n";
  if (what.body.is_null())
    return text + "\r\n";
  // Names of files may be any bytes; JSON's may not.
  std::string body = what.body.dump(-1, ' ', false, json::error_handler_t::replace);
  return text + "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size())
         + "\r\n\r\n" + body;
}

reply read_reply(int status, std::string_view body) {
  reply made{.status = status, .value = nullptr, .error = {}};
  if (status == 204)
    return made;
  json value = parse_json(body);
  if (status == 200) {
    if (value.is_object())
      made.value = std::move(value);
    else
      made.error = "Firecracker's answer is no JSON object";
    return made;
  }
  if (value.is_object())
    if (auto fault = value.find("fault_message"); fault != value.end() && fault->is_string())
      made.error = fault->get_ref<const std::string&>().substr(0, fault_bytes_max);
  if (made.error.empty())
    made.error = "Firecracker refused with " + std::to_string(status) + ", without a reason";
  return made;
}

void client::open(end_handler on_end) {
  on_end_ = std::move(on_end);
  watch_ = loop_.watch(socket_.get(), EPOLLIN, [self = shared_from_this()](std::uint32_t events) {
    self->on_events(events);
  });
}

void client::ask(const request& what, std::chrono::milliseconds within, reply_handler on_reply) {
  reply refused;
  if (!socket_)
    refused.error = "Firecracker is gone";
  else if (open_.size() >= requests_max)
    refused.error = "too many requests wait for Firecracker";
  if (!refused.error.empty())
    return on_reply(refused);
  std::string named = what.method + " " + what.path;
  auto timer = loop_.after(within, [self = shared_from_this(), named] {
    self->end("Firecracker did not answer " + named + " in time");
  });
  open_.push_back({.text = text_of(what), .on_reply = std::move(on_reply), .timer = timer});
  flush();
}

void client::flush() {
  while (socket_ && !open_.empty() && open_.front().sent < open_.front().text.size()) {
    asked& first = open_.front();
    ssize_t count = ::send(socket_.get(), first.text.data() + first.sent,
                           first.text.size() - first.sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR)
      continue;
    bool full = count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
    if (full != want_out_ && watch_ != 0) {
      want_out_ = full;
      loop_.rewatch(watch_, EPOLLIN | (full ? EPOLLOUT : 0U));
    }
    // Who cannot be written to is found gone by reading.
    if (count < 0)
      return;
    first.sent += static_cast<std::size_t>(count);
  }
}

void client::on_events(std::uint32_t events) {
  auto self = shared_from_this();
  if ((events & EPOLLOUT) != 0)
    flush();
  if (socket_ && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0)
    read_some();
}

void client::read_some() {
  static thread_local std::array<char, read_bytes> buffer;
  ssize_t count = 0;
  do
    count = ::recv(socket_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  while (count < 0 && errno == EINTR);
  if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
    return;
  if (count <= 0)
    return end("Firecracker has ended");
  if (open_.empty() || open_.front().sent < open_.front().text.size())
    return end("Firecracker answered what was not asked");
  auto came = reader_.push({buffer.data(), static_cast<std::size_t>(count)});
  if (came == answer_reader::state::broken)
    return end("Firecracker said " + reader_.why());
  if (came == answer_reader::state::more)
    return;
  reply made = read_reply(reader_.status(), reader_.body());
  reader_ = {};
  asked done = std::move(open_.front());
  open_.pop_front();
  loop_.cancel(done.timer);
  flush();
  done.on_reply(made);
}

void client::close() {
  if (!socket_)
    return;
  loop_.forget(watch_);
  watch_ = 0;
  socket_.reset();
  for (const auto& one : open_)
    loop_.cancel(one.timer);
  open_.clear();
}

void client::end(const std::string& why) {
  if (!socket_)
    return;
  auto self = shared_from_this();
  auto waiting = std::move(open_);
  open_.clear();
  for (const auto& one : waiting)
    loop_.cancel(one.timer);
  close();
  reply failed;
  failed.error = why;
  for (const auto& one : waiting)
    one.on_reply(failed);
  if (on_end_)
    on_end_(why);
}

owned_fd connect_api(const std::string& path, std::string& error) {
  sockaddr_un where{};
  where.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof where.sun_path) {
    error = "the path of Firecracker's socket is empty or too long";
    return {};
  }
  std::memcpy(where.sun_path, path.data(), path.size());
  owned_fd made{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  if (!made
      || ::connect(made.get(), reinterpret_cast<const sockaddr*>(&where), sizeof where) != 0) {
    error = std::string{"Firecracker's socket does not answer: "} + std::strerror(errno);
    return {};
  }
  return made;
}

} // namespace berth::machines::firecracker
