// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "config/json.hpp"
#include "config/settings.hpp"
#include "messages/agents_internal.hpp"

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// What is said to language models and what they answer. Plain logic: bytes in, bytes out.
namespace berth::models {

/// What bounds one answer, and how its tool calls are named where the endpoint names none.
struct reading_bounds {
  std::size_t bytes_max = 0;
  std::string id_prefix;
};

/// Reads one answer as its bytes come, cut anywhere, hostile or not. Memory is bounded by twice the
/// bound on the answer. Where pieces were asked for and a whole answer comes, or the other way
/// round, it is read all the same.
class answer_reader {
public:
  enum class state {
    /// More may come.
    reading,
    /// The answer is whole; what follows is not looked at.
    whole,
    /// More than the bound: what came until then can be taken.
    full,
    /// The endpoint says inside the answer that it failed; fault() is what it says.
    refused,
    /// Nobody can read it; fault() says why.
    broken
  };

  virtual ~answer_reader() = default;

  state push(std::string_view data);
  /// The body ended. Still `reading` when the answer was not whole by then.
  state end();

  /// The text that came since it was last taken.
  std::string take_news() { return std::exchange(news_, {}); }
  const std::string& fault() const { return fault_; }
  /// What came of it. Cost, calls and attempts are the caller's.
  model_answer take_answer();

protected:
  explicit answer_reader(reading_bounds bounds);

  /// One line, without its end; `whole` is a body that is one JSON value.
  virtual void read_line(std::string_view line) = 0;
  virtual void read_whole(const json& value) = 0;
  /// Whether a body that begins with this byte is one JSON value, and not lines.
  virtual bool is_whole(char first) const = 0;
  /// Whether an answer that just stops was whole nevertheless.
  virtual bool may_stop() const = 0;

  /// Parses one value; a fault of it ends the reading.
  bool parse(std::string_view text, json& to);
  void fail(state how, std::string why);
  /// The first end is the one that counts.
  void set(state now) { state_ = state_ == state::reading ? now : state_; }
  /// Takes text of the answer within the bound.
  void add_text(std::string_view text);
  /// The tool call of an index, made when it is new; none beyond the bound.
  tool_call* call_at(std::size_t index);
  /// Adds a part of a tool call to what came of it, within the bound.
  void add_to(std::string& part, std::string_view text);
  /// The number in a member, 0 for anything else.
  static std::uint64_t count_in(const json& from, const char* name);
  /// The text in a member, empty for anything else.
  static std::string text_in(const json& from, const char* name);

  model_answer answer_;

private:
  void take_lines(std::string_view data);
  bool charge(std::size_t bytes);

  reading_bounds bounds_;
  state state_ = state::reading;
  enum class shape { unknown, lines, whole } shape_ = shape::unknown;
  std::string buffer_;
  std::string news_;
  std::string fault_;
  std::size_t kept_ = 0;
  std::size_t seen_ = 0;
};

/// How one kind of endpoint is spoken to.
class dialect {
public:
  virtual ~dialect() = default;

  /// Where a call is sent, and what is sent.
  virtual std::string chat_url(const model_endpoint& to) const = 0;
  virtual std::string chat_body(const ask_model& asked, const model_endpoint& to,
                                bool stream) const = 0;
  virtual std::unique_ptr<answer_reader> read_answer(reading_bounds bounds) const = 0;

  /// Where an endpoint lists its models, and their names in what it says.
  virtual std::string list_url(const model_endpoint& to) const = 0;
  virtual decoded<std::vector<std::string>> read_list(std::string_view body) const = 0;
};

/// The dialect of a provider, which the settings' check knows to be one.
const dialect& dialect_of(std::string_view provider);

/// A conversation as strict endpoints want it: every tool call of an assistant is answered right
/// behind it, in order, and nothing answers a call that is not there.
std::vector<chat_message> mended(const std::vector<chat_message>& messages);

/// What an endpoint that refused says about it, as one line of bounded UTF-8; empty when it says
/// nothing.
std::string refusal_text(std::string_view body);
/// The same of a parsed `error` member.
std::string error_text(const json& error);

namespace detail {

const dialect& ollama_dialect();
const dialect& openai_dialect();
decoded<std::vector<std::string>> names_in(std::string_view body, const char* list,
                                           const char* name);

} // namespace detail

} // namespace berth::models
