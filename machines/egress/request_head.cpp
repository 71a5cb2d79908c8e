// SPDX-License-Identifier: Apache-2.0
#include "machines/egress/request_head.hpp"

#include "machines/egress/limits.hpp"

#include <algorithm>
#include <charconv>
#include <utility>
#include <vector>

namespace berth::machines::egress {

namespace {

constexpr std::uint16_t http_port = 80;
constexpr std::size_t method_length_max = 32;
/// Of a reason; it may name a host.
constexpr std::size_t reason_bytes_max = 400;

bool is_token_char(unsigned char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
         || std::string_view{"!#$%&'*+-.^_`|~"}.find(static_cast<char>(c))
                != std::string_view::npos;
}

bool is_token(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, is_token_char);
}

std::string lower(std::string_view text) {
  std::string made{text};
  for (char& c : made)
    if (c >= 'A' && c <= 'Z')
      c = static_cast<char>(c - 'A' + 'a');
  return made;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t'))
    text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t'))
    text.remove_suffix(1);
  return text;
}

struct header {
  std::string name; // in lower case
  std::string_view line;
  std::string_view value;
};

/// Reads all headers, or says why not.
std::string read_headers(std::string_view rest, std::vector<header>& to) {
  while (!rest.starts_with("\r\n")) {
    auto end = rest.find("\r\n");
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end + 2);
    auto colon = line.find(':');
    // A line that begins with a blank would go on with the one before: two readers, two meanings.
    if (colon == std::string_view::npos || !is_token(line.substr(0, colon)))
      return "a header is none";
    if (to.size() == headers_max)
      return "more than " + std::to_string(headers_max) + " headers";
    to.push_back({lower(line.substr(0, colon)), line, trim(line.substr(colon + 1))});
  }
  return {};
}

/// Names in the values of Connection: what they name is for the next hop only.
std::vector<std::string> hop_names(const std::vector<header>& headers) {
  std::vector<std::string> names{"connection", "keep-alive",          "proxy-connection",
                                 "te",         "proxy-authorization", "upgrade",
                                 "host",       "proxy-authenticate"};
  for (const auto& one : headers) {
    if (one.name != "connection" && one.name != "proxy-connection")
      continue;
    for (std::string_view rest = one.value; !rest.empty();) {
      auto comma = std::min(rest.find(','), rest.size());
      names.push_back(lower(trim(rest.substr(0, comma))));
      rest.remove_prefix(std::min(comma + 1, rest.size()));
    }
  }
  return names;
}

/// How much follows the head, by the one rule that both ends must read alike. Or why it is unclear.
std::string read_body_length(const std::vector<header>& headers, bool& chunked,
                             std::optional<std::uint64_t>& bytes) {
  bytes = 0;
  bool has_length = false;
  for (const auto& one : headers) {
    if (one.name == "transfer-encoding") {
      if (chunked || lower(one.value) != "chunked")
        return "Transfer-Encoding is not chunked";
      chunked = true;
    } else if (one.name == "content-length") {
      std::uint64_t value = 0;
      auto [end, failed] =
          std::from_chars(one.value.data(), one.value.data() + one.value.size(), value);
      if (has_length || failed != std::errc{} || end != one.value.data() + one.value.size())
        return "Content-Length is no single number";
      has_length = true;
      bytes = value;
    }
  }
  if (chunked && has_length)
    return "both Content-Length and Transfer-Encoding";
  if (chunked)
    bytes.reset();
  return {};
}

struct request_line {
  std::string_view method;
  std::string_view target;
  std::string_view version;
};

std::variant<request_head, rejection> read_tunnel(const request_line& line) {
  auto to = parse_destination(line.target);
  if (!to)
    return rejection{400, "CONNECT needs a host's name or address, and a port"};
  return request_head{.to = std::move(*to), .tunnel = true, .forward = {}, .body_bytes = {}};
}

