// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/message.hpp"

#include "bridge/http/errors.hpp"

namespace berth::http {

namespace {

const std::string nothing;

const std::string& find(const std::map<std::string, std::string>& map, const std::string& name) {
  auto found = map.find(name);
  return found == map.end() ? nothing : found->second;
}

int hex_value(char c) {
  if (c >= '0' && c <= '9')
    return c - '0';
  if (c >= 'a' && c <= 'f')
    return c - 'a' + 10;
  if (c >= 'A' && c <= 'F')
    return c - 'A' + 10;
  return -1;
}

bool parse_query(std::string_view text, std::map<std::string, std::string>& to) {
  while (!text.empty()) {
    auto end = std::min(text.find('&'), text.size());
    std::string_view member = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (member.empty())
      continue;
    auto equals = std::min(member.find('='), member.size());
    std::string name;
    std::string value;
    if (!percent_decode(member.substr(0, equals), true, name)
        || !percent_decode(member.substr(std::min(equals + 1, member.size())), true, value))
      return false;
    to[name] = std::move(value);
  }
  return true;
}

} // namespace

std::string_view request::query_of(const std::string& name) const {
  return find(query, name);
}

std::string_view request::header(const std::string& name) const {
  return find(headers, name);
}

const std::string& request::param(const std::string& name) const {
  return find(params, name);
}

struct responder::state {
  state(std::function<void(reply)> how, std::function<void(std::function<void()>)> whom)
    : send(std::move(how))
    , watch(std::move(whom)) {}
  state(const state&) = delete;
  state& operator=(const state&) = delete;

  std::function<void(reply)> send;
  std::function<void(std::function<void()>)> watch;

  ~state() {
    if (send)
      send(error_reply(ec::internal, "the server gave no answer"));
  }
};

responder::responder(std::function<void(reply)> send,
                     std::function<void(std::function<void()>)> watch)
  : state_(std::make_shared<state>(std::move(send), std::move(watch))) {}

void responder::operator()(reply answer) const {
  if (auto send = std::exchange(state_->send, nullptr))
    send(std::move(answer));
}

void responder::when_gone(std::function<void()> gone) const {
  if (state_->watch)
    state_->watch(std::move(gone));
}

bool percent_decode(std::string_view text, bool plus_is_space, std::string& to) {
  to.clear();
  to.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%') {
      int high = i + 2 < text.size() ? hex_value(text[i + 1]) : -1;
      int low = i + 2 < text.size() ? hex_value(text[i + 2]) : -1;
      if (high < 0 || low < 0)
        return false;
      to += static_cast<char>(high * 16 + low);
      i += 2;
    } else {
      to += plus_is_space && text[i] == '+' ? ' ' : text[i];
    }
  }
  return true;
}

bool parse_target(std::string_view target, request& to) {
  to.target = target;
  if (auto scheme = target.find("://"); scheme != std::string_view::npos && target.front() != '/') {
    auto path = target.find('/', scheme + 3);
    target = path == std::string_view::npos ? "/" : target.substr(path);
  }
  if (target.empty() || target.front() != '/')
    return false;
  target = target.substr(0, target.find('#'));
  auto question = std::min(target.find('?'), target.size());
  std::string_view path = target.substr(1, std::max<std::size_t>(question, 1) - 1);
  if (!parse_query(target.substr(std::min(question + 1, target.size())), to.query))
    return false;
  if (!path.empty() && path.back() == '/')
    path.remove_suffix(1);
  while (!path.empty()) {
    auto end = std::min(path.find('/'), path.size());
    std::string segment;
    if (!percent_decode(path.substr(0, end), false, segment)
        || segment.find('\0') != std::string::npos)
      return false;
    to.path.push_back(std::move(segment));
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return true;
}

bool token_matches(std::string_view presented, const std::vector<std::string>& tokens) {
  bool any = false;
  for (const auto& token : tokens) {
    unsigned difference = token.size() == presented.size() && !token.empty() ? 0U : 1U;
    for (std::size_t i = 0; i < token.size(); ++i) {
      auto there = static_cast<unsigned char>(i < presented.size() ? presented[i] : '\0');
      difference |= static_cast<unsigned>(there ^ static_cast<unsigned char>(token[i]));
    }
    any |= difference == 0;
  }
  return any;
}

} // namespace berth::http
