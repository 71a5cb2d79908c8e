// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/multipart.hpp"

#include <algorithm>

namespace berth::http {

namespace {

std::string lower(std::string_view text) {
  std::string made{text};
  for (char& c : made)
    if (c >= 'A' && c <= 'Z')
      c = static_cast<char>(c + 32);
  return made;
}

/// A parameter of a header field, for example `name` in `form-data; name="x"`.
std::string parameter(std::string_view value, std::string_view name) {
  std::string flat = lower(value);
  for (auto at = flat.find(';'); at != std::string::npos; at = flat.find(';', at + 1)) {
    auto start = flat.find_first_not_of(" \t;", at);
    if (start == std::string::npos || flat.compare(start, name.size(), name) != 0
        || start + name.size() >= flat.size() || flat[start + name.size()] != '=')
      continue;
    std::string_view rest = value.substr(start + name.size() + 1);
    if (rest.empty() || rest.front() != '"')
      return std::string{rest.substr(0, rest.find_first_of("; \t"))};
    std::string text;
    for (std::size_t i = 1; i < rest.size() && rest[i] != '"'; ++i) {
      bool escaped =
          rest[i] == '\\' && i + 1 < rest.size() && (rest[i + 1] == '"' || rest[i + 1] == '\\');
      text += rest[escaped ? ++i : i];
    }
    return text;
  }
  return {};
}

/// Reads the header of a part; false when it has no disposition.
bool read_disposition(std::string_view head, form_part& to) {
  while (!head.empty()) {
    auto end = std::min(head.find("\r\n"), head.size());
    std::string_view line = head.substr(0, end);
    head.remove_prefix(std::min(end + 2, head.size()));
    if (lower(line.substr(0, 20)) != "content-disposition:")
      continue;
    to.name = parameter(line, "name");
    to.filename = parameter(line, "filename");
    return true;
  }
  return false;
}

} // namespace

decoded<std::vector<form_part>> read_form(std::string_view content_type, std::string_view body,
                                          std::size_t parts_max) {
  std::string boundary = parameter(content_type, "boundary");
  if (boundary.empty() || boundary.size() > 200)
    return malformed{"Content-Type", "names no boundary"};
  std::string delimiter = "\r\n--" + boundary;
  std::vector<form_part> parts;
  // The first delimiter may stand at the very start.
  std::size_t at = body.substr(0, delimiter.size() - 2) == std::string_view{delimiter}.substr(2)
                       ? delimiter.size() - 2
                       : std::string_view::npos;
  if (at == std::string_view::npos) {
    auto found = body.find(delimiter);
    at = found == std::string_view::npos ? found : found + delimiter.size();
  }
  if (at == std::string_view::npos)
    return malformed{"body", "does not begin with its boundary"};
  while (body.substr(at, 2) != "--") {
    auto line = body.find("\r\n", at);
    auto head_end = line == std::string_view::npos ? line : body.find("\r\n\r\n", line);
    auto next = head_end == std::string_view::npos ? head_end : body.find(delimiter, head_end + 2);
    if (next == std::string_view::npos)
      return malformed{"body", "ends within a part"};
    if (parts.size() == parts_max)
      return malformed{"body", "has more than " + std::to_string(parts_max) + " parts"};
    form_part part;
    if (!read_disposition(body.substr(line + 2, head_end - line), part))
      return malformed{"body", "has a part without Content-Disposition"};
    std::size_t data = head_end + 4;
    part.data = next > data ? body.substr(data, next - data) : std::string_view{};
    parts.push_back(std::move(part));
    at = next + delimiter.size();
  }
  return parts;
}

} // namespace berth::http