std::variant<request_head, rejection> read_forward(const request_line& line,
                                                   const std::vector<header>& headers) {
  constexpr std::string_view scheme = "http://";
  if (lower(line.target.substr(0, scheme.size())) != scheme)
    return rejection{400, "this is a proxy: it takes CONNECT, and requests for whole http:// URLs"};
  std::string_view rest = line.target.substr(scheme.size());
  auto authority = rest.substr(0, rest.find_first_of("/?#"));
  rest.remove_prefix(authority.size());
  auto to = parse_destination(authority, http_port);
  if (!to || rest.find('#') != std::string_view::npos)
    return rejection{400, "the URL has no host and port that are clear"};
  request_head made{.to = std::move(*to), .tunnel = false, .forward = {}, .body_bytes = {}};
  bool chunked = false;
  if (std::string why = read_body_length(headers, chunked, made.body_bytes); !why.empty())
    return rejection{400, why};
  // By HTTP/1.0 a body that is chunked is something else.
  if (chunked && line.version != "HTTP/1.1")
    return rejection{400, "Transfer-Encoding needs HTTP/1.1"};
  std::string& text = made.forward;
  text.append(line.method).append(rest.starts_with('/') ? " " : " /").append(rest);
  text.append(" ").append(line.version).append("\r\nHost: ");
  std::string host = made.to.text();
  if (made.to.port == http_port)
    host.erase(host.rfind(':'));
  text.append(host).append("\r\n");
  const auto dropped = hop_names(headers);
  for (const auto& one : headers) {
    // What frames the body stays, whatever Connection says of it.
    bool frames = one.name == "content-length" || one.name == "transfer-encoding";
    if (frames || std::ranges::find(dropped, one.name) == dropped.end())
      text.append(one.line).append("\r\n");
  }
  // One exchange each: the next request may be for somebody else.
  text.append("Via: 1.1 berth\r\nConnection: close\r\n\r\n");
  return made;
}

} // namespace

std::size_t head_size(std::string_view data) {
  auto end = data.substr(0, head_bytes_max).find("\r\n\r\n");
  return end == std::string_view::npos ? 0 : end + 4;
}

std::variant<request_head, rejection> parse_request_head(std::string_view head) {
  // Nothing may end a line for one reader and not for the other.
  for (std::size_t i = 0; i < head.size(); ++i) {
    auto c = static_cast<unsigned char>(head[i]);
    bool ends_line = (c == '\r' && i + 1 < head.size() && head[i + 1] == '\n')
                     || (c == '\n' && i > 0 && head[i - 1] == '\r');
    if ((c < 0x20 && c != '\t' && !ends_line) || c == 0x7f)
      return rejection{400, "control characters in the request"};
  }
  auto end = head.find("\r\n");
  if (!head.ends_with("\r\n\r\n") || end == std::string_view::npos)
    return rejection{400, "no request"};
  std::string_view first = head.substr(0, end);
  auto one = first.find(' ');
  auto two = first.rfind(' ');
  if (one == std::string_view::npos || one == two)
    return rejection{400, "no request line"};
  request_line line{first.substr(0, one), first.substr(one + 1, two - one - 1),
                    first.substr(two + 1)};
  if (line.version != "HTTP/1.1" && line.version != "HTTP/1.0")
    return rejection{505, "only HTTP/1.1 and HTTP/1.0"};
  if (!is_token(line.method) || line.method.size() > method_length_max
      || std::ranges::any_of(line.target, [](unsigned char c) { return c <= ' ' || c > 0x7e; }))
    return rejection{400, "no request line"};
  std::vector<header> headers;
  if (std::string why = read_headers(head.substr(end + 2), headers); !why.empty())
    return rejection{400, why};
  return line.method == "CONNECT" ? read_tunnel(line) : read_forward(line, headers);
}

std::string rejection_text(const rejection& why) {
  std::string reason = "berth: " + why.reason.substr(0, reason_bytes_max);
  for (char& c : reason)
    if (static_cast<unsigned char>(c) < ' ' || static_cast<unsigned char>(c) > 0x7e)
      c = '?';
  return "HTTP/1.1 " + std::to_string(why.status) + " " + reason
         + "\r\nContent-Type: text/plain\r\nContent-Length: " + std::to_string(reason.size() + 1)
         + "\r\nConnection: close\r\n\r\n" + reason + "\n";
}

} // namespace berth::machines::egress
