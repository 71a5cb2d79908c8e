// SPDX-License-Identifier: Apache-2.0
#include "config/role_files.hpp"

#include "config/limits.hpp"
#include "config/role_shape.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>

namespace berth::config {

namespace {

error wrong(const std::string& name, const std::string& reason) {
  return fail(ec::malformed, name + ": " + reason);
}

expected<ordered> read_file(const std::string& path) {
  std::ifstream file{path, std::ios::binary};
  if (!file)
    return fail(ec::not_found, path + ": cannot be opened: " + std::strerror(errno));
  std::string text(limits::roles_bytes_max + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad() || (file.fail() && !file.eof()))
    return wrong(path, "cannot be read");
  text.resize(static_cast<std::size_t>(file.gcount()));
  return parse_roles(text, path);
}

/// The names of the role files of a directory, sorted.
expected<std::vector<std::string>> list_files(const std::string& dir) {
  std::error_code failed;
  std::vector<std::string> paths;
  std::filesystem::directory_iterator each{dir, failed};
  for (; !failed && each != std::filesystem::directory_iterator{}; each.increment(failed))
    if (each->path().extension() == ".json" && !each->path().filename().string().starts_with('.'))
      paths.push_back(each->path().string());
  if (failed)
    return fail(ec::not_found, dir + ": cannot be read: " + failed.message());
  if (paths.empty())
    return fail(ec::not_found, dir + ": there is no role in it");
  if (paths.size() > limits::roles_max)
    return fail(ec::too_large,
                dir + ": has more than " + std::to_string(limits::roles_max) + " roles");
  std::ranges::sort(paths);
  return paths;
}

/// The roles of the files, by name.
expected<ordered> read_each(const std::vector<std::string>& paths) {
  ordered roles = ordered::object();
  for (const std::string& path : paths) {
    auto role = read_file(path);
    if (!role)
      return role.error();
    if (auto fault = check_shape(*role, role_shape(), ""); !fault.empty())
      return wrong(path, fault);
    auto name = role->find("name");
    if (name == role->end() || !name->is_string())
      return wrong(path, "name: is missing");
    std::string key = name->get<std::string>();
    if (roles.contains(key))
      return wrong(path, "name: another file has a role of the name " + key);
    roles[key] = std::move(*role);
  }
  return roles;
}

/// Moves the roles into the order of their names in a list; those it lacks follow.
expected<ordered> put_in_order(ordered roles, const ordered& order, const std::string& path) {
  ordered sorted = ordered::object();
  if (!order.is_null() && !order.is_array())
    return wrong(path, "order: must be a list, is " + kind_of(order.type()));
  for (std::size_t i = 0; i < order.size(); ++i) {
    std::string where = "order[" + std::to_string(i) + "]";
    if (!order[i].is_string())
      return wrong(path, where + ": must be text, is " + kind_of(order[i].type()));
    const auto& name = order[i].get_ref<const std::string&>();
    if (!roles.contains(name) || sorted.contains(name))
      return wrong(path, where + ": there is no" + (sorted.contains(name) ? " second" : "")
                             + " role of the name " + name);
    sorted[name] = std::move(roles[name]);
  }
  for (auto& [name, role] : roles.items())
    if (!sorted.contains(name))
      sorted[name] = std::move(role);
  return sorted;
}

error check_name(const std::string& role, const std::string& name) {
  bool control = std::ranges::any_of(role, [](unsigned char c) { return c < ' ' || c == 0x7F; });
  if (role.empty() || role.size() > limits::name_bytes_max || control)
    return wrong(name, "roles: a name must have 1 to 256 bytes and no control characters");
  return {};
}

error check_chosen(const ordered& config, const char* member, const std::set<std::string>& names,
                   const std::string& name) {
  auto chosen = config.find(member);
  if (chosen == config.end() || chosen->is_null())
    return {};
  const auto& role = chosen->get_ref<const std::string&>();
  if (names.contains(lower_case(role)))
    return {};
  return wrong(name, std::string{member} + ": there is no role of the name " + role);
}

} // namespace

std::string lower_case(std::string_view text) {
  std::string lower{text};
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z')
      c = static_cast<char>(c - 'A' + 'a');
  return lower;
}

expected<ordered> parse_roles(std::string_view text, const std::string& name) {
  if (text.size() > limits::roles_bytes_max)
    return fail(ec::too_large,
                name + ": is larger than " + std::to_string(limits::roles_bytes_max) + " bytes");
  auto file = parse_ordered(text);
  if (!file.fault.empty())
    return wrong(name, file.fault);
  return std::move(file.root);
}

error check_roles(const ordered& config, const std::string& name) {
  if (auto fault = check_shape(config, role_config_shape(), ""); !fault.empty())
    return wrong(name, fault);
  const ordered& roles = config["roles"];
  if (roles.empty() || roles.size() > limits::roles_max)
    return wrong(name, "roles: must be 1 to " + std::to_string(limits::roles_max));
  std::set<std::string> names;
  for (const auto& [key, role] : roles.items()) {
    if (error why = check_name(key, name))
      return why;
    if (!role.is_object())
      return wrong(name, "roles." + key + ": must be an object, is " + kind_of(role.type()));
    if (!names.insert(lower_case(key)).second)
      return wrong(name, "roles." + key + ": another role has this name in other letters");
    auto own = role.find("name");
    if (own != role.end() && own->is_string()
        && lower_case(own->get<std::string>()) != lower_case(key))
      return wrong(name, "roles." + key + ".name: must be the name it stands under");
  }
  if (error why = check_chosen(config, "default_role", names, name))
    return why;
  return check_chosen(config, "selected_role", names, name);
}

expected<ordered> read_role_files(const std::string& dir) {
  auto paths = list_files(dir);
  if (!paths)
    return paths.error();
  auto roles = read_each(*paths);
  if (!roles)
    return roles.error();
  std::string path = dir + ".json";
  ordered index = ordered::object();
  std::error_code ignored;
  if (std::filesystem::exists(path, ignored)) {
    auto read = read_file(path);
    if (!read)
      return read.error();
    index = std::move(*read);
    if (!index.is_object())
      return wrong(path, "must be an object, is " + kind_of(index.type()));
  }
  auto sorted =
      put_in_order(std::move(*roles), index.contains("order") ? index["order"] : ordered{}, path);
  if (!sorted)
    return sorted.error();
  ordered config{{"id", "Server"}, {"global_shortcut", ""}, {"roles", std::move(*sorted)}};
  config["default_role"] = config["roles"].begin().key();
  for (const auto& [key, value] : index.items())
    if (key != "order" && key != "roles")
      config[key] = value;
  if (!config.contains("selected_role"))
    config["selected_role"] = config["default_role"];
  if (error why = check_roles(config, path))
    return why;
  return config;
}

} // namespace berth::config
