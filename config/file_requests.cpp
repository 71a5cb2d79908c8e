// SPDX-License-Identifier: Apache-2.0
#include "config/settings.hpp"

namespace berth {

namespace {

/// A byte that is not UTF-8 is four bytes of text; the guest measures the path itself.
constexpr std::size_t path_text_max = 4 * limits::path_bytes_max;

error check_text(const char* member, const std::string& text, std::size_t most) {
  if (text.empty())
    return fail(ec::malformed, std::string{member} + ": must not be empty");
  if (text.size() > most)
    return fail(ec::too_large, std::string{member} + ": " + std::to_string(text.size())
                                   + " bytes exceed the limit of " + std::to_string(most));
  if (text.find('\0') != std::string::npos)
    return fail(ec::malformed, std::string{member} + ": must not contain NUL");
  return {};
}

/// Every request names its session, most of them one path.
template <class Request>
error check_place(const Request& request) {
  if (error why = check_text("session", request.session, limits::name_bytes_max))
    return why;
  return check_text("path", request.path, path_text_max);
}

template <class Request>
error check_watch(const Request& request) {
  if (error why = check_text("session", request.session, limits::name_bytes_max))
    return why;
  return check_text("watch", request.watch, limits::name_bytes_max);
}

} // namespace

error check_file_request(const read_file& request) {
  return check_place(request);
}

error check_file_request(const write_file& request) {
  if (error why = check_place(request))
    return why;
  if (request.path.ends_with('/'))
    return fail(ec::malformed, "path: must name a file");
  if (request.data.size() > limits::file_write_bytes_max)
    return fail(ec::too_large, "data: " + std::to_string(request.data.size())
                                   + " bytes exceed the limit of "
                                   + std::to_string(limits::file_write_bytes_max)
                                   + "; write a larger file in parts, by offset");
  if (request.mode > 0777)
    return fail(ec::malformed, "mode: must be permission bits, at most 0777 (511)");
  return {};
}

error check_file_request(const list_files& request) {
  if (error why = check_text("session", request.session, limits::name_bytes_max))
    return why;
  if (request.depth < 1 || request.depth > limits::list_depth_max)
    return fail(ec::malformed, "depth: must be 1 to " + std::to_string(limits::list_depth_max));
  return request.path.empty() ? error{} : check_text("path", request.path, path_text_max);
}

error check_file_request(const stat_file& request) {
  return check_place(request);
}

error check_file_request(const make_dir& request) {
  return check_place(request);
}

error check_file_request(const move_file& request) {
  if (error why = check_text("session", request.session, limits::name_bytes_max))
    return why;
  if (error why = check_text("from", request.from, path_text_max))
    return why;
  return check_text("to", request.to, path_text_max);
}

error check_file_request(const remove_file& request) {
  return check_place(request);
}

error check_file_request(const watch_files& request) {
  return check_place(request);
}

error check_file_request(const read_watch& request) {
  if (request.wait_ms > limits::read_wait_max.count())
    return fail(ec::too_large, "wait_ms: " + std::to_string(request.wait_ms)
                                   + " exceeds the limit of "
                                   + std::to_string(limits::read_wait_max.count()));
  return check_watch(request);
}

error check_file_request(const unwatch_files& request) {
  return check_watch(request);
}

} // namespace berth
