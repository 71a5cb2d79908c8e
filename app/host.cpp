// SPDX-License-Identifier: Apache-2.0
#include "app/host.hpp"

#include <linux/capability.h>
#include <nlohmann/json.hpp>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <grp.h>
#include <sched.h>
#include <sstream>
#include <unistd.h>

namespace berth {

namespace {

error broken(const std::string& what, const std::string& where) {
  return fail(ec::internal, what + " " + where + ": " + std::strerror(errno));
}

/// Text of the settings file; `{}` when there is none.
expected<std::string> file_text(const std::string& path) {
  if (path.empty())
    return std::string{"{}"};
  std::ifstream file{path};
  if (!file)
    return broken("cannot read", path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

/// Makes a directory and those above it. An existing one keeps its contents.
error make_directory(const std::string& path) {
  std::error_code failed;
  std::filesystem::create_directories(path, failed);
  if (failed)
    return fail(ec::internal, "cannot make " + path + ": " + failed.message());
  return {};
}

bool is_root() {
  return geteuid() == 0;
}

/// Files that the server made as root in an earlier life, or another user's, must be its own now.
error own_tree(const std::string& path, uid_t uid) {
  std::error_code failed;
  if (lchown(path.c_str(), uid, uid) != 0)
    return broken("cannot give away", path);
  std::filesystem::recursive_directory_iterator entries{path, failed};
  for (const auto& entry : entries) {
    // A second name could be that of somebody else's file.
    bool plain = entry.is_directory(failed)
                 || (entry.is_regular_file(failed) && entry.hard_link_count(failed) == 1);
    if (plain && lchown(entry.path().c_str(), uid, uid) != 0)
      return broken("cannot give away", entry.path());
  }
  return {};
}

/// Puts the value of one setting, named as errors name it: "pool.slots_max".
error override_one(nlohmann::json& whole, const std::string& name, nlohmann::json value) {
  nlohmann::json* place = &whole;
  std::istringstream rest{name};
  for (std::string member; std::getline(rest, member, '.');) {
    if (!place->is_object() && !place->is_null())
      return fail(ec::malformed,
                  "--set " + name + ": what is before ." + member + " has no members");
    place = &(*place)[member];
  }
  *place = std::move(value);
  return {};
}

} // namespace

expected<settings> read_settings(const serve_options& options) {
  auto text = file_text(options.config);
  if (!text)
    return text.error();
  std::string name = options.config.empty() ? "defaults" : options.config;
  if (!options.overrides.empty()) {
    auto whole = nlohmann::json::parse(*text, nullptr, false, true); // with comments
    if (whole.is_discarded()) {
      auto diagnosed = parse_settings(*text, name);
      return diagnosed ? fail(ec::malformed, name + " is not JSON") : diagnosed.error();
    }
    for (const auto& [member, given] : options.overrides) {
      auto value = nlohmann::json::parse(given, nullptr, false);
      if (error why =
              override_one(whole, member, value.is_discarded() ? nlohmann::json(given) : value))
        return why;
    }
    text = whole.dump();
    name += " and the command line";
  }
  auto values = parse_settings(*text, name);
  if (!values)
    return values.error();
  fill_paths(*values);
  if (error why = check(*values))
    return why;
  return *values;
}

error prepare_directories(const settings& values) {
  // Descriptors: a machine needs about eight.
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  for (const auto& path : {values.data_dir, values.runtime_dir})
    if (error why = make_directory(path))
      return why;
  if (!is_root() || values.server_uid == 0)
    return {};
  uid_t uid = values.server_uid;
  if (error why = own_tree(values.data_dir, uid))
    return why;
  if (chmod(values.data_dir.c_str(), 0700) != 0)
    return broken("cannot close", values.data_dir);
  // Sticky and shared with the server's group: it may make its socket and spool in here, and
  // cannot touch what is the spawner's.
  if (chown(values.runtime_dir.c_str(), 0, uid) != 0
      || chmod(values.runtime_dir.c_str(), 01771) != 0)
    return broken("cannot share", values.runtime_dir);
  return {};
}

error drop_privileges(const settings& values) {
  if (is_root() && values.server_uid != 0) {
    uid_t uid = values.server_uid;
    if (setgroups(0, nullptr) != 0 || setresgid(uid, uid, uid) != 0
        || setresuid(uid, uid, uid) != 0)
      return broken("cannot become user", std::to_string(uid));
    if (setresuid(0, 0, 0) == 0)
      return fail(ec::internal, "root's rights are still there after they were given up");
  }
  if (!is_root()) {
    __user_cap_header_struct head{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    __user_cap_data_struct none[2]{};
    if (syscall(SYS_capset, &head, none) != 0)
      return broken("cannot give up", "capabilities");
  }
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    return broken("cannot set", "no_new_privs");
  return {};
}

void share_cores_in_batches(bool rush) {
  const sched_param none{};
  std::error_code failed;
  std::filesystem::directory_iterator threads{"/proc/self/task", failed};
  for (; !failed && threads != std::filesystem::directory_iterator{}; threads.increment(failed))
    (void)sched_setscheduler(std::atoi(threads->path().filename().c_str()),
                             rush ? SCHED_BATCH : SCHED_OTHER, &none);
}

} // namespace berth
