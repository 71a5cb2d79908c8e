// SPDX-License-Identifier: Apache-2.0
#include "machines/qemu/qmp.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>

namespace berth::machines::qmp {

namespace {

/// Read from one QEMU at a time.
constexpr std::size_t read_bytes = 64 * 1024;
/// The longest text of an error that is kept.
constexpr std::size_t error_bytes_max = 512;

/// Parses without recursion, and gives up where it is nested too deep.
json parse_json(std::string_view line) {
  bool too_deep = false;
  json value = json::parse(
      line,
      [&](int depth, json::parse_event_t, json&) {
        too_deep = too_deep || depth > depth_max;
        return !too_deep;
      },
      false);
  return too_deep ? json(json::value_t::discarded) : value;
}

std::string text_of(const json& from, const char* member) {
  auto found = from.find(member);
  if (found == from.end() || !found->is_string())
    return {};
  return found->get_ref<const std::string&>().substr(0, error_bytes_max);
}

} // namespace

std::optional<std::variant<greeting, event, answer>> parse(std::string_view line) {
  json said = parse_json(line);
  if (said.is_discarded() || !said.is_object())
    return {};
  if (said.contains("QMP"))
    return greeting{};
  if (std::string name = text_of(said, "event"); !name.empty())
    return event{.name = name, .data = said.value("data", json::object())};
  answer made;
  if (auto id = said.find("id"); id != said.end() && id->is_number_unsigned())
    made.id = id->get<std::uint64_t>();
  if (auto value = said.find("return"); value != said.end()) {
    made.value = std::move(*value);
    return made;
  }
  auto error = said.find("error");
  if (error == said.end() || !error->is_object())
    return {};
  made.error = text_of(*error, "desc");
  if (made.error.empty())
    made.error = "QEMU refused without a reason";
  return made;
}

std::optional<std::uint64_t> number_in(const json& value, const char* member) {
  if (!value.is_object())
    return {};
  auto found = value.find(member);
  if (found == value.end() || !found->is_number_unsigned())
    return {};
  return found->get<std::uint64_t>();
}

std::string command_line(std::string_view name, const json& arguments, std::uint64_t id) {
  json said{{"execute", std::string{name}}, {"id", id}};
  if (!arguments.is_null())
    said["arguments"] = arguments;
  return said.dump() + "\n";
}

std::optional<std::string> line_cutter::next() {
  auto end = buffer_.find('\n', looked_at_);
  if (end == std::string::npos) {
    looked_at_ = buffer_.size();
    broken_ = broken_ || buffer_.size() > line_bytes_max;
    return {};
  }
  std::string line = buffer_.substr(0, end);
  buffer_.erase(0, end + 1);
  looked_at_ = 0;
  if (line.size() > line_bytes_max) {
    broken_ = true;
    return {};
  }
  if (!line.empty() && line.back() == '\r')
    line.pop_back();
  return line;
}

void client::open(handlers told) {
  told_ = std::move(told);
  watch_ = loop_.watch(socket_.get(), EPOLLIN, [self = shared_from_this()](std::uint32_t events) {
    self->on_events(events);
  });
  ask("qmp_capabilities", json::object(), std::chrono::seconds{30}, [](const answer&) {});
}

void client::ask(std::string_view name, const json& arguments, std::chrono::milliseconds within,
                 answer_handler on_answer, int fd) {
  answer refused;
  if (!socket_)
    refused.error = "QEMU is gone";
  else if (open_.size() >= commands_max)
    refused.error = "too many commands wait for QEMU";
  if (!refused.error.empty())
    return on_answer(refused);
  std::uint64_t id = next_id_++;
  outgoing out{.text = command_line(name, arguments, id)};
  if (fd >= 0)
    out.fd.reset(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
  queue_.push_back(std::move(out));
  std::string command{name};
  auto timer = loop_.after(within, [self = shared_from_this(), command] {
    self->end("QEMU did not answer " + command + " in time");
  });
  open_.push_back({.id = id, .on_answer = std::move(on_answer), .timer = timer});
  // Who cannot be written to is found gone by reading.
  (void)flush();
}

bool client::flush() {
  while (!queue_.empty()) {
    outgoing& first = queue_.front();
    iovec part{first.text.data() + first.sent, first.text.size() - first.sent};
    union {
      cmsghdr align;
      char bytes[CMSG_SPACE(sizeof(int))];
    } control{};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (first.fd) {
      message.msg_control = control.bytes;
      message.msg_controllen = sizeof control.bytes;
      cmsghdr* head = CMSG_FIRSTHDR(&message);
      head->cmsg_level = SOL_SOCKET;
      head->cmsg_type = SCM_RIGHTS;
      head->cmsg_len = CMSG_LEN(sizeof(int));
      int number = first.fd.get();
      std::memcpy(CMSG_DATA(head), &number, sizeof number);
    }
    ssize_t count = ::sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR)
      continue;
    bool full = count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
    if (full != want_out_ && watch_ != 0) {
      want_out_ = full;
      loop_.rewatch(watch_, EPOLLIN | (full ? EPOLLOUT : 0U));
    }
    if (count < 0)
      return full;
    first.fd.reset();
    first.sent += static_cast<std::size_t>(count);
    if (first.sent == first.text.size())
      queue_.pop_front();
  }
  return true;
}

void client::on_events(std::uint32_t events) {
  auto self = shared_from_this();
  if ((events & EPOLLOUT) != 0) {
    want_out_ = false;
    loop_.rewatch(watch_, EPOLLIN);
    (void)flush();
  }
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0)
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
    return end("QEMU has ended");
  cutter_.push({buffer.data(), static_cast<std::size_t>(count)});
  while (socket_) {
    auto line = cutter_.next();
    if (!line)
      break;
    take(*line);
  }
  if (socket_ && cutter_.broken())
    end("QEMU said a line that is too long");
}

void client::take(const std::string& line) {
  if (line.empty())
    return;
  auto said = parse(line);
  if (!said)
    return end("QEMU said what is no QMP");
  if (auto* happened = std::get_if<event>(&*said)) {
    if (told_.on_event)
      told_.on_event(*happened);
    return;
  }
  auto* answered = std::get_if<answer>(&*said);
  if (answered == nullptr)
    return;
  if (open_.empty() || open_.front().id != answered->id)
    return end("QEMU answered what was not asked");
  asked done = std::move(open_.front());
  open_.pop_front();
  loop_.cancel(done.timer);
  done.on_answer(*answered);
}

void client::close() {
  if (!socket_)
    return;
  loop_.forget(watch_);
  watch_ = 0;
  socket_.reset();
  queue_.clear();
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
  for (const auto& one : waiting) {
    answer failed;
    failed.error = why;
    one.on_answer(failed);
  }
  if (told_.on_end)
    told_.on_end(why);
}

} // namespace berth::machines::qmp
