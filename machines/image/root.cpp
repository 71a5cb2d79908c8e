// SPDX-License-Identifier: Apache-2.0
#include "machines/image/root.hpp"

#include "machines/image/command.hpp"
#include "machines/image/digest.hpp"
#include "messages/fd.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <unistd.h>
#include <vector>

namespace berth::machines {

namespace fs = std::filesystem;

namespace {

/// Changes with the way in which roots are made here.
constexpr std::string_view recipe_version = "2";
/// Taken for every file system, so that equal content is an equal image.
constexpr const char* image_uuid = "b5e2f1a4-6d0c-4e57-9f3a-2c8d7e6a9b10";

/// What no program in a machine has a use for.
constexpr const char* left_out[] = {
    "/usr/share/doc/*",     "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*",
    "/usr/share/lintian/*", "/usr/share/bug/*", "/lib/systemd/*",    "/usr/lib/systemd/*"};
/// What tells about the host or the hour of the build, or is made anew in each machine.
constexpr const char* removed[] = {
    "etc/hostname",  "etc/resolv.conf", "etc/machine-id", "etc/shadow",      "etc/shadow-",
    "etc/gshadow",   "etc/gshadow-",    "etc/passwd-",    "etc/group-",      "etc/apt",
    "etc/.pwd.lock", "etc/mtab",        "etc/fstab",      "etc/cron.d",      "etc/cron.daily",
    "etc/systemd",   "etc/init.d",      "etc/rc0.d",      "etc/rc1.d",       "etc/rc2.d",
    "etc/rc3.d",     "etc/rc4.d",       "etc/rc5.d",      "etc/rc6.d",       "etc/rcS.d",
    "usr/share/doc", "usr/share/man",   "usr/share/info", "usr/share/locale"};
/// What the root is made of, beside links such as /bin.
constexpr const char* kept[] = {"usr", "etc"};
constexpr const char* mount_points[] = {"dev", "proc", "sys", "run", "tmp", "mnt", "root"};
constexpr const char* links[] = {"bin", "sbin", "lib", "lib32", "lib64", "libx32"};

error failed(const std::string& what, const std::string& path, const std::error_code& problem) {
  return fail(ec::store_failed, "cannot " + what + " " + path + ": " + problem.message());
}

/// A hash over the files that a recipe brings, their places and their modes.
expected<std::string> digest_files(const image_recipe& recipe) {
  digest sum;
  std::error_code problem;
  auto add = [&](const std::string& place, const fs::path& from) -> error {
    sum.add_text(place);
    if (!fs::is_regular_file(from, problem))
      return {};
    auto content = digest_file(from.string());
    if (!content)
      return content.error();
    sum.add_text(content->sha256);
    sum.add_text(
        (fs::status(from, problem).permissions() & fs::perms::owner_exec) != fs::perms::none ? "x"
                                                                                             : "-");
    return {};
  };
  for (const auto& [place, from] : recipe.files) {
    std::vector<fs::path> all{from};
    if (fs::is_directory(from, problem))
      for (const auto& entry : fs::recursive_directory_iterator{from, problem})
        all.push_back(entry.path());
    std::ranges::sort(all);
    for (const auto& one : all)
      if (auto bad = add(place + "/" + fs::relative(one, from, problem).string(), one))
        return bad;
  }
  return sum.hex();
}

expected<std::string> key_of(const image_recipe& recipe) {
  auto files = digest_files(recipe);
  if (!files)
    return files.error();
  digest sum;
  sum.add_text(recipe_version);
  sum.add_text(recipe.suite);
  for (const auto& package : recipe.packages)
    sum.add_text(package);
  sum.add_text(*files);
  return sum.hex().substr(0, 16);
}

/// Debian's packages and what they need, unpacked in `directory`.
error bootstrap(const image_recipe& recipe, const std::string& work, const std::string& directory) {
  std::string packages;
  for (const auto& package : recipe.packages)
    packages += (packages.empty() ? "" : ",") + package;
  std::vector<std::string> words{"mmdebstrap", "--quiet", "--variant=essential",
                                 "--include=" + packages};
  for (const char* path : left_out)
    words.push_back(std::string{"--dpkgopt=path-exclude="} + path);
  const std::string archive = work + "/root.tar";
  words.push_back(recipe.suite);
  words.push_back(archive);
  auto made = run_command({.words = words});
  if (!made)
    return made.error();
  // Devices need privileges, and the kernel makes its own.
  auto unpacked = run_command({.words = {"tar", "-x", "-f", archive, "-C", directory,
                                         "--exclude=./dev/*", "--no-same-owner"}});
  std::error_code ignored;
  fs::remove(archive, ignored);
  return unpacked ? error{} : unpacked.error();
}

/// Copies what the recipe brings. What belongs in writable places waits until a machine is there.
error place_files(const image_recipe& recipe, const std::string& root) {
  std::error_code problem;
  for (const auto& [place, from] : recipe.files) {
    const std::string to = root + (place.starts_with("/usr/") ? "" : waiting_files) + place;
    fs::create_directories(fs::path{to}.parent_path(), problem);
    fs::copy(from, to, fs::copy_options::recursive | fs::copy_options::overwrite_existing, problem);
    if (problem)
      return failed("place", from, problem);
  }
  return {};
}

/// Leaves what an image is made of, and places to mount on.
error trim(const std::string& root) {
  std::error_code problem;
  for (const char* path : removed)
    fs::remove_all(root + "/" + path, problem);
  for (const auto& entry : fs::directory_iterator{root, problem}) {
    const std::string name = entry.path().filename().string();
    auto is = [&](const char* one) { return name == one; };
    bool stays = std::ranges::any_of(kept, is)
                 || (entry.is_symlink(problem) && std::ranges::any_of(links, is));
    if (!stays)
      fs::remove_all(entry.path(), problem);
    if (problem)
      return failed("remove", entry.path().string(), problem);
  }
  for (const char* name : mount_points)
    fs::create_directory(root + "/" + name, problem);
  return problem ? failed("make directories in", root, problem) : error{};
}

/// The newest time that a package brought becomes that of all that the build made, so that the same
/// packages are the same image. Packages' own times stay: compiled Python files know them.
error settle_times(const std::string& root, std::time_t build_began) {
  std::vector<std::string> made;
  std::time_t newest = 0;
  std::error_code problem;
  auto look = [&](const std::string& path) {
    struct stat facts {};
    if (::lstat(path.c_str(), &facts) != 0)
      return;
    if (facts.st_mtime >= build_began || S_ISDIR(facts.st_mode))
      made.push_back(path);
    else
      newest = std::max(newest, facts.st_mtime);
  };
  look(root);
  for (const auto& entry : fs::recursive_directory_iterator{root, problem})
    look(entry.path().string());
  if (problem)
    return failed("walk", root, problem);
  const timespec times[2] = {{newest, 0}, {newest, 0}};
  for (const auto& path : made)
    if (::utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0)
      return fail(ec::store_failed, "cannot date " + path + ": " + std::strerror(errno));
  return {};
}

/// Where the file system's superblock says when it was made: seconds, then nanoseconds.
constexpr off_t made_at = 1024 + 24;

/// mkfs.erofs can give one time to all files, which would have Python compile all it loads anew in
/// each machine, or leave their own and note the hour of the build, which is taken out here. The
/// superblock has no sum of its own then; the image's hash covers it.
error pack(const std::string& root, const std::string& to) {
  auto packed = run_command({.words = {"mkfs.erofs", "--all-root", "-x-1", "-U", image_uuid,
                                       "-Enosbcrc", "--quiet", to, root}});
  if (!packed)
    return packed.error();
  owned_fd file{::open(to.c_str(), O_WRONLY | O_CLOEXEC)};
  const std::array<char, 12> never{};
  if (!file
      || ::pwrite(file.get(), never.data(), never.size(), made_at)
             != static_cast<ssize_t>(never.size()))
    return fail(ec::store_failed, "cannot date " + to + ": " + std::strerror(errno));
  return {};
}

} // namespace

expected<built_root> build_root(const std::string& cache, const image_recipe& recipe, bool refresh,
                                const build_progress& progress) {
  auto key = key_of(recipe);
  if (!key)
    return key.error();
  built_root made{*key, cache + "/root-" + *key + ".img"};
  std::error_code problem;
  if (!refresh && fs::is_regular_file(made.path, problem))
    return made;
  progress("installing " + std::to_string(recipe.packages.size()) + " packages of Debian "
           + recipe.suite + " and what they need");
  const std::time_t began = std::time(nullptr);
  const std::string work = cache + "/root-" + *key + ".work." + std::to_string(::getpid());
  const std::string root = work + "/root";
  fs::create_directories(root, problem);
  error bad = problem ? failed("make", root, problem) : bootstrap(recipe, work, root);
  if (!bad)
    bad = place_files(recipe, root);
  if (!bad)
    bad = trim(root);
  if (!bad)
    bad = settle_times(root, began);
  progress("packing the root");
  if (!bad)
    bad = pack(root, work + "/root.img");
  if (!bad) {
    fs::rename(work + "/root.img", made.path, problem);
    if (problem)
      bad = failed("keep", made.path, problem);
  }
  fs::remove_all(work, problem);
  if (bad)
    return bad;
  return made;
}

} // namespace berth::machines
