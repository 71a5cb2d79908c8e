// SPDX-License-Identifier: Apache-2.0
#include "bridge/http/fcctl/context.hpp"
#include "bridge/http/multipart.hpp"

#include <charconv>

namespace berth::http::fcctl {

namespace {

constexpr std::uint32_t download_part_bytes = 1024 * 1024;

bytes to_bytes(std::string_view text) {
  return {text.begin(), text.end()};
}

decoded<std::uint32_t> read_mode(std::string_view text) {
  std::uint32_t mode = 0644;
  if (text.empty())
    return mode;
  auto [end, why] = std::from_chars(text.data(), text.data() + text.size(), mode, 8);
  if (why != std::errc{} || end != text.data() + text.size() || mode > 07777)
    return malformed{"mode", "must be permission bits in octal"};
  return mode;
}

/// `{path, content | content_base64}`, or `{files: [...]}` of these.
decoded<std::vector<placed_file>> read_json_files(const json& body) {
  std::vector<json> list;
  if (auto many = body.find("files"); many != body.end() && many->is_array())
    list.assign(many->begin(), many->end());
  else
    list.push_back(body);
  std::vector<placed_file> files;
  for (json& one : list) {
    std::string at = list.size() > 1 ? "files[" + std::to_string(files.size()) + "]." : "";
    if (!one.is_object())
      return malformed{at, "must be a map, is " + detail::kind_of(one)};
    if (one.contains("content_base64"))
      one["data"] = json{{"base64", one["content_base64"]}};
    else if (one.contains("content"))
      one["data"] = one["content"];
    auto file = from_json<placed_file>(one);
    if (!file) {
      malformed why = file.why();
      why.field = at + (why.field == "data" ? "content" : why.field);
      return why;
    }
    files.push_back(std::move(*file));
  }
  return files;
}

/// Parts with a file name are files. A field `path` names the one file, or the directory of all.
decoded<std::vector<placed_file>> read_form_files(const request& what) {
  auto parts = read_form(what.header("content-type"), what.body, limits::files_max);
  if (!parts)
    return parts.why();
  std::string path;
  std::vector<placed_file> files;
  for (const auto& part : *parts)
    if (part.name == "path" && part.filename.empty())
      path = part.data;
  for (auto& part : *parts) {
    if (part.filename.empty() && part.name != "file")
      continue;
    std::string name = part.filename.empty() ? part.name : part.filename;
    files.push_back({.path = std::move(name), .data = to_bytes(part.data)});
  }
  bool directory = files.size() > 1 || (!path.empty() && path.back() == '/');
  for (auto& file : files)
    if (!path.empty())
      file.path = directory ? path + (path.back() == '/' ? "" : "/") + file.path : path;
  if (files.empty())
    return malformed{"body", "has no part that is a file"};
  return files;
}

decoded<std::vector<placed_file>> read_upload(const request& what) {
  std::string_view type = what.header("content-type");
  if (type.substr(0, 10) == "multipart/")
    return read_form_files(what);
  auto mode = read_mode(what.query_of("mode"));
  if (!mode)
    return mode.why();
  if (std::string path{what.query_of("path")}; !path.empty())
    return std::vector{placed_file{.path = path, .data = to_bytes(what.body), .mode = *mode}};
  auto body = read_body(what);
  if (!body)
    return malformed{"path", "is missing: give ?path=, a JSON object or a form"};
  return read_json_files(*body);
}

void upload(const shared_context& c, const request& what, const responder& done) {
  auto files = read_upload(what);
  if (!files)
    return done(malformed_reply(files.why()));
  for (const auto& file : *files)
    if (!is_utf8(file.path))
      return done(malformed_reply({"path", "must be UTF-8"}));
  json listed = json::array();
  for (const auto& file : *files)
    listed.push_back({{"path", file.path}, {"size", file.data.size()}});
  put_files wish{.session = what.param("id"), .files = std::move(*files)};
  c->gateway.ask<files_put>(std::move(wish),
                            [id = what.param("id"), listed, done](expected<files_put> answer) {
                              if (!answer)
                                return done(error_reply(answer.error()));
                              json body{{"status", "success"},
                                        {"message", "uploaded"},
                                        {"vm_id", id},
                                        {"files", listed},
                                        {"count", answer->count}};
                              body.update(listed.front());
                              done(json_reply(body));
                            });
}

/// The rest of a file, read part by part as the client takes it.
body_source rest_of_file(const shared_context& c, const read_file& from) {
  auto at = std::make_shared<read_file>(from);
  return [c, at](std::function<void(body_part)> next) {
    c->gateway.ask<file_content>(
        read_file{*at}, [at, next = std::move(next)](expected<file_content> part) {
          if (!part)
            return next({.failed = true});
          at->offset += part->data.size();
          bool last = part->eof || part->data.empty();
          next({.data = {part->data.begin(), part->data.end()}, .last = last});
        });
  };
}

std::string last_name(const std::string& path) {
  std::string name;
  for (char c : path.substr(path.rfind('/') + 1))
    name += c < ' ' || c == '"' || c == '\\' || c == 0x7F ? '_' : c;
  return name;
}

void download(const shared_context& c, const request& what, const responder& done) {
  std::string path{what.query_of("path")};
  if (path.empty())
    return done(malformed_reply({"path", "is missing in the query"}));
  if (!is_utf8(path))
    return done(malformed_reply({"path", "must be UTF-8"}));
  read_file first{.session = what.param("id"), .path = path, .bytes_max = download_part_bytes};
  c->gateway.ask<file_content>(read_file{first}, [c, first, done](expected<file_content> part) {
    if (!part)
      return done(error_reply(part.error()));
    reply answer{.content_type = "application/octet-stream",
                 .body = {part->data.begin(), part->data.end()},
                 .headers = {{"Content-Disposition",
                              "attachment; filename=\"" + last_name(first.path) + "\""},
                             {"X-File-Size", std::to_string(part->size)}}};
    if (!part->eof && !part->data.empty()) {
      read_file rest = first;
      rest.offset = part->data.size();
      answer.more = rest_of_file(c, rest);
    }
    done(std::move(answer));
  });
}

} // namespace

void add_file_routes(router& routes, const shared_context& c) {
  routes.post("/api/vms/{id}/upload",
              [c](const request& what, const responder& done) { upload(c, what, done); });
  routes.get("/api/vms/{id}/download",
             [c](const request& what, const responder& done) { download(c, what, done); });
}

} // namespace berth::http::fcctl
