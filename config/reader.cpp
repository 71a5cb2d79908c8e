// SPDX-License-Identifier: Apache-2.0
#include "config/reader.hpp"

#include <algorithm>
#include <functional>
#include <set>

namespace berth::config {

namespace {

/// Line and column of a byte offset, both from 1.
std::string place_of(std::string_view text, std::size_t offset) {
  std::string_view before = text.substr(0, std::min(offset, text.size()));
  std::size_t line = 1 + static_cast<std::size_t>(std::ranges::count(before, '\n'));
  std::size_t start = before.rfind('\n');
  std::size_t column = start == std::string_view::npos ? before.size() : before.size() - start - 1;
  return "line " + std::to_string(line) + ", column "
         + std::to_string(std::max<std::size_t>(column, 1));
}

/// The reason inside nlohmann's message, which is "[json.exception...] parse error at ...: reason".
std::string reason_of(std::string_view message) {
  std::size_t at = message.find(": ");
  return std::string{at == std::string_view::npos ? message : message.substr(at + 2)};
}

/// Levenshtein's distance of two short names.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j)
    row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      std::size_t above = row[j];
      std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({above + 1, row[j - 1] + 1, replaced});
      diagonal = above;
    }
  }
  return row[b.size()];
}

/// A text that goes beyond a bound; thrown through the parser, which knows no other way to stop.
struct beyond {
  std::string reason;
};

/// Sees a text's values come, and ends the parse where it must not go on.
template <class Json>
class parse_watch {
public:
  explicit parse_watch(const parse_bounds& bounds)
    : bounds_(bounds) {}

  bool operator()(int depth, typename Json::parse_event_t event, Json& value) {
    using is = typename Json::parse_event_t;
    if (event == is::object_start)
      open_.emplace_back();
    else if (event == is::object_end)
      open_.pop_back();
    else if (event == is::key)
      note_member(value.template get_ref<const std::string&>());
    bool begins = event == is::object_start || event == is::array_start;
    if (begins && static_cast<std::size_t>(depth) >= bounds_.depth)
      throw beyond{"is nested deeper than " + std::to_string(bounds_.depth)};
    if ((begins || event == is::value) && ++values_ > bounds_.values)
      throw beyond{"has more than " + std::to_string(bounds_.values) + " values"};
    return true;
  }

  const std::string& twice() const { return twice_; }

private:
  void note_member(const std::string& name) {
    bool fresh = open_.back().insert(name).second;
    if (!fresh && twice_.empty())
      twice_ = name;
    if (open_.back().size() > bounds_.members)
      throw beyond{"has an object of more than " + std::to_string(bounds_.members) + " members"};
  }

  parse_bounds bounds_;
  std::vector<std::set<std::string>> open_;
  std::string twice_;
  std::size_t values_ = 0;
};

template <class Json>
parsed_as<Json> parse_within(std::string_view text, const parse_bounds& bounds) {
  parse_watch<Json> watch{bounds};
  try {
    Json root = Json::parse(text.begin(), text.end(), std::ref(watch), true, true);
    if (!watch.twice().empty())
      return {{}, "\"" + watch.twice() + "\" is given twice"};
    return {std::move(root), {}};
  } catch (const typename Json::parse_error& fault) {
    return {{}, place_of(text, fault.byte) + ": " + reason_of(fault.what())};
  } catch (const beyond& fault) {
    return {{}, fault.reason};
  } catch (const std::exception& fault) {
    return {{}, reason_of(fault.what())};
  }
}

} // namespace

parsed parse(std::string_view text) {
  std::size_t any = std::numeric_limits<std::size_t>::max();
  return parse_within<json>(text, {.depth = any, .members = any, .values = any});
}

parsed_as<ordered> parse_ordered(std::string_view text, const parse_bounds& bounds) {
  return parse_within<ordered>(text, bounds);
}

std::string nearest(std::string_view name, const std::vector<std::string>& known) {
  if (name.size() > 64)
    return {};
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(2, name.size() / 3) + 1;
  for (const std::string& candidate : known) {
    std::size_t far = distance(name, candidate);
    if (far < best_distance) {
      best = candidate;
      best_distance = far;
    }
  }
  return best;
}

std::string kind_of(json::value_t type) {
  switch (type) {
  case json::value_t::null:
    return "null";
  case json::value_t::boolean:
    return "a boolean";
  case json::value_t::string:
    return "text";
  case json::value_t::array:
    return "a list";
  case json::value_t::object:
    return "an object";
  case json::value_t::number_float:
    return "a fraction";
  default:
    return "a number";
  }
}

object_reader::object_reader(const json& from, std::string path, std::string& fault)
  : path_{std::move(path)}
  , fault_{&fault} {
  if (expect(from.is_object(), from, path_, "an object"))
    from_ = &from;
}

bool object_reader::has(const char* name) {
  return find(name) != nullptr;
}

const json* object_reader::find(const char* name) {
  known_.emplace_back(name);
  if (from_ == nullptr || !fault_->empty())
    return nullptr;
  auto at = from_->find(name);
  return at == from_->end() || at->is_null() ? nullptr : &*at;
}

std::string object_reader::path_of(std::string_view name) const {
  return path_.empty() ? std::string{name} : path_ + "." + std::string{name};
}

void object_reader::blame(const std::string& path, const std::string& reason) {
  if (fault_->empty())
    *fault_ = path.empty() ? reason : path + ": " + reason;
}

bool object_reader::expect(bool ok, const json& from, const std::string& path, const char* what) {
  if (!ok)
    blame(path, std::string{"must be "} + what + ", is " + kind_of(from));
  return ok;
}

void object_reader::value(const json& from, const std::string& path, bool& to) {
  if (expect(from.is_boolean(), from, path, "true or false"))
    to = from.get<bool>();
}

void object_reader::value(const json& from, const std::string& path, std::string& to) {
  if (!expect(from.is_string(), from, path, "text"))
    return;
  const auto& text = from.get_ref<const std::string&>();
  if (text.find('\0') != std::string::npos)
    return blame(path, "must not contain NUL");
  to = text;
}

void object_reader::value(const json& from, const std::string& path, double& to) {
  if (expect(from.is_number(), from, path, "a number"))
    to = from.get<double>();
}

void object_reader::refuse_unknown() {
  if (from_ == nullptr || !fault_->empty())
    return;
  for (const auto& [name, element] : from_->items()) {
    if (std::ranges::find(known_, name) != known_.end())
      continue;
    std::string near = nearest(name, known_);
    return blame(path_of(name),
                 "is not a setting" + (near.empty() ? "" : "; did you mean \"" + near + "\"?"));
  }
}

} // namespace berth::config
