// SPDX-License-Identifier: Apache-2.0
#include "machines/image/build.hpp"

#include "machines/image/command.hpp"
#include "machines/image/digest.hpp"
#include "machines/image/initrd.hpp"
#include "machines/image/root.hpp"
#include "messages/fd.hpp"

#include <sys/file.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>

namespace berth::machines {

namespace fs = std::filesystem;

namespace {

/// Versions of one image that are kept: the one in use, and the one that a running server may have
/// begun with.
constexpr std::size_t versions_kept = 2;

/// What the kernel needs to be told. Under emulation the calibration of the local timer takes a
/// fifth of a second; Debian's kernel does not start without that timer.
constexpr const char* own_command_line = "nolapic_timer";
constexpr const char* debian_command_line = "";

struct tool {
  const char* name;
  const char* package;
};
constexpr tool tools[] = {{"apt-cache", "apt"},          {"apt-get", "apt"},
                          {"dpkg-deb", "dpkg"},          {"mmdebstrap", "mmdebstrap"},
                          {"mkfs.erofs", "erofs-utils"}, {"tar", "tar"}};

error check_tools() {
  std::string missing;
  for (const auto& one : tools)
    if (!has_command(one.name) && missing.find(one.package) == std::string::npos)
      missing += std::string{missing.empty() ? "" : " "} + one.package;
  return missing.empty()
             ? error{}
             : fail(ec::unsupported, "to build an image, run `apt-get install " + missing + "`");
}

expected<image_recipe> find_recipe(const build_options& options) {
  const std::string own = inside_dir(options.lib_dir) + "/images/";
  if (options.recipe == "minimal" || options.recipe == "full")
    return load_recipe(own + options.recipe + ".json");
  auto recipe = load_recipe(options.recipe);
  if (!recipe || recipe->base.empty())
    return recipe;
  auto base = load_recipe(own + recipe->base + ".json");
  if (!base)
    return base.error();
  return combine(*base, *recipe);
}

expected<std::string> build_initrd(const build_options& options, const built_kernel& kernel) {
  initrd files;
  for (const char* path : {"dev", "lib", "proc", "root"})
    files.add_directory(path);
  const std::string init = inside_dir(options.lib_dir) + "/berth-init";
  std::ifstream in{init, std::ios::binary};
  std::string content{std::istreambuf_iterator<char>{in}, {}};
  if (content.empty())
    return fail(ec::not_found, init + ": cannot be read; build or install Berth whole");
  files.add_file("init", std::move(content), true);
  if (auto bad = files.add_files_of(options.lib_dir, "lib/berth"))
    return bad;
  if (!kernel.modules.empty())
    if (auto bad = files.add_files_of(fs::path{kernel.modules.front()}.parent_path(), "modules"))
      return bad;
  return files.archive();
}

/// One build at a time; the descriptor holds the lock.
expected<owned_fd> lock_builds(const std::string& images) {
  owned_fd file{::open((images + "/build.lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)};
  if (!file || ::flock(file.get(), LOCK_EX) != 0)
    return fail(ec::store_failed, "cannot lock " + images + ": " + std::strerror(errno));
  return file;
}

/// What a build that was ended left.
void sweep(const std::string& images) {
  std::error_code problem;
  for (const std::string& place : {images, images + "/cache"}) {
    std::vector<fs::path> left;
    for (const auto& entry : fs::directory_iterator{place, problem}) {
      const std::string name = entry.path().filename().string();
      if (name.find(".work.") != std::string::npos || name.starts_with(".part-"))
        left.push_back(entry.path());
    }
    for (const auto& path : left)
      fs::remove_all(path, problem);
  }
}

std::string now_text() {
  std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text.data();
}

/// A file as it is when it is needed, without a copy where one file system holds both.
error take_file(const std::string& from, const std::string& to) {
  std::error_code problem;
  fs::create_hard_link(from, to, problem);
  if (problem) {
    problem.clear();
    fs::copy_file(from, to, problem);
  }
  return problem
             ? fail(ec::store_failed, "cannot put " + from + " in the image: " + problem.message())
             : error{};
}

error point_to(const std::string& images, const std::string& name, const std::string& target) {
  const std::string part = images + "/.part-link-" + name;
  std::error_code problem;
  fs::remove(part, problem);
  fs::create_symlink(target, part, problem);
  if (!problem)
    fs::rename(part, images + "/" + name, problem);
  return problem ? fail(ec::store_failed, "cannot point " + images + "/" + name + " to " + target
                                              + ": " + problem.message())
                 : error{};
}

/// Whether an image is the server's own, and not one that the system brought.
bool is_own(const build_options& options, const image& one) {
  return one.directory.starts_with(options.data_dir + "/images/");
}

void drop_old_versions(const build_options& options, const std::string& name) {
  std::size_t seen = 0;
  for (const auto& one : list_images(options.data_dir))
    if (one.manifest.name == name && is_own(options, one) && ++seen > versions_kept) {
      std::error_code ignored;
      fs::remove_all(one.directory, ignored);
    }
}

/// The parts of an image, before they are one.
struct image_parts {
  image_recipe recipe;
  built_kernel kernel;
  built_root root;
  std::string initrd;
  std::string inputs;
  std::string guest;
};

expected<image> assemble(const build_options& options, const image_parts& parts) {
  const std::string images = options.data_dir + "/images";
  const std::string part = images + "/.part-" + parts.recipe.name;
  std::error_code problem;
  fs::remove_all(part, problem);
  fs::create_directories(part, problem);
  if (auto bad = take_file(parts.kernel.vmlinux, part + "/" + image_kernel))
    return bad;
  if (auto bad = take_file(parts.root.path, part + "/" + image_root))
    return bad;
  std::ofstream out{part + "/" + image_initrd, std::ios::binary};
  out << parts.initrd;
  out.close();
  image made;
  image_manifest& manifest = made.manifest;
  manifest.name = parts.recipe.name;
  manifest.variant = parts.recipe.base.empty() ? parts.recipe.name : parts.recipe.base;
  manifest.kernel_release = parts.kernel.release;
  manifest.kernel_origin = options.kernel;
  manifest.devices_by_command_line = parts.kernel.devices_by_command_line;
  manifest.command_line = options.kernel == "own" ? own_command_line : debian_command_line;
  manifest.network = true;
  manifest.guest = parts.guest;
  manifest.languages = parts.recipe.languages;
  manifest.start = start_program(parts.recipe);
  manifest.memory_mib = parts.recipe.memory_mib;
  manifest.inputs = parts.inputs;
  manifest.created = now_text();
  for (const char* name : {image_kernel, image_initrd, image_root}) {
    auto sum = digest_file(part + "/" + name);
    if (!sum)
      return sum.error();
    manifest.files[name] = {sum->sha256, sum->bytes};
  }
  manifest.version = image_hash(manifest.files).substr(0, image_version_digits);
  std::ofstream text{part + "/" + image_manifest_file};
  text << manifest_text(manifest);
  text.close();
  if (!out || !text)
    return fail(ec::no_capacity, "cannot write " + part);
  const std::string full_name = manifest.name + "-" + manifest.version;
  made.directory = images + "/" + full_name;
  fs::remove_all(made.directory, problem);
  fs::rename(part, made.directory, problem);
  if (problem)
    return fail(ec::store_failed, "cannot name " + made.directory + ": " + problem.message());
  if (auto bad = point_to(images, manifest.name, full_name))
    return bad;
  drop_old_versions(options, manifest.name);
  return made;
}

/// An image that a build of the same would make again.
expected<image> find_same(const build_options& options, const image_parts& parts) {
  for (const auto& one : list_images(options.data_dir))
    if (one.manifest.inputs == parts.inputs && one.manifest.name == parts.recipe.name
        && is_own(options, one) && !verify_image(one)) {
      if (auto bad = point_to(options.data_dir + "/images", one.manifest.name,
                              fs::path{one.directory}.filename().string()))
        return bad;
      return one;
    }
  return fail(ec::not_found, "no such image");
}

expected<image_parts> make_parts(const build_options& options, const std::string& cache,
                                 const build_progress& progress) {
  image_parts parts;
  auto recipe = find_recipe(options);
  if (!recipe)
    return recipe.error();
  parts.recipe = std::move(*recipe);
  auto kernel =
      options.kernel == "own"
          ? own_kernel(cache, inside_dir(options.lib_dir) + "/images/kernel.config", progress)
          : debian_kernel(cache, progress);
  if (!kernel)
    return kernel.error();
  parts.kernel = std::move(*kernel);
  auto root = build_root(cache, parts.recipe, options.refresh, progress);
  if (!root)
    return root.error();
  parts.root = std::move(*root);
  auto files = build_initrd(options, parts.kernel);
  if (!files)
    return files.error();
  parts.initrd = std::move(*files);
  auto guest = digest_file(options.lib_dir + "/berth-guest");
  if (!guest)
    return guest.error();
  parts.guest = guest->sha256;
  auto root_now = digest_file(parts.root.path);
  if (!root_now)
    return root_now.error();
  digest sum;
  for (const std::string& one :
       {parts.kernel.key, root_now->sha256, digest_of(parts.initrd), parts.recipe.name,
        start_program(parts.recipe), std::to_string(parts.recipe.memory_mib)})
    sum.add_text(one);
  parts.inputs = sum.hex();
  return parts;
}

} // namespace

std::string inside_dir(const std::string& lib_dir) {
  return lib_dir + "-vm";
}

expected<image> build_image(const build_options& options, const build_progress& progress) {
  if (options.kernel != "own" && options.kernel != "debian")
    return fail(ec::malformed, "kernel: must be own or debian");
  if (auto missing = check_tools())
    return missing;
  const std::string images = options.data_dir + "/images";
  const std::string cache = images + "/cache";
  std::error_code problem;
  fs::create_directories(cache, problem);
  if (problem)
    return fail(ec::store_failed, "cannot make " + cache + ": " + problem.message());
  auto lock = lock_builds(images);
  if (!lock)
    return lock.error();
  sweep(images);
  auto parts = make_parts(options, cache, progress);
  if (!parts)
    return parts.error();
  if (auto same = find_same(options, *parts))
    return same;
  progress("putting the image together");
  return assemble(options, *parts);
}

} // namespace berth::machines
