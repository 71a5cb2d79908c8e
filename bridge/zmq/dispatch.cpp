// SPDX-License-Identifier: Apache-2.0
#include "bridge/zmq/dispatch.hpp"

#include "messages/operations.hpp"

#include <algorithm>
#include <numeric>

namespace berth {

namespace {

/// Levenshtein's distance of two short texts.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0]++;
    for (std::size_t k = 0; k < b.size(); ++k) {
      std::size_t change = diagonal + (a[i] == b[k] ? 0 : 1);
      diagonal = row[k + 1];
      row[k + 1] = std::min({change, row[k] + 1, row[k + 1] + 1});
    }
  }
  return row.back();
}

refusal unknown_operation(std::string_view name) {
  std::string shown;
  for (char c : name.substr(0, 64))
    shown += c >= ' ' && c <= '~' ? c : '?';
  std::string text = "op: '" + shown + "' is not known here";
  auto close = close_operations(name);
  for (std::size_t i = 0; i < close.size(); ++i)
    text += (i == 0 ? "; did you mean " : " or ") + std::string{close[i]};
  return zmq_refusal(ec::unsupported,
                     text + (close.empty() ? "; " : "? ") + "describe lists all operations");
}

/// Reads the body of a call. A call without one stands for an empty map.
template <class Request>
decoded<Request> read_body(const zmq_call& call) {
  if (call.body == nullptr) {
    msgpack::object empty;
    empty.type = msgpack::type::MAP;
    empty.via.map.size = 0;
    empty.via.map.ptr = nullptr;
    return decode<Request>(empty);
  }
  return decode<Request>(*call.body);
}

} // namespace

std::vector<std::string_view> close_operations(std::string_view name) {
  constexpr std::size_t shown_max = 3;
  std::vector<std::pair<std::size_t, std::string_view>> found;
  if (name.empty() || name.size() > 32)
    return {};
  auto consider = [&](std::string_view op) {
    std::size_t far = distance(name, op);
    bool part = name.size() >= 3 && (op.find(name) != op.npos || name.find(op) != name.npos);
    if (far <= std::max(std::min<std::size_t>(2, name.size() - 1), op.size() / 3) || part)
      found.emplace_back(far, op);
  };
  std::apply([&](const auto&... each) { (..., consider(each.op)); }, operations);
  std::ranges::stable_sort(found, {}, &std::pair<std::size_t, std::string_view>::first);
  std::vector<std::string_view> names;
  for (const auto& [far, op] : found)
    if (names.size() < shown_max)
      names.push_back(op);
  return names;
}

zmq_dispatcher::zmq_dispatcher(caf::actor_system& system, gateway_actor gateway,
                               std::shared_ptr<zmq_outbox> outbox)
  : porter_(system, std::move(gateway))
  , outbox_(std::move(outbox)) {
  std::apply([this](const auto&... each) { (..., add(each)); }, operations);
}

template <class Operation>
void zmq_dispatcher::add(const Operation& operation) {
  using request = typename Operation::request;
  using reply = typename Operation::reply;
  handlers_[operation.op] = [this](const zmq_call& call,
                                   const zmq_address& from) -> std::optional<refusal> {
    auto body = read_body<request>(call);
    if (!body)
      return zmq_refusal(ec::malformed, body.why().field.empty() ? "body: " + body.why().reason
                                                                 : body.why().text());
    porter_.ask<reply>(std::move(*body), [outbox = outbox_, to = from,
                                          id = call.id](expected<reply> answer) mutable {
      zmq::message_t encoded =
          answer ? encode_reply(id, *answer) : encode_refusal(id, to_refusal(answer.error()));
      outbox->put({std::move(to), std::move(id), std::move(encoded)});
    });
    return std::nullopt;
  };
}

std::optional<refusal> zmq_dispatcher::dispatch(const zmq_call& call, const zmq_address& from) {
  auto found = handlers_.find(call.op);
  return found == handlers_.end() ? unknown_operation(call.op) : found->second(call, from);
}

} // namespace berth
