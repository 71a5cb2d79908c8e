// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>

#include <concepts>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// Reads settings out of JSON, member by member, and says exactly what was wrong.
namespace berth::config {

using json = nlohmann::json;
/// JSON whose members keep their order.
using ordered = nlohmann::ordered_json;

/// A parsed text, or why there is none, with line and column.
template <class Json>
struct parsed_as {
  Json root;
  std::string fault;
};
using parsed = parsed_as<json>;

/// How much a text may make us allocate.
struct parse_bounds {
  std::size_t depth = 64;
  /// Members of one object; each is compared with those before it.
  std::size_t members = 1'024;
  /// Values of the whole text, members and elements alike.
  std::size_t values = 100'000;
};

/// Parses JSON; `//` comments are allowed, a member given twice is a fault.
parsed parse(std::string_view text);

/// The same within bounds, the order of members kept.
parsed_as<ordered> parse_ordered(std::string_view text, const parse_bounds& bounds = {});

/// The nearest of `known` to a misspelt name; empty when none is near.
std::string nearest(std::string_view name, const std::vector<std::string>& known);

/// The kind of a value, for errors.
std::string kind_of(json::value_t type);
inline std::string kind_of(const json& value) {
  return kind_of(value.type());
}

/// Reads one object. The first fault wins; after it everything else is a no-op.
class object_reader {
public:
  object_reader(const json& from, std::string path, std::string& fault);

  /// Whether the member is there and not null.
  bool has(const char* name);

  /// Reads a member when it is there; `to` keeps its value otherwise.
  template <class T>
  void member(const char* name, T& to) {
    const json* found = find(name);
    if (found != nullptr)
      value(*found, path_of(name), to);
  }

  /// Reads a member of its own shape: `read(value, path)`.
  template <class F>
  void member_with(const char* name, F read) {
    const json* found = find(name);
    if (found != nullptr)
      read(*found, path_of(name));
  }

  /// Makes a member that was not asked for a fault.
  void refuse_unknown();

private:
  const json* find(const char* name);
  std::string path_of(std::string_view name) const;
  void blame(const std::string& path, const std::string& reason);
  bool expect(bool ok, const json& from, const std::string& path, const char* what);

  void value(const json& from, const std::string& path, bool& to);
  void value(const json& from, const std::string& path, std::string& to);

  void value(const json& from, const std::string& path, double& to);

  template <std::unsigned_integral T>
  void value(const json& from, const std::string& path, T& to) {
    if (!expect(from.is_number_integer(), from, path, "a whole number"))
      return;
    if (!from.is_number_unsigned())
      return blame(path, "must not be negative");
    auto number = from.get<std::uint64_t>();
    if (number > std::numeric_limits<T>::max())
      return blame(path, "is too large, at most " + std::to_string(std::numeric_limits<T>::max()));
    to = static_cast<T>(number);
  }

  template <class T>
  void value(const json& from, const std::string& path, std::vector<T>& to) {
    if (!expect(from.is_array(), from, path, "a list"))
      return;
    std::vector<T> all(from.size());
    for (std::size_t i = 0; i < from.size() && fault_->empty(); ++i)
      value(from[i], path + "[" + std::to_string(i) + "]", all[i]);
    to = std::move(all);
  }

  template <std::unsigned_integral T>
  void value(const json& from, const std::string& path, std::map<std::string, T>& to) {
    if (!expect(from.is_object(), from, path, "an object"))
      return;
    std::map<std::string, T> all;
    for (const auto& [name, element] : from.items())
      value(element, path + "." + name, all[name]);
    to = std::move(all);
  }

  const json* from_ = nullptr;
  std::string path_;
  std::string* fault_;
  std::vector<std::string> known_;
};

} // namespace berth::config
