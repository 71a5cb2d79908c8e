// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "guest/paths.hpp"
#include "messages/guest.hpp"

#include <map>

/// What is done to files in one go. What takes longer is in file_tasks.hpp, what goes on is in
/// watches.hpp.
namespace berth::guest {

/// Writes one chunk of a regular file.
file_put put(const put_file& request);

/// Reads one chunk of a regular file.
file_data get(const get_file& request);

path_done tell(const stat_path& request);
path_done make(const make_path& request);
path_done move(const move_path& request);

/// Names of users and groups, as the machine's own files give them.
class owner_names {
public:
  owner_names();
  std::string user(uid_t id) const { return name_of(users_, id); }
  std::string group(gid_t id) const { return name_of(groups_, id); }

private:
  using table = std::map<std::uint32_t, std::string>;
  static table read(const char* path);
  static std::string name_of(const table& names, std::uint32_t id);

  table users_;
  table groups_;
};

/// What is known of a file, for a client. `directory` holds it; a link's target is read there.
file_info info_of(const std::string& path, const struct stat& info, int directory,
                  const std::string& name, const owner_names& owners);

} // namespace berth::guest
