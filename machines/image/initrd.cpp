// SPDX-License-Identifier: Apache-2.0
#include "machines/image/initrd.hpp"

#include <sys/stat.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace berth::machines {

namespace fs = std::filesystem;

namespace {

void pad(std::string& archive) {
  archive.append((4 - archive.size() % 4) % 4, '\0');
}

/// The "new ASCII" format: thirteen fields of eight hexadecimal digits, the name, the content.
void append(std::string& archive, unsigned inode, unsigned mode, const std::string& name,
            const std::string& content) {
  const unsigned fields[] = {inode,
                             mode,
                             0,
                             0,
                             1,
                             0,
                             static_cast<unsigned>(content.size()),
                             0,
                             0,
                             0,
                             0,
                             static_cast<unsigned>(name.size() + 1),
                             0};
  archive += "070701";
  for (unsigned field : fields) {
    char text[9];
    std::snprintf(text, sizeof text, "%08X", field);
    archive += text;
  }
  archive += name;
  archive += '\0';
  pad(archive);
  archive += content;
  pad(archive);
}

} // namespace

void initrd::add_directory(const std::string& path) {
  entries_[path] = {S_IFDIR | 0755, {}};
}

void initrd::add_file(const std::string& path, std::string content, bool executable) {
  entries_[path] = {S_IFREG | (executable ? 0755U : 0644U), std::move(content)};
}

error initrd::add_files_of(const std::string& directory, const std::string& path) {
  add_directory(path);
  std::error_code problem;
  for (const auto& found : fs::directory_iterator{directory, problem}) {
    if (!found.is_regular_file(problem))
      continue;
    std::ifstream in{found.path(), std::ios::binary};
    std::string content{std::istreambuf_iterator<char>{in}, {}};
    if (!in)
      return fail(ec::store_failed, "cannot read " + found.path().string());
    bool executable =
        (found.status(problem).permissions() & fs::perms::owner_exec) != fs::perms::none;
    add_file(path + "/" + found.path().filename().string(), std::move(content), executable);
  }
  if (problem)
    return fail(ec::store_failed, "cannot read " + directory + ": " + problem.message());
  return {};
}

std::string initrd::archive() const {
  std::string archive;
  unsigned inode = 1;
  for (const auto& [name, one] : entries_)
    append(archive, inode++, one.mode, name, one.content);
  append(archive, 0, 0, "TRAILER!!!", {});
  return archive;
}

} // namespace berth::machines
